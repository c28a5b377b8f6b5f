"""The manual history: what people did before there was a model here."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.deps import Act, By, Caller, Now, Served
from rollout.services.records.baselines import Done, baselines_of, vouch

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


class BaselineEntry(BaseModel):
    """How often people did an action in a cell, from `since` up to `until` (outside)."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": EXAMPLE})

    site: Name
    window: Name
    lever: Name
    action: Name
    n: int = Field(ge=0, lt=2**31, strict=True)
    since: AwareDatetime
    until: AwareDatetime


class BaselineImportRequest(BaseModel):
    """A history; all of it is kept, or nothing."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"items": [EXAMPLE]}})

    items: list[BaselineEntry] = Field(max_length=10_000)


class ImportedBaseline(BaselineEntry):
    """The same, with who vouches for it."""

    model_config = ConfigDict(
        from_attributes=True, json_schema_extra={"example": {**EXAMPLE, "imported_by": "ana"}}
    )

    imported_by: str = Field(validation_alias="vouched_by")


class BaselineList(BaseModel):
    """What holds: of several about the same cell, action and span the last one."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"items": [{**EXAMPLE, "imported_by": "ana"}]}}
    )

    items: list[ImportedBaseline]


class BaselineImportResult(BaseModel):
    """How many were new; the others held already."""

    model_config = ConfigDict(json_schema_extra={"example": {"new": 1}})

    new: int


@router.post(
    "", operation_id="importBaselines", summary="Import how often humans acted before the rollout"
)
def import_baselines(
    rollout: str,
    history: BaselineImportRequest,
    service: Served,
    who: Annotated[Caller, By(Act.ADMINISTER)],
    now: Now,
) -> BaselineImportResult:
    """Keep the manual history on your word. The same again changes nothing."""
    result = [Done(**item.model_dump()) for item in history.items]
    return BaselineImportResult(new=vouch(service.database, who, rollout, result, now))


@router.get("", operation_id="listBaselines", summary="List baselines")
def list_baselines(
    rollout: str, service: Served, who: Annotated[Caller, By(Act.READ)]
) -> BaselineList:
    """Return the manual history of the sites that you may read, with who vouches for it."""
    baselines = baselines_of(service.database, who, rollout)
    return BaselineList(items=[ImportedBaseline.model_validate(baseline) for baseline in baselines])
