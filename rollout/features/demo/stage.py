"""The history under a live demo, and the service that runs on a copy of it.

Weeks of records, approvals and ticks are written in seconds, once, and kept beside the report.
The cases get the assignments that the service would have given, and the same ticks decide. Only
slots in which something happens are run: a tick makes up for the slots before it. Records are
stored and counted up to the next slot after which others decide: until then no tick changes them.
The example lists both kinds of slots, and a test compares them with a replay of the same records.
"""

import gc
import json
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from heapq import heappop, heappush
from inspect import getsource
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final

import msgspec
from msgspec.structs import replace

from rollout.data.database.migrations import find_head_revision, upgrade
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Accounts
from rollout.data.records.records import RecordStore
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.engine.decide.assignment import BOUND, Assignment, CaseQuestion, compute_unit_key
from rollout.engine.decide.commands import Actor, ApproveProposal
from rollout.engine.events import LedgerEvent, ProposalRaised, select_events
from rollout.engine.files.parse import (
    ActionWithPermit,
    DeclaringPrediction,
    ItemReader,
    PlacedDecision,
    SentItem,
)
from rollout.engine.records.records import Case, Heartbeat, Prediction, Record, RejectedItem
from rollout.features.access.authentication import Authenticator
from rollout.features.access.users import load_local_caller
from rollout.features.demo import accounts, recorded_cases, simulated_cases
from rollout.features.demo.accounts import (
    ADMIN_NAME,
    MODEL_CLIENT,
    SiteClients,
    build_operator,
    create_demo_keys,
    get_decision_system,
)
from rollout.features.demo.catalog import (
    DESCRIPTION_FILE,
    HISTORY_PREFIX,
    ExampleSystem,
    find_history_folders,
)
from rollout.features.demo.player import ScheduledItem
from rollout.features.demo.recorded_cases import CasePictures
from rollout.features.demo.simulated_cases import (
    CaseRecords,
    ExampleCase,
    ExamplePrediction,
    get_prediction_time,
)
from rollout.features.records.action_authorization import AUTHORIZED, MODEL, NOT_REQUIRED
from rollout.features.records.planted_cases import PlantingRequest, declare_planted_cases
from rollout.features.records.record_notes import open_reviews
from rollout.kernel.calendar.instants import find_slot_after, to_instant
from rollout.kernel.policy.evidence_sources import ACCOUNT
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy
from rollout.live.clock import ManualClock, SystemClock
from rollout.live.evidence.due_counting import PageSize, pause_collections
from rollout.live.evidence.unit_counting import WindowLookup, queue_new_cases
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import RolloutState, execute_command, load_rollout_state
from rollout.live.service import Service, build_service
from rollout.live.state_cache import AssignmentCache
from rollout.live.tick_passes import Ticker

SALT: Final = bytes(32)  # the replay's, so that the same cases are sampled
UNFINISHED_PREFIX: Final = "unfinished-history-"
UNFINISHED_SECONDS: Final = 3600.0
"""Age from which an unfinished history is left over: a build takes half a minute."""
PAGE_BYTES: Final = 8192
DATABASE_FILE, SCHEDULE_FILE = "history.db", "schedule.json"


@dataclass(frozen=True, slots=True)
class PreparedHistory:
    """A folder with the history's database and what clients send after it."""

    folder: Path

    @property
    def is_complete(self) -> bool:
        """Return whether both files are there."""
        return all((self.folder / name).is_file() for name in (DATABASE_FILE, SCHEDULE_FILE))

    def copy_database(self, target: Path) -> None:
        """Copy the database to a path."""
        shutil.copyfile(self.folder / DATABASE_FILE, target)

    def load_schedule(self) -> tuple[int, list[ScheduledItem]]:
        """Return the index of the next case, and the items that were not sent yet."""
        content = json.loads((self.folder / SCHEDULE_FILE).read_text(encoding="utf-8"))
        items = [(datetime.fromisoformat(at), *rest) for at, *rest in content["items"]]
        return content["next_case"], items


