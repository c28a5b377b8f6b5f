"""Baselines: how often humans acted before the rollout."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.derived import add_input_of
from rollout.engine.records.records import BaselineCount
from rollout.features.records.baselines import load_baselines, store_baselines

router = APIRouter(prefix="/v1/rollouts/{rollout}/baselines", tags=["records"])
Name = Annotated[str, Field(min_length=1, max_length=200, pattern="^[^\\x00]*$")]
EXAMPLE: dict[str, Any] = {
    "site": "creek",
    "window": "night",
    "lever": "alarm",
    "action": "sound-alarm",
    "n": 41,
    "since": "2026-01-01T00:00:00Z",
    "until": "2027-01-01T00:00:00Z",
}


@add_input_of(BaselineCount, "imported_by", text=Name)
class BaselineEntry(BaseModel):
    """A count of one action by humans in a cell, from `since` to `until` (exclusive).

    Of a lever with `many` an action is a set: its labels, joined by `;`.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLE})

    action: Annotated[str, Field(min_length=1, max_length=500, pattern="^[^\\x00]*$")]
    n: int = Field(ge=0, lt=2**31, strict=True)


class BaselineImportRequest(BaseModel):
    """Baselines to import."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"items": [EXAMPLE]}})

    items: list[BaselineEntry] = Field(max_length=10_000)


class ImportedBaseline(BaselineEntry):
    """A baseline and the user who imported it."""

    model_config = ConfigDict(
        from_attributes=True, json_schema_extra={"example": {**EXAMPLE, "imported_by": "ana"}}
    )

    imported_by: str


class BaselineList(BaseModel):
    """The current baselines.

    If several entries have the same cell, action and time span, only the last one is listed.
    """

    model_config = ConfigDict(
        json_schema_extra={"example": {"items": [{**EXAMPLE, "imported_by": "ana"}]}}
    )

    items: list[ImportedBaseline]


class BaselineImportResult(BaseModel):
    """The number of new entries; entries that were already stored are not counted."""

    model_config = ConfigDict(json_schema_extra={"example": {"new": 1}})

    new: int


@router.post(
    "", operation_id="importBaselines", summary="Import how often humans acted before the rollout"
)
def import_baselines(
    rollout: str,
    history: BaselineImportRequest,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.ADMINISTER)],
    now: CurrentTime,
) -> BaselineImportResult:
    """Import how often humans acted before the rollout.

    Each entry is stored with your name. All entries are stored, or none. It is safe to retry:
    entries that are already stored change nothing. Requires the admin role.
    """
    result = [BaselineCount(**item.model_dump()) for item in history.items]
    return BaselineImportResult(new=store_baselines(service.database, caller, rollout, result, now))


@router.get("", operation_id="listBaselines", summary="List baselines")
def list_baselines(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
) -> BaselineList:
    """Return the baselines of the sites you can read."""
    baselines = load_baselines(service.database, caller, rollout)
    return BaselineList(items=[ImportedBaseline.model_validate(baseline) for baseline in baselines])
