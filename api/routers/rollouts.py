"""Rollouts: list them and get their current state."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.auth import Caller, Permission, RequirePermission, ServiceDependency
from api.schemas.derived import add_fields_of
from rollout.features.cells.overview import RolloutOverview, load_rollout_overview, load_rollouts

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


@add_fields_of(RolloutOverview)
class RolloutStatus(BaseModel):
    """A rollout: the head of its ledger and the number of open items."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": EXAMPLE})


class RolloutList(BaseModel):
    """The rollouts that the caller can read."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [EXAMPLE]}})

    items: list[RolloutStatus]


@router.get("", operation_id="listRollouts", summary="List rollouts")
def list_rollouts(
    service: ServiceDependency, caller: Annotated[Caller, RequirePermission(Permission.IDENTIFY)]
) -> RolloutList:
    """Return the rollouts that you can read, sorted by name."""
    rollouts = load_rollouts(service.database, caller)
    return RolloutList(items=[RolloutStatus.model_validate(item) for item in rollouts])


@router.get("/{rollout}", operation_id="getRollout", summary="Get a rollout")
def get_rollout(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
) -> RolloutStatus:
    """Return a rollout with its ledger head and its open items."""
    return RolloutStatus.model_validate(load_rollout_overview(service.database, caller, rollout))