def prepare_history(
    parent: Path,
    example: ExampleSystem,
    records: CaseRecords,
    cases: Sequence[ExampleCase],
    report_start: Callable[[], None],
) -> PreparedHistory:
    """Return the history in a folder of `parent`; build it if it isn't there.

    A history of other records, another policy or another program has another name and is removed.
    `report_start` is called before a build. Several processes may build at once: each in a folder
    of its own, and the first that is ready counts for all.
    """
    history = PreparedHistory(
        parent / f"{HISTORY_PREFIX}{example.name}-{compute_fingerprint(example)}"
    )
    if history.is_complete:
        return history
    report_start()
    parent.mkdir(parents=True, exist_ok=True)
    _remove_old_folders(parent, example, history)
    unfinished = Path(mkdtemp(prefix=UNFINISHED_PREFIX, dir=parent))
    try:
        gc.freeze()  # also later collections need not walk through all cases
        with pause_collections():  # they were a tenth of a build, which leaves little garbage
            _build_history(unfinished, example, records, cases)
        _move_into_place(unfinished, history)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return history


def _remove_old_folders(parent: Path, example: ExampleSystem, history: PreparedHistory) -> None:
    """Remove histories of other content, and what interrupted builds left."""
    for folder in find_history_folders(parent, example.name):
        if not (folder == history.folder and history.is_complete):  # another process may be done
            shutil.rmtree(folder, ignore_errors=True)
    for folder in list(parent.glob(f"{UNFINISHED_PREFIX}*")):
        with suppress(FileNotFoundError):  # another process is removing it
            if time.time() - folder.stat().st_mtime > UNFINISHED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(unfinished: Path, history: PreparedHistory) -> None:
    """Rename a finished folder, unless another process was faster."""
    try:
        unfinished.replace(history.folder)
    except OSError:  # a folder with content is never replaced
        if not history.is_complete:
            raise


