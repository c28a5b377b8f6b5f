"""Evidence of some cells for pages and commands, and checks of snapshots and readings against it.

Evidence is read from the store and cached, so that a read costs only what is new since the last
one.

Snapshots of counted evidence are restored by a process, and compared by `rollout doctor`.

The readings of a proposal hold its counts and e-values, an alarm the counts at which its guard's
e-process crossed. They are read anew from the counted units and the ledger: both follow from the
units counted by their slot, the scope before their tick and the stages of the cell.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby, islice
from threading import Lock
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from rollout.data.counting.counted_units import CountedUnits
from rollout.data.counting.counts import LINES_PER_READ, CountedOutcomes
from rollout.data.database.rollouts import PolicyTexts, Rollout
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import EvidenceSnapshots, EvidenceStore
from rollout.engine.decide.guards import foresee_attempt, store_alarm
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.proposals import store_readings
from rollout.engine.decide.scope import CellState, Scope
from rollout.engine.decide.widening_steps import WideningStep, find_acting_index, list_met_floors
from rollout.engine.events import (
    Alarm,
    IncidentOpened,
    LedgerEvent,
    PolicyApplied,
    ProposalRaised,
    Suspended,
    find_applied_policies,
    select_events,
)
from rollout.engine.evidence.evidence_view import EvidenceView, read_fresh_evidence
from rollout.engine.evidence.guard_evidence import GuardEvidence
from rollout.engine.evidence.outcome_buffer import CountedOutcome, OutcomeBuffer, OutcomeUnits
from rollout.engine.evidence.site_series import EMPTY_VOTES, NO_SIGNS, SiteSigns, SiteVotes
from rollout.engine.evidence.stored_units import FirstValues, NewCellValue, StoredUnits
from rollout.engine.evidence.unit_buffer import (
    BufferDigests,
    DefinitionLevels,
    UnitBuffer,
    restore_buffers,
)
from rollout.engine.ledger.ledger import parse_event
from rollout.kernel.arrays import Bools, Ints
from rollout.kernel.calendar.instants import Cell, CellVersion, find_slot_before
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.policy.cell_evidence import EvidenceCounts, VersionEvidence, find_floor_index
from rollout.kernel.policy.gates import FreshEvidence, GateReading, read_gate, read_renewal
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.units import OutcomeRule
from rollout.kernel.words import say_against, say_alarms, say_reading
from rollout.live.evidence.evidence_seals import load_policies
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.rollout_state import RolloutState, parse_stored_policy

UNREADABLE = (
    *(ValueError, LookupError, TypeError, OverflowError, zlib.error),
    *(StopIteration, MemoryError),  # too few parts, or lengths that nothing holds
)


def restore_evidence(
    transaction: Transaction,
    state: RolloutState,
    units: UnitBuffer,
    outcomes: OutcomeBuffer,
    *,
    until: int | None = None,
) -> int:
    """Fill empty buffers from the stored snapshot; return its last slot.

    -1 means that nothing was restored, since no snapshot is valid for the state, readable, and of a
    slot `until` the given one. Then the counted units are read instead.
    """
    snapshot = EvidenceSnapshots(transaction, state.rollout).load(until=state.scope.revision)
    if snapshot is None or (until is not None and snapshot.slot > until):
        return -1
    try:
        return snapshot.slot if restore_buffers(snapshot.body, units, outcomes) else -1
    except UNREADABLE:
        return -1


def is_snapshot_wrong(transaction: Transaction, state: RolloutState) -> bool:
    """Return whether the stored snapshot would restore other evidence than was counted.

    The counted units are read in parts, each of which is compared and forgotten.
    """
    history = _build_history(transaction, state)
    policy, levels = state.policy, history.find_equivalent_definitions
    units, outcomes, restored = UnitBuffer(policy, levels), OutcomeBuffer(), BufferDigests()
    last_slot = restore_evidence(transaction, state, units, outcomes)
    if last_slot < 0:
        return False  # no process uses it
    restored.add(units, outcomes)
    restored_values = units.first_values
    del units, outcomes
    counted, counted_values = BufferDigests(), FirstValues()
    for units_part in CountedUnits(transaction, state.rollout).load_units(
        after=-1, until=last_slot
    ):
        part = UnitBuffer(policy, levels)
        part.add(units_part)
        counted.add(part, OutcomeBuffer())
        counted_values.add(units_part.list_sliced_units())
    if policy.outcomes:
        lines = CountedOutcomes(transaction, state.rollout).read_lines(after=-1, until=last_slot)
        while batch := list(islice(lines, LINES_PER_READ)):
            outcome_part = OutcomeBuffer()
            outcome_part.add(batch)
            counted.add(UnitBuffer(policy, levels), outcome_part)
    is_other_value = restored_values.encode() != counted_values.encode()
    return is_other_value or restored.sums != counted.sums


def _build_history(transaction: Transaction, state: RolloutState) -> RolloutHistory:
    """Return the policies that were in force."""
    ledger = Ledger(transaction, state.rollout)
    events = list(ledger.list_of(PolicyApplied, until=state.scope.revision))
    texts = PolicyTexts(transaction, state.rollout).load_texts({e.policy_hash for e in events})
    policies = {policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()}
    history = RolloutHistory()
    history.add_events(events, policies.__getitem__)
    return history


_NO_SLOTS: Ints = np.empty(0, dtype=np.int64)


class GateFeeds:
    """Guard feeds with counted outcomes and without other records."""

    last_slot = 0

    def __init__(self, outcomes: OutcomeBuffer) -> None:
        self._outcomes = outcomes

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's counted units in a cell with the value of an outcome."""
        return self._outcomes.read_outcomes(cell, version, outcome)

    def read_answers(self, _cell: Cell, _version: str, _guard: Guard) -> tuple[Ints, Ints, Bools]:
        """Return no observations."""
        return _NO_SLOTS, _NO_SLOTS, _NO_SLOTS.astype(bool)

    def read_votes(self, _site: str, _version: str, _guard: Guard) -> SiteVotes:
        """Return no answers."""
        return EMPTY_VOTES

    def read_signs(self, _site: str) -> SiteSigns:
        """Return no signs."""
        return NO_SIGNS


