"""The review queue and its plan. Reviewers see every field, so new fields can unblind them.

The plan says where the next reviews help most.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, status
from pydantic import AfterValidator, AliasPath, BaseModel, Field, StringConstraints

from api.auth import (
    Admin,
    Caller,
    CurrentTime,
    Operator,
    Permission,
    Reader,
    RequirePermission,
    ServiceDependency,
    WallTime,
)
from api.schema_forms import (
    AttributeForm,
    ItemList,
    Limit,
    add_fields_of,
    add_input_of,
    build_responses,
)
from rollout.data.records.record_rows import MAX_KEY_LENGTH
from rollout.features.cells.overview import LiveReviewPlan, load_review_plan
from rollout.features.reports.figures.review_plan import DEFAULT_DECISIONS, MAX_DECISIONS
from rollout.features.reviews import reviews
from rollout.features.reviews.reviews import (
    MAX_CLAIMED_CASES,
    DecisionDraft,
    OverdueTask,
    StoredDecision,
)
from rollout.kernel.units import SEPARATOR, join_labels

MAX_REVIEWERS = 50
Kind = Literal["blind", "assisted", "adjudicate"]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_KEY_LENGTH, pattern=r"^[^\x00]+$")
]
Number = Annotated[int, Field(ge=1, lt=2**53)]

TASK: dict[str, Any] = {
    "review": 4182,
    "kind": "blind",
    "case": "meadow-004182",
    "site": "meadow",
    "occurred_at": "2027-06-16T23:48:00-07:00",
    "attributes": {"weather": "dry"},
    "media": {"still": "https://pictures.example/meadow-004182.jpg"},
    "answer_by": "2027-06-16T23:50:00-07:00",
    "claimed_until": "2027-06-16T23:58:12-07:00",
    "model_answer": None,
    "decisions": [],
}
LEVER: dict[str, Any] = {
    "id": "alarm",
    "labels": ["bear", "no-bear"],
    "number": None,
    "many": False,
}
OWN_TASKS: dict[str, Any] = {
    "levers": [LEVER],
    "tasks": [TASK],
    "waiting": {"blind": 7, "assisted": 0, "adjudicate": 0},
}
DECISION: dict[str, Any] = {
    "review": 4182,
    "case": "meadow-004182",
    "answers": {"alarm": "bear"},
    "unsure": False,
    "note": None,
    "revision": 1,
    "at": "2027-06-16T23:48:20-07:00",
}
OVERDUE_REVIEW: dict[str, Any] = {
    "review": 4170,
    "case": "meadow-004170",
    "site": "meadow",
    "kind": "blind",
    "due_at": "2027-06-17T23:48:00-07:00",
    "reviewer": "ana",
}


class ClaimRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"kind": "blind", "claims": 2}}
):
    """The number of review tasks to hold, and optionally their queue.

    Without `kind`, tasks are claimed in the order in which they are due, then adjudications.
    """

    kind: Kind | None = None
    claims: int = Field(default=1, ge=1, le=MAX_CLAIMED_CASES)


class NumberRange(AttributeForm):
    """The range of a lever whose answer is a number."""

    unit: str
    low: float
    high: float


class ReviewLever(AttributeForm, json_schema_extra={"example": LEVER}):
    """A decision variable of the case: labels or a number range.

    With `many` an answer is a list of labels, empty if none of them is right.
    """

    id: str
    labels: list[str]
    number: NumberRange | None
    many: bool = False


class VersionAnswer(
    AttributeForm,
    json_schema_extra={
        "example": {"version": "v7", "answers": {"alarm": "no-bear"}, "confidence": 0.61}
    },
):
    """A version's answer to a case; an answer is null if the version failed."""

    version: str
    answers: dict[str, str | None]
    confidence: float | None


