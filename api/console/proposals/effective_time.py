"""When an approved proposal takes effect, and what delays it."""

from datetime import datetime

from api.console.page.time_format import format_time_span
from api.console.proposals.proposal_text import (
    APPROVED,
    CLOCK,
    POLICY,
    RENEWAL,
    RESUME,
    RULES,
    WIDENING,
)
from rollout.core.calendar.sites import Cell
from rollout.core.scope.proposals import has_alarm
from rollout.core.scope.waves import find_wave_hold, is_settling
from rollout.reports.text.formatting import format_quantity
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.proposals.proposal_details import Proposal


def describe_effect(
    state: RolloutState, details: Proposal, at: datetime, *, has_turned: bool = False
) -> str:
    """Describe the effect of the visitor's approval, or what an approved proposal waits for."""
    if has_turned:
        return "It has no effect as the evidence stands now: the next tick voids the proposal."
    hold = describe_hold(state, details, at)
    if details.state != APPROVED and details.approvals_missing > 1:
        remaining_text = format_quantity(details.approvals_missing - 1, "more approval")
        hold_text = f"; then it waits for the {hold}" if hold else ""
        return f"After yours it needs {remaining_text}{hold_text}."
    prefix = "" if details.state == APPROVED else "Yours is the last approval: it "
    effect = f"waits for the {hold}" if hold else f"takes effect {_describe_delay(state, details)}"
    return f"{prefix}{effect}." if prefix else f"It {effect}."


def _describe_delay(state: RolloutState, details: Proposal) -> str:
    if details.kind in {CLOCK, RULES}:
        return "at once"
    return f"within {format_time_span(state.policy.tick)}"


def describe_hold(state: RolloutState, details: Proposal, at: datetime) -> str:
    """Describe what would delay a proposal now, "" if nothing would.

    An observing policy grants nothing.
    """
    policy, scope = state.policy, state.scope
    at = at if scope.at is None else max(at, scope.at)
    if details.kind in {CLOCK, POLICY, RULES}:
        return ""
    if policy.observe and details.kind != RESUME:
        return "end of observing: this policy grants nothing"
    for cell in _list_cells(state, details):
        if (freeze := policy.find_freeze(cell, at)) is not None:
            return f"end of the freeze ({freeze.reason})"
    if details.kind == RESUME:
        return ""
    return _describe_cell_hold(state, details, Cell(details.site, details.window), at)


def _describe_cell_hold(state: RolloutState, details: Proposal, cell: Cell, at: datetime) -> str:
    policy, scope = state.policy, state.scope
    if cell not in policy.cell_set or details.to not in policy.stage_ids:
        return ""
    if scope.is_stopped(cell):
        return "resume of the stop that holds the cell"
    if has_alarm(scope, cell, details.version):
        return "end of a guard's alarm there"
    if details.kind == RENEWAL:
        return ""
    wave = find_wave_hold(scope, policy, cell, policy.stage_ids.index(details.to), at)
    if details.kind == WIDENING and wave is not None:
        return f"wave before it ({wave})"
    return "recently widened cells to settle" if is_settling(scope, policy, at) else ""


def _list_cells(state: RolloutState, details: Proposal) -> list[Cell]:
    """Return the proposal's cells that the policy contains."""
    stop = state.scope.stops.get(details.about)
    cells = stop.cells if details.kind == RESUME and stop else {Cell(details.site, details.window)}
    return sorted(cells & state.policy.cell_set)
