"""Whose turn it is: the open proposals to which a yes of somebody's would count now."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from rollout.core.errors import Refusal
from rollout.core.scope.commands import Approve
from rollout.core.scope.decider import decide
from rollout.core.scope.permissions import APPROVER, OPERATOR, Act, Caller
from rollout.core.scope.scope import Proposal
from rollout.reports.text.formatting import listed, several
from rollout.services.access.access_state import caller_of
from rollout.services.engine.rollout_state import Standing
from rollout.services.proposals.proposal_details import sites_of
from rollout.store.access.users import People
from rollout.store.database.session import Transaction


def waiting_for(stood: Standing, caller: Caller, *, at: datetime) -> tuple[Proposal, ...]:
    """Return the proposals that wait for a caller, what closes first before the others.

    The core decides, as it will when they approve; nothing is read but what is in memory.
    """
    pending_proposals = [
        proposal
        for proposal in stood.scope.proposals.values()
        if _counts(stood, caller, proposal, at)
    ]
    return tuple(sorted(pending_proposals, key=lambda proposal: (proposal.expires_at, proposal.id)))


def _counts(stood: Standing, caller: Caller, proposal: Proposal, at: datetime) -> bool:
    rollout_name, sites = stood.rollout.name, sites_of(stood, proposal.id)
    if proposal.approved or not all(
        caller.may(Act.APPROVE, rollout_name, site) for site in sites or ("",)
    ):
        return False
    by = caller.person(rollout_name, sites)
    command = Approve(at=at, by=by, proposal=proposal.id, evidence=proposal.evidence)
    try:
        return bool(decide(command, stood.scope, stood.policy))
    except Refusal:
        return False


NAMED = 6  # of more names the rest are counted


def people_here(transaction: Transaction) -> tuple[Caller, ...] | None:
    """Return the people who may sign in, with their rights; None while nobody was ever added.

    Machines are not among them: they approve nothing.
    """
    users = People(transaction)
    all_users, roles_by_user = users.all(), users.all_rights()
    if not all_users:
        return None
    active_users = (user for user in all_users if not user.machine and user.disabled_at is None)
    return tuple(
        caller_of(user, tuple(roles_by_user.get(user.number, ())), None) for user in active_users
    )


def needs_text(needs: Sequence[str]) -> str:
    """Say whom a proposal asks.

    >>> needs_text(("operator", "operator")), needs_text(("operator", "safety"))
    ('2 operators', '1 operator and 1 of safety')
    """
    return listed(list(counted_needs(needs)))


def counted_needs(needs: Sequence[str]) -> tuple[str, ...]:
    """Return how many of which group are asked, () for nobody."""
    group_counts = Counter(needs).items()
    return tuple(
        several(count, group) if group == OPERATOR else f"{count} of {group}"
        for group, count in group_counts
    )


def giving(missing: Sequence[str], more: str = " more") -> str:
    """Say which roles are to be given to whom.

    >>> giving(("operator",)), giving(("operator", "operator", "safety"))
    ('give 1 more person the role operator', 'give 2 more people the role operator and 1 more person the role approver of safety')
    """  # noqa: E501 - a doctest's answer stands in one line
    group_counts = Counter(missing).items()
    roles = [
        f"{count}{more} {'person' if count == 1 else 'people'} the role {_role(group)}"
        for group, count in group_counts
    ]
    return f"give {listed(roles)}"


def at_text(sites: Sequence[str]) -> str:
    """Say where, after a word.

    >>> at_text(("creek", "lake"))
    ' at creek and lake'
    """
    return f" at {some(sites)}"


def some(names: Sequence[str]) -> str:
    """Say a few names, and how many more there are.

    >>> some(("bo", "cy")), some("abcdefgh")
    ('bo and cy', 'a, b, c, d, e, f and 2 more')
    """
    more_texts = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return listed([*names[:NAMED], *more_texts])


def _role(group: str) -> str:
    return group if group == OPERATOR else f"{APPROVER} of {group}"
