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
from rollout.core.asking import Assignment, Question, assign
from rollout.core.commands import OpenIncident
from rollout.core.decider import MOST_OPEN_VERSIONS
from rollout.core.errors import Refusal
from rollout.core.events import LEDGER_ROLLED_BACK
from rollout.core.permits import Permit, said, signing
from rollout.core.records import Case, Prediction
from rollout.core.rights import Act, Caller, require
from rollout.core.sent import SentCase, SentPrediction, case_of
from rollout.formats.live_items import Reader, Sent, Unusable
from rollout.services.commanding import carry_out
from rollout.services.notes import Notes, noted
from rollout.services.receiving import keep_asked
from rollout.services.retrying import retried
from rollout.services.rulings import Asked, Ruling
from rollout.services.service import Service
from rollout.services.standing import NoSuchRolloutError, Standing
from rollout.services.watching import Watched
from rollout.services.windows import LiveWindows
from rollout.store.errors import StoreError
from rollout.store.permit_keys import PermitKey
from rollout.store.records import Verdict
from rollout.store.rollouts import Rollouts
from rollout.store.session import Transaction
from rollout.store.versions import VersionFacts, Versions

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
    watched, key = service.watch.at_hand(name), service.permits.at_hand()
    if watched is None or key is None or service.watch.askew:
        return None
    if seen is not None and not watched.has(seen.revision, seen.hash):
        return None
    versions = watched.standing.versions
    if not versions.keys() >= {one.version for one in asked}:
        return None
    if True in [one.predicted for one in asked]:
        return None
    now = service.clock.now()
    return _answers(watched, watched.rulings.of(asked, now), asked, key, now)


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
        watched, key = confirmed(service, name, seen), service.permits.newest()
    except NoSuchRolloutError:
        return by_people(asked, UNKNOWN, service.clock.now())
    except StoreError:
        if any(one.predicted for one in asked):
            raise
        return by_people(asked, UNCONFIRMED, service.clock.now())
    faults.point("assign.read")
    watched = _with_versions(service, watched, asked)
    doubt = _doubt(service, watched, caller, seen)
    return _kept(service, watched, asked, key, doubt)


def names(service: Service, caller: Caller) -> tuple[str, ...]:
    """Return the rollouts that the caller may ask about at some site at least, by name."""
    with service.database.reading() as transaction:
        known = sorted(rollout.name for rollout in Rollouts(transaction).all())
    return tuple(name for name in known if caller.may_somewhere(Act.ASK, name))


def _require(caller: Caller, name: str, asked: Sequence[AskedCase]) -> None:
    if not caller.may(Act.ASK, name):  # at all sites at once: the usual case
        require(caller, Act.ASK, name, tuple({one.site: None for one in asked}))


def confirmed(service: Service, name: str, seen: Seen | None) -> Watched:
    """Return the rollout; read anew where the client has seen more than is known here."""
    watched = service.watch.rollout(name)
    if seen is None or watched.has(seen.revision, seen.hash):
        return watched
    return service.watch.confirmed(name)


def _doubt(service: Service, watched: Watched, caller: Caller, seen: Seen | None) -> str:
    if seen is not None and not watched.has(seen.revision, seen.hash):
        tell_rewound(service, watched.standing.rollout.name, caller, seen)
        return REWOUND
    return ASKEW if service.watch.askew else ""


def tell_rewound(service: Service, name: str, caller: Caller, seen: Seen) -> None:
    """Open an incident; people decide also where even that can't be written."""
    opened = OpenIncident(
        at=service.clock.now(),
        kind=LEDGER_ROLLED_BACK,
        about=caller.name,
        reason=f"{caller.name} has seen revision {seen.revision} with a hash that is not here: "
        "a backup was restored or a failover lost rows; see what was lost, stops above all",
    )
    with suppress(StoreError, Refusal):
        carry_out(service.database, name, lambda _: opened)


def _with_versions(service: Service, watched: Watched, asked: Sequence[AskedCase]) -> Watched:
    """Keep when versions were first asked about; they hold nothing, and too many are not kept."""
    known, scope = watched.standing.versions, watched.standing.scope
    named = {one.version for one in asked if "\0" not in one.version}  # no database keeps that
    unknown = sorted(named - set(known) - {""})
    retired = sum(version.retired for version in scope.versions.values())
    room = MOST_OPEN_VERSIONS - (len(known) - retired)
    if not unknown or room <= 0:
        return watched
    name = watched.standing.rollout.name
    with suppress(StoreError):  # it is asked about again, and decides nothing until it is known
        with service.database.writing() as transaction:
            told = Versions(transaction, watched.standing.rollout)
            for version in unknown[:room]:
                told.tell(VersionFacts(version, "assignment"), at=service.clock.now())
        service.watch.told(name)
    return watched


