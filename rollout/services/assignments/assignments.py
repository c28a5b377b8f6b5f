"""Who decides these cases, right now: answered from memory, people whenever something is in doubt.

With a prediction in the question, case and prediction are kept with the answer, before it leaves.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from rollout import faults
from rollout.core.errors import Refusal
from rollout.core.records.records import Case, Prediction, SentCase, SentPrediction, case_of
from rollout.core.scope.assignment import Assignment, Question, assign
from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.decider import MOST_OPEN_VERSIONS
from rollout.core.scope.events import LEDGER_ROLLED_BACK
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.permits import Permit, said, signing
from rollout.formats.records.parse import Reader, Sent, Unusable
from rollout.services.engine.assignment_cache import Asked, Ruling
from rollout.services.engine.command_handler import carry_out
from rollout.services.engine.revision_retry import retried
from rollout.services.engine.rollout_state import NoSuchRolloutError, Standing
from rollout.services.engine.service import Service
from rollout.services.engine.state_cache import Watched
from rollout.services.engine.window_lookup import LiveWindows
from rollout.services.records.ingest import Notes, keep_asked, noted
from rollout.store.access.permit_keys import PermitKey
from rollout.store.database.errors import StoreError
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Transaction
from rollout.store.ledger.versions import VersionFacts, Versions
from rollout.store.records.records import Verdict

ASKEW: Final = "this replica's clock is too far off the database's: people decide until it agrees"
REWOUND: Final = "the ledger lacks the row that you have seen: it was set back; people decide"
UNCONFIRMED: Final = "the database can't be asked, so nothing is certain: people decide"
NOTHING: Final = Question("", None, "", "")
UNKEPT: Final = "it could not be kept, `recorded` says why: people decide"
REFUSED: Final = frozenset({Verdict.CONFLICT, Verdict.REJECTED})
UNKNOWN: Final = "no rollout of that name: people decide"


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest row of a ledger that a client was ever told of."""

    revision: int
    hash: str


