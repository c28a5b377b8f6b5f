"""Evidence of a live rollout, kept in memory from slot to slot.

Only cells in which something may follow are evaluated: those with new units or records, a changed
state, or a due time. Replay skips slots by the same agenda.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial

from rollout.data.counting.counted_outcomes import CountedOutcomes
from rollout.data.counting.counted_units import JustCounted
from rollout.data.database.session import Transaction
from rollout.data.ledger.evidence_snapshots import EvidenceSnapshot
from rollout.engine.decide.commands import Tick
from rollout.engine.decide.decider import decide
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import LedgerEvent
from rollout.engine.evidence.evidence_view import EvidenceView, read_fresh_evidence
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
from rollout.engine.evidence.slots import to_instant
from rollout.engine.evidence.unit_buffer import HeldEvidence, UnitBuffer, encode_buffers
from rollout.engine.slots.engine import CellVersion, SlotReadings, update_view
from rollout.engine.slots.fast_forward import Agenda, SlotInterest, find_interest
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.measures import Watch
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.policy import Policy
from rollout.live.evidence.answered_units import find_answered_units
from rollout.live.evidence.evidence_feeds import LiveGuardFeeds
from rollout.live.evidence.evidence_reader import restore_evidence
from rollout.live.evidence.fresh_units import BeginRead, FreshUnitReader
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.rollout_state import RolloutState

MIN_NEW_ROWS = 10_000  # which a process reads in about 0.1 s
SNAPSHOTS_PER_DOUBLING = 50  # at most about so many are written until the rows double


class LiveEvidence:
    """Evidence under one policy; `history` and `counted` are shared with the ticker."""

    def __init__(
        self, policy: Policy, scope: Scope, history: RolloutHistory, counted: JustCounted
    ) -> None:
        self._policy, self._history, self._counted = policy, history, counted
        self._units = UnitBuffer(policy, history.find_equivalent_definitions)
        self._outcomes = OutcomeBuffer()
        self._feeds = LiveGuardFeeds(self._outcomes)
        self._agenda = Agenda(policy, self._find_interest)
        self._evidence_views: dict[CellVersion, EvidenceView] = {}
        self._last_slot = -1
        self._snapshot_rows = 0
        self._track_keys(
            (key for key, cell_state in scope.cells.items() if cell_state.grants), scope
        )

    def apply_events(self, events: Iterable[LedgerEvent], scope: Scope) -> None:
        """Apply the next events; `scope` already includes them."""
        self._agenda.apply_events(events)
        self._track_keys({*self._units, *self._outcomes.list_keys()}, scope)

    def _track_keys(self, keys: Iterable[CellVersion], scope: Scope) -> None:
        policy_cells = self._policy.cell_set
        self._agenda.add_keys(
            key for key in keys if key[0] in policy_cells and key[1] in scope.versions
        )

    def load_slot(self, transaction: Transaction, state: RolloutState, slot: int) -> None:
        """Load the units up to a slot, and new records for guards."""
        if self._last_slot < 0:
            self._restore_snapshot(transaction, state, slot)
        if self._last_slot < slot:
            self._load_outcomes(CountedOutcomes(transaction, state.rollout), state, slot)
            self._load_counted_units(transaction, state, slot)
        self._invalidate_cells(self._history.advance_to(slot - 1, state.scope))
        at = to_instant(slot, self._policy.tick)
        if self._feeds.is_stale(at):
            self._feeds = LiveGuardFeeds(self._outcomes)
        arrival_sites = self._feeds.load_arrivals(transaction, state, at)
        self._invalidate_sites(arrival_sites)
        due_cells = self._agenda.list_due_cells(state.scope, slot)
        silence_sites = self._list_silence_sites(state.scope, due_cells, arrival_sites)
        self._invalidate_sites(self._feeds.load_heartbeats(transaction, state, silence_sites))

    def _restore_snapshot(self, transaction: Transaction, state: RolloutState, slot: int) -> None:
        self._last_slot = restore_evidence(
            transaction, state, self._units, self._outcomes, until=slot
        )
        self._snapshot_rows = self._units.row_count + self._outcomes.row_count
        self._track_keys({*self._units, *self._outcomes.list_keys()}, state.scope)

    def encode_if_due(self, revision: int) -> EvidenceSnapshot | None:
        """Return a snapshot at a revision, or None while few units are new since the last one."""
        row_count = self._units.row_count + self._outcomes.row_count
        if row_count - self._snapshot_rows < max(MIN_NEW_ROWS, row_count // SNAPSHOTS_PER_DOUBLING):
            return None
        self._snapshot_rows = row_count
        body = encode_buffers(self._units, self._outcomes)
        return EvidenceSnapshot(revision, self._last_slot, body)

    @property
    def memory(self) -> HeldEvidence:
        """Return what is in memory of counted units and outcomes."""
        return HeldEvidence(self._units, self._outcomes, self._last_slot)

    @property
    def feeds(self) -> LiveGuardFeeds:
        """Return what guards read besides decisions."""
        return self._feeds

    def _load_outcomes(self, outcomes: CountedOutcomes, state: RolloutState, slot: int) -> None:
        if self._policy.outcomes:
            lines = outcomes.read_lines(after=self._last_slot, until=slot)
            changed_keys = self._outcomes.add(lines)
            self._track_keys(changed_keys, state.scope)
            self._invalidate_cells(cell for cell, _ in changed_keys)

    def _load_counted_units(self, transaction: Transaction, state: RolloutState, slot: int) -> None:
        for units in self._counted.load_units(
            transaction, state.rollout, after=self._last_slot, until=slot
        ):
            changed_keys = self._units.add(units)
            self._track_keys(changed_keys, state.scope)
            self._invalidate_cells(cell for cell, _ in changed_keys)
        self._last_slot = slot

    def _list_silence_sites(
        self, scope: Scope, due_cells: Collection[Cell], arrival_sites: Collection[str]
    ) -> set[str]:
        """Return the sites whose new signs of life matter in this slot.

        Known signs give the slot in which more are missed; later ones matter then, and when a case
        came, after which signs of life have to go on.
        """
        sites = {cell.site for cell in due_cells if self._has_heartbeat_guard(cell)}
        granted_cells = (cell for (cell, _), cell_state in scope.cells.items() if cell_state.grants)
        watched_sites = {
            cell.site
            for cell in granted_cells
            if cell in self._policy.cell_set and self._has_heartbeat_guard(cell)
        }
        return sites | {
            site
            for site in watched_sites
            if site in arrival_sites or not self._feeds.has_sign_interval(site)
        }

    def _has_heartbeat_guard(self, cell: Cell) -> bool:
        guards = self._policy.list_guards(cell)
        return any(guard.condition.measure.watch is Watch.SIGNS for guard in guards)

    def _invalidate_sites(self, sites: Collection[str]) -> None:
        windows = [window.id for window in self._policy.windows]
        self._invalidate_cells(Cell(site, window) for site in sites for window in windows)

    def _invalidate_cells(self, cells: Iterable[Cell]) -> None:
        cell_set = set(cells)
        for cell in cell_set:
            self._agenda.forget_cell(cell)
        if cell_set:
            self._evidence_views = {
                key: evidence_view
                for key, evidence_view in self._evidence_views.items()
                if key[0] not in cell_set
            }

    def decide_slot(
        self,
        state: RolloutState,
        slot: int,
        now: datetime,
        begin_read: BeginRead,
        *,
        narrow_only: bool,
    ) -> tuple[LedgerEvent, ...]:
        """Return the events of a loaded slot, written at `now`, the time of the pass.

        What is not counted yet is read with `begin_read`, where it matters.
        """
        due_cells = self._agenda.list_due_cells(state.scope, slot)
        fresh_units = FreshUnitReader(begin_read, state, self._history, slot)
        events = self._decide_cells(
            state, slot, now, due_cells, fresh_units, begin_read, narrow_only=narrow_only
        )
        pending_keys = self._agenda.held_keys
        self._evidence_views = {
            key: evidence_view
            for key, evidence_view in self._evidence_views.items()
            if key in pending_keys
        }
        return events

    def _decide_cells(
        self,
        state: RolloutState,
        slot: int,
        at: datetime,
        cells: Collection[Cell],
        fresh_units: FreshUnitReader,
        begin_read: BeginRead,
        *,
        narrow_only: bool,
    ) -> tuple[LedgerEvent, ...]:
        """Evaluate `cells` and every cell affected by the resulting events."""
        keys = sorted(key for cell in cells for key in self._agenda.get_keys(cell))
        views = {key: self._get_evidence_view(key, state.scope) for key in keys}
        evidence = SlotReadings(views, lambda key: views[key].read_evidence(slot))
        slot_start = to_instant(slot, self._policy.tick)
        if narrow_only:
            tick = Tick(at=at, evidence=evidence, slot=slot_start)
            return _decide_narrowing(tick, state.scope, self._policy)
        tick = Tick(
            at=at,
            evidence=evidence,
            fresh=SlotReadings(
                views,
                lambda key: read_fresh_evidence(views[key], slot, fresh_units.read_units(key)),
            ),
            pending_policies=state.pending,
            find_answered=partial(find_answered_units, begin_read, state, at),
            slot=slot_start,
        )
        events = decide(tick, state.scope, self._policy)
        if not events:
            return events
        affected_cells = self._agenda.find_affected_cells(
            events, apply_events(events, state.scope), slot
        )
        if affected_cells.issubset(cells):
            return events
        all_cells = affected_cells.union(cells)
        return self._decide_cells(
            state, slot, at, all_cells, fresh_units, begin_read, narrow_only=False
        )

    def _find_interest(self, key: CellVersion, scope: Scope, slot: int) -> SlotInterest:
        cell_interest = find_interest(self._get_evidence_view(key, scope), scope, slot)
        if cell_interest.slot != slot and not cell_interest.is_held_by_wave:
            del self._evidence_views[key]  # views are large, and this one isn't needed now
        return cell_interest

    def _get_evidence_view(self, key: CellVersion, scope: Scope) -> EvidenceView:
        cell, version = key
        cell_state = scope.get_cell_state(cell, version)
        familiar_history = self._history.familiar_histories[key]
        stage_history = self._history.get_stage_history(cell)
        evidence_view = update_view(
            self._evidence_views.get(key),
            cell_state,
            stage_history,
            familiar_history,
        )
        if evidence_view is None:
            evidence_view = EvidenceView(
                cell=cell,
                version=version,
                rows=self._units.get_rows(key),
                unit_classes=self._units.unit_classes,
                policy=self._policy,
                state=cell_state,
                first_seen=scope.versions[version].first_seen,
                stage_history=stage_history,
                shares=self._history.stage_shares,
                find_buckets=lambda rows: rows.unit,  # stored units hold their bucket
                feeds=self._feeds,
                familiar_history=familiar_history,
            )
        self._evidence_views[key] = evidence_view
        return evidence_view


def _decide_narrowing(tick: Tick, scope: Scope, policy: Policy) -> tuple[LedgerEvent, ...]:
    """Return only events that narrow: alarms, expiries and voided proposals.

    No approval counts, no guard counts as recovered, and no value becomes familiar.
    """
    pessimistic = _PessimisticEvidence(tick.evidence)
    events = decide(replace(tick, evidence=pessimistic, narrow_only=True), scope, policy)
    return tuple(event for event in events if not event.widens)


class _PessimisticEvidence(Mapping[CellVersion, VersionEvidence]):
    """Evidence in which no guard counts as recovered."""

    def __init__(self, evidence: Mapping[CellVersion, VersionEvidence]) -> None:
        self._evidence = evidence

    def __getitem__(self, key: CellVersion) -> VersionEvidence:
        cell_evidence = self._evidence[key]
        guards = {
            guard_id: replace(guard_reading, good_since=None)
            for guard_id, guard_reading in cell_evidence.guards.items()
        }
        return replace(cell_evidence, guards=guards)

    def __iter__(self) -> Iterator[CellVersion]:
        return iter(self._evidence)

    def __len__(self) -> int:
        return len(self._evidence)