EvidenceKey = tuple[Cell, str]


class CountedCells(NamedTuple):
    """What was counted in some cells.

    Attributes:
        last_slot: the last counted slot, -1 before any.
        views: every version's evidence.
        new_values: attribute values that a cell met later than others.
    """

    last_slot: int
    views: dict[EvidenceKey, EvidenceView]
    new_values: Mapping[Cell, tuple[NewCellValue, ...]]


class EvidenceReader:
    """Cached evidence of one rollout, of all counted units or of some."""

    def __init__(self, select_units: Callable[[StoredUnits], StoredUnits] | None = None) -> None:
        self._lock = Lock()
        self._select_units = select_units
        self._reset()

    def _reset(self) -> None:
        self._history = RolloutHistory()
        self._events: list[LedgerEvent] = []
        self._units: UnitBuffer | None = None
        self._outcomes = OutcomeBuffer()
        self._revision, self._hash, self.last_slot = 0, "", -1

    @property
    def history(self) -> RolloutHistory:
        """Return the policies and stages up to what was read last."""
        return self._history

    def load_views(
        self, database: Database, state: RolloutState, cells: Iterable[Cell]
    ) -> dict[EvidenceKey, EvidenceView]:
        """Return the evidence of every version in some cells."""
        return self.load_cells(database, state, cells).views

    def load_cells(
        self, database: Database, state: RolloutState, cells: Iterable[Cell]
    ) -> CountedCells:
        """Return what was counted in some cells."""
        cells = tuple(cells)
        with self._lock:
            try:
                with database.begin_read() as transaction:
                    units = self._load(transaction, state)
            except BaseException:
                self._reset()  # the read may be partial
                raise
            versions = state.scope.versions
            views = {
                (cell, version): self._build_view(state, cell, version)
                for cell in cells
                for version in versions
            }
            new_values = units.first_values.find_new(state.policy, cells)
            return CountedCells(self.last_slot, views, new_values)

    def load_events(self, database: Database, state: RolloutState) -> tuple[LedgerEvent, ...]:
        """Return the ledger's events up to a state's revision."""
        with self._lock:
            try:
                with database.begin_read() as transaction:
                    self._load_new_events(transaction, state)
            except BaseException:
                self._reset()  # the read may be partial
                raise
            return tuple(self._events)

    def _load(self, transaction: Transaction, state: RolloutState) -> UnitBuffer:
        self._load_new_events(transaction, state)
        if self._units is None:
            self._units = UnitBuffer(state.policy, self._history.find_equivalent_definitions)
            self._outcomes = OutcomeBuffer()
            self.last_slot = -1
            if self._select_units is None:
                self.last_slot = restore_evidence(transaction, state, self._units, self._outcomes)
        self._load_counted_units(transaction, state, self._units)
        return self._units

    def _load_new_events(self, transaction: Transaction, state: RolloutState) -> None:
        """Load new events; a new policy discards the counted units, an erasure all."""
        ledger = Ledger(transaction, state.rollout)
        if self._revision > state.scope.revision:
            self._reset()  # a newer state was read before
        if self._revision:
            known_row = next(ledger.list_rows(after=self._revision - 1, until=self._revision), None)
            if known_row is None or known_row.hash != self._hash:
                self._reset()  # a backup was restored
        rows = list(ledger.list_rows(after=self._revision, until=state.scope.revision))
        events = [parse_event(row) for row in rows]
        if self._revision and any(event.discards_evidence for event in events):
            self._reset()
            self._load_new_events(transaction, state)
            return
        applied_hashes = find_applied_policies(events)
        texts = PolicyTexts(transaction, state.rollout).load_texts(applied_hashes)
        policies = {policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()}
        self._history.add_events(events, policies.__getitem__)
        self._events += events
        if rows:
            self._revision, self._hash = rows[-1].revision, rows[-1].hash
        if applied_hashes:
            self._units = None

    def _load_counted_units(
        self, transaction: Transaction, state: RolloutState, units: UnitBuffer
    ) -> None:
        last_slot = EvidenceStore(transaction, state.rollout).get_last_slot()
        for part in CountedUnits(transaction, state.rollout).load_units(
            after=self.last_slot, until=last_slot
        ):
            units.add(part if self._select_units is None else self._select_units(part))
        if state.policy.outcomes:
            counted_outcomes = CountedOutcomes(transaction, state.rollout)
            self._outcomes.add(counted_outcomes.read_lines(after=self.last_slot, until=last_slot))
        self.last_slot = last_slot
        self._history.advance_to(last_slot - 1)

    def _build_view(self, state: RolloutState, cell: Cell, version: str) -> EvidenceView:
        assert self._units is not None  # noqa: S101 - `_load` sets it
        return EvidenceView(
            cell=cell,
            version=version,
            rows=self._units.get_rows((cell, version)),
            unit_classes=self._units.unit_classes,
            policy=state.policy,
            state=_foresee_attempt(state, cell, version),
            first_seen=state.scope.versions[version].first_seen,
            stage_history=self._history.get_stage_history(cell),
            shares=self._history.stage_shares,
            find_buckets=lambda rows: rows.unit,  # stored units hold their bucket
            feeds=GateFeeds(self._outcomes),
            familiar_history=self._history.familiar_histories[cell, version],
        )


