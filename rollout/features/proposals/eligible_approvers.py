"""Open proposals that a user can approve, and texts about missing approvers."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime

from rollout.data.access.users import SecondFactors, Users
from rollout.data.database.session import Transaction
from rollout.engine.decide.commands import ApproveProposal
from rollout.engine.decide.decider import decide
from rollout.engine.decide.permissions import APPROVER, OPERATOR, Caller, Permission
from rollout.engine.decide.scope import ProposalState
from rollout.engine.words.formatting import format_quantity, join_words
from rollout.features.access.access_state import build_caller
from rollout.features.access.credential_resets import NO_LIMITS, load_approval_limits
from rollout.kernel.errors import RefusalError
from rollout.live.rollout_state import RolloutState


def find_proposal_sites(state: RolloutState, proposal_id: str) -> tuple[str, ...]:
    """Return the sites of an open proposal; () for any other id.

    A policy proposal concerns all sites of the old and the new policy.
    """
    proposal = state.scope.proposals.get(proposal_id)
    if proposal is None:
        return ()
    if proposal.cell is not None:
        return (proposal.cell.site,)
    stop = state.scope.stops.get(proposal.about)
    if proposal.rules.ends_stop and stop is not None:
        return tuple(sorted({cell.site for cell in stop.cells}))
    new_policy = state.pending.get(proposal.about)
    return tuple(
        dict.fromkeys((*state.policy.sites_by_id, *(new_policy.sites_by_id if new_policy else ())))
    )


def list_pending_approvals(
    state: RolloutState, caller: Caller, *, at: datetime
) -> tuple[ProposalState, ...]:
    """Return the proposals that the caller can approve, by closing time.

    The core checks each approval as it does on submission; only memory is read.
    """
    pending_proposals = [
        proposal
        for proposal in state.scope.proposals.values()
        if _is_approvable(state, caller, proposal, at)
    ]
    return tuple(sorted(pending_proposals, key=lambda proposal: (proposal.expires_at, proposal.id)))


def _is_approvable(
    state: RolloutState, caller: Caller, proposal: ProposalState, at: datetime
) -> bool:
    rollout_name, sites = state.rollout.name, find_proposal_sites(state, proposal.id)
    needs_nobody = proposal.is_approved and not proposal.unconfirmed
    if needs_nobody or not all(
        caller.has_permission(Permission.APPROVE, rollout_name, site) for site in sites or ("",)
    ):
        return False
    by = caller.as_actor(rollout_name, sites)
    command = ApproveProposal(
        at=at, by=by, proposal=proposal.id, evidence_hash=proposal.evidence_hash
    )
    try:
        return bool(decide(command, state.scope, state.policy))
    except RefusalError:
        return False


MAX_LISTED_NAMES = 6  # further names are counted


def load_present_approvers(
    transaction: Transaction, *, at: datetime, requires_second_factor: bool = False
) -> tuple[Caller, ...] | None:
    """Return the users whose approvals count at a time, with their permissions.

    Excluded are service accounts, disabled users and those whose approvals pause after a reset;
    with `requires_second_factor` also users who have none and no identity provider that may ask for
    one. Returns None before the first user is added.
    """
    users, limits = Users(transaction), load_approval_limits(transaction)
    all_users, roles_by_user = users.list_all(), users.list_all_role_assignments()
    if not all_users:
        return None
    able_users: Collection[int] = {user.number for user in all_users}
    if requires_second_factor:
        able_users = {*SecondFactors(transaction).list_confirmed(), *users.list_linked()}
    return tuple(
        build_caller(user, tuple(roles_by_user.get(user.number, ())), None)
        for user in all_users
        if not user.is_service_account
        and user.disabled_at is None
        and user.number in able_users
        and not limits.get(user.number, NO_LIMITS).is_paused(at)
    )


def format_needs(required_groups: Sequence[str]) -> str:
    """Format the required groups.

    >>> format_needs(("operator", "operator")), format_needs(("operator", "safety"))
    ('2 operators', '1 operator and 1 of safety')
    """
    return join_words(list(format_group_counts(required_groups)))


def format_group_counts(required_groups: Sequence[str]) -> tuple[str, ...]:
    """Return each group with its number of approvals; () without groups."""
    group_counts = Counter(required_groups).items()
    return tuple(
        format_quantity(count, group) if group == OPERATOR else f"{count} of {group}"
        for group, count in group_counts
    )


def describe_missing_roles(missing_groups: Sequence[str], more_text: str = " more") -> str:
    """Describe which roles to grant to how many more users.

    >>> describe_missing_roles(("operator",))
    'give 1 more user the role operator'
    >>> describe_missing_roles(("operator", "safety"))
    'give 1 more user the role operator and 1 more user the role approver of safety'
    """
    group_counts = Counter(missing_groups).items()
    roles = [
        f"{count}{more_text} {'user' if count == 1 else 'users'} the role {_format_role(group)}"
        for group, count in group_counts
    ]
    return f"give {join_words(roles)}"


def format_sites(sites: Sequence[str]) -> str:
    """Format sites as the end of a phrase.

    >>> format_sites(("creek", "lake"))
    ' at creek and lake'
    """
    return f" at {format_names(sites)}"


def format_names(names: Sequence[str]) -> str:
    """Format the first names and count the others.

    >>> format_names(("bo", "cy")), format_names("abcdefgh")
    ('bo and cy', 'a, b, c, d, e, f and 2 more')
    """
    more_texts = [f"{len(names) - MAX_LISTED_NAMES} more"] if len(names) > MAX_LISTED_NAMES else []
    return join_words([*names[:MAX_LISTED_NAMES], *more_texts])


def _format_role(group: str) -> str:
    return group if group == OPERATOR else f"{APPROVER} of {group}"
