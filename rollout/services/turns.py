"""Whose turn it is: the open proposals to which a yes of somebody's would count now."""

from datetime import datetime

from rollout.core.commands import Approve
from rollout.core.decider import decide
from rollout.core.errors import Refusal
from rollout.core.rights import Act, Caller
from rollout.core.scope import Proposal
from rollout.services.proposal_views import sites_of
from rollout.services.standing import Standing


def waiting_for(stood: Standing, caller: Caller, *, at: datetime) -> tuple[Proposal, ...]:
    """Return the proposals that wait for a caller, what closes first before the others.

    The core decides, as it will when they approve; nothing is read but what is in memory.
    """
    found = [p for p in stood.scope.proposals.values() if _counts(stood, caller, p, at)]
    return tuple(sorted(found, key=lambda p: (p.expires_at, p.id)))


def _counts(stood: Standing, caller: Caller, proposal: Proposal, at: datetime) -> bool:
    name, sites = stood.rollout.name, sites_of(stood, proposal.id)
    if proposal.approved or not all(caller.may(Act.APPROVE, name, site) for site in sites or ("",)):
        return False
    by = caller.person(name, sites)
    asked = Approve(at=at, by=by, proposal=proposal.id, evidence=proposal.evidence)
    try:
        return bool(decide(asked, stood.scope, stood.policy))
    except Refusal:
        return False
