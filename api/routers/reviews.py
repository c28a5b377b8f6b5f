"""The review queue: take the next case, judge it, give it back, look what the model said."""

from typing import Annotated

from fastapi import APIRouter, Path, status

from api.deps import Act, By, Caller, Now, Served
from api.paging import Limit
from api.schemas.reviews import (
    AdjudicationIn,
    ClaimIn,
    DeskOut,
    KnownCaseIn,
    OverdueOut,
    ReassignmentIn,
    ReassignmentOut,
    RevealOut,
    VerdictIn,
    VerdictOut,
)
from rollout.services import reviewing

router = APIRouter(prefix="/v1/rollouts/{rollout}/reviews", tags=["reviews"])
Reviewer = Annotated[Caller, By(Act.REVIEW)]
Operator = Annotated[Caller, By(Act.OPERATE)]
Admin = Annotated[Caller, By(Act.ADMINISTER)]
Review = Annotated[int, Path(ge=1, lt=2**53, description="number of a review that you took")]
NOTHING = status.HTTP_204_NO_CONTENT


@router.get("", summary="What I hold, and how much waits")
def what_i_hold(rollout: str, service: Served, who: Reviewer, now: Now) -> DeskOut:
    """Return the cases that you hold, and by queue how many more could be given to you."""
    stood = service.watch.rollout(rollout).standing
    return DeskOut.of(reviewing.mine(service.database, who, stood, now))


@router.post("/claims", summary="Take the next case")
def take_the_next(
    rollout: str, wanted: ClaimIn, service: Served, who: Reviewer, now: Now
) -> DeskOut:
    """Be given cases until you hold `hold`; each is yours for ten minutes. Asking again is safe."""
    stood = service.watch.rollout(rollout).standing
    found = reviewing.claim(service.database, who, stood, now, kind=wanted.kind, hold=wanted.hold)
    return DeskOut.of(found)


@router.post("/{review}/decision", summary="Judge a case")
def judge(
    rollout: str, review: Review, verdict: VerdictIn, service: Served, who: Reviewer, now: Now
) -> VerdictOut:
    """Store your verdict. The same again answers the same; `supersedes` corrects it."""
    stood = service.watch.rollout(rollout).standing
    return VerdictOut.of(
        reviewing.decide(service.database, who, stood, review, verdict.said(), now)
    )


@router.post("/{review}/release", summary="Give a case back", status_code=NOTHING)
def give_back(rollout: str, review: Review, service: Served, who: Reviewer) -> None:
    """Give a case back unjudged; somebody else may have it at once."""
    stood = service.watch.rollout(rollout).standing
    reviewing.release(service.database, who, stood, review)


@router.get("/{review}/reveal", summary="What did the model say?")
def what_the_model_said(
    rollout: str, review: Review, service: Served, who: Reviewer, now: Now
) -> RevealOut:
    """Return what each version said of a case that you have judged, if the policy reveals it."""
    stood = service.watch.rollout(rollout).standing
    return RevealOut.of(reviewing.reveal(service.database, who, stood, review, now))


@router.post("/adjudications", summary="Have a case settled", status_code=NOTHING)
def have_settled(
    rollout: str, wanted: AdjudicationIn, service: Served, who: Operator, now: Now
) -> None:
    """Ask somebody who has not judged the case. For reports and training, never evidence."""
    stood = service.watch.rollout(rollout).standing
    reviewing.ask_adjudication(service.database, who, stood, wanted.case, wanted.version, now)


@router.post("/known-cases", summary="Add a known case", status_code=NOTHING)
def add_known(rollout: str, known: KnownCaseIn, service: Served, who: Admin, now: Now) -> None:
    """Have people judge a case whose answer is known, as any other. It is never evidence."""
    stood = service.watch.rollout(rollout).standing
    reviewing.seed(
        service.database, who, stood, known.case, known.answers, people=known.people, at=now
    )


@router.post("/reassignments", summary="Free what somebody holds who is away")
def free_what_is_held(
    rollout: str, away: ReassignmentIn, service: Served, who: Operator
) -> ReassignmentOut:
    """Put back at once what somebody holds; without it their claims run out by themselves."""
    stood = service.watch.rollout(rollout).standing
    given_back = reviewing.reassign(service.database, who, stood, away.reviewer)
    return ReassignmentOut(given_back=given_back)


@router.get("/overdue", summary="Which verdicts are about to be missing?")
def overdue(
    rollout: str, service: Served, who: Operator, now: Now, limit: Limit = 100
) -> OverdueOut:
    """Return seats without a verdict in the last quarter of their grace, or just past it."""
    stood = service.watch.rollout(rollout).standing
    return OverdueOut.of(list(reviewing.overdue(service.database, who, stood, now, limit=limit)))
