"""Planted cases: scenarios and seeded rare events."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from rollout.features.records.planted_cases import MAX_CASES, PlantingRequest
from rollout.features.records.planted_cases import declare_planted_cases as declare_in_service

router = APIRouter(prefix="/v1/rollouts/{rollout}/planted-cases", tags=["records"])
Key = Annotated[str, Field(min_length=1, max_length=200, pattern="^[^\\x00]*$")]
EXAMPLE: dict[str, Any] = {
    "keys": ["scenario-bear-01", "scenario-bear-02"],
    "reason": "bears are rare in spring: 2 recorded scenarios",
}


class PlantedCasesRequest(BaseModel):
    """Keys of cases that are planted, and what they are for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLE})

    keys: list[Key] = Field(min_length=1, max_length=MAX_CASES)
    reason: str = Field(min_length=1, max_length=2000, pattern="^[^\\x00]*$")


class PlantedCasesResult(BaseModel):
    """The number of cases declared now, and of those declared before."""

    model_config = ConfigDict(
        from_attributes=True, json_schema_extra={"example": {"new": 2, "repeated": 0}}
    )

    new: int
    repeated: int


@router.post(
    "", operation_id="declarePlantedCases", summary="Declare cases as planted before they are sent"
)
def declare_planted_cases(
    rollout: str,
    declaration: PlantedCasesRequest,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.ADMINISTER)],
    now: CurrentTime,
) -> PlantedCasesResult:
    """Declare cases as planted: a population of their own, in no figure about cases that occur.

    All keys are declared, or none. It is safe to retry. A key is refused if any record of its case
    is stored: then its answers could be known. You are not asked to review these cases. Requires
    the admin role.
    """
    request = PlantingRequest(frozenset(declaration.keys), declaration.reason)
    result = declare_in_service(service.database, caller, rollout, request, now)
    return PlantedCasesResult.model_validate(result)
