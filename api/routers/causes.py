"""Causes: in which cases a version differs, in a cell or a filter."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from api.deps import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.causes import Cause, build_cause
from api.schemas.examples import LATER, NOON
from rollout.core.errors import RefusalError
from rollout.services.incidents.cell_causes import CauseQuery, load_cause

router = APIRouter(prefix="/v1/rollouts/{rollout}/cause", tags=["cells"])
MAX_NAME_LENGTH = 200


class CauseFilter(BaseModel):
    """Which cases are searched."""

    site: str = Field("", max_length=MAX_NAME_LENGTH)
    window: str = Field("", max_length=MAX_NAME_LENGTH)
    version: str = Field(
        "", max_length=MAX_NAME_LENGTH, description="By default the acting or the newest one."
    )
    since: AwareDatetime | None = Field(None, alias="from", examples=[NOON])
    until: AwareDatetime | None = Field(None, examples=[LATER])
    attribute: list[str] = Field(
        [], max_length=20, description="Attributes of the cases.", examples=[["form=new"]]
    )


@router.get("", operation_id="findCause", summary="Find a cause in a cell or a filter")
def find_cause(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    cases: Annotated[CauseFilter, Query()],
) -> Cause:
    """Return since when and in which cases a version differs, by default of the last 30 days.

    The same figures as of an incident, of all cells that you may read or of some, for at most 90
    days. If you may be asked for blind reviews at a site, its figures move in batches, and days or
    attributes are refused with 422. Fails with 404 if there is no such cell or version.
    """
    query = CauseQuery(
        version=cases.version,
        site=cases.site,
        window=cases.window,
        since=cases.since,
        until=cases.until,
        attributes=_parse_attributes(cases.attribute),
    )
    return build_cause(load_cause(service, caller, rollout, query, at=now))


def _parse_attributes(texts: list[str]) -> dict[str, str]:
    pairs = [_parse_attribute(text) for text in texts]
    attributes = dict(pairs)
    if len(attributes) < len(pairs):
        raise RefusalError("`attribute` names an attribute twice; a case has one value of each")
    return attributes


def _parse_attribute(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise RefusalError(f"`attribute` is {text!r}; write NAME=VALUE")
    return name, value