class ReviewTask(AttributeForm, json_schema_extra={"example": TASK}):
    """A review task with everything that the reviewer may see."""

    review: int
    kind: Kind
    case: str = Field(validation_alias=AliasPath("case", "key"))
    site: str = Field(validation_alias=AliasPath("case", "site"))
    occurred_at: datetime = Field(validation_alias=AliasPath("case", "occurred_at"))
    attributes: dict[str, str] = Field(validation_alias=AliasPath("case", "attributes"))
    media: dict[str, str] = Field(validation_alias=AliasPath("case", "media"))
    answer_by: datetime | None = Field(
        description="after this time, the client no longer waits for the answer"
    )
    claimed_until: datetime = Field(
        description="after this time, other reviewers can claim the task"
    )
    model_answer: VersionAnswer | None = Field(
        validation_alias="proposal", description="only for assisted reviews"
    )
    decisions: list[dict[str, str | None]] = Field(
        validation_alias="verdicts", description="only for adjudications"
    )


class ReviewQueueCounts(AttributeForm, json_schema_extra={"example": OWN_TASKS["waiting"]}):
    """The number of tasks available to the reviewer, by queue."""

    blind: int
    assisted: int
    adjudicate: int


class ReviewQueue(AttributeForm, json_schema_extra={"example": OWN_TASKS}):
    """The levers, the reviewer's claimed tasks and the number of available ones."""

    levers: list[ReviewLever]
    tasks: list[ReviewTask]
    waiting: ReviewQueueCounts


def _check_labels(labels: list[str]) -> list[str]:
    join_labels(labels)
    return labels


SetLabel = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=rf"^[^\x00{SEPARATOR}]+$")
]
AnswerText = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]
SentAnswer = (
    AnswerText | Annotated[list[SetLabel], Field(max_length=100), AfterValidator(_check_labels)]
)
"""An answer as sent: text, or the labels of a set."""


@add_input_of(DecisionDraft, "claimed_exposure", text=Name)
class DecisionRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={
        "example": {"answers": {"alarm": "bear"}, "started_at": "2027-06-16T23:48:05-07:00"}
    },
):
    """A decision: an answer by lever, or `unsure`.

    A lever that is missing or null counts as unsure.
    """

    answers: dict[Name, SentAnswer | None] = Field(default_factory=dict, max_length=50)
    note: str | None = Field(default=None, max_length=2_000)
    exposure: Literal["blind", "assisted", "revealed"] = Field(
        default="blind",
        description="what the reviewer had seen; it can only make the stored exposure less blind",
    )
    supersedes: Number | None = Field(
        default=None, description="the revision that this decision corrects"
    )

    def to_draft(self) -> DecisionDraft:
        """Return the decision as the service takes it."""
        return DecisionDraft(
            answers={
                lever: None if answer is None else join_labels(answer)
                for lever, answer in self.answers.items()
            },
            claimed_exposure=self.exposure,
            **self.model_dump(exclude={"answers", "exposure"}),
        )


@add_fields_of(StoredDecision)
class ReviewDecision(AttributeForm, json_schema_extra={"example": DECISION}):
    """A stored decision."""


class AdjudicationRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {"case": "meadow-004182", "version": "v7"}},
):
    """A case to adjudicate.

    The answer of `version`, if given, is shown beside the human decisions.
    """

    case: Name
    version: Name | None = None


class GoldCaseRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={
        "example": {"case": "meadow-003107", "answers": {"alarm": "bear"}, "reviewers": 3}
    },
):
    """A stored case, its known answers and the number of reviewers to ask."""

    case: Name
    answers: dict[Name, SentAnswer] = Field(min_length=1, max_length=50)
    reviewers: int = Field(ge=1, le=MAX_REVIEWERS)


class ReassignmentRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"reviewer": "ana"}}
):
    """The absent reviewer."""

    reviewer: Name


class ReassignmentResult(AttributeForm, json_schema_extra={"example": {"released": 2}}):
    """The number of review tasks that were released."""

    released: int


@add_fields_of(OverdueTask)
class OverdueReview(AttributeForm, json_schema_extra={"example": OVERDUE_REVIEW}):
    """An undecided review task that is close to or past its deadline."""

    kind: Kind
    reviewer: str | None = Field(description="the reviewer who holds the task")


