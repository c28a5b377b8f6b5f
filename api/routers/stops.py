"""Less, at once: stop, narrow, and ask for a stop's end."""

from typing import Annotated

from fastapi import APIRouter, Response

from api.deps import Act, By, Caller, Now, Served
from api.priority_threads import narrowing
from api.schemas.examples import answers
from api.schemas.stops import NARROWED, RESUME, STOPPED, STOPS, NarrowingRequest, StopRequest
from rollout.services.stops import stops

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["stops"])
Operator = Annotated[Caller, By(Act.OPERATE)]


@router.get(
    "/stops", operation_id="listStops", summary="List active stops", responses=answers(STOPS)
)
def list_stops(
    rollout: str, service: Served, now: Now, who: Annotated[Caller, By(Act.READ)]
) -> stops.StopList:
    """Return the stops that hold, how soon a new one would, and when that was last tried."""
    return stops.stops_of(service, who, rollout, at=now)


@router.post(
    "/stops",
    operation_id="createStop",
    summary="Stop the model in some cells or everywhere",
    responses=answers(STOPPED, 200, 201, model=stops.StopResult),
)
@narrowing
def create_stop(
    rollout: str, body: StopRequest, response: Response, service: Served, now: Now, who: Operator
) -> stops.StopResult:
    """Withhold what is granted, as far as the caller may; what was left out stands in the answer.

    It is never too wide, and waits for no reason. Asked once more it answers what holds.
    """
    done = stops.stop(
        service.database, who, rollout, body.named, at=now, reason=body.reason, drill=body.drill
    )
    service.watch.doubt(rollout)  # here it holds for the next question, elsewhere within moments
    response.status_code = 201 if done.events else 200
    return done


@router.post(
    "/narrowings",
    operation_id="createNarrowing",
    summary="Narrow cells to a lower stage",
    responses=answers(NARROWED, 200, 201, model=stops.NarrowingResult),
)
@narrowing
def create_narrowing(
    rollout: str,
    body: NarrowingRequest,
    response: Response,
    service: Served,
    now: Now,
    who: Operator,
) -> stops.NarrowingResult:
    """Take what is granted above a stage away, as far as the caller may."""
    done = stops.narrow(
        service.database, who, rollout, body.named, body.to, at=now, reason=body.reason
    )
    service.watch.doubt(rollout)
    response.status_code = 201 if done.events else 200
    return done


@router.post(
    "/stops/{stop}/resume",
    operation_id="proposeResume",
    summary="Propose to end a stop",
    responses=answers(RESUME, 200, 201, model=stops.ResumeResult),
)
def propose_resume(
    rollout: str, stop: str, response: Response, service: Served, now: Now, who: Operator
) -> stops.ResumeResult:
    """Propose that a stop is taken back; others approve it, and whoever asks may not."""
    done = stops.ask_resume(service.database, who, rollout, stop, at=now)
    response.status_code = 201 if done.events else 200
    return done
