"""The review queue (claim, decide and release review tasks), and the review plan.

The plan says where the next reviews help most.
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query, status

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
from api.reviews.schemas import (
    AdjudicationRequest,
    ClaimRequest,
    DecisionRequest,
    GoldCaseRequest,
    OverdueReview,
    OverdueReviewList,
    ReassignmentRequest,
    ReassignmentResult,
    ReviewDecision,
    ReviewQueue,
)
from api.schema_forms import Limit, build_responses
from rollout.features.cells.overview import LiveReviewPlan, load_review_plan
from rollout.features.reports.figures.review_plan import DEFAULT_DECISIONS, MAX_DECISIONS
from rollout.features.reviews import reviews
from rollout.kernel.units import join_labels

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
