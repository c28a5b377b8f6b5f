"""The rollouts, and how each stands."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.deps import Act, By, Caller, Served
from rollout.services.cells.overview import overview, rollouts_of

router = APIRouter(prefix="/v1/rollouts", tags=["rollouts"])
EXAMPLE: dict[str, Any] = {
    "name": "bear-alarm",
    "revision": 41,
    "hash": "9f2c",
    "policy": 3,
    "at": "2027-06-01T12:00:00+00:00",
    "ticked_at": "2027-06-01T11:45:00+00:00",
    "pending": 12,
    "open_proposals": 1,
    "stops": 0,
    "undelivered": 0,
}


class RolloutStatus(BaseModel):
    """A rollout: where its ledger is, what waits."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": EXAMPLE})

    name: str
    revision: int
    hash: str
    policy: int
    at: datetime | None
    ticked_at: datetime | None
    pending: int
    open_proposals: int
    stops: int
    undelivered: int


class RolloutList(BaseModel):
    """The rollouts that the caller may read."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [EXAMPLE]}})

    items: list[RolloutStatus]


@router.get("", operation_id="listRollouts", summary="List rollouts")
def list_rollouts(service: Served, who: Annotated[Caller, By(Act.BE)]) -> RolloutList:
    """Return each rollout that the caller may read, by name."""
    found = rollouts_of(service.database, who)
    return RolloutList(items=[RolloutStatus.model_validate(one) for one in found])


@router.get("/{rollout}", operation_id="getRollout", summary="Get a rollout")
def get_rollout(
    rollout: str, service: Served, who: Annotated[Caller, By(Act.READ)]
) -> RolloutStatus:
    """Return where the rollout's ledger is and what waits."""
    return RolloutStatus.model_validate(overview(service.database, who, rollout))