def _foresee_attempt(state: RolloutState, cell: Cell, version: str) -> CellState:
    """Return the state of a version in a cell as of the ledger's time."""
    scope = state.scope
    if scope.at is None:
        return scope.get_cell_state(cell, version)
    return foresee_attempt(scope, state.policy, cell, version, scope.at)


_readers: WeakKeyDictionary[Database, dict[str, EvidenceReader]] = WeakKeyDictionary()
_lock = Lock()


def _get_reader(database: Database, state: RolloutState) -> EvidenceReader:
    with _lock:
        return _readers.setdefault(database, {}).setdefault(state.rollout.name, EvidenceReader())


def load_evidence_views(
    database: Database, state: RolloutState, cells: Iterable[Cell]
) -> Mapping[EvidenceKey, EvidenceView]:
    """Return the evidence of every version in some cells, without guard readings.

    A version that was never counted in a cell has empty evidence.
    """
    return _get_reader(database, state).load_views(database, state, cells)


def load_counted_cells(
    database: Database, state: RolloutState, cells: Iterable[Cell]
) -> CountedCells:
    """Return what was counted in some cells."""
    return _get_reader(database, state).load_cells(database, state, cells)


def load_events(database: Database, state: RolloutState) -> tuple[LedgerEvent, ...]:
    """Return all events up to a state's revision, in order."""
    return _get_reader(database, state).load_events(database, state)


