"""What a stop that holds waits for: somebody who asks for its end, others' yes, or its time."""

from dataclasses import dataclass

from api.console.page.page_context import Visitor
from api.console.proposals.effective_time import takes_effect
from api.console.proposals.proposal_text import APPROVED
from rollout.core.scope.permissions import Act
from rollout.reports.text.formatting import sentence
from rollout.services.proposals.approval_permissions import asking, too_few, who_can
from rollout.services.proposals.eligible_approvers import some
from rollout.services.proposals.proposal_details import Proposal, one
from rollout.services.stops.stops import ActiveStop


@dataclass(frozen=True, slots=True)
class WayBack:
    """How a stop ends, to whoever looks.

    Attributes:
        says: what it waits for, "" where it waits for the visitor to ask.
        does: what the link to the resume says, "" where nobody has asked for one.
        may_ask: whether the visitor may ask for one now.
        stuck: whether too few people are there as things stand.
    """

    says: str
    does: str
    may_ask: bool
    stuck: bool


def way_back(visitor: Visitor, rollout: str, held: ActiveStop) -> WayBack:
    """Return how a stop ends."""
    return (
        _asked(visitor, rollout, held) if held.resume_proposal else _unasked(visitor, rollout, held)
    )


def _asked(visitor: Visitor, rollout: str, held: ActiveStop) -> WayBack:
    service, caller = visitor.service, visitor.caller
    details = one(service, caller, rollout, held.resume_proposal, at=visitor.at)
    if details.state == APPROVED:
        state = service.watch.confirmed(rollout).standing
        effect_text = takes_effect(state, details, visitor.at)
        return WayBack(
            f"The resume is approved. {effect_text}", "Read it", may_ask=False, stuck=False
        )
    shortage = too_few(service, caller, rollout, held.resume_proposal)
    wait_reason = shortage or (
        "" if details.can_approve else _waits(who_can(service, caller, rollout, details))
    )
    text = f"A resume was asked for. {sentence(wait_reason) if wait_reason else ''}".rstrip()
    return WayBack(text, _does(details), may_ask=False, stuck=bool(shortage))


def _does(shown: Proposal) -> str:
    return "Read and decide" if shown.can_approve else "Read it"


def _waits(others: tuple[str, ...]) -> str:
    return f"it waits for others: {some(others)} can approve it" if others else ""


def _unasked(visitor: Visitor, rollout: str, held: ActiveStop) -> WayBack:
    sites = sorted({cell.site for cell in held.cells})
    may_ask = all(visitor.may(Act.OPERATE, rollout, site) for site in sites)
    askers = asking(visitor.service, visitor.caller, rollout, held.resume_required_approvals, sites)
    askers_text = f": {some(askers.able)}" if askers.able else ""
    others_text = (
        "" if may_ask else f"Whoever operates all of its sites can ask for a resume{askers_text}. "
    )
    warning = sentence(askers.warns) if askers.warns else ""
    return WayBack(f"{others_text}{warning}".rstrip(), "", may_ask, stuck=bool(warning))
