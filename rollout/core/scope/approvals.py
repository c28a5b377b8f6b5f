"""People's yes and no to what is proposed, each bound to what the person was shown."""

from datetime import UTC, datetime

from rollout.core.errors import (
    AlreadyApproved,
    EvidenceMoved,
    NotEligible,
    OwnProposal,
    ProposalClosed,
    UnknownProposal,
)
from rollout.core.scope.clock_correction import KIND as CLOCK
from rollout.core.scope.clock_correction import corrected
from rollout.core.scope.commands import Approve, Reject
from rollout.core.scope.events import Approved, ProposalRejected
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.scope import Approval, Proposal, Scope, filled


def approve(command: Approve, draft: Draft) -> None:
    """Count one person's yes; said once more, it is counted already and nothing follows.

    With the last yes to it the ledger's time is set right at once; all else waits for its time.
    """
    proposal = _open(draft.scope, command.proposal)
    if _said(command, proposal, draft.at):
        return
    _may_approve(command, proposal, draft)
    draft.emit(
        Approved(
            at=draft.at,
            by=command.by.name,
            proposal=proposal.id,
            groups=command.by.groups,
            evidence_hash=proposal.evidence,
            reason=command.reason,
        )
    )
    if proposal.kind == CLOCK:
        corrected(draft, command.at)  # by the wrong clock the next tick may be years away


def _said(command: Approve, proposal: Proposal, at: datetime) -> bool:
    """Say whether this very yes is counted; refuse one that would count a person twice."""
    name = command.by.name
    if command.evidence != proposal.evidence:
        raise EvidenceMoved(f"{proposal.id} rests on other evidence than was shown; read it again")
    previous = next((approval for approval in proposal.approvals if approval.by == name), None)
    if previous is None:
        return False
    new_approval = Approval(by=name, groups=command.by.groups, at=at)
    if not set(new_approval.groups) <= set(previous.groups) and _fills_more(proposal, new_approval):
        raise AlreadyApproved(
            f"{name} has approved {proposal.id} as {', '.join(previous.groups)}; another person"
            " has to"
        )
    return True


def _fills_more(proposal: Proposal, yes: Approval) -> bool:
    """Say whether one more yes would fill something that is still asked for."""
    needs, approvals = proposal.needs, proposal.approvals
    return filled(needs, (*approvals, yes)) > filled(needs, approvals)


def _may_approve(command: Approve, proposal: Proposal, draft: Draft) -> None:
    name = command.by.name
    now = command.at.astimezone(UTC) if proposal.kind == CLOCK else draft.at
    if now >= proposal.expires_at:
        raise ProposalClosed(f"{proposal.id} has expired; it is raised again if its gate holds")
    if name == proposal.raised_by:
        raise OwnProposal(f"{name} raised {proposal.id}; ask another person to approve it")
    if not _fills_more(proposal, Approval(by=name, groups=command.by.groups, at=draft.at)):
        needed_groups = ", ".join(proposal.needs)
        raise NotEligible(
            f"{proposal.id} asks for {needed_groups}; {name} stands in no group it still needs"
        )


def reject(command: Reject, draft: Draft) -> None:
    """Close a proposal and keep its cell quiet; closed already, what a no asks for holds."""
    if command.proposal not in draft.scope.proposals and _was_raised(draft.scope, command.proposal):
        return
    proposal = _open(draft.scope, command.proposal)
    draft.emit(
        ProposalRejected(
            at=draft.at,
            by=command.by.name,
            proposal=proposal.id,
            quiet_until=draft.at + draft.policy.after_rejection,
            reason=command.reason,
        )
    )


def _open(scope: Scope, proposal: str) -> Proposal:
    found = scope.proposals.get(proposal)
    if found is not None:
        return found
    if _was_raised(scope, proposal):
        raise ProposalClosed(f"{proposal} is closed: applied, rejected, voided or expired")
    open_ids = ", ".join(scope.proposals) or "none"
    raise UnknownProposal(f"there is no proposal {proposal}; open ones: {open_ids}")


def _was_raised(scope: Scope, proposal: str) -> bool:
    number = proposal.removeprefix("P-")
    return proposal.startswith("P-") and number.isdigit() and 1 <= int(number) <= scope.raised
