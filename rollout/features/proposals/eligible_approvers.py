"""Open proposals that a user can approve, users who can, and remedies if too few are left."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rollout.data.access.users import SecondFactors, Users
from rollout.data.database.session import Transaction
from rollout.engine.decide.approvals import (
    GroupsByUser,
    exclude_user,
    find_eligible_requesters,
    find_groups,
    find_missing_for_resume,
    find_unfilled_needs,
)
from rollout.engine.decide.commands import ApproveProposal
from rollout.engine.decide.decider import decide
from rollout.engine.decide.permissions import OPERATOR, Caller, Permission, require_permission
from rollout.engine.decide.scope import ProposalState
from rollout.engine.words.approver_warnings import (
    MAX_LISTED_NAMES,
    describe_missing_roles,
    format_names,
    format_needs,
    format_sites,
)
from rollout.features.access.access_state import build_caller
from rollout.features.access.users import NO_LIMITS, load_approval_limits
from rollout.kernel.errors import RefusalError
from rollout.live.rollout_state import RolloutState

if TYPE_CHECKING:
    from rollout.features.proposals.proposal_details import Proposal
    from rollout.live.service import Service


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


@dataclass(frozen=True, slots=True)
class ResumeAskers:
    """Users who can request the end of a stop.

    Attributes:
        asker_names: users whose request leaves enough other approvers, by name.
        warning: what is missing and what to do, for the caller or for all; "" if nothing is.
    """

    asker_names: tuple[str, ...]
    warning: str


def load_eligible_approvers(
    service: "Service", caller: Caller, rollout_name: str, proposal: "Proposal"
) -> tuple[str, ...]:
    """Return the users whose approval would count, by name.

    Excluded are the proposer, users who approved already and disabled users. Returns () for a
    closed
    proposal.

    Raises:
        NotAllowedError: the caller may not read the rollout.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    if proposal.id not in state.scope.proposals:
        return ()
    excluded_names = {proposal.raised_by, *(approval.by for approval in proposal.approvals)}
    with service.database.begin_read() as transaction:
        approvers = _load_approvers(service, transaction) or ()
    groups_by_user = find_groups(
        (approver for approver in approvers if approver.name not in excluded_names),
        rollout_name,
        find_proposal_sites(state, proposal.id),
    )
    return tuple(
        sorted(
            user_name
            for user_name, user_groups in groups_by_user.items()
            if set(user_groups) & set(proposal.groups_missing)
        )
    )


def describe_missing_approvers(
    service: "Service", caller: Caller, rollout_name: str, proposal_id: str
) -> str:
    """Describe the missing approvers of an open proposal; "" if enough are left.

    Raises:
        NotAllowedError: the caller may not read the rollout.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    proposal = state.scope.proposals.get(proposal_id)
    if proposal is None:
        return ""
    with service.database.begin_read() as transaction:
        approvers = _load_approvers(service, transaction)
    return describe_remaining_approvers(approvers, state, proposal)


def describe_remaining_approvers(
    approvers: Sequence[Caller] | None, state: RolloutState, proposal: ProposalState
) -> str:
    """Describe the missing approvers of a proposal; "" if it is approved, or without users."""
    if approvers is None:
        return ""
    sites = find_proposal_sites(state, proposal.id)
    groups_by_user = dict(find_groups(approvers, state.rollout.name, sites))
    for approval in proposal.approvals:  # it counts whatever permissions the approver has now
        groups_by_user[approval.by] = (*groups_by_user.get(approval.by, ()), *approval.groups)
    alternative = f"reject {proposal.id} and let" if proposal.rules.ends_stop else ""
    return _describe_shortage(
        proposal.needs, groups_by_user, proposal.raised_by, alternative, sites
    )


def load_resume_askers(
    service: "Service",
    caller: Caller,
    rollout_name: str,
    required_groups: Sequence[str],
    sites: Sequence[str],
) -> ResumeAskers:
    """Return who can request a resume that enough other users can approve.

    Args:
        required_groups: groups whose approval the resume needs.
        sites: sites of the stop.

    Raises:
        NotAllowedError: the caller may not read the rollout.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with service.database.begin_read() as transaction:
        approvers = _load_approvers(service, transaction)
    groups_by_user = find_groups(approvers or (), rollout_name, tuple(sites))
    asker_names = find_eligible_requesters(required_groups, groups_by_user)
    if approvers is None or caller.name in asker_names:
        return ResumeAskers(asker_names, "")
    if OPERATOR in groups_by_user.get(caller.name, ()):
        return ResumeAskers(
            asker_names,
            "if you ask,"
            f" {_describe_shortage(required_groups, groups_by_user, caller.name, 'let', sites)}",
        )
    remedy = describe_missing_roles(
        find_missing_for_resume(required_groups, groups_by_user)
    ) + format_sites(sites)
    return ResumeAskers(
        asker_names, "" if asker_names else f"no user can end this stop at present; {remedy}"
    )


def _load_approvers(service: "Service", transaction: Transaction) -> tuple[Caller, ...] | None:
    return load_present_approvers(
        transaction,
        at=service.clock.now(),
        requires_second_factor=service.requires_second_factor,
    )


def _describe_shortage(
    required_groups: Sequence[str],
    groups_by_user: GroupsByUser,
    asker_name: str,
    alternative: str,
    sites: Sequence[str],
) -> str:
    """Describe whose approval is missing; `alternative` names another way, or ""."""
    remaining_groups = exclude_user(groups_by_user, asker_name)
    missing_groups = find_unfilled_needs(required_groups, remaining_groups)
    if not missing_groups:
        return ""
    able_names = sorted(
        user_name
        for user_name, groups in remaining_groups.items()
        if set(groups) & set(required_groups)
    )
    other_askers = find_eligible_requesters(required_groups, groups_by_user) if alternative else ()
    remedies = (
        [f"{alternative} {' or '.join(other_askers[:MAX_LISTED_NAMES])} ask"]
        if other_askers
        else []
    )
    remedies.append(describe_missing_roles(missing_groups) + format_sites(sites))
    exception_text = f" other than {asker_name}" if asker_name in groups_by_user else ""
    return (
        f"{_describe_able(able_names)} it needs {format_needs(required_groups)}{exception_text};"
        f" {', or '.join(remedies)}"
    )


def _describe_able(able_names: list[str]) -> str:
    if not able_names:
        return "no user is left who can approve it:"
    return (
        f"{format_names(able_names)}{' alone' if len(able_names) == 1 else ''} can approve it, but"
    )