class OverdueReviewList(
    ItemList[OverdueReview],
    from_attributes=True,
    json_schema_extra={"example": {"items": [OVERDUE_REVIEW]}},
):
    """Overdue review tasks, soonest deadline first."""


router = APIRouter(prefix="/v1/rollouts/{rollout}/reviews", tags=["reviews"])
Reviewer = Annotated[Caller, RequirePermission(Permission.REVIEW)]
Review = Annotated[int, Path(ge=1, lt=2**53, description="`review` of a task that you claimed")]
NO_CONTENT = status.HTTP_204_NO_CONTENT


@router.get("", operation_id="getReviewQueue", summary="Get my review queue")
def get_review_queue(
    rollout: str,
    service: ServiceDependency,
    caller: Reviewer,
    now: CurrentTime,
    wall_time: WallTime,
) -> ReviewQueue:
    """Return your claimed review tasks and the number of available ones."""
    state = service.state_cache.load_rollout(rollout).state
    return ReviewQueue.model_validate(
        reviews.load_own_reviews(service.database, caller, state, now, wall_time)
    )


@router.post("/claims", operation_id="claimNextReview", summary="Claim the next review tasks")
def claim_next_review(
    rollout: str,
    body: ClaimRequest,
    service: ServiceDependency,
    caller: Reviewer,
    now: CurrentTime,
    wall_time: WallTime,
) -> ReviewQueue:
    """Claim review tasks until you hold `claims` of them.

    A claim lasts ten minutes. It is safe to retry: tasks that you hold count. Without `kind`,
    adjudications come last.
    """
    state = service.state_cache.load_rollout(rollout).state
    queue = reviews.claim_reviews(
        service.database,
        caller,
        state,
        now,
        kind=body.kind,
        target_count=body.claims,
        claim_time=wall_time,
    )
    return ReviewQueue.model_validate(queue)


@router.post(
    "/{review}/decision",
    operation_id="submitDecision",
    summary="Submit a decision on a review task",
)
def submit_decision(
    rollout: str,
    review: Review,
    body: DecisionRequest,
    service: ServiceDependency,
    caller: Reviewer,
    now: CurrentTime,
) -> ReviewDecision:
    """Store your decision on a review task.

    To correct a decision, send its revision as `supersedes`. Fails with 409 if your claim has
    expired and another reviewer has the task. It is safe to retry: the same decision returns the
    same result.
    """
    state = service.state_cache.load_rollout(rollout).state
    return ReviewDecision.model_validate(
        reviews.submit_decision(service.database, caller, state, review, body.to_draft(), now)
    )


@router.post(
    "/{review}/release",
    operation_id="releaseReview",
    summary="Release a review task",
    status_code=NO_CONTENT,
)
def release_review(
    rollout: str, review: Review, service: ServiceDependency, caller: Reviewer
) -> None:
    """Release a review task without a decision.

    Other reviewers can claim it immediately.
    """
    state = service.state_cache.load_rollout(rollout).state
    reviews.release_review(service.database, caller, state, review)


@router.post(
    "/adjudications",
    operation_id="requestAdjudication",
    summary="Request an adjudication of a case",
    status_code=NO_CONTENT,
)
def request_adjudication(
    rollout: str,
    body: AdjudicationRequest,
    service: ServiceDependency,
    caller: Operator,
    now: CurrentTime,
) -> None:
    """Request a decision from a reviewer who has not decided the case.

    Adjudications are used in reports and training. They are never evidence. Fails with 409 if no
    two decisions differ, nor one from the answer of `version`. Requires the operator role.
    """
    state = service.state_cache.load_rollout(rollout).state
    reviews.request_adjudication(service.database, caller, state, body.case, body.version, now)


