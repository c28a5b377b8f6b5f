"""Slots in which a decision could return events, and each cell's next one; a replay skips others.

A property test compares the ledgers with and without skipping.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import NamedTuple

from rollout.engine.decide.incident_kinds import UNFAMILIAR
from rollout.engine.decide.incidents import has_room
from rollout.engine.decide.proposals import compute_renewal_start, is_challenger
from rollout.engine.decide.scope import CellState, ProposalState, Scope, compute_held_level
from rollout.engine.decide.widening_steps import (
    compute_held_since,
    find_acting_index,
    find_wave_hold,
    list_widening_steps,
)
from rollout.engine.events import LedgerEvent, Reach
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.kernel.calendar.instants import (
    Cell,
    CellVersion,
    compute_end_of_local_day,
    find_slot_after,
    find_slot_before,
    to_instant,
)
from rollout.kernel.policy.cell_evidence import find_floor_index
from rollout.kernel.policy.policy import Policy


class SlotInterest(NamedTuple):
    """When a cell's evidence next matters, and whether a wave holds the cell."""

    slot: int | None
    is_held_by_wave: bool = False


def find_interest(view: EvidenceView, scope: Scope, slot: int) -> SlotInterest:
    """Return the next slot in which the cell's evidence may lead to events.

    `slot` is None if no later slot can. A superfluous slot only costs time.
    """
    state = scope.get_cell_state(view.cell, view.version)
    if state.suspended_by or state.reported_guards:
        return SlotInterest(slot)
    beginning_slot = _find_beginning_slot(view, scope, state, slot)
    if beginning_slot == slot:  # all else is read again once the attempt has its risk
        return SlotInterest(slot)
    slots = [series.find_next_alarm(slot) for series in view.guard_series.values()]
    slots += [
        beginning_slot,
        _find_familiarity_slot(view, scope, slot),
    ]
    is_held = False
    if state.proposal is not None:
        slots.append(_find_proposal_slot(view, scope.proposals[state.proposal], slot))
    else:
        raising_slots, is_held = _find_gate_slots(view, scope, state, slot)
        slots += raising_slots
    return SlotInterest(min((s for s in slots if s is not None), default=None), is_held)


def _find_beginning_slot(
    view: EvidenceView, scope: Scope, state: CellState, slot: int
) -> int | None:
    """Return when an attempt that has not begun counts its first unit."""
    if state.has_begun or scope.versions[view.version].retired:
        return None
    if view.attempt_window.has_judged_unit(slot):
        return slot
    first_slot = view.attempt_window.find_first_evidence()
    return None if first_slot is None else max(slot, first_slot)


def _find_familiarity_slot(view: EvidenceView, scope: Scope, slot: int) -> int | None:
    """Return when the status of an attribute value is to be recorded."""
    if view.value_series is None or scope.versions[view.version].retired:
        return None
    values = scope.get_cell_values(view.cell, view.version)
    is_acting = scope.get_holder(view.cell) == view.version
    return view.value_series.find_next_change(
        slot,
        values.statuses,
        values.reported,
        is_acting=is_acting,
        has_room=has_room(scope, UNFAMILIAR.name, view.cell),
    )


def _find_proposal_slot(view: EvidenceView, proposal: ProposalState, slot: int) -> int | None:
    """Return when an open proposal may be applied or voided.

    An approved one is evaluated in every slot.
    """
    if proposal.is_approved and not view.policy.observe:
        return slot
    stage_level = view.policy.stage_ids.index(proposal.to)
    floor = next(iter(proposal.floors), "")
    view = view.get_floor_view(find_floor_index(view.policy.evidence, floor))
    if proposal.rules.extends_grant:
        series = view.get_renewal_series(stage_level)
    else:
        minimum_window = (
            view.attempt_window if proposal.rules.replaces_version else view.entered_window
        )
        series = view.get_gate_series(stage_level, minimum_window)
    # a slot of the cell's times in any case; what comes after it is never asked for
    expiry_slot = find_slot_after(proposal.expires_at, view.policy.tick)
    return series.turned.find_next(slot, None if expiry_slot < slot else expiry_slot)


def _find_gate_slots(
    view: EvidenceView, scope: Scope, state: CellState, slot: int
) -> tuple[list[int | None], bool]:
    """Return slots of possible proposals, and whether a wave holds the cell."""
    version = scope.versions[view.version]
    if version.retired or scope.is_stopped(view.cell):
        return [], False
    if state.quiet_until is not None:
        slot = max(slot, find_slot_before(state.quiet_until, view.policy.tick))
    holder = scope.get_holder(view.cell)
    if holder is not None and holder != view.version:
        can_take_over = is_challenger(scope, view.version, holder)
        return ([_find_takeover_slot(view, scope, holder, slot)] if can_take_over else []), False
    widening, is_held = _find_widening_slot(view, scope, state, slot)
    return [*_list_renewal_slots(view, scope, state, slot), widening], is_held


