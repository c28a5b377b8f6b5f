"""Approvals and rejections of proposals, bound to the evidence that the user saw."""

from datetime import UTC, datetime

from rollout.core.errors import (
    AlreadyApprovedError,
    EvidenceChangedError,
    NotEligibleError,
    OwnProposalError,
    ProposalClosedError,
    UnknownProposalError,
)
from rollout.core.scope.clock_correction import CLOCK_PROPOSAL, apply_clock_correction
from rollout.core.scope.commands import ApproveProposal, RejectProposal
from rollout.core.scope.events import Approved, ProposalRejected
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.rule_changes import RULES_PROPOSAL, apply_approved_rules
from rollout.core.scope.scope import GivenApproval, ProposalState, Scope, count_filled_needs


def approve(command: ApproveProposal, pending: PendingEvents) -> None:
    """Record an approval; a repeat has no effect.

    The last approval applies a clock correction or counting rules at once; all other proposals wait
    for a tick.
    """
    proposal = _get_open_proposal(pending.scope, command.proposal)
    if _is_already_approved(command, proposal, pending.at):
        return
    _check_can_approve(command, proposal, pending)
    pending.emit(
        Approved(
            at=pending.at,
            by=command.by.name,
            proposal=proposal.id,
            groups=command.by.groups,
            evidence_hash=proposal.evidence_hash,
            reason=command.reason,
        )
    )
    if proposal.kind == CLOCK_PROPOSAL:
        # by the ledger's wrong time the next tick may be years away
        apply_clock_correction(pending, command.at)
    elif proposal.kind == RULES_PROPOSAL:
        apply_approved_rules(command, pending)


def _is_already_approved(command: ApproveProposal, proposal: ProposalState, at: datetime) -> bool:
    """Return whether this approval is a repeat.

    Raises:
        EvidenceChangedError: the cited hash is not the proposal's.
        AlreadyApprovedError: it would count one user twice.
    """
    name = command.by.name
    if command.evidence_hash != proposal.evidence_hash:
        raise EvidenceChangedError(
            f"{proposal.id} rests on other evidence than was shown; read it again"
        )
    previous = next((approval for approval in proposal.approvals if approval.by == name), None)
    if previous is None:
        return False
    new_approval = GivenApproval(by=name, groups=command.by.groups, at=at)
    if not set(new_approval.groups) <= set(previous.groups) and _fills_open_need(
        proposal, new_approval
    ):
        raise AlreadyApprovedError(
            f"{name} has approved {proposal.id} as {', '.join(previous.groups)}; another user"
            " has to approve"
        )
    return True


def _fills_open_need(proposal: ProposalState, new_approval: GivenApproval) -> bool:
    """Return whether one more approval would fill an open need."""
    needs, approvals = proposal.needs, proposal.approvals
    return count_filled_needs(needs, (*approvals, new_approval)) > count_filled_needs(
        needs, approvals
    )


def _check_can_approve(
    command: ApproveProposal, proposal: ProposalState, pending: PendingEvents
) -> None:
    name = command.by.name
    _check_resets(command, proposal)
    now = command.at.astimezone(UTC) if proposal.kind == CLOCK_PROPOSAL else pending.at
    if now >= proposal.expires_at:
        raise ProposalClosedError(
            f"{proposal.id} has expired; it is raised again if its gate holds"
        )
    if name == proposal.raised_by:
        raise OwnProposalError(f"{name} raised {proposal.id}; ask another user to approve it")
    if not _fills_open_need(
        proposal, GivenApproval(by=name, groups=command.by.groups, at=pending.at)
    ):
        needed_groups = ", ".join(proposal.needs)
        raise NotEligibleError(
            f"{proposal.id} asks for {needed_groups}; {name} is in no group that it still needs"
        )


def _check_resets(command: ApproveProposal, proposal: ProposalState) -> None:
    """Raise if a reset of a password or second factor puts the approval in doubt."""
    actor = command.by
    resume_at = actor.approvals_resume_at
    if resume_at is not None and command.at < resume_at:
        raise NotEligibleError(
            f"the password or second factor of {actor.name} was reset; their approvals count again"
            f" from {resume_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC: ask another user to approve"
        )
    involved = {proposal.raised_by, *(approval.by for approval in proposal.approvals)}
    for partner in sorted(involved & actor.reset_partners):
        raise NotEligibleError(
            f"{actor.name} and {partner} don't count together, because one of them reset the"
            " password or second factor of the other; ask another user to approve"
        )


def reject(command: RejectProposal, pending: PendingEvents) -> None:
    """Close a proposal and start the cell's quiet time.

    A repeat has no effect.
    """
    if command.proposal not in pending.scope.proposals and _was_raised(
        pending.scope, command.proposal
    ):
        return
    proposal = _get_open_proposal(pending.scope, command.proposal)
    pending.emit(
        ProposalRejected(
            at=pending.at,
            by=command.by.name,
            proposal=proposal.id,
            quiet_until=pending.at + pending.policy.after_rejection,
            reason=command.reason,
        )
    )


def _get_open_proposal(scope: Scope, proposal_id: str) -> ProposalState:
    proposal = scope.proposals.get(proposal_id)
    if proposal is not None:
        return proposal
    if _was_raised(scope, proposal_id):
        raise ProposalClosedError(f"{proposal_id} is closed: applied, rejected, voided or expired")
    open_ids = ", ".join(scope.proposals) or "none"
    raise UnknownProposalError(f"no proposal {proposal_id}; open ones: {open_ids}")


def _was_raised(scope: Scope, proposal_id: str) -> bool:
    number = proposal_id.removeprefix("P-")
    return (
        proposal_id.startswith("P-")
        and number.isdigit()
        and 1 <= int(number) <= scope.proposal_count
    )