def compute_fingerprint(example: ExampleSystem) -> str:
    """Return a text that changes with the records, the policy, the tables or the builder."""
    digest = sha256(find_head_revision().encode())
    for module in (accounts, recorded_cases, simulated_cases, sys.modules[__name__]):
        digest.update(getsource(module).encode())
    paths = [example.policy_path, example.folder / DESCRIPTION_FILE]
    for path in [*paths, *sorted(example.records_folder.rglob("*"))]:
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _create_file(path: Path) -> None:
    """Create a database whose pages each hold several cases with pictures.

    SQLite keeps a fifth of a page of a case and gives each longer one a page of its own.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"pragma page_size = {PAGE_BYTES}")
        connection.execute("pragma journal_mode = wal")  # writes the size


def _build_history(
    folder: Path, example: ExampleSystem, records: CaseRecords, cases: Sequence[ExampleCase]
) -> None:
    path = folder / DATABASE_FILE
    _create_file(path)
    url = f"sqlite:///{path}"
    upgrade(url)
    # waits for the disk took a tenth of a build
    with closing(Database(url, is_draft=True)) as database:
        policy_text = example.policy_path.read_text(encoding="utf-8")
        starts_at = find_first_slot(records.policy, cases) - records.policy.tick
        accounts.create_demo_accounts(database, records.policy, starts_at)
        apply_policy(
            database,
            policy_text,
            Actor(accounts.ADMIN_NAME),
            starts_at,
            salt=SALT,
            service_salt=SALT,
        )
        writer = HistoryWriter(database, example, records, cases, accounts.DEMO_OPERATORS[::-1])
        writer.write()
    schedule = {
        "next_case": writer.next_case,
        "items": [(at.isoformat(), *rest) for at, *rest in writer.scheduled],
    }
    (folder / SCHEDULE_FILE).write_text(json.dumps(schedule), encoding="utf-8")
    for name in (DATABASE_FILE, SCHEDULE_FILE):
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())  # so that a finished history survives a power failure


@dataclass(frozen=True, slots=True)
class DemoService:
    """A service in the middle of the story.

    Attributes:
        clock: the story's clock; sign-in and claims use the wall clock.
        keys: API keys by account.
        next_case: index of the first case that is still to come.
        scheduled: items that clients are still to send, by time and number.
    """

    service: Service
    clock: ManualClock
    policy: Policy
    keys: dict[str, str] = field(repr=False)
    next_case: int
    scheduled: Sequence[ScheduledItem] = field(repr=False)


def build_case_records(example: ExampleSystem) -> CaseRecords:
    """Return what the clients of an example send, by its policy and pictures."""
    policy = load_policy(example.policy_path)
    clients = SiteClients(MODEL_CLIENT, get_decision_system(policy))
    return CaseRecords(policy, lambda _site: clients, CasePictures(example).find_media)


@dataclass(frozen=True, slots=True)
class DemoStage:
    """A service whose database isn't there yet: its routes are made while the history is built.

    Attributes:
        clock: stands where the story goes on.
        path: of the database.
    """

    service: Service
    clock: ManualClock
    policy: Policy
    path: Path

    def open_history(self, history: PreparedHistory) -> DemoService:
        """Return the service on a copy of a history."""
        history.copy_database(self.path)
        key_texts = create_demo_keys(
            self.service.database, self.policy, self.service.wall_clock.now()
        )
        next_case, scheduled = history.load_schedule()
        return DemoService(self.service, self.clock, self.policy, key_texts, next_case, scheduled)


@contextmanager
def open_stage(policy: Policy, at: datetime) -> Iterator[DemoStage]:
    """Yield a stage in a temporary folder; `at` is the instant at which the story goes on."""
    with TemporaryDirectory(prefix="rollout-demo-") as folder:
        path, wall_clock = Path(folder) / DATABASE_FILE, SystemClock()
        with closing(Database(f"sqlite:///{path}")) as database:
            service = build_service(
                database,
                Authenticator(database, wall_clock),
                clock := ManualClock(at),
                wall_clock=wall_clock,
            )
            yield DemoStage(service, clock, policy, path)


HOUR: Final = timedelta(hours=1)
APPROVAL_DELAY: Final = timedelta(hours=4)
OPEN_PROPOSAL_AGE: Final = timedelta(days=3)
"""Age up to which a proposal is still open when the demo begins."""
APPROVAL_REASON: Final = "Read the evidence and the costliest divergences."
PLANTING_REASON: Final = "The example's planted cases."
TICKER_NAME: Final = "history"
PAGE_SIZE: Final = PageSize(20_000, 20_000, 20_000)  # nobody can stop a history


@dataclass(slots=True)
class HistoryWriter:
    """Writes what happened to an example's cases, slot by slot, into an empty rollout.

    Attributes:
        example: its seed, versions, and where the live part begins.
        records: builds what clients send.
        cases: in order of arrival.
        approvers: two operators.
        scheduled: items that clients send after the history, by time, once written.
        next_case: index of the first case after the history, once written.
    """

    database: Database
    example: ExampleSystem
    records: CaseRecords
    cases: Sequence[ExampleCase]
    approvers: tuple[str, ...]
    scheduled: list[ScheduledItem] = field(default_factory=list)
    next_case: int = 0
    _numbers: Iterator[int] = field(default_factory=count)
    _approvals: list[ApproveProposal] = field(default_factory=list)
    _has_open_proposal: bool = False
    _first_uses: dict[str, datetime] = field(default_factory=dict)
    _versions: set[str] = field(default_factory=set)

    @property
    def ends_at(self) -> datetime:
        """Instant at which the live part begins."""
        return self.example.serve_at

    @property
    def policy(self) -> Policy:
        """Policy of the rollout."""
        return self.records.policy

    def write(self) -> None:
        """Write everything up to the instant at which the live part begins."""
        ticker = Ticker(self.database, self.policy.rollout, TICKER_NAME, page_size=PAGE_SIZE)
        since = find_first_slot(self.policy, self.cases)
        self._declare_planted_cases(since)
        for slots in self._list_stretches():
            self._store_slots(since, slots)
            since = max(since, slots[-1])
            for slot in slots:
                self._approve_until(slot)
                events = ticker.tick(slot, count_until=slots[-1]) or ()
                if slot < slots[-1] and not all(event.keeps_scope for event in events):
                    raise RuntimeError(f"turning_slots of {self.example.name} lack {slot}")
                self._plan_approvals(events)
        self._open_review_tasks()

    def _list_stretches(self) -> Iterator[list[datetime]]:
        """Yield the slots to run, up to each one after which others may decide."""
        slots: list[datetime] = []
        for slot in (*self.example.history_slots, self.ends_at):
            slots.append(slot)
            if slot in self.example.turning_slots or slot == self.ends_at:
                yield slots
                slots = []

    def _record_new_versions(
        self,
        transaction: Transaction,
        state: RolloutState,
    ) -> None:
        """Record each version at its first prediction, as the service does with a client's."""
        versions = VersionStore(transaction, state.rollout)
        for version in self._first_uses.keys() - self._versions:
            facts = VersionInfo(version, "assignment", self.example.training_cutoffs[version])
            versions.record_info(facts, at=self._first_uses[version])
        self._versions |= self._first_uses.keys()

    def _declare_planted_cases(self, at: datetime) -> None:
        """Declare all planted cases of the example, before any record."""
        keys = frozenset(case.key for case in self.cases if case.is_planted)
        if keys:
            admin = load_local_caller(self.database, ADMIN_NAME)
            request = PlantingRequest(keys, PLANTING_REASON)
            declare_planted_cases(self.database, admin, self.policy.rollout, request, at)

    def _store_slots(self, since: datetime, slots: Sequence[datetime]) -> None:
        """Store the records after `since`, received by hours or slots, in one batch."""
        with self.database.begin_write() as transaction:
            state = load_rollout_state(transaction, self.policy.rollout)
            cache = AssignmentCache(state.scope, state.policy, state.rollout.salt)
            senders = _find_senders(transaction, self.policy)
            windows = WindowLookup(state.policy)
            received: list[tuple[datetime, Record]] = []
            for at in _list_times(since, slots, max(self.policy.tick, HOUR)):
                received += self._list_case_records(state, cache, windows, at)
                received += self._list_due_records(windows, state.scope.revision, at)
            if not received:
                return
            self._record_new_versions(transaction, state)
            stored = RecordStore(transaction, state.rollout).store(
                [record for _, record in received],
                received_at=[at for at, _ in received],
                sender=senders,
                vouched=self.policy.evidence.sources.vouched.get(MODEL_CLIENT),
                draw_case=state.draw_case,
            )
            queue_new_cases(transaction, state, stored, slots[-1])

    def _list_case_records(
        self, state: RolloutState, cache: AssignmentCache, windows: WindowLookup, until: datetime
    ) -> Iterator[tuple[datetime, Record]]:
        """Yield cases and predictions made by an instant, as received; schedule their effects."""
        while self._has_case_until(until):
            case = self.cases[self.next_case]
            self.next_case += 1
            assignments = _assign_case(cache, case)
            asked_at = get_prediction_time(case)
            yield asked_at, _build_case(case, windows, self.records)
            for prediction, assignment in zip(case.predictions, assignments, strict=True):
                self._first_uses.setdefault(prediction.version, prediction.at)
                yield asked_at, _build_prediction(case, prediction, assignment)
            # what a client of the demo reads; the history's actions are stored as authorized
            answers = [
                {"decider": made.decider, "exposure": made.exposure, "permit": ""}
                for made in assignments
            ]
            is_audited = self._is_audited(state, case, assignments)
            for at, account, item in self.records.list_effects(case, answers, is_audited):
                heappush(self.scheduled, (at, next(self._numbers), account, item))

    def _is_audited(
        self, state: RolloutState, case: ExampleCase, assignments: Sequence[Assignment]
    ) -> bool:
        """Return whether the service asks for an audit of a case that the model decides."""
        stages = [made.stage for made in assignments if made.decider == "model"]
        if not stages:
            return False
        unit = compute_unit_key(self.policy, case.key, case.site, case.at, case.episode)
        ((audit_draw,),) = state.draw_units([unit])[1:]
        stage = self.policy.get_stage(self.policy.stage_ids.index(stages[0]))
        return bool(audit_draw < (stage.audit or 0.0))

    def _has_case_until(self, until: datetime) -> bool:
        if self.next_case == len(self.cases):
            return False
        return get_prediction_time(self.cases[self.next_case]) <= until

    def _list_due_records(
        self, windows: WindowLookup, revision: int, until: datetime
    ) -> Iterator[tuple[datetime, Record]]:
        """Yield the records that clients sent by an instant, as received."""
        times, items = [], []
        while self.scheduled and self.scheduled[0][0] <= until:
            at, *_, item = heappop(self.scheduled)
            times.append(at)
            items.append(item)
        if not items:
            return
        reader = ItemReader(windows.find_window, self.ends_at)
        for at, sent_item in zip(times, reader.read_body(msgspec.json.encode(items)), strict=True):
            yield at, _authorize(sent_item, revision)

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
        for event in select_events(events, ProposalRaised):
            names = self.approvers
            if event.at > self.ends_at - OPEN_PROPOSAL_AGE:
                names = self.approvers[: 0 if self._has_open_proposal else 1]
                self._has_open_proposal = True
            self._approvals += [
                ApproveProposal(
                    at=event.at + APPROVAL_DELAY,
                    by=build_operator(self.policy, name),
                    proposal=event.proposal,
                    evidence_hash=event.evidence_hash,
                    reason=APPROVAL_REASON,
                )
                for name in names
            ]

    def _open_review_tasks(self) -> None:
        """Open the review tasks of cases that nobody has decided yet."""
        since = self.ends_at - self.policy.evidence.grace
        windows = WindowLookup(self.policy)
        undecided_cases = [
            case
            for case in self.cases[: self.next_case]
            if case.at >= since
            and not any(decision.at <= self.ends_at for decision in case.decisions)
        ]
        with self.database.begin_write() as transaction:
            state = load_rollout_state(transaction, self.policy.rollout)
            for undecided_case in undecided_cases:
                case = _build_case(undecided_case, windows, self.records)
                open_reviews(transaction, state, [case], undecided_case.at)


