"""Which slots matter: the ones in which a decision could return anything.

Between them every reading is the same and nobody has asked for anything, so `decide` is called
only there. A property test holds the ledgers with and without it equal.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from rollout.core.calendar.sites import Cell
from rollout.core.calendar.timezones import end_of_local_day
from rollout.core.policy.policy import Policy
from rollout.core.scope.proposals import is_challenger, renewal_starts
from rollout.core.scope.scope import CellState, Proposal, Scope, held_rung
from rollout.core.scope.waves import wave_holds
from rollout.tally.evidence_view import Sight
from rollout.tally.slots import instant, slot_after


class Interest(NamedTuple):
    """When a cell's evidence next matters. `waits`: a wave holds it, so other cells decide."""

    at: int | None
    waits: bool = False


def interest(sight: Sight, scope: Scope, slot: int) -> Interest:
    """Return the first slot from `slot` on in which something may follow from the cell's evidence.

    `at` None: nothing ever, as things stand. An idle slot costs time, no more.
    """
    state = scope.state(sight.cell, sight.version)
    if state.suspended_by or state.reported:
        return Interest(slot)
    slots = [series.next_alarm(slot) for series in sight.guard_paths.values()]
    is_held = False
    if state.proposal is not None:
        slots.append(_of_proposal(sight, scope.proposals[state.proposal], slot))
    else:
        raising_slots, is_held = _of_gates(sight, scope, state, slot)
        slots += raising_slots
    return Interest(
        min((found_slot for found_slot in slots if found_slot is not None), default=None), is_held
    )


def _of_proposal(sight: Sight, proposal: Proposal, slot: int) -> int | None:
    """Return where an open proposal may be applied or void: every slot, once it is approved."""
    if proposal.approved and not sight.policy.observe:
        return slot
    stage_level = sight.policy.rungs.index(proposal.to)
    if proposal.kind == "renewal":
        series = sight.renewal_path(stage_level)
    else:
        minimum_window = sight.attempt if proposal.kind == "takeover" else sight.entered
        series = sight.gate_path(stage_level, minimum_window)
    return series.next(series.turned, slot)


def _of_gates(
    sight: Sight, scope: Scope, state: CellState, slot: int
) -> tuple[list[int | None], bool]:
    """Return where something may be raised (renewal, widening, takeover), and if a wave holds."""
    version = scope.versions[sight.version]
    if version.retired or scope.stopped(sight.cell):
        return [], False
    if state.quiet_until is not None:
        slot = max(slot, slot_after(state.quiet_until, sight.policy.tick))
    holder = scope.holder(sight.cell)
    if holder is not None and holder != sight.version:
        can_take_over = is_challenger(scope, sight.version, holder)
        return ([_takeover(sight, scope, holder, slot)] if can_take_over else []), False
    widening, is_held = _widening(sight, scope, state, slot)
    return [*_renewals(sight, state, slot), widening], is_held


def _takeover(sight: Sight, scope: Scope, holder: str, slot: int) -> int | None:
    policy, at = sight.policy, instant(slot, sight.policy.tick)
    stage_level = held_rung(policy, scope.state(sight.cell, holder), at)
    if stage_level == 0 or policy.gate(stage_level, sight.cell) is None:
        return None
    series = sight.gate_path(stage_level, sight.attempt)
    return series.next(series.met, slot)


def _widening(sight: Sight, scope: Scope, state: CellState, slot: int) -> tuple[int | None, bool]:
    policy, at = sight.policy, instant(slot, sight.policy.tick)
    stage_level = held_rung(policy, state, at) + 1
    if stage_level > policy.ceiling(sight.cell, at) or policy.gate(stage_level, sight.cell) is None:
        return None, False
    series = sight.gate_path(stage_level, sight.entered)
    met_slot = series.next(series.met, slot)
    if met_slot == slot and wave_holds(scope, policy, sight.cell, stage_level, at):
        return None, True  # an event or a wave that ripens opens it: both are slots of their own
    return met_slot, False


def _renewals(sight: Sight, state: CellState, slot: int) -> Iterator[int | None]:
    policy, at = sight.policy, instant(slot, sight.policy.tick)
    for stage_level in range(1, held_rung(policy, state, at) + 1):
        if policy.gate(stage_level, sight.cell) is not None:
            series = sight.renewal_path(stage_level)
            renewal_slot = slot_after(renewal_starts(policy, state, stage_level), policy.tick)
            yield series.next(series.met, max(slot, renewal_slot))


def ending_slots(policy: Policy) -> tuple[int, ...]:
    """Return the slots in which a limit ends a trial, of all cells."""
    end_slots = {
        slot_after(end_of_local_day(site, limit.ends), policy.tick)
        for limit in policy.limits
        if limit.ends is not None
        for site in policy.sites
    }
    return tuple(sorted(end_slots))


def timed_slots(scope: Scope, policy: Policy, cell: Cell, version: str) -> Iterator[int]:
    """Yield the slots in which time alone brings something to a cell: ends, ripe waves."""
    state = scope.state(cell, version)
    for at in _times(scope, state, policy):
        yield slot_after(at, policy.tick)


def _times(scope: Scope, state: CellState, policy: Policy) -> Iterator[datetime]:
    if state.proposal is not None:
        yield scope.proposals[state.proposal].expires_at
    for grant in state.grants:
        yield grant.until
        if policy.waves is not None and grant.stage == policy.waves.stage:
            yield grant.held_since + policy.waves.hold
