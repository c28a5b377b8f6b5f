"""The traffic of sites: cases an hour, and what share of them the model decides."""

from typing import Annotated

from fastapi import APIRouter

from api.deps import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.examples import LATER, NOON, build_responses
from rollout.services.cells.site_traffic import MeasuredTraffic, load_site_traffic

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["rollouts"])
SPAN = {
    "since": NOON,
    "until": LATER,
    "cases": 48,
    "per_hour": 2.0,
    "decided": 40,
    "decided_by_model": 30,
    "model_share": 0.75,
    "is_purged": False,
}
EXAMPLE = {
    "sites": [
        {"site": "creek", "timezone": "UTC", "last_hour": SPAN, "days": [SPAN], "batch": None}
    ],
    "at": LATER,
    "purged_before": None,
    "erased": 0,
}


@router.get(
    "/traffic",
    operation_id="getTraffic",
    summary="Get the traffic of a rollout's sites",
    responses=build_responses(EXAMPLE),
)
def get_traffic(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
) -> MeasuredTraffic:
    """Return the cases of the last hour and of 14 local days at the sites that you may read.

    A case counts at the time when it occurred. Its action says who decided it, otherwise the
    assignment stored with its prediction; `decided` counts the cases with either. Where you may
    review, `decided` and `decided_by_model` count the closed cases of a day in batches of 20, and
    none of the last hour. `is_purged` marks spans of which records were deleted.
    """
    return load_site_traffic(service, caller, rollout, at=now)