def _find_earliest_pass(scope: Scope, policy: Policy, slot: int) -> datetime:
    """Return when a slot is decided at the earliest; grants may begin after the slot did."""
    slot_start = to_instant(slot, policy.tick)
    return slot_start if scope.at is None else max(slot_start, scope.at)


def _find_takeover_slot(view: EvidenceView, scope: Scope, holder: str, slot: int) -> int | None:
    policy, at = view.policy, _find_earliest_pass(scope, view.policy, slot)
    holder_state = scope.get_cell_state(view.cell, holder)
    stage_level = compute_held_level(policy, holder_state, at)
    view = view.get_floor_view(find_acting_index(policy, holder_state))
    if stage_level == 0 or policy.find_gate(stage_level, view.cell) is None:
        return None
    return view.get_gate_series(stage_level, view.attempt_window).met.find_next(slot)


def _find_widening_slot(
    view: EvidenceView, scope: Scope, state: CellState, slot: int
) -> tuple[int | None, bool]:
    """Return the first slot of any widening, and whether a wave holds one of them."""
    at = _find_earliest_pass(scope, view.policy, slot)
    step_slots = [
        _find_step_slot(view.get_floor_view(step.floor_index), scope, step.stage_level, slot)
        for step in list_widening_steps(view.policy, state, at)
    ]
    slots = (step_slot for step_slot, _ in step_slots if step_slot is not None)
    return min(slots, default=None), any(is_held for _, is_held in step_slots)


def _find_step_slot(
    view: EvidenceView, scope: Scope, stage_level: int, slot: int
) -> tuple[int | None, bool]:
    policy, at = view.policy, _find_earliest_pass(scope, view.policy, slot)
    if stage_level > policy.compute_ceiling(view.cell, at):
        return None, False
    gate = policy.find_gate(stage_level, view.cell)
    if gate is None or len(view.rows.gate.slot) < gate.minimum.units:
        return None, False  # no series of fewer rows meets the minimum
    met_slot = view.get_gate_series(stage_level, view.entered_window).met.find_next(slot)
    next_at = at + policy.tick  # a wave may open between the slot and its pass
    if met_slot == slot and all(
        find_wave_hold(scope, policy, view.cell, stage_level, t) for t in (at, next_at)
    ):
        return None, True  # the slot that opens the wave is listed itself
    return met_slot, False


def _list_renewal_slots(
    view: EvidenceView, scope: Scope, state: CellState, slot: int
) -> Iterator[int | None]:
    policy, at = view.policy, _find_earliest_pass(scope, view.policy, slot)
    for stage_level in range(1, compute_held_level(policy, state, at) + 1):
        if policy.find_gate(stage_level, view.cell) is not None:
            floor = next(iter(state.grants[stage_level - 1].floors), "")
            floor_view = view.get_floor_view(find_floor_index(policy.evidence, floor))
            series = floor_view.get_renewal_series(stage_level)
            renewal_slot = find_slot_before(
                compute_renewal_start(policy, state, stage_level), policy.tick
            )
            yield series.met.find_next(max(slot, renewal_slot))


def list_limit_slots(policy: Policy) -> tuple[int, ...]:
    """Return the slots in which a limit ends a trial, of all cells."""
    times = tuple(_list_limit_times(policy))
    return tuple(sorted({slot for at in times for slot in _list_slots_around(at, policy)}))


def _list_slots_around(at: datetime, policy: Policy) -> tuple[int, int]:
    """Return the slots whose passes may be the first after an instant."""
    return find_slot_before(at, policy.tick), find_slot_after(at, policy.tick)


def _list_limit_times(policy: Policy) -> Iterator[datetime]:
    for limit in policy.limits:
        for site in policy.sites:
            if limit.ends is not None:
                yield compute_end_of_local_day(site, limit.ends)


def list_timed_slots(scope: Scope, policy: Policy, cell: Cell, version: str) -> Iterator[int]:
    """Yield the slots in which time alone changes a cell: ends, ready waves."""
    state = scope.get_cell_state(cell, version)
    for at in _list_change_times(scope, cell, state, policy):
        yield from _list_slots_around(at, policy)


def _list_change_times(
    scope: Scope, cell: Cell, state: CellState, policy: Policy
) -> Iterator[datetime]:
    if state.proposal is not None:
        yield scope.proposals[state.proposal].expires_at
    for grant in state.grants:
        yield grant.until
        if policy.waves is not None and grant.stage == policy.waves.stage:
            yield compute_held_since(scope, cell, grant) + policy.waves.hold


NEVER_SLOT = 2**62