def _kept(
    service: Service, watched: Watched, asked: Sequence[AskedCase], key: PermitKey, doubt: str
) -> Answers:
    doubted: frozenset[str] = frozenset()
    while True:
        now = service.clock.now()
        made = _rulings(watched, asked, doubt, doubted, now)
        answers = _answers(watched, made, asked, key, now)
        try:
            return replace(answers, recorded=_record(service, watched, asked, answers, doubted))
        except _DoubtedError as again:
            doubted |= again.keys


def _rulings(
    watched: Watched, asked: Sequence[AskedCase], doubt: str, doubted: frozenset[str], now: datetime
) -> list[Ruling]:
    found = watched.rulings.of(asked, now)
    if doubt:
        return [_by_people(doubt, watched.standing, now)] * len(found)
    unsure = _by_people(UNKEPT, watched.standing, now)
    return [unsure if a.key in doubted else r for a, r in zip(asked, found, strict=True)]


def _by_people(because: str, stood: Standing, now: datetime) -> Ruling:
    """Give cases to people, for no time at all: ask again."""
    made = assign(stood.scope, stood.policy, b"", NOTHING, now=now, left=timedelta(0))
    return Ruling(replace(made, because=because))


def by_people(asked: Sequence[AskedCase], because: str, now: datetime) -> Answers:
    """Give all cases to people where no scope is known, for no time: ask again."""
    made = Assignment("human", "shadow", "blind", False, 1.0, because, 0, timedelta(0))
    nothing = [None] * len(asked)
    return Answers([Ruling(made)] * len(asked), nothing, nothing, 0, "", now)


def _answers(
    watched: Watched,
    rulings: Sequence[Ruling],
    asked: Sequence[AskedCase],
    key: PermitKey,
    now: datetime,
) -> Answers:
    name, number, secret = watched.standing.rollout.name, key.number, key.secret
    sign = {
        ruling: signing(_said(ruling.assignment, number, now), secret, name)
        for ruling in set(rulings)
    }
    return Answers(
        rulings=rulings,
        permits=[
            sign[ruling](one.key, one.version) for ruling, one in zip(rulings, asked, strict=True)
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
    found: list[Recorded | None] = [None] * len(asked)
    pairs: dict[int, tuple[Case, Prediction]] = {}
    for n, sent in _read(watched.standing, asked, answers.at).items():
        match sent:
            case (SentCase() as case, SentPrediction() as prediction):
                pairs[n] = (case_of(case), _assigned(prediction, answers.rulings[n].assignment))
            case _:
                found[n] = Recorded(Verdict.REJECTED, _reason(sent))
    if not pairs:
        _check(asked, found, doubted)
        return found

    def write() -> Sequence[Recorded | None]:
        with service.database.writing() as transaction:
            told = _keep(transaction, watched.standing, pairs, found, answers.at)
            _check(asked, told, doubted)
            faults.point("assign.kept")
        return told

    return retried(write)  # an incident may have to be opened


def _read(stood: Standing, asked: Sequence[AskedCase], now: datetime) -> dict[int, list[Sent]]:
    """Read what came with the questions as if it had been sent as records."""
    places = [n for n, one in enumerate(asked) if one.predicted]
    if not places:
        return {}
    items = [item for n in places for item in asked[n].items()]
    sent = Reader(LiveWindows(stood.policy).at, now).body(json.dumps(items).encode())
    return {n: sent[2 * i : 2 * i + 2] for i, n in enumerate(places)}


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
    kept, told = keep_asked(transaction, stood, cases, predictions, now), list(found)
    of_cases, of_predictions = kept[: len(pairs)], kept[len(pairs) :]
    notes = Notes(stood.policy)
    for n, case, prediction in zip(pairs, of_cases, of_predictions, strict=True):
        worse = case if case.verdict in REFUSED else noted(prediction, notes.on(pairs[n][1]))
        told[n] = Recorded(worse.verdict, worse.reason)
    return told


def _reason(sent: Sequence[Sent]) -> str:
    return "; ".join(item.reason for item in sent if isinstance(item, Unusable))


def _check(
    asked: Sequence[AskedCase], found: Sequence[Recorded | None], doubted: frozenset[str]
) -> None:
    """Go back to the answers where something was refused: what was assigned is not true then."""
    told = zip(asked, found, strict=True)
    refused = frozenset(a.key for a, f in told if f is not None and f.verdict in REFUSED)
    if refused - doubted:
        raise _DoubtedError(refused)
