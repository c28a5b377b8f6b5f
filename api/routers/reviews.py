"""The review queue: take the next case, judge it, give it back, look what the model said."""

from typing import Annotated

from fastapi import APIRouter, Path, status

from api.deps import Act, By, Caller, Now, Served
from api.paging import Limit
from api.schemas.reviews import (
    AdjudicationRequest,
    ClaimRequest,
    DecisionRequest,
    GoldCaseRequest,
    OverdueReviewList,
    ReassignmentRequest,
    ReassignmentResult,
    RevealedAnswers,
    ReviewDecision,
    ReviewQueue,
)
from rollout.services.reviews import reviews

router = APIRouter(prefix="/v1/rollouts/{rollout}/reviews", tags=["reviews"])
Reviewer = Annotated[Caller, By(Act.REVIEW)]
Operator = Annotated[Caller, By(Act.OPERATE)]
Admin = Annotated[Caller, By(Act.ADMINISTER)]
Review = Annotated[int, Path(ge=1, lt=2**53, description="number of a review that you took")]
NOTHING = status.HTTP_204_NO_CONTENT


@router.get("", operation_id="getReviewQueue", summary="Get my review queue")
def get_review_queue(rollout: str, service: Served, who: Reviewer, now: Now) -> ReviewQueue:
    """Return the cases that you hold, and by queue how many more could be given to you."""
    state = service.watch.rollout(rollout).standing
    return ReviewQueue.of(reviews.mine(service.database, who, state, now))


@router.post("/claims", operation_id="claimNextReview", summary="Claim the next review tasks")
def claim_next_review(
    rollout: str, wanted: ClaimRequest, service: Served, who: Reviewer, now: Now
) -> ReviewQueue:
    """Claim tasks until you have `claims`, for ten minutes each. Repeating the request is safe."""
    state = service.watch.rollout(rollout).standing
    found = reviews.claim(service.database, who, state, now, kind=wanted.kind, hold=wanted.claims)
    return ReviewQueue.of(found)


@router.post(
    "/{review}/decision",
    operation_id="submitDecision",
    summary="Submit a decision on a review task",
)
def submit_decision(
    rollout: str, review: Review, verdict: DecisionRequest, service: Served, who: Reviewer, now: Now
) -> ReviewDecision:
    """Store your verdict. The same again answers the same; `supersedes` corrects it."""
    state = service.watch.rollout(rollout).standing
    return ReviewDecision.of(
        reviews.decide(service.database, who, state, review, verdict.said(), now)
    )


@router.post(
    "/{review}/release",
    operation_id="releaseReview",
    summary="Release a review task",
    status_code=NOTHING,
)
def release_review(rollout: str, review: Review, service: Served, who: Reviewer) -> None:
    """Give a case back unjudged; somebody else may have it at once."""
    state = service.watch.rollout(rollout).standing
    reviews.release(service.database, who, state, review)


@router.get(
    "/{review}/reveal",
    operation_id="revealModelAnswers",
    summary="Reveal the model's answers after a decision",
)
def reveal_model_answers(
    rollout: str, review: Review, service: Served, who: Reviewer, now: Now
) -> RevealedAnswers:
    """Return what each version said of a case that you have judged, if the policy reveals it."""
    state = service.watch.rollout(rollout).standing
    return RevealedAnswers.of(reviews.reveal(service.database, who, state, review, now))


@router.post(
    "/adjudications",
    operation_id="requestAdjudication",
    summary="Request an adjudication of a case",
    status_code=NOTHING,
)
def request_adjudication(
    rollout: str, wanted: AdjudicationRequest, service: Served, who: Operator, now: Now
) -> None:
    """Ask somebody who has not judged the case. For reports and training, never evidence."""
    state = service.watch.rollout(rollout).standing
    reviews.ask_adjudication(service.database, who, state, wanted.case, wanted.version, now)


@router.post(
    "/gold-cases", operation_id="addGoldCase", summary="Add a gold case", status_code=NOTHING
)
def add_gold_case(
    rollout: str, known: GoldCaseRequest, service: Served, who: Admin, now: Now
) -> None:
    """Have people judge a case whose answer is known, as any other. It is never evidence."""
    state = service.watch.rollout(rollout).standing
    reviews.seed(
        service.database, who, state, known.case, known.answers, people=known.reviewers, at=now
    )


@router.post(
    "/reassignments",
    operation_id="reassignReviews",
    summary="Release the review tasks of an absent reviewer",
)
def reassign_reviews(
    rollout: str, away: ReassignmentRequest, service: Served, who: Operator
) -> ReassignmentResult:
    """Put back at once what somebody holds; without it their claims run out by themselves."""
    state = service.watch.rollout(rollout).standing
    released = reviews.reassign(service.database, who, state, away.reviewer)
    return ReassignmentResult(released=released)


@router.get(
    "/overdue",
    operation_id="listOverdueReviews",
    summary="List review tasks that are due or overdue",
)
def list_overdue_reviews(
    rollout: str, service: Served, who: Operator, now: Now, limit: Limit = 100
) -> OverdueReviewList:
    """Return seats without a verdict in the last quarter of their grace, or just past it."""
    state = service.watch.rollout(rollout).standing
    return OverdueReviewList.of(
        list(reviews.overdue(service.database, who, state, now, limit=limit))
    )
