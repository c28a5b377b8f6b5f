"""What will happen in a rollout: waves, freezes, ends of grants and trials, reports, drills."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.examples import LATER, build_responses
from rollout.features.cells.overview import DEFAULT_DAYS, MAX_DAYS, RolloutSchedule, load_schedule

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["rollouts"])
EXAMPLE = {
    "items": [
        {
            "kind": "grant",
            "at": LATER,
            "until": None,
            "sites": ["creek"],
            "window": "day",
            "subject": "supervised",
            "text": "supervised ends at creek by day",
        }
    ],
    "until": LATER,
}


@router.get(
    "/schedule",
    operation_id="getSchedule",
    summary="Get the schedule of a rollout",
    responses=build_responses(EXAMPLE),
)
def get_schedule(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="how far ahead")] = DEFAULT_DAYS,
) -> RolloutSchedule:
    """Return what will happen in the next days at the sites that you may read.

    Freezes, openings of waves, ends of trials, ends of grants, expiring proposals,
    approved proposals that wait for a date, reports, and stop drills: at a site with a grant the
    next is due 30 days after the last. It assumes that nothing else happens before: a widening, for
    example, moves the opening of the next wave.
    """
    return load_schedule(service, caller, rollout, at=now, days=days)
