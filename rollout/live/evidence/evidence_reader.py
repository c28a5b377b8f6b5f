"""Evidence of some cells for pages and commands, read from the store.

It is cached, so that a read costs only what is new since the last one.

Stored snapshots of counted evidence: restored by a process, and compared by `rollout doctor`.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import islice
from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from rollout.data.counting.counted_outcomes import LINES_PER_READ, CountedOutcomes
from rollout.data.counting.counted_units import CountedUnits
from rollout.data.database.rollouts import PolicyTexts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.evidence_snapshots import EvidenceSnapshots, EvidenceStore
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.guards import foresee_attempt
from rollout.engine.decide.scope import CellState
from rollout.engine.events import LedgerEvent, PolicyApplied, find_applied_policies
from rollout.engine.evidence.evidence_view import EvidenceView, read_fresh_evidence
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer, OutcomeUnits
from rollout.engine.evidence.site_series import EMPTY_VOTES, NO_SIGNS, SiteSigns, SiteVotes
from rollout.engine.evidence.slots import find_slot_before
from rollout.engine.evidence.stored_units import FirstValues, NewCellValue, StoredUnits
from rollout.engine.evidence.unit_arrays import BoolArray, IntArray
from rollout.engine.evidence.unit_buffer import BufferDigests, UnitBuffer, restore_buffers
from rollout.engine.ledger.ledger import parse_event
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.gates import FreshEvidence
from rollout.kernel.policy.policy import Guard
from rollout.kernel.units import OutcomeRule
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
    snapshots = EvidenceSnapshots(transaction, state.rollout)
    snapshot = snapshots.load(until=state.scope.revision)
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


_NO_SLOTS: IntArray = np.empty(0, dtype=np.int64)


class GateFeeds:
    """Guard feeds with counted outcomes and without other records."""

    last_slot = 0

    def __init__(self, outcomes: OutcomeBuffer) -> None:
        self._outcomes = outcomes

    def read_outcomes(self, cell: Cell, version: str, outcome: OutcomeRule) -> OutcomeUnits:
        """Return a version's counted units in a cell with the value of an outcome."""
        return self._outcomes.read_outcomes(cell, version, outcome)

    def read_answers(
        self, _cell: Cell, _version: str, _guard: Guard
    ) -> tuple[IntArray, IntArray, BoolArray]:
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
    units = FreshUnitReader(database.begin_read, state, reader.history, slot)
    return read_fresh_evidence(view, slot, units.read_units((cell, version)))