def _list_times(since: datetime, slots: Sequence[datetime], step: timedelta) -> Iterator[datetime]:
    """Yield times after `since` at most a step apart, each slot among them."""
    at = since
    for slot in slots:
        while at < slot:
            at = min(at + step, slot)  # nothing is received before it occurs
            yield at


def _get_command(approval: ApproveProposal, _state: object) -> ApproveProposal:
    return approval


def find_first_slot(policy: Policy, cases: Sequence[ExampleCase]) -> datetime:
    """Return the last slot before the first case."""
    return to_instant(find_slot_after(cases[0].at, policy.tick) - 1, policy.tick)


def _assign_case(cache: AssignmentCache, case: ExampleCase) -> list[Assignment]:
    """Return who decides a case, for each version's prediction."""
    questions = [
        CaseQuestion(
            case.site,
            case.at,
            prediction.version,
            case.key,
            case.episode or "",
            prediction.confidence,
            case.attributes,
        )
        for prediction in case.predictions
    ]
    shared = cache.assign_questions(questions, get_prediction_time(case))
    return [shared_assignment.assignment for shared_assignment in shared]


def _build_case(case: ExampleCase, windows: WindowLookup, records: CaseRecords) -> Case:
    return Case(
        key=case.key,
        site=case.site,
        occurred_at=case.at,
        window=windows.find_window(case.site, case.at, case.attributes),
        episode=case.episode,
        attributes=case.attributes,
        media=records.build_media(case),
    )


