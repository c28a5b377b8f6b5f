"""Is the process alive, and may it be sent traffic?"""

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from api.deps import Served
from api.problems import problem, problems
from rollout.services.readiness import faults_of

router = APIRouter(prefix="/health", tags=["health"])


class Alive(BaseModel):
    """The process runs."""

    model_config = ConfigDict(json_schema_extra={"example": {"live": True}})

    live: bool


class Ready(BaseModel):
    """The process can answer: its tables are current, its clock and the database's agree."""

    model_config = ConfigDict(json_schema_extra={"example": {"ready": True}})

    ready: bool


@router.get("/live", summary="Is the process alive?")
async def live() -> Alive:
    """Answer while the process runs."""
    return Alive(live=True)


@router.get(
    "/ready", summary="May it be sent traffic?", response_model=Ready, responses=problems(503)
)
def ready(service: Served) -> Ready | JSONResponse:
    """Ask the database; what stands in the way is said, without names of hosts or people."""
    faults = faults_of(service.database, service.clock)
    return problem("not-ready", "; ".join(faults), 503) if faults else Ready(ready=True)
