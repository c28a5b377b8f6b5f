"""Proposals: list, create, approve and reject them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.auth import Caller, CurrentTime, Permission, Reader, RequirePermission, ServiceDependency
from api.priority_threads import prioritize
from api.schema_forms import (
    LATER,
    NOON,
    After,
    Limit,
    Page,
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
from rollout.features.proposals.proposals import MAX_APPROVALS_PER_CALL, ApprovalResult
from rollout.kernel.calendar.instants import Cell
from rollout.live.rollout_state import CommandResult
from rollout.live.service import Service

Hash = Annotated[str, StringConstraints(max_length=64)]
Id = Annotated[str, StringConstraints(max_length=64)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Reason = Annotated[str, StringConstraints(max_length=2_000)]

EVIDENCE = "3fe1c3"
APPROVAL: dict[str, Any] = {
    "rollout": "bear-alarm",
    "revision": 42,
    "hash": "9f2c…",
    "proposal": "P-7",
    "evidence_hash": EVIDENCE,
    "by": "bo",
    "groups": ["operator"],
    "at": NOON,
    "approvals_missing": 0,
    "text": "the last approval: the next tick applies it unless the evidence has turned by then",
}
PROPOSAL: dict[str, Any] = {
    "id": "P-7",
    "kind": "widening",
    "state": "open",
    "site": "creek",
    "window": "night",
    "version": "v7",
    "to": "supervised",
    "about": "",
    "allows": "v7 is widened to supervised at creek in night until Mon 30 Aug 2027 06:00: "
    "a human confirms or overrides the model's answer; humans decide 50 % blind",
    "readings": [
        {
            "condition": {"measure": "agreement", "threshold": "0.95"},
            "counts": [418, 8],
            "log_e": "4.271300",
            "risk": "0.05",
            "estimate": "",
            "bound": "",
            "draw_log_e": "",
        }
    ],
    "texts": ["agreement at least 95 %: 418 of 426, log E 4.271300 of 2.995732 (risk 0.05)"],
    "evidence_hash": EVIDENCE,
    "required_approvals": ["operator", "operator"],
    "approvals": [{"by": "ana", "groups": ["operator"], "at": NOON, "reason": "two cubs"}],
    "approvals_missing": 1,
    "groups_missing": ["operator"],
    "raised_at": NOON,
    "raised_by": "policy",
    "expires_at": LATER,
    "closed_at": None,
    "closed_by": "",
    "closed_reason": "",
    "can_approve": True,
    "cannot_approve_reason": "",
    "waits_for": [],
    "imports": [],
    "sources": [{"source": "reviews", "decisions": 426, "reviewers": 6}],
    "outcome_sources": [],
    "vouched": [],
    "registered": [{"source": "camera-1", "units": 426, "own": 0}],
    "attempt": "attempt 1 of the year in this cell, over all versions, with 38.3 % of the gate's"
    " risk",
    "gains": [],
    "confidence_floors": [],
    "model_share": None,
    "against": [],
}


class ProposalRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={
        "example": {
            "kind": "takeover",
            "site": "creek",
            "window": "night",
            "version": "v8",
            "to": "supervised",
        }
    },
):
    """A takeover or a renewal.

    The scheduler creates widenings; `proposeResume` creates resumes.
    """

    kind: Literal["takeover", "renewal"]
    site: Name
    window: Name
    version: Name
    to: Name


class ApprovalRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"evidence_hash": EVIDENCE}}
):
    """An approval with the proposal's `evidence_hash`."""

    evidence_hash: Hash
    reason: Reason = ""


class RejectionRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"reason": "after the holidays"}}
):
    """An optional reason for the rejection."""

    reason: Reason = ""


class BatchApproval(
    ApprovalRequest,
    extra="forbid",
    json_schema_extra={"example": {"proposal": "P-7", "evidence_hash": EVIDENCE}},
):
    """One approval of a batch."""

    proposal: Id


class BatchApprovalRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {"approvals": [{"proposal": "P-7", "evidence_hash": EVIDENCE}]}},
):
    """Several approvals, each with the evidence hash of its proposal."""

    approvals: list[BatchApproval] = Field(min_length=1, max_length=MAX_APPROVALS_PER_CALL)


class ProposalList(
    Page[Proposal], json_schema_extra={"example": {"items": [PROPOSAL], "next": None}}
):
    """A page of proposals, newest first. `next` is null on the last page."""


class ApprovalResultList(BaseModel):
    """The result of each approval, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "items": [
                    {
                        "proposal": "P-7",
                        "approved": True,
                        "approval": APPROVAL,
                        "code": "",
                        "detail": "",
                    },
                    {
                        "proposal": "P-8",
                        "approved": False,
                        "approval": None,
                        "code": "evidence-changed",
                        "detail": "P-8 rests on other evidence than was shown; read it again",
                    },
                ]
            }
        }
    )

    items: list[ApprovalResult]


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
