"""What waits for people: read it, say yes or no to it, raise what the tick does not."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, cursor, number_of
from api.priority_threads import narrowing
from api.schemas.examples import answers, written
from api.schemas.proposals import (
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
from rollout.core.calendar.sites import Cell
from rollout.core.errors import Refusal
from rollout.services.engine.command_results import CommandResult
from rollout.services.engine.service import Service
from rollout.services.proposals import proposals
from rollout.services.proposals.proposal_details import STATES, Proposal, listing, one

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["proposals"])

State = Annotated[
    list[str] | None,
    Query(description=f"any of {', '.join(STATES)}; by default open and approved", max_length=6),
]
RAISED = written(
    "ProposalRaised",
    "ana",
    {"proposal": "P-9", "kind": "takeover", "version": "v8", "to": "supervised"},
    proposal="P-9",
    required_approvals=["operator", "operator"],
    evidence_hash=EVIDENCE,
)
REJECTED = written("ProposalRejected", "bo", {"proposal": "P-7", "reason": "after the holidays"})


@router.get("/proposals", operation_id="listProposals", summary="List proposals")
def list_proposals(
    rollout: str,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.READ)],
    state: State = None,
    after: After = None,
    limit: Limit = 50,
) -> ProposalList:
    """Return what waits for people, or what became of it, the newest first."""
    found = listing(
        service,
        who,
        rollout,
        at=now,
        states=("open", "approved") if state is None else tuple(state),
        before=number_of(after),
        limit=limit,
    )
    further = None if found.before is None else cursor(str(found.before))
    return ProposalList(items=list(found.items), next=further)


@router.get(
    "/proposals/{proposal}",
    operation_id="getProposal",
    summary="Get a proposal",
    responses=answers(PROPOSAL),
)
def get_proposal(
    rollout: str, proposal: str, service: Served, now: Now, who: Annotated[Caller, By(Act.READ)]
) -> Proposal:
    """Return what would be allowed where and until when, on which frozen evidence, and who may."""
    return one(service, who, rollout, proposal, at=now)


@router.post(
    "/proposals",
    operation_id="createProposal",
    summary="Create a proposal",
    responses=answers(RAISED, 200, 201, model=proposals.ProposalResult),
)
def create_proposal(
    rollout: str,
    body: ProposalRequest,
    response: Response,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.OPERATE)],
) -> proposals.ProposalResult:
    """Propose a takeover, a renewal or a clock's correction; one that is open is the answer."""
    done = _raised(rollout, body, service, now, who)
    response.status_code = 201 if done.events else 200
    return done


def _raised(
    rollout: str, body: ProposalRequest, service: Service, now: datetime, who: Caller
) -> proposals.ProposalResult:
    if body.kind == proposals.CLOCK:
        return proposals.correct_clock(service.database, who, rollout, at=now)
    if body.site is None or body.window is None or body.version is None or body.to is None:
        raise Refusal(f"a {body.kind} needs site, window, version and to")
    cell = Cell(body.site, body.window)
    return proposals.raise_for_cell(
        service.database, who, rollout, body.kind, cell, body.version, body.to, at=now
    )


@router.post(
    "/proposals/{proposal}/approvals",
    operation_id="approveProposal",
    summary="Approve a proposal",
    responses=answers(APPROVAL),
)
def approve_proposal(
    rollout: str,
    proposal: str,
    body: ApprovalRequest,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.APPROVE)],
) -> proposals.ApprovalReceipt:
    """Say yes to what was shown; the same yes once more gets the first answer again."""
    return proposals.approve(
        service.database, who, rollout, proposal, body.evidence_hash, at=now, reason=body.reason
    )


@router.post(
    "/proposals/{proposal}/rejection",
    operation_id="rejectProposal",
    summary="Reject a proposal",
    responses=answers(REJECTED),
)
@narrowing
def reject_proposal(
    rollout: str,
    proposal: str,
    body: RejectionRequest,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.APPROVE)],
) -> CommandResult:
    """Say no: nothing like it is raised for a while. What is closed already stays so."""
    return proposals.reject(service.database, who, rollout, proposal, at=now, reason=body.reason)


@router.post("/approvals", operation_id="approveProposals", summary="Approve several proposals")
def approve_proposals(
    rollout: str,
    body: BatchApprovalRequest,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.APPROVE)],
) -> ApprovalResultList:
    """Say yes to several, each by its own hash; one that is refused fails no other."""
    wanted = [(each.proposal, each.evidence_hash, each.reason) for each in body.approvals]
    given = proposals.approve_each(service.database, who, rollout, wanted, at=now)
    return ApprovalResultList(items=list(given))