@router.post(
    "/gold-cases", operation_id="addGoldCase", summary="Add a gold case", status_code=NO_CONTENT
)
def add_gold_case(
    rollout: str,
    body: GoldCaseRequest,
    service: ServiceDependency,
    caller: Admin,
    now: CurrentTime,
) -> None:
    """Add a case with a known answer to the blind review queue.

    Reviewers cannot distinguish it from other cases. It is never evidence. Requires the admin role.
    """
    state = service.state_cache.load_rollout(rollout).state
    reviews.seed_gold_case(
        service.database,
        caller,
        state,
        body.case,
        {lever: join_labels(answer) for lever, answer in body.answers.items()},
        reviewer_count=body.reviewers,
        at=now,
    )


@router.post(
    "/reassignments",
    operation_id="reassignReviews",
    summary="Release the review tasks of an absent reviewer",
)
def reassign_reviews(
    rollout: str, body: ReassignmentRequest, service: ServiceDependency, caller: Operator
) -> ReassignmentResult:
    """Release all review tasks of an absent reviewer immediately.

    Without this request, claims expire after ten minutes. Requires the operator role.
    """
    state = service.state_cache.load_rollout(rollout).state
    released = reviews.release_reviewer_claims(service.database, caller, state, body.reviewer)
    return ReassignmentResult(released=released)


@router.get(
    "/overdue",
    operation_id="listOverdueReviews",
    summary="List review tasks that are due or overdue",
)
def list_overdue_reviews(
    rollout: str,
    service: ServiceDependency,
    caller: Operator,
    now: CurrentTime,
    wall_time: WallTime,
    limit: Limit = 100,
) -> OverdueReviewList:
    """Return undecided review tasks that are close to or past their deadline.

    A task is listed from the last quarter of its time limit, soonest deadline first. Requires the
    operator role.
    """
    state = service.state_cache.load_rollout(rollout).state
    overdue_tasks = reviews.load_overdue_reviews(
        service.database, caller, state, now, limit=limit, claim_time=wall_time
    )
    return OverdueReviewList(items=[OverdueReview.model_validate(task) for task in overdue_tasks])


review_plan_router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["cells"])
CELL = {
    "site": "creek",
    "window": "night",
    "version": "v7",
    "stage": "shadow",
    "to": "supervised",
    "floor": "",
    "outlook": "on course",
    "reason": "agreement at least 95 %",
    "judged": 100,
    "per_day": 14.0,
    "decisions_p50": 219,
    "decisions_p90": 1830,
    "days": 15.6,
    "ever_chance": 0.93,
    "decisions_per_opening": 293.0,
    "cheapest_decisions": 113,
    "planned": 113,
    "opening_chance": 0.3,
    "changes": [],
}
EXAMPLE = {
    "rollout": "bears",
    "revision": 31,
    "is_batched": False,
    "plan": {
        "decisions": 1000,
        "cells": [CELL],
        "expected_openings": 0.3,
        "unplanned": 887,
        "closed_cells": 0,
    },
}


@review_plan_router.get(
    "/review-plan",
    operation_id="getReviewPlan",
    summary="Get where the next reviews help most",
    responses=build_responses(EXAMPLE),
)
def get_review_plan(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
    decisions: Annotated[int, Query(alias="next", ge=1, le=MAX_DECISIONS)] = DEFAULT_DECISIONS,
    site: Annotated[str | None, Query(max_length=200, pattern="^[^\\x00]*$")] = None,
) -> LiveReviewPlan:
    """Return what each cell needs for its next stage, those that need fewest decisions first.

    Figures are simulated from the counted evidence, at the present rate: `decisions_p50` and
    `decisions_p90` are the further decisions after which half and 90 % of the runs have opened. A
    cell is `hopeless` if it ever opens with a chance below 5 %; one without decided units has no
    figures.
    Stops, suspensions, freezes, waves and approvals are not included. Where you may be asked for
    blind reviews, evidence moves in batches of 20 decided units.
    """
    return load_review_plan(service, caller, rollout, at=now, decisions=decisions, site=site)
