"""Stops and narrowings: reduce the model's scope at once."""

from fastapi import APIRouter, Response

from api.auth import CurrentTime, Operator, Reader, ServiceDependency
from api.priority_threads import run_with_priority
from api.schema_forms import build_responses
from api.stops.schemas import (
    NARROWED,
    NEXT_ATTEMPT,
    RESUME,
    STOPPED,
    STOPS,
    AttemptRequest,
    NarrowingRequest,
    StopRequest,
)
from rollout.features.stops import stops
from rollout.features.stops.stops import latch_narrowing, latch_stop
from rollout.live.rollout_state import CommandResult

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["stops"])


@router.get(
    "/stops",
    operation_id="listStops",
    summary="List active stops",
    responses=build_responses(STOPS),
)
def list_stops(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> stops.StopList:
    """Return the active stops, and how soon a new stop would hold.

    `last_drill` is the time of the last drill.
    """
    return stops.load_stops(service, caller, rollout, at=now)


@router.post(
    "/stops",
    operation_id="createStop",
    summary="Stop the model in some cells or everywhere",
    responses=build_responses(STOPPED, 200, 201, model=stops.StopResult),
)
async def create_stop(
    rollout: str,
    body: StopRequest,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> stops.StopResult:
    """Stop the model in the selected cells, so that humans decide.

    The stop applies to all selected cells that you may operate. The others are listed in
    `excluded`. No reason is required. Returns 201 for a new stop, or 200 if active stops already
    cover the cells; `stop` is its id, or that of the newest of these. It is safe to retry. Rate
    limits do not apply.
    """
    with latch_stop(
        service,
        caller,
        rollout,
        body.target,
        at=now,
        reason=body.reason,
        is_drill=body.drill,
    ) as write_stop:
        result = await run_with_priority(write_stop)
    service.state_cache.invalidate(rollout)  # other replicas notice it within moments
    response.status_code = 201 if result.events else 200
    return result


@router.post(
    "/narrowings",
    operation_id="createNarrowing",
    summary="Narrow cells to a lower stage",
    responses=build_responses(NARROWED, 200, 201, model=stops.NarrowingResult),
)
async def create_narrowing(
    rollout: str,
    body: NarrowingRequest,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> stops.NarrowingResult:
    """Narrow the selected cells to a lower stage.

    Grants above `to` end in all selected cells that you may operate. The others are listed in
    `excluded`. It is safe to retry. Rate limits do not apply.
    """
    with latch_narrowing(
        service, caller, rollout, body.target, body.to, at=now, reason=body.reason
    ) as write_narrowing:
        result = await run_with_priority(write_narrowing)
    service.state_cache.invalidate(rollout)
    response.status_code = 201 if result.events else 200
    return result


@router.post(
    "/attempts",
    operation_id="beginNextAttempt",
    summary="Begin a version's next attempt",
    status_code=201,
    responses=build_responses(NEXT_ATTEMPT, 201),
)
def begin_next_attempt(
    rollout: str,
    body: AttemptRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> CommandResult:
    """Begin the next attempt of a version in the selected cells that you may operate.

    For evidence with a bad start, such as a box that was offline. Grants stay. The next attempt
    takes the next share of the year's risk, and counts only units that occur from now on. A reason
    is required.
    """
    return stops.begin_next_attempt(
        service.database, caller, rollout, body.target, body.version, at=now, reason=body.reason
    )


@router.post(
    "/stops/{stop}/resume",
    operation_id="proposeResume",
    summary="Propose to end a stop",
    responses=build_responses(RESUME, 200, 201, model=stops.ResumeResult),
)
def propose_resume(
    rollout: str,
    stop: str,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> stops.ResumeResult:
    """Create a proposal to end a stop.

    Other users must approve it; you cannot approve it yourself. Returns 201 for a new proposal, or
    200 if one is already open.
    """
    result = stops.propose_resume(service.database, caller, rollout, stop, at=now)
    response.status_code = 201 if result.events else 200
    return result
