"""Proposals: list, create, approve and reject them."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.auth import Caller, CurrentTime, Permission, Reader, RequirePermission, ServiceDependency
from api.priority_threads import prioritize
from api.proposals.schemas import (
    APPROVAL,
    EVIDENCE,
    PROPOSAL,
    ApprovalRequest,
    ApprovalResultList,
    BatchApprovalRequest,
    ProposalList,
    ProposalRequest,
    RejectionRequest,
)
from api.schema_forms import (
    After,
    Limit,
    build_command_example,
    build_responses,
    decode_number,
    encode_number,
)
from rollout.features.proposals import proposals
from rollout.features.proposals.proposal_details import (
    PROPOSAL_STATES,
    Proposal,
    load_proposal,
    load_proposals,
)
from rollout.kernel.calendar.instants import Cell
from rollout.live.rollout_state import CommandResult
from rollout.live.service import Service

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["proposals"])

State = Annotated[
    list[str] | None,
    Query(
        description=f"any of {', '.join(PROPOSAL_STATES)}; default: open and approved",
        max_length=6,
    ),
]
RAISED = build_command_example(
    "ProposalRaised",
    "ana",
    {"proposal": "P-9", "kind": "takeover", "version": "v8", "to": "supervised"},
    proposal="P-9",
    required_approvals=["operator", "operator"],
    evidence_hash=EVIDENCE,
)
REJECTED = build_command_example(
    "ProposalRejected", "bo", {"proposal": "P-7", "reason": "after the holidays"}
)


@router.get("/proposals", operation_id="listProposals", summary="List proposals")
def list_proposals(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
    state: State = None,
    after: After = None,
    limit: Limit = 50,
) -> ProposalList:
    """Return proposals, newest first; by default the open and approved ones."""
    proposals = load_proposals(
        service,
        caller,
        rollout,
        at=now,
        states=("open", "approved") if state is None else tuple(state),
        before=decode_number(after),
        limit=limit,
    )
    return ProposalList(items=list(proposals.items), next=encode_number(proposals.before))


@router.get(
    "/proposals/{proposal}",
    operation_id="getProposal",
    summary="Get a proposal",
    responses=build_responses(PROPOSAL),
)
def get_proposal(
    rollout: str,
    proposal: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> Proposal:
    """Return a proposal with its frozen evidence and its approvals.

    `can_approve` tells whether you can approve it now.
    """
    return load_proposal(service, caller, rollout, proposal, at=now)


@router.post(
    "/proposals",
    operation_id="createProposal",
    summary="Create a proposal",
    responses=build_responses(RAISED, 200, 201, model=proposals.ProposalResult),
)
def create_proposal(
    rollout: str,
    body: ProposalRequest,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.PROPOSE)],
) -> proposals.ProposalResult:
    """Create a takeover or a renewal.

    Returns 201 for a new proposal, or 200 with the open proposal if there is one like it. The
    scheduler creates widenings; `proposeResume` creates resumes. Requires the operator role.
    """
    result = _raise_proposal(rollout, body, service, now, caller)
    response.status_code = 201 if result.events else 200
    return result


def _raise_proposal(
    rollout: str, body: ProposalRequest, service: Service, now: datetime, caller: Caller
) -> proposals.ProposalResult:
    manual_proposal = proposals.ManualProposal(
        body.kind, Cell(body.site, body.window), body.version, body.to
    )
    return proposals.raise_cell_proposal(service.database, caller, rollout, manual_proposal, at=now)


@router.post(
    "/proposals/{proposal}/approvals",
    operation_id="approveProposal",
    summary="Approve a proposal",
    responses=build_responses(APPROVAL),
)
def approve_proposal(
    rollout: str,
    proposal: str,
    body: ApprovalRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.APPROVE)],
) -> proposals.ApprovalReceipt:
    """Approve a proposal by the hash of its evidence.

    After the last required approval, the next tick applies the proposal if the evidence still
    supports it. You cannot approve your own proposal (403). If the evidence has changed, the
    request fails with 409: get the proposal again. It is safe to retry: the first receipt is
    returned.
    """
    return proposals.approve_proposal(
        service.database, caller, rollout, proposal, body.evidence_hash, at=now, reason=body.reason
    )


@router.post(
    "/proposals/{proposal}/rejection",
    operation_id="rejectProposal",
    summary="Reject a proposal",
    responses=build_responses(REJECTED),
)
@prioritize
def reject_proposal(
    rollout: str,
    proposal: str,
    body: RejectionRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.REJECT)],
) -> CommandResult:
    """Reject a proposal.

    The scheduler does not create a similar proposal for some time. It is safe to retry: a closed
    proposal does not change.
    """
    return proposals.reject_proposal(
        service.database, caller, rollout, proposal, at=now, reason=body.reason
    )


@router.post("/approvals", operation_id="approveProposals", summary="Approve several proposals")
def approve_proposals(
    rollout: str,
    body: BatchApprovalRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.APPROVE)],
) -> ApprovalResultList:
    """Approve several proposals, each by the hash of its evidence.

    Each approval has its own result; one that fails does not affect the others.
    """
    requests = [
        (approval.proposal, approval.evidence_hash, approval.reason) for approval in body.approvals
    ]
    results = proposals.approve_proposals(service.database, caller, rollout, requests, at=now)
    return ApprovalResultList(items=list(results))
