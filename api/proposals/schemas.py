"""Schemas of proposals and approvals, with examples."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schema_forms import LATER, NOON, Page
from rollout.features.proposals.proposal_details import Proposal
from rollout.features.proposals.proposals import MAX_APPROVALS_PER_CALL, ApprovalResult

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
