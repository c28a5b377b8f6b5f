"""Health checks: is the process alive, can it take requests?"""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from api.auth import ServiceDependency
from api.problems import build_problem, build_problem_responses
from rollout.live.autonomy import list_readiness_faults

router = APIRouter(prefix="/health", tags=["health"])


class Liveness(BaseModel):
    """The process is running."""

    model_config = ConfigDict(json_schema_extra={"example": {"live": True}})

    live: bool


class Readiness(BaseModel):
    """The process can take requests: schema, clocks and writes are as they should be.

    `last_write_age` is in seconds; null if this process writes no heartbeats. `overdue` are the
    rollouts whose ticks have not done what has long been due: humans decide their cases.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"ready": True, "last_write_age": 0.6, "overdue": []}}
    )

    ready: bool
    last_write_age: float | None
    overdue: list[str]


@router.get("/live", operation_id="getLiveness", summary="Check that the process is alive")
async def get_liveness() -> Liveness:
    """Return 200 while the process is running."""
    return Liveness(live=True)


@router.get(
    "/ready",
    operation_id="getReadiness",
    summary="Check that the process can take requests",
    response_model=Readiness,
    responses=build_problem_responses(503),
)
def get_readiness(service: ServiceDependency) -> Readiness | JSONResponse:
    """Return 200 if the process can take requests, otherwise 503.

    Checks the database's schema, its clock, and that this process could write lately. Nothing is
    written. The problem's `detail` lists what failed, with the age of the last confirmed write.
    """
    faults = list_readiness_faults(service.database, service.clock, service.autonomy)
    write_age = service.autonomy.measure_write_age()
    age = None if write_age is None else round(write_age, 1)
    if not faults:
        return Readiness(ready=True, last_write_age=age, overdue=sorted(service.autonomy.overdue))
    age_text = "no confirmed write yet" if age is None else f"last confirmed write {age} s ago"
    return build_problem("not-ready", "; ".join((*faults, age_text)), 503)
