"""The demo's history: three weeks of records, approvals and ticks, written in seconds.

The letters get the assignments that the service would have given, and the same ticks decide. Only
slots in which something happens are run: a tick makes up for the slots before it. The replay of the
same records tells which slots these are.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final

from api.live_demo.accounts import CLERKS_ACCOUNT, SERVICE_ACCOUNT
from api.live_demo.letter_records import JsonObject, LetterRecords, get_scan_time
from rollout.core.policy.evidence_sources import ACCOUNT
from rollout.core.policy.policy import Policy
from rollout.core.records.records import AnyRecord, Case, Heartbeat, Prediction, SentDecision
from rollout.core.scope.assignment import Assignment, CaseQuestion
from rollout.core.scope.commands import Actor, ApproveProposal
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import ProposalRaised
from rollout.core.scope.permits import BOUND
from rollout.formats.records.parse import (
    ActionWithPermit,
    ItemReader,
    PredictionWithContent,
    RejectedItem,
    SentItem,
)
from rollout.services.engine.assignment_cache import AssignmentCache
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.engine.ticks import Ticker
from rollout.services.engine.unit_counting import queue_new_cases
from rollout.services.engine.window_lookup import WindowLookup
from rollout.services.records.action_authorization import AUTHORIZED, MODEL, NOT_REQUIRED
from rollout.services.records.review_tasks import open_reviews
from rollout.services.replay.demo_traffic import DemoLetter, DemoPrediction
from rollout.services.replay.replay import replay_files
from rollout.services.reports.demo_records import build_demo_order
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.accounts import Accounts
from rollout.store.ledger.versions import VersionInfo, VersionStore
from rollout.store.records.records import RecordStore

HOUR: Final = timedelta(hours=1)
APPROVAL_DELAY: Final = timedelta(hours=4)
OPEN_PROPOSAL_AGE: Final = timedelta(days=3)
"""Age up to which a proposal is still open when the demo begins."""
APPROVAL_REASON: Final = "Read the evidence and the costliest divergences."
TICKER_NAME: Final = "history"


@dataclass(slots=True)
class HistoryWriter:
    """Writes what happened to letters, hour by hour, into an empty rollout.

    Attributes:
        records: builds what scanners and clerks send.
        letters: in order of arrival.
        trained_until: by version, the end of its training data.
        ends_at: the instant at which the live part goes on.
        approvers: two operators.
        scheduled: items that clients send after `ends_at`, by time, once written.
        next_letter: index of the first letter after `ends_at`, once written.
    """

    database: Database
    records: LetterRecords
    letters: Sequence[DemoLetter]
    trained_until: dict[str, datetime]
    ends_at: datetime
    approvers: tuple[str, ...]
    scheduled: list[tuple[datetime, int, JsonObject]] = field(default_factory=list)
    next_letter: int = 0
    _numbers: Iterator[int] = field(default_factory=count)
    _approvals: list[ApproveProposal] = field(default_factory=list)
    _has_open_proposal: bool = False

    @property
    def policy(self) -> Policy:
        """Policy of the rollout."""
        return self.records.policy

    def write(self) -> None:
        """Write everything up to `ends_at`."""
        ticker = Ticker(self.database, self.policy.rollout, TICKER_NAME)
        hour = find_first_hour(self.letters)
        self._record_versions()
        for slot in sorted({*_find_event_slots(self.ends_at), self.ends_at}):
            self._store_hours(hour, slot)
            hour = max(hour, slot)
            self._approve_until(slot)
            self._plan_approvals(ticker.tick(slot) or ())
        self._open_review_tasks()

    def _record_versions(self) -> None:
        with self.database.begin_write() as transaction:
            versions = VersionStore(transaction, self._load_state(transaction).rollout)
            first_letter = self.letters[0]
            for prediction in first_letter.predictions:
                trained_until = self.trained_until[prediction.version]
                facts = VersionInfo(prediction.version, "assignment", trained_until)
                versions.record_info(facts, at=get_scan_time(first_letter))

    def _store_hours(self, first_hour: datetime, until: datetime) -> None:
        """Store each hour's records in (`first_hour`, `until`], in one transaction."""
        with self.database.begin_write() as transaction:
            state = self._load_state(transaction)
            cache = AssignmentCache(state.scope, state.policy, state.rollout.salt)
            senders = _find_senders(transaction)
            windows, hour = WindowLookup(state.policy), first_hour
            while hour < until:
                records = [
                    *self._list_letter_records(cache, windows, hour + HOUR),
                    *self._list_due_records(windows, state.scope.revision, hour + HOUR),
                ]
                hour += HOUR  # nothing is received before it occurs
                stored = RecordStore(transaction, state.rollout).store(
                    records, received_at=hour, sender=senders
                )
                queue_new_cases(transaction, state, stored, hour)

    def _list_letter_records(
        self, cache: AssignmentCache, windows: WindowLookup, until: datetime
    ) -> Iterator[AnyRecord]:
        """Yield cases and predictions of letters scanned by an instant; schedule their effects."""
        while self._has_letter_until(until):
            letter = self.letters[self.next_letter]
            self.next_letter += 1
            assignments = _assign_letter(cache, letter)
            yield _build_case(letter, windows, self.records)
            for prediction, assignment in zip(letter.predictions, assignments, strict=True):
                yield _build_prediction(letter, prediction, assignment)
            answers = [_describe_assignment(assignment) for assignment in assignments]
            for at, item in self.records.list_effects(letter, answers):
                heappush(self.scheduled, (at, next(self._numbers), item))

    def _has_letter_until(self, until: datetime) -> bool:
        if self.next_letter == len(self.letters):
            return False
        return get_scan_time(self.letters[self.next_letter]) <= until

    def _list_due_records(
        self, windows: WindowLookup, revision: int, until: datetime
    ) -> Iterator[AnyRecord]:
        """Yield the records that clients sent by an instant."""
        items = []
        while self.scheduled and self.scheduled[0][0] <= until:
            items.append(heappop(self.scheduled)[2])
        if not items:
            return
        reader = ItemReader(windows.find_window, self.ends_at)
        for sent_item in reader.read_body(json.dumps(items).encode()):
            yield _authorize(sent_item, revision)

    def _approve_until(self, at: datetime) -> None:
        """Give the approvals that were planned until an instant, at their own times."""
        due_approvals = [approval for approval in self._approvals if approval.at <= at]
        self._approvals = [approval for approval in self._approvals if approval.at > at]
        for approval in due_approvals:
            execute_command(self.database, self.policy.rollout, partial(_get_command, approval))

    def _plan_approvals(self, events: Sequence[LedgerEvent]) -> None:
        """Plan two approvals of each new proposal; recent ones wait for the demo's users.

        The first recent one gets one approval, so that a single user can complete it.
        """
        for event in events:
            if not isinstance(event, ProposalRaised):
                continue
            names = self.approvers
            if event.at > self.ends_at - OPEN_PROPOSAL_AGE:
                names = self.approvers[: 0 if self._has_open_proposal else 1]
                self._has_open_proposal = True
            self._approvals += [_build_approval(event, name) for name in names]

    def _open_review_tasks(self) -> None:
        """Open the review tasks of letters that nobody has decided yet."""
        since = self.ends_at - self.policy.evidence.grace
        windows = WindowLookup(self.policy)
        undecided_letters = [
            letter
            for letter in self.letters[: self.next_letter]
            if letter.at >= since
            and not any(decision.at <= self.ends_at for decision in letter.decisions)
        ]
        with self.database.begin_write() as transaction:
            state = self._load_state(transaction)
            for letter in undecided_letters:
                case = _build_case(letter, windows, self.records)
                open_reviews(transaction, state, [case], letter.at)

    def _load_state(self, transaction: Transaction) -> RolloutState:
        return load_rollout_state(transaction, self.policy.rollout)


