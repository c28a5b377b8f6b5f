"""Is the process alive, and may it be sent traffic?"""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from api.deps import Served
from api.problems import problem, problems
from rollout.services.engine.readiness import faults_of

router = APIRouter(prefix="/health", tags=["health"])


class Liveness(BaseModel):
    """The process runs."""

    model_config = ConfigDict(json_schema_extra={"example": {"live": True}})

    live: bool


class Readiness(BaseModel):
    """The process can answer: its tables are current, its clock and the database's agree."""

    model_config = ConfigDict(json_schema_extra={"example": {"ready": True}})

    ready: bool


@router.get("/live", operation_id="getLiveness", summary="Check that the process is alive")
async def get_liveness() -> Liveness:
    """Answer while the process runs."""
    return Liveness(live=True)


@router.get(
    "/ready",
    operation_id="getReadiness",
    summary="Check that the process can take requests",
    response_model=Readiness,
    responses=problems(503),
)
def get_readiness(service: Served) -> Readiness | JSONResponse:
    """Ask the database; what stands in the way is said, without names of hosts or people."""
    faults = faults_of(service.database, service.clock)
    return problem("not-ready", "; ".join(faults), 503) if faults else Readiness(ready=True)
