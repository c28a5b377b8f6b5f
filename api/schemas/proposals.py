"""What is asked about proposals, and examples of the answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.schemas.examples import LATER, NOON
from rollout.services.proposals.proposal_details import Proposal
from rollout.services.proposals.proposals import MOST_AT_ONCE, ApprovalResult

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
    "text": "the last approval: a later tick applies it, if the evidence has not turned",
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
    "allows": "v7 goes up to supervised at creek in night until Mon 30 Aug 2027 06:00: "
    "a person confirms or overrides what the model proposes; 50 % stay with people, unseen",
    "readings": ["agreement at least 95 %: 418 of 426, log E 4.271300 of 2.995732 (risk 0.05)"],
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
}


class ProposalRequest(BaseModel):
    """What an operator proposes: a takeover, a renewal, or that the ledger's clock is set right.

    A widening is raised by the tick alone, a resume at its stop.
    """

    model_config = ConfigDict(
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
    )

    kind: Literal["takeover", "renewal", "clock"]
    site: Name | None = None
    window: Name | None = None
    version: Name | None = None
    to: Name | None = None


class ApprovalRequest(BaseModel):
    """A yes to what was shown: `evidence_hash` as the proposal has it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"evidence_hash": EVIDENCE}}
    )

    evidence_hash: Hash
    reason: Reason = ""


class RejectionRequest(BaseModel):
    """A no, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"reason": "after the holidays"}}
    )

    reason: Reason = ""


class BatchApproval(ApprovalRequest):
    """One of several yeses."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"proposal": "P-7", "evidence_hash": EVIDENCE}},
    )

    proposal: Id


class BatchApprovalRequest(BaseModel):
    """Several yeses, each to what was shown with its own hash."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"approvals": [{"proposal": "P-7", "evidence_hash": EVIDENCE}]}
        },
    )

    approvals: list[BatchApproval] = Field(min_length=1, max_length=MOST_AT_ONCE)


class ProposalList(BaseModel):
    """Some proposals, the newest first; `next` is null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [PROPOSAL], "next": None}})

    items: list[Proposal]
    next: str | None


class ApprovalResultList(BaseModel):
    """What became of each of several yeses, in their order."""

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
