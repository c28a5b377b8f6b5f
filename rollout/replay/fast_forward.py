"""Slots in which a decision could return events; a replay skips all others.

A property test compares the ledgers with and without skipping.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from rollout.core.calendar.sites import Cell
from rollout.core.calendar.timezones import (
    compute_end_of_local_day,
)
from rollout.core.policy.confidence_floors import find_floor_index
from rollout.core.policy.policy import Policy
from rollout.core.scope.floor_steps import find_acting_index, list_widening_steps
from rollout.core.scope.incident_kinds import UNFAMILIAR
from rollout.core.scope.incidents import has_room
from rollout.core.scope.proposals import compute_renewal_start, is_challenger
from rollout.core.scope.scope import CellState, ProposalState, Scope, compute_held_level
from rollout.core.scope.waves import compute_held_since, find_wave_hold
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.slots import find_slot_after, find_slot_before, to_instant


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
