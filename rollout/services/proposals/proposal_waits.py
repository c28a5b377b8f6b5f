"""What an approved proposal waits for, and until when."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.scope.proposal_holds import ProposalHold, list_proposal_holds
from rollout.core.scope.scope import ProposalState
from rollout.reports.text.formatting import format_zoned_time
from rollout.reports.text.state_text import TICK, describe_hold
from rollout.services.engine.rollout_state import RolloutState
from rollout.tally.slots import find_slot_after, to_instant


@dataclass(frozen=True, slots=True)
class ProposalWait:
    """A reason why an approved proposal is not applied yet.

    Attributes:
        reason: tick, observing, stop, freeze, start, alarm, wave or settling.
        text: what it waits for, in words.
        until: when the reason ends if nothing changes; None if that is not known. The first tick
            from then on applies the proposal.
    """

    reason: str
    text: str
    until: datetime | None


def list_proposal_waits(
    state: RolloutState, proposal_id: str, at: datetime
) -> tuple[ProposalWait, ...]:
    """Return what an approved proposal waits for; () for any other proposal."""
    proposal = state.scope.proposals.get(proposal_id)
    if proposal is None or not proposal.is_approved:
        return ()
    zone = state.policy.timezone if proposal.cell is None else _find_zone(state, proposal)

    def format_time(instant: datetime) -> str:
        return format_zoned_time(instant, zone, at)

    return tuple(
        ProposalWait(hold.kind, describe_hold(hold, format_time), hold.until)
        for hold in list_holds_or_tick(state, proposal, at)
    )


def _find_zone(state: RolloutState, proposal: ProposalState) -> str:
    assert proposal.cell is not None  # noqa: S101 - asked before
    return state.policy.get_timezone(proposal.cell.site)


def list_holds_or_tick(
    state: RolloutState, proposal: ProposalState, at: datetime
) -> tuple[ProposalHold, ...]:
    """Return all that holds a proposal back, or the next tick if nothing does."""
    scope_at = at if state.scope.at is None else max(at, state.scope.at)
    holds = list_proposal_holds(state.scope, state.policy, proposal, scope_at)
    tick = state.policy.tick
    next_tick = to_instant(find_slot_after(at + timedelta(microseconds=1), tick), tick)
    return holds or (ProposalHold(TICK, "", next_tick),)
