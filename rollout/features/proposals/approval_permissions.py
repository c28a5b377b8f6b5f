"""Users who can still approve a proposal, and remedies if too few are left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollout.data.database.session import Transaction
from rollout.engine.decide.approvals import (
    GroupsByUser,
    exclude_user,
    find_eligible_requesters,
    find_groups,
    find_missing_for_resume,
    find_unfilled_needs,
)
from rollout.engine.decide.permissions import OPERATOR, Caller, Permission, require_permission
from rollout.engine.decide.scope import ProposalState as ScopeProposal
from rollout.features.proposals.eligible_approvers import (
    MAX_LISTED_NAMES,
    describe_missing_roles,
    find_proposal_sites,
    format_names,
    format_needs,
    format_sites,
    load_present_approvers,
)
from rollout.live.rollout_state import RolloutState

if TYPE_CHECKING:
    from rollout.features.proposals.proposal_details import Proposal
    from rollout.live.service import Service


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
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
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
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    proposal = state.scope.proposals.get(proposal_id)
    if proposal is None:
        return ""
    with service.database.begin_read() as transaction:
        approvers = _load_approvers(service, transaction)
    return describe_remaining_approvers(approvers, state, proposal)


def describe_remaining_approvers(
    approvers: Sequence[Caller] | None, state: RolloutState, proposal: ScopeProposal
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
