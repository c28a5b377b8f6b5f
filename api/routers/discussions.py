"""Discussions: comments on a proposal and on an incident."""

from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.deps import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.examples import NOON, build_responses
from rollout.core.ledger.comments import MAX_COMMENT_LENGTH, CommentDraft
from rollout.services.discussions.discussions import (
    INCIDENT,
    PROPOSAL,
    Comment,
    Discussion,
    DiscussionSubject,
    add_comment,
    load_discussion,
)

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["discussions"])
MAX_REVISION = 2**31 - 1
COMMENT: dict[str, Any] = {
    "id": 43,
    "by": "ana",
    "at": NOON,
    "text": "Was the lens wet that night?",
    "case": "creek-0412",
    "answers": None,
    "is_erased": False,
}


class CommentList(BaseModel):
    """Comments, oldest first; `hidden_text` says why some are hidden."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"items": [COMMENT], "hidden": 0, "hidden_text": ""}}
    )

    items: list[Comment]
    hidden: int
    hidden_text: str


class CommentRequest(BaseModel):
    """A comment, optionally about a case or in answer to another comment."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"text": COMMENT["text"], "case": COMMENT["case"]}},
    )

    text: str = Field(description=f"1 to {MAX_COMMENT_LENGTH:,} characters")
    case: str = Field("", description='key of a case that you may read; "" for none')
    answers: Annotated[int, Field(ge=1, le=MAX_REVISION)] | None = Field(
        None, description="id of a comment of the same discussion"
    )


Reader = Annotated[Caller, RequirePermission(Permission.READ)]
CREATED = build_responses(COMMENT, 200, 201, model=Comment)


@router.get(
    "/proposals/{proposal}/comments",
    operation_id="listProposalComments",
    summary="List a proposal's comments",
)
def list_proposal_comments(
    rollout: str, proposal: str, service: ServiceDependency, now: CurrentTime, caller: Reader
) -> CommentList:
    """Return the comments on a proposal, oldest first.

    If you may be asked for blind reviews in the rollout, comments of others are hidden until every
    case that was stored before them is closed.
    """
    subject = DiscussionSubject(PROPOSAL, proposal)
    return _build_list(load_discussion(service.database, caller, rollout, subject, at=now))


@router.post(
    "/proposals/{proposal}/comments",
    operation_id="addProposalComment",
    summary="Comment on a proposal",
    responses=CREATED,
)
def add_proposal_comment(
    rollout: str,
    proposal: str,
    body: CommentRequest,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> Comment:
    """Add a comment to a proposal; users alone may, not service accounts.

    The ledger keeps its salted hash, and an erasure removes the text. It is safe to retry: your
    newest comment is returned with 200 if it says the same.
    """
    subject = DiscussionSubject(PROPOSAL, proposal)
    comment, is_new = add_comment(
        service.database, caller, rollout, subject, _build_draft(body), at=now
    )
    response.status_code = 201 if is_new else 200
    return comment


@router.get(
    "/incidents/{incident}/comments",
    operation_id="listIncidentComments",
    summary="List an incident's comments",
)
def list_incident_comments(
    rollout: str, incident: str, service: ServiceDependency, now: CurrentTime, caller: Reader
) -> CommentList:
    """Return the comments on an incident, oldest first.

    If you may be asked for blind reviews in the rollout, comments of others are hidden until every
    case that was stored before them is closed.
    """
    subject = DiscussionSubject(INCIDENT, incident)
    return _build_list(load_discussion(service.database, caller, rollout, subject, at=now))


@router.post(
    "/incidents/{incident}/comments",
    operation_id="addIncidentComment",
    summary="Comment on an incident",
    responses=CREATED,
)
def add_incident_comment(
    rollout: str,
    incident: str,
    body: CommentRequest,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> Comment:
    """Add a comment to an incident; users alone may, not service accounts.

    The ledger keeps its salted hash, and an erasure removes the text. It is safe to retry: your
    newest comment is returned with 200 if it says the same.
    """
    subject = DiscussionSubject(INCIDENT, incident)
    comment, is_new = add_comment(
        service.database, caller, rollout, subject, _build_draft(body), at=now
    )
    response.status_code = 201 if is_new else 200
    return comment


def _build_draft(body: CommentRequest) -> CommentDraft:
    return CommentDraft(body.text, body.case, body.answers)


def _build_list(discussion: Discussion) -> CommentList:
    return CommentList(
        items=list(discussion.items),
        hidden=discussion.hidden,
        hidden_text=discussion.hidden_text,
    )