def load_cell_evidence(
    database: Database, state: RolloutState, cell: Cell, version: str
) -> VersionEvidence:
    """Return one version's evidence in one cell; empty for unknown versions."""
    evidence_reader = _get_reader(database, state)
    evidence_view = evidence_reader.load_views(database, state, (cell,)).get((cell, version))
    if evidence_view is None:
        return VersionEvidence()
    last_slot = evidence_reader.last_slot
    return VersionEvidence(
        attempt=evidence_view.attempt_window.count_at(last_slot),
        entered=evidence_view.entered_window.count_at(last_slot),
        spans={
            stage: span.count_at(last_slot) for stage, span in evidence_view.grant_windows.items()
        },
    )


def load_fresh_evidence(
    database: Database, state: RolloutState, cell: Cell, version: str, at: datetime
) -> FreshEvidence:
    """Return a version's evidence in a cell with answers that are stored and don't count yet."""
    from rollout.live.evidence.fresh_units import FreshUnitReader  # most callers need none

    reader = _get_reader(database, state)
    view = reader.load_views(database, state, (cell,))[cell, version]
    slot = find_slot_before(at, state.policy.tick)
    with database.begin_read() as transaction:
        units = FreshUnitReader(transaction, state, reader.history, slot)
        return read_fresh_evidence(view, slot, units.read_units((cell, version)))


MAX_HELD_ROWS: Final = 50_000


class RecountedCell:
    """The evidence of one version in one cell, up to a slot."""

    def __init__(
        self, policy: Policy, key: CellVersion, definition_levels: DefinitionLevels
    ) -> None:
        self.units, self.outcomes = UnitBuffer(policy, definition_levels), OutcomeBuffer()
        self.row_count = 0
        self._key, self._last_slot = key, -1
        self._has_outcomes = bool(policy.outcomes)

    def advance(self, transaction: Transaction, rollout: Rollout, slot: int) -> None:
        """Read what was counted up to a slot."""
        if slot <= self._last_slot:
            return
        unit_store = CountedUnits(transaction, rollout)
        for units in unit_store.load_units(after=self._last_slot, until=slot, key=self._key):
            self.row_count += len(units)
            self.units.add(units)
        if self._has_outcomes:
            lines = self._list_outcomes(CountedOutcomes(transaction, rollout), slot)
            while part := list(islice(lines, LINES_PER_READ)):
                self.row_count += len(part)
                self.outcomes.add(part)
        self._last_slot = slot

    def _list_outcomes(self, outcomes: CountedOutcomes, slot: int) -> Iterator[CountedOutcome]:
        cell, version = self._key
        lines = outcomes.read_lines(after=self._last_slot, until=slot, version=version)
        return (line for line in lines if Cell(line.site, line.window) == cell)


class RecountedEvidence:
    """The evidence of the cells that were asked for last, under one policy."""

    def __init__(
        self, rollout: Rollout, policy: Policy, definition_levels: DefinitionLevels
    ) -> None:
        self._rollout, self._policy, self._definition_levels = rollout, policy, definition_levels
        self._cells: dict[CellVersion, RecountedCell] = {}

    def load(self, transaction: Transaction, key: CellVersion, slot: int) -> RecountedCell:
        """Return a version's evidence in a cell, up to a slot or a later one asked for before."""
        evidence = self._cells.pop(key, None)
        if evidence is None:
            evidence = RecountedCell(self._policy, key, self._definition_levels)
        evidence.advance(transaction, self._rollout, slot)
        self._drop_cells(MAX_HELD_ROWS - evidence.row_count)
        self._cells[key] = evidence
        return evidence

    def _drop_cells(self, row_count: int) -> None:
        """Drop the cells not asked for lately until the others hold at most so many rows."""
        row_total = sum(evidence.row_count for evidence in self._cells.values())
        for key in list(self._cells):
            if row_total <= row_count:
                return
            row_total -= self._cells.pop(key).row_count


