"""Health checks: is the process alive, can it take requests?"""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from api.deps import ServiceDependency
from api.problems import build_problem, build_problem_responses
from rollout.services.engine.clock_check import check_readiness

router = APIRouter(prefix="/health", tags=["health"])


class Liveness(BaseModel):
    """The process is running."""

    model_config = ConfigDict(json_schema_extra={"example": {"live": True}})

    live: bool


class Readiness(BaseModel):
    """The process can take requests: the schema is current and the clocks agree."""

    model_config = ConfigDict(json_schema_extra={"example": {"ready": True}})

    ready: bool


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

    Checks the database's schema and its clock. The problem's `detail` lists what failed.
    """
    faults = check_readiness(service.database, service.clock)
    return build_problem("not-ready", "; ".join(faults), 503) if faults else Readiness(ready=True)