class AskedCase(Asked, Protocol):
    """A case that is asked about, with what is to be kept of it."""

    @property
    def predicted(self) -> bool:
        """Say whether a prediction came with the question."""
        ...

    def items(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the case and its prediction, as they would be sent as records."""
        ...


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a case and its prediction: `accepted` to `rejected`, and why."""

    verdict: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to some questions, in their order.

    Attributes:
        rulings: who decides each.
        permits: what an action brings back; None where nobody could be certain.
        recorded: what became of case and prediction; None where none came.
        revision, hash: the ledger's last row that is answered from.
        at: when it was answered.
    """

    rulings: Sequence[Ruling]
    permits: Sequence[str | None]
    recorded: Sequence[Recorded | None]
    revision: int
    hash: str
    at: datetime


class _DoubtedError(Exception):
    """Some cases contradict what is kept: answer again, and them by people."""

    def __init__(self, keys: frozenset[str]) -> None:
        self.keys = keys


def at_hand(
    service: Service, caller: Caller, name: str, asked: Sequence[AskedCase], seen: Seen | None
) -> Answers | None:
    """Answer from memory alone; None where something must be read or kept, so ask `answer`.

    Raises:
        UnknownRollout: the caller has no right in it.
        NotAllowed: the caller may not ask for one of the sites.
    """
    _require(caller, name, asked)
    cached_rollout, key = service.watch.at_hand(name), service.permits.at_hand()
    if cached_rollout is None or key is None or service.watch.askew:
        return None
    if seen is not None and not cached_rollout.has(seen.revision, seen.hash):
        return None
    versions = cached_rollout.standing.versions
    if not versions.keys() >= {question.version for question in asked}:
        return None
    if True in [question.predicted for question in asked]:
        return None
    now = service.clock.now()
    return _answers(cached_rollout, cached_rollout.rulings.of(asked, now), asked, key, now)


def answer(
    service: Service, caller: Caller, name: str, asked: Sequence[AskedCase], seen: Seen | None
) -> Answers:
    """Say who decides each case, and keep what came with the questions.

    Args:
        service: the replica.
        caller: who asks; may ask for every site that is named.
        name: of the rollout; where there is none, people decide.
        asked: the cases.
        seen: the highest row that the client knows of; a chain that lacks it was set back.

    Raises:
        UnknownRollout: the caller has no right in it.
        NotAllowed: the caller may not ask for one of the sites.
        StoreError: case and prediction could not be kept; nothing is answered.
    """
    _require(caller, name, asked)
    try:
        cached_rollout, key = confirmed(service, name, seen), service.permits.newest()
    except NoSuchRolloutError:
        return by_people(asked, UNKNOWN, service.clock.now())
    except StoreError:
        if any(question.predicted for question in asked):
            raise
        return by_people(asked, UNCONFIRMED, service.clock.now())
    faults.point("assign.read")
    cached_rollout = _with_versions(service, cached_rollout, asked)
    doubt_reason = _doubt(service, cached_rollout, caller, seen)
    return _kept(service, cached_rollout, asked, key, doubt_reason)


def names(service: Service, caller: Caller) -> tuple[str, ...]:
    """Return the rollouts that the caller may ask about at some site at least, by name."""
    with service.database.reading() as transaction:
        rollout_names = sorted(rollout.name for rollout in Rollouts(transaction).all())
    return tuple(
        rollout_name
        for rollout_name in rollout_names
        if caller.may_somewhere(Act.ASK, rollout_name)
    )


def _require(caller: Caller, name: str, asked: Sequence[AskedCase]) -> None:
    if not caller.may(Act.ASK, name):  # at all sites at once: the usual case
        require(caller, Act.ASK, name, tuple({question.site: None for question in asked}))


def confirmed(service: Service, name: str, seen: Seen | None) -> Watched:
    """Return the rollout; read anew where the client has seen more than is known here."""
    cached_rollout = service.watch.rollout(name)
    if seen is None or cached_rollout.has(seen.revision, seen.hash):
        return cached_rollout
    return service.watch.confirmed(name)


def _doubt(service: Service, watched: Watched, caller: Caller, seen: Seen | None) -> str:
    if seen is not None and not watched.has(seen.revision, seen.hash):
        tell_rewound(service, watched.standing.rollout.name, caller, seen)
        return REWOUND
    return ASKEW if service.watch.askew else ""


def tell_rewound(service: Service, name: str, caller: Caller, seen: Seen) -> None:
    """Open an incident; people decide also where even that can't be written."""
    open_incident = OpenIncident(
        at=service.clock.now(),
        kind=LEDGER_ROLLED_BACK,
        about=caller.name,
        reason=f"{caller.name} has seen revision {seen.revision} with a hash that is not here: "
        "a backup was restored or a failover lost rows; see what was lost, stops above all",
    )
    with suppress(StoreError, Refusal):
        carry_out(service.database, name, lambda _: open_incident)


def _with_versions(service: Service, watched: Watched, asked: Sequence[AskedCase]) -> Watched:
    """Keep when versions were first asked about; they hold nothing, and too many are not kept."""
    known_versions, scope = watched.standing.versions, watched.standing.scope
    asked_versions = {
        question.version for question in asked if "\0" not in question.version
    }  # no database keeps that
    new_versions = sorted(asked_versions - set(known_versions) - {""})
    retired_count = sum(version.retired for version in scope.versions.values())
    free_slots = MOST_OPEN_VERSIONS - (len(known_versions) - retired_count)
    if not new_versions or free_slots <= 0:
        return watched
    rollout_name = watched.standing.rollout.name
    with suppress(StoreError):  # it is asked about again, and decides nothing until it is known
        with service.database.writing() as transaction:
            versions = Versions(transaction, watched.standing.rollout)
            for version in new_versions[:free_slots]:
                versions.tell(VersionFacts(version, "assignment"), at=service.clock.now())
        service.watch.told(rollout_name)
    return watched


def _kept(
    service: Service, watched: Watched, asked: Sequence[AskedCase], key: PermitKey, doubt: str
) -> Answers:
    conflicting_cases: frozenset[str] = frozenset()
    while True:
        now = service.clock.now()
        assignments = _rulings(watched, asked, doubt, conflicting_cases, now)
        answers = _answers(watched, assignments, asked, key, now)
        try:
            return replace(
                answers, recorded=_record(service, watched, asked, answers, conflicting_cases)
            )
        except _DoubtedError as conflict:
            conflicting_cases |= conflict.keys


def _rulings(
    watched: Watched, asked: Sequence[AskedCase], doubt: str, doubted: frozenset[str], now: datetime
) -> list[Ruling]:
    assignments = watched.rulings.of(asked, now)
    if doubt:
        return [_by_people(doubt, watched.standing, now)] * len(assignments)
    not_stored = _by_people(UNKEPT, watched.standing, now)
    return [
        not_stored if question.key in doubted else assignment
        for question, assignment in zip(asked, assignments, strict=True)
    ]


def _by_people(because: str, stood: Standing, now: datetime) -> Ruling:
    """Give cases to people, for no time at all: ask again."""
    assignment = assign(stood.scope, stood.policy, b"", NOTHING, now=now, left=timedelta(0))
    return Ruling(replace(assignment, because=because))


def by_people(asked: Sequence[AskedCase], because: str, now: datetime) -> Answers:
    """Give all cases to people where no scope is known, for no time: ask again."""
    assignment = Assignment("human", "shadow", "blind", False, 1.0, because, 0, timedelta(0))
    no_values = [None] * len(asked)
    return Answers([Ruling(assignment)] * len(asked), no_values, no_values, 0, "", now)


def _answers(
    watched: Watched,
    rulings: Sequence[Ruling],
    asked: Sequence[AskedCase],
    key: PermitKey,
    now: datetime,
) -> Answers:
    rollout_name, number, secret = watched.standing.rollout.name, key.number, key.secret
    signers = {
        assignment: signing(_said(assignment.assignment, number, now), secret, rollout_name)
        for assignment in set(rulings)
    }
    return Answers(
        rulings=rulings,
        permits=[
            signers[assignment](question.key, question.version)
            for assignment, question in zip(rulings, asked, strict=True)
        ],
        recorded=(None,) * len(rulings),
        revision=watched.standing.scope.revision,
        hash=watched.head.hash,
        at=now,
    )


def _said(made: Assignment, number: int, now: datetime) -> str:
    return said(Permit(made.decider, made.revision, now, made.lease), number)


# What is kept


def _record(
    service: Service,
    watched: Watched,
    asked: Sequence[AskedCase],
    answers: Answers,
    doubted: frozenset[str],
) -> Sequence[Recorded | None]:
    """Keep cases and predictions with what was answered, all in one transaction."""
    results: list[Recorded | None] = [None] * len(asked)
    pairs: dict[int, tuple[Case, Prediction]] = {}
    for index, sent_pair in _read(watched.standing, asked, answers.at).items():
        match sent_pair:
            case (SentCase() as case, SentPrediction() as prediction):
                pairs[index] = (
                    case_of(case),
                    _assigned(prediction, answers.rulings[index].assignment),
                )
            case _:
                results[index] = Recorded(Verdict.REJECTED, _reason(sent_pair))
    if not pairs:
        _check(asked, results, doubted)
        return results

    def write() -> Sequence[Recorded | None]:
        with service.database.writing() as transaction:
            stored_results = _keep(transaction, watched.standing, pairs, results, answers.at)
            _check(asked, stored_results, doubted)
            faults.point("assign.kept")
        return stored_results

    return retried(write)  # an incident may have to be opened


def _read(stood: Standing, asked: Sequence[AskedCase], now: datetime) -> dict[int, list[Sent]]:
    """Read what came with the questions as if it had been sent as records."""
    predicted_indexes = [index for index, question in enumerate(asked) if question.predicted]
    if not predicted_indexes:
        return {}
    items = [item for index in predicted_indexes for item in asked[index].items()]
    sent_records = Reader(LiveWindows(stood.policy).at, now).body(json.dumps(items).encode())
    return {
        index: sent_records[2 * position : 2 * position + 2]
        for position, index in enumerate(predicted_indexes)
    }


def _assigned(prediction: SentPrediction, made: Assignment) -> Prediction:
    return replace(
        Prediction(**prediction._asdict()),
        scope_revision=made.revision,
        decider=made.decider,
        exposure=made.exposure,
        share=made.share,
    )


def _keep(
    transaction: Transaction,
    stood: Standing,
    pairs: Mapping[int, tuple[Case, Prediction]],
    found: Sequence[Recorded | None],
    now: datetime,
) -> list[Recorded | None]:
    cases, predictions = zip(*pairs.values(), strict=True)
    stored_records, stored_results = (
        keep_asked(transaction, stood, cases, predictions, now),
        list(found),
    )
    case_results, prediction_results = stored_records[: len(pairs)], stored_records[len(pairs) :]
    prediction_notes = Notes(stood.policy)
    for index, case, prediction in zip(pairs, case_results, prediction_results, strict=True):
        record_result = (
            case
            if case.verdict in REFUSED
            else noted(prediction, prediction_notes.on(pairs[index][1]))
        )
        stored_results[index] = Recorded(record_result.verdict, record_result.reason)
    return stored_results


def _reason(sent: Sequence[Sent]) -> str:
    return "; ".join(item.reason for item in sent if isinstance(item, Unusable))


def _check(
    asked: Sequence[AskedCase], found: Sequence[Recorded | None], doubted: frozenset[str]
) -> None:
    """Go back to the answers where something was refused: what was assigned is not true then."""
    question_results = zip(asked, found, strict=True)
    refused_cases = frozenset(
        question.key
        for question, result in question_results
        if result is not None and result.verdict in REFUSED
    )
    if refused_cases - doubted:
        raise _DoubtedError(refused_cases)