class Agenda:
    """Next slots of interest by cell and version.

    `find_next_slot` returns when a key's evidence next matters, from a scope and a slot on.
    """

    def __init__(
        self, policy: Policy, find_next_slot: Callable[[CellVersion, Scope, int], SlotInterest]
    ) -> None:
        self._policy, self._find_next_slot = policy, find_next_slot
        self._limit_slots = list_limit_slots(policy)
        self._evidence_slots: dict[CellVersion, int] = {}
        self._time_slots: dict[CellVersion, int] = {}
        self._held_keys: set[CellVersion] = set()
        self._keys_by_cell: dict[Cell, list[CellVersion]] = {}
        self._cells_by_proposal: dict[str, tuple[Cell, ...]] = {}

    def add_keys(self, keys: Iterable[CellVersion]) -> None:
        """Add cells and versions; known ones stay unchanged."""
        for key in keys:
            if key in self._evidence_slots:
                continue
            self._keys_by_cell.setdefault(key[0], []).append(key)
            self._forget_key(key)

    def apply_events(self, events: Iterable[LedgerEvent]) -> set[Cell]:
        """Reset the cells that the events changed, and return them."""
        event_list = tuple(events)
        cells = {cell for event in event_list for cell in self._find_cells(event)}
        if any(event.agenda_reach is Reach.ALL for event in event_list):
            cells |= set(self._keys_by_cell)
        for cell in cells:
            self.forget_cell(cell)
        return cells

    @property
    def held_keys(self) -> AbstractSet[CellVersion]:
        """Return the cells and versions that a wave holds.

        They are evaluated in every slot.
        """
        return self._held_keys

    def get_keys(self, cell: Cell) -> Sequence[CellVersion]:
        """Return the versions known in a cell."""
        return self._keys_by_cell.get(cell, ())

    def forget_cell(self, cell: Cell) -> None:
        """Reset the next slots of the cell's versions."""
        for key in self._keys_by_cell.get(cell, ()):
            self._forget_key(key)

    def _find_cells(self, event: LedgerEvent) -> tuple[Cell, ...]:
        """Return the cells of an event, also by its proposal."""
        if event.agenda_reach is not Reach.OWN:
            return ()
        cells = event.list_cells()
        if event.raises_proposal:
            self._cells_by_proposal[event.about_proposal] = cells
        return cells or self._cells_by_proposal.get(event.about_proposal, ())

    def _forget_key(self, key: CellVersion) -> None:
        self._evidence_slots[key] = self._time_slots[key] = -NEVER_SLOT

    def find_next_slot(self, scope: Scope, slot: int) -> int:
        """Return the first slot from `slot` on that may lead to events."""
        self._update_slots(scope, slot)
        next_limit = next(
            (limit_slot for limit_slot in self._limit_slots if limit_slot >= slot), NEVER_SLOT
        )
        return min(
            (next_limit, *self._evidence_slots.values(), *self._time_slots.values()),
            default=NEVER_SLOT,
        )

    def list_due_cells(self, scope: Scope, slot: int) -> set[Cell]:
        """Return the cells in which this slot may lead to events."""
        self._update_slots(scope, slot)
        if slot in self._limit_slots:
            return set(self._keys_by_cell)
        slot_tables = (self._evidence_slots, self._time_slots)
        return {
            key[0] for table in slot_tables for key, key_slot in table.items() if key_slot == slot
        }

    def find_affected_cells(
        self, events: Iterable[LedgerEvent], scope: Scope, slot: int
    ) -> set[Cell]:
        """Return the cells that this slot's events affect in the same slot.

        A guard may reach other cells, an applied proposal may open a wave, and the end of a stop
        names no cells.

        Args:
            events: what was decided so far.
            scope: the scope after these events.
            slot: the slot that is being decided.
        """
        event_list = tuple(events)
        cells = {cell for event in event_list for cell in self._find_cells(event)}
        if any(event.ends_stop for event in event_list):
            cells |= set(self._keys_by_cell)  # stopped cells may continue in the same slot
        released_keys = (
            key for key in self._held_keys if self._find_next_slot(key, scope, slot).slot == slot
        )
        return cells.union(cell for cell, _ in released_keys)

    def _update_slots(self, scope: Scope, slot: int) -> None:
        # keys that wait are passed over without hashing them: slots times cells are many
        passed_keys = [key for key, key_slot in self._evidence_slots.items() if key_slot < slot]
        for key in self._held_keys.union(passed_keys) if self._held_keys else passed_keys:
            self._update_evidence_slot(key, scope, slot)
        for key in [key for key, key_slot in self._time_slots.items() if key_slot < slot]:
            times = list_timed_slots(scope, self._policy, *key)
            self._time_slots[key] = min(
                (timed_slot for timed_slot in times if timed_slot >= slot), default=NEVER_SLOT
            )

    def _update_evidence_slot(self, key: CellVersion, scope: Scope, slot: int) -> None:
        next_slot = self._find_next_slot(key, scope, slot)
        self._evidence_slots[key] = NEVER_SLOT if next_slot.slot is None else next_slot.slot
        (self._held_keys.add if next_slot.is_held_by_wave else self._held_keys.discard)(key)