RECOUNTED_KINDS: Final = (ProposalRaised.__name__, IncidentOpened.__name__, Suspended.__name__)
TickEvents = tuple[LedgerEvent, ...]


def find_reading_faults(transaction: Transaction, state: RolloutState) -> Iterator[str]:
    """Yield a sentence for each proposal and alarm of a tick that its evidence doesn't give.

    Alarms about failures, latency, harm and silence rest on records that no tick counts; they are
    not read again.
    """
    ledger = Ledger(transaction, state.rollout)
    if next(ledger.list_rows(kinds=RECOUNTED_KINDS), None) is None:
        return
    recount = _ReadingRecount(transaction, state)
    for _, tick_events in groupby(enumerate(ledger.list_events()), key=_find_group):
        yield from recount.check_events(tuple(event for _, event in tick_events))


def _find_group(numbered_event: tuple[int, LedgerEvent]) -> object:
    """Return what the events of one tick share; other events stand alone."""
    number, event = numbered_event
    return number if event.slot is None else event.slot


class _ReadingRecount:
    """The state of a rollout as its ledger is read."""

    def __init__(self, transaction: Transaction, state: RolloutState) -> None:
        self._transaction, self._state = transaction, state
        self._scope, self._history = Scope(), RolloutHistory()
        self._policies: dict[str, Policy] = {}
        self._evidence: RecountedEvidence | None = None

    def check_events(self, events: TickEvents) -> Iterator[str]:
        """Yield the faults of a tick's proposals and alarms, then apply its events."""
        if (slot_start := events[0].slot) is not None:
            slot = find_slot_before(slot_start, self._policy.tick)
            self._history.advance_to(slot - 1, self._scope)
            yield from self._check_alarms(events, slot)
            yield from self._check_proposals(events, slot)
        self._policies |= load_policies(self._transaction, self._state, events)
        self._scope = apply_events(events, self._scope)
        self._history.add_events(events, self._policies.__getitem__)
        if find_applied_policies(events):
            self._policies = {self._scope.policy_hash: self._policy}
            self._evidence = None  # units are compared under the policy in force

    @property
    def _policy(self) -> Policy:
        return self._policies[self._scope.policy_hash]

    # Proposals

    def _check_proposals(self, events: TickEvents, slot: int) -> Iterator[str]:
        for event in select_events(events, ProposalRaised):
            if event.cell is not None:
                scope = apply_events(events[: events.index(event)], self._scope)
                reading = self._read_gate(event, event.cell, scope, slot)
                expected = store_readings(self._policy, reading)
                if expected != event.readings:
                    yield (
                        f"proposal {event.proposal} of {event.cell}: its readings are "
                        f"{'; '.join(map(say_reading, event.readings))}; the counted units give "
                        f"{'; '.join(map(say_reading, expected))}"
                    )
                elif event.floors != reading.floors:
                    floors = ", ".join(reading.floors)
                    yield (
                        f"proposal {event.proposal} of {event.cell}: it opens the confidence floors"
                        f" {', '.join(event.floors)}; the counted units give {floors}"
                    )

    def _read_gate(self, event: ProposalRaised, cell: Cell, scope: Scope, slot: int) -> GateReading:
        """Return the reading of a proposal's gate; `scope` has the tick's events before it.

        It is at the proposal's confidence floor, with the floors that are met.
        """
        policy, view = self._policy, self._build_view(cell, event.version, slot)
        stage_level = policy.stage_ids.index(event.to_stage)
        step = WideningStep(stage_level, find_floor_index(policy.evidence, event.confidence_floor))
        at_floor, state = (
            view.get_floor_view(step.floor_index),
            scope.get_cell_state(cell, event.version),
        )
        if event.rules.extends_grant:
            window = at_floor.grant_windows.get(event.to_stage)
            counts = EvidenceCounts() if window is None else window.count_at(slot)
            floors = state.grants[stage_level - 1].floors
            return replace(read_renewal(policy, cell, stage_level, counts), floors=floors)
        attempt = at_floor.attempt_window.count_at(slot)
        entered = (
            attempt if event.rules.replaces_version else at_floor.entered_window.count_at(slot)
        )
        reading = read_gate(policy, cell, stage_level, state.risk_share, attempt, entered)
        floors = list_met_floors(policy, cell, step, state.risk_share, _count_floors(view, slot))
        return replace(reading, floors=floors)

    # Alarms

    def _check_alarms(self, events: TickEvents, slot: int) -> Iterator[str]:
        expected_by_guard: dict[str, list[StoredAlarm | None]] = defaultdict(list)
        for event in events:
            alarm = None if event.narrows else event.alarm
            guard = alarm and self._find_counting_guard(alarm.key[0], alarm.guard)
            if alarm is not None and guard is not None:
                view = self._build_view(*alarm.key, slot)
                view = view.get_floor_view(find_acting_index(self._policy, view.state))
                reading = GuardEvidence(view).compute_series(guard).read_at(slot, self._policy.tick)
                expected = store_alarm(guard, reading) if reading.is_alarm else None
                expected_by_guard[guard.id].append(expected)
                yield from _compare_alarm(alarm, [expected])
        for event in events:  # a guard's narrowings come before its incident, also of other cells
            alarm = event.alarm if event.narrows else None
            if alarm is not None and alarm.guard in expected_by_guard:
                yield from _compare_alarm(alarm, expected_by_guard[alarm.guard])

    def _find_counting_guard(self, cell: Cell, guard_id: str) -> Guard | None:
        """Return a guard of a cell, if it reads counted units and outcomes alone."""
        guards = self._policy.list_guards(cell) if cell in self._policy.cell_set else ()
        guard = next((guard for guard in guards if guard.id == guard_id), None)
        if guard is None or guard.condition.measure.reads_more:
            return None
        return guard

    def _build_view(self, cell: Cell, version: str, slot: int) -> EvidenceView:
        if self._evidence is None:
            definition_levels = self._history.find_equivalent_definitions
            self._evidence = RecountedEvidence(self._state.rollout, self._policy, definition_levels)
        evidence = self._evidence.load(self._transaction, (cell, version), slot)
        return EvidenceView(
            cell=cell,
            version=version,
            rows=evidence.units.get_rows((cell, version)),
            unit_classes=evidence.units.unit_classes,
            policy=self._policy,
            state=self._scope.get_cell_state(cell, version),
            first_seen=self._scope.versions[version].first_seen,
            stage_history=self._history.get_stage_history(cell),
            shares=self._history.stage_shares,
            find_buckets=lambda rows: rows.unit,  # stored units hold their bucket
            feeds=GateFeeds(evidence.outcomes),
            familiar_history=self._history.familiar_histories[cell, version],
        )


def _count_floors(view: EvidenceView, slot: int) -> VersionEvidence:
    """Return the counts of the attempt at each confidence floor."""
    floors = (VersionEvidence(part.attempt_window.count_at(slot)) for part in view.floor_views)
    return VersionEvidence(floors=tuple(floors))


def _compare_alarm(alarm: Alarm, expected: Sequence[StoredAlarm | None]) -> Iterator[str]:
    """Yield a sentence if an alarm has none of the expected counts.

    Names of slices are not compared: an erasure replaces them.
    """
    counts = [part and replace(part, subject=None) for part in expected]
    if any(
        part.suspensions or replace(part, subject=None) in counts for part in alarm.readings[:1]
    ):
        return
    texts = sorted("no alarm" if part is None else say_against(part) for part in expected)
    yield (
        f"alarm of {alarm.guard} in {alarm.key[0]}: it says {say_alarms(alarm.readings)}; the"
        f" counted units give {' or '.join(texts)}"
    )