def _get_command(approval: ApproveProposal, _state: object) -> ApproveProposal:
    return approval


def _build_approval(event: ProposalRaised, name: str) -> ApproveProposal:
    return ApproveProposal(
        at=event.at + APPROVAL_DELAY,
        by=Actor(name),
        proposal=event.proposal,
        evidence_hash=event.evidence_hash,
        reason=APPROVAL_REASON,
    )


def _find_event_slots(until: datetime) -> set[datetime]:
    """Return the slots up to an instant in which a replay of the records changes something."""
    result = replay_files(build_demo_order()).result
    assert result.policy.tick == HOUR  # noqa: S101 - of the shipped policy
    return {_ceil_hour(event.at) for event in result.events if event.at <= until}


def find_first_hour(letters: Sequence[DemoLetter]) -> datetime:
    """Return the hour in which the first letter arrived."""
    return _floor_hour(letters[0].at)


def _floor_hour(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _ceil_hour(at: datetime) -> datetime:
    hour = _floor_hour(at)
    return hour if hour == at else hour + HOUR


def _assign_letter(cache: AssignmentCache, letter: DemoLetter) -> list[Assignment]:
    """Return who decides a letter, for each version's prediction."""
    questions = [
        CaseQuestion(
            letter.site,
            letter.at,
            prediction.version,
            letter.key,
            letter.episode,
            prediction.confidence,
            letter.attributes,
        )
        for prediction in letter.predictions
    ]
    shared = cache.assign_questions(questions, get_scan_time(letter))
    return [shared_assignment.assignment for shared_assignment in shared]


def _describe_assignment(assignment: Assignment) -> JsonObject:
    """Return the part of an API answer that a client of the demo reads."""
    return {
        "decider": assignment.decider,
        "exposure": assignment.exposure,
        "audited": assignment.is_audited,
        "permit": "",  # the history's actions are stored as authorized
    }


def _build_case(letter: DemoLetter, windows: WindowLookup, records: LetterRecords) -> Case:
    return Case(
        key=letter.key,
        site=letter.site,
        occurred_at=letter.at,
        window=windows.find_window(letter.site, letter.at, letter.attributes),
        episode=letter.episode,
        attributes=letter.attributes,
        media=records.build_media(letter),
    )


def _build_prediction(
    letter: DemoLetter, prediction: DemoPrediction, assignment: Assignment
) -> Prediction:
    return Prediction(
        key=letter.key,
        version=prediction.version,
        answers={"digit": prediction.label},
        confidence=prediction.confidence,
        scope_revision=assignment.revision,
        decider=assignment.decider,
        exposure=assignment.exposure,
        share=assignment.share,
    )


def _find_senders(transaction: Transaction) -> dict[str, str]:
    """Return by kind of record the id of the account that sends it."""
    accounts = Accounts(transaction)
    scanners, clerks = accounts.add_id(SERVICE_ACCOUNT), accounts.add_id(CLERKS_ACCOUNT)
    return dict.fromkeys(("case", "prediction"), scanners) | dict.fromkeys(
        ("decision", "action", "outcome"), clerks
    )


def _authorize(item: SentItem, revision: int) -> AnyRecord:
    """Return an item as a record; an action of the model was authorized by a revision.

    It is the predicted one, and the question had the prediction: the service would have bound its
    permit to it.
    """
    if not isinstance(item, ActionWithPermit):
        others = RejectedItem | Heartbeat | PredictionWithContent
        assert not isinstance(item, others), item  # noqa: S101 - own items
        return item._replace(source=ACCOUNT) if isinstance(item, SentDecision) else item
    if item.action.by == MODEL:
        return replace(
            item.action, permission=AUTHORIZED, scope_revision=revision, permit_kind=BOUND
        )
    return replace(item.action, permission=NOT_REQUIRED)
