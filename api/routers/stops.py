"""Less, at once: stop, narrow, and ask for a stop's end."""

from typing import Annotated

from fastapi import APIRouter, Response

from api.deps import Act, By, Caller, Now, Served
from api.lane import narrowing
from api.schemas.examples import answers
from api.schemas.stops import NARROWED, RESUME, STOPPED, STOPS, NarrowingIn, StopIn
from rollout.services import stopping

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["stops"])
Operator = Annotated[Caller, By(Act.OPERATE)]


@router.get("/stops", summary="List the stops that hold", responses=answers(STOPS))
def all_stops(
    rollout: str, service: Served, now: Now, who: Annotated[Caller, By(Act.READ)]
) -> stopping.Stops:
    """Return the stops that hold, how soon a new one would, and when that was last tried."""
    return stopping.stops_of(service, who, rollout, at=now)


@router.post(
    "/stops", summary="Stop", responses=answers(STOPPED, 200, 201, model=stopping.StopWritten)
)
@narrowing
def stop(
    rollout: str, body: StopIn, response: Response, service: Served, now: Now, who: Operator
) -> stopping.StopWritten:
    """Withhold what is granted, as far as the caller may; what was left out stands in the answer.

    It is never too wide, and waits for no reason. Asked once more it answers what holds.
    """
    done = stopping.stop(
        service.database, who, rollout, body.named, at=now, reason=body.reason, drill=body.drill
    )
    service.watch.doubt(rollout)  # here it holds for the next question, elsewhere within moments
    response.status_code = 201 if done.events else 200
    return done


@router.post(
    "/narrowings",
    summary="Narrow",
    responses=answers(NARROWED, 200, 201, model=stopping.NarrowingWritten),
)
@narrowing
def narrow(
    rollout: str, body: NarrowingIn, response: Response, service: Served, now: Now, who: Operator
) -> stopping.NarrowingWritten:
    """Take what is granted above a stage away, as far as the caller may."""
    done = stopping.narrow(
        service.database, who, rollout, body.named, body.to, at=now, reason=body.reason
    )
    service.watch.doubt(rollout)
    response.status_code = 201 if done.events else 200
    return done


@router.post(
    "/stops/{stop}/resume",
    summary="Ask for a stop's end",
    responses=answers(RESUME, 200, 201, model=stopping.ResumeWritten),
)
def resume(
    rollout: str, stop: str, response: Response, service: Served, now: Now, who: Operator
) -> stopping.ResumeWritten:
    """Propose that a stop is taken back; others approve it, and whoever asks may not."""
    done = stopping.ask_resume(service.database, who, rollout, stop, at=now)
    response.status_code = 201 if done.events else 200
    return done
