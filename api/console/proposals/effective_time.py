"""When an approved proposal takes effect, and what delays it."""

from datetime import datetime

from api.console.page.time_format import format_time_span
from api.console.proposals.proposal_text import APPROVED, OPEN
from rollout.core.calendar.sites import Cell
from rollout.core.scope.proposal_holds import list_proposal_holds
from rollout.reports.text.formatting import format_quantity, format_zoned_time
from rollout.reports.text.state_text import describe_hold
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.proposals.proposal_details import Proposal


def describe_effect(
    state: RolloutState, details: Proposal, at: datetime, *, has_turned: bool = False
) -> str:
    """Describe the effect of the visitor's approval, or what an approved proposal waits for."""
    if has_turned:
        return "It has no effect as the evidence stands now: the next tick voids the proposal."
    hold = describe_proposal_hold(state, details, at)
    if details.state != APPROVED and details.approvals_missing > 1:
        remaining_text = format_quantity(details.approvals_missing - 1, "more approval")
        hold_text = f"; then it waits for the {hold}" if hold else ""
        return f"After yours it needs {remaining_text}{hold_text}."
    prefix = "" if details.state == APPROVED else "Yours is the last approval: it "
    effect = (
        f"waits for the {hold}"
        if hold
        else f"takes effect within {format_time_span(state.policy.tick)}"
    )
    return f"{prefix}{effect}." if prefix else f"It {effect}."


def describe_proposal_hold(state: RolloutState, details: Proposal, at: datetime) -> str:
    """Describe what would delay a proposal now, "" if nothing would.

    An observing policy grants nothing.
    """
    scope = state.scope
    proposal = scope.proposals.get(details.id)
    if proposal is None:
        return ""
    holds = list_proposal_holds(
        scope, state.policy, proposal, at if scope.at is None else max(at, scope.at)
    )
    zone = state.policy.get_timezone(details.site)
    return " and the ".join(
        describe_hold(hold, lambda until: format_zoned_time(until, zone, at)) for hold in holds
    )


def find_grant_end(state: RolloutState, details: Proposal) -> datetime | None:
    """Return when a pending renewal's grant ends, if that is before the proposal closes."""
    if not details.rules.extends_grant or details.state not in {OPEN, APPROVED}:
        return None
    cell_state = state.scope.get_cell_state(Cell(details.site, details.window), details.version)
    ends = [grant.until for grant in cell_state.grants if grant.stage == details.to]
    return min((end for end in ends if end < details.expires_at), default=None)
