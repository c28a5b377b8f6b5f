"""Causes: in which cases a version differs, in a cell or a filter."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, Field

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.causes import SEARCHING, Cause, build_cause, build_cause_progress
from api.schemas.examples import LATER, NOON
from rollout.kernel.errors import RefusalError

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


@router.get(
    "",
    operation_id="findCause",
    summary="Find a cause in a cell or a filter",
    response_model=Cause,
    responses=SEARCHING,
)
def find_cause(
    request: Request,
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    cases: Annotated[CauseFilter, Query()],
) -> Cause | JSONResponse:
    """Return since when and in which cases a version differs, by default of the last 30 days.

    The same figures as of an incident, of all cells that you may read or of some, for at most 90
    days. If you may be asked for blind reviews at a site, its figures move in batches, and days or
    attributes are refused with 422. Fails with 404 if there is no such cell or version. A search of
    more than a second answers 202 and goes on: send the request again after `Retry-After`.
    """
    from rollout.features.incidents.incident_causes import CauseQuery, load_cause

    query = CauseQuery(
        version=cases.version,
        site=cases.site,
        window=cases.window,
        since=cases.since,
        until=cases.until,
        attributes=parse_attributes(cases.attribute),
    )
    load = partial(load_cause, service, caller, rollout, query, at=now)
    search = request.app.state.cause_runs.find(caller, (rollout, query), load, at=now)
    return build_cause(search.loaded) if search.run is None else build_cause_progress(search.run)


def parse_attributes(texts: list[str]) -> dict[str, str]:
    """Return the attributes of `NAME=VALUE` texts.

    Raises:
        RefusalError: a text has another form, or an attribute is named twice.
    """
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