def _build_prediction(
    case: ExampleCase, prediction: ExamplePrediction, assignment: Assignment
) -> Prediction:
    return Prediction(
        key=case.key,
        version=prediction.version,
        answers=prediction.answers,
        confidence=prediction.confidence,
        scope_revision=assignment.revision,
        decider=assignment.decider,
        exposure=assignment.exposure,
        share=assignment.share,
    )


def _find_senders(transaction: Transaction, policy: Policy) -> dict[str, str]:
    """Return by kind of record the id of the account that sends it."""
    accounts = Accounts(transaction)
    client = accounts.add_id(MODEL_CLIENT)
    decision_system = accounts.add_id(get_decision_system(policy))
    return dict.fromkeys(("case", "prediction"), client) | dict.fromkeys(
        ("decision", "action", "outcome"), decision_system
    )


def _authorize(item: SentItem, revision: int) -> Record:
    """Return an item as a record; an action of the model was authorized by a revision.

    It is the predicted one, and the question had the prediction: the service would have bound its
    permit to it.
    """
    if not isinstance(item, ActionWithPermit):
        others = RejectedItem | Heartbeat | DeclaringPrediction | PlacedDecision
        assert not isinstance(item, others), item  # noqa: S101 - own items
        return item.with_source(ACCOUNT)
    if item.action.by == MODEL:
        return replace(
            item.action, permission=AUTHORIZED, scope_revision=revision, permit_kind=BOUND
        )
    return replace(item.action, permission=NOT_REQUIRED)
