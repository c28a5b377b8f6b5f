"""Incidents (list, get and acknowledge them), and causes: in which cases a version differs.

A cause is searched for an incident, or in a cell or a filter.
"""

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AliasPath, AwareDatetime, BaseModel, BeforeValidator, Field
from pydantic.config import JsonDict

from api.auth import CurrentTime, Operator, Reader, ServiceDependency
from api.schema_forms import (
    CELL,
    LATER,
    NOON,
    After,
    AttributeForm,
    Limit,
    Page,
    build_command_example,
    build_responses,
    decode_number,
    encode_number,
)
from api.stops.routes import Reason
from rollout.features.incidents.incidents import (
    RELOAD_SECONDS,
    IncidentStatus,
    load_incident,
    load_incidents,
    record_acknowledgement,
)
from rollout.kernel.errors import RefusalError
from rollout.kernel.units import UnitSelection
from rollout.live.rollout_state import CommandResult

if TYPE_CHECKING:
    from rollout.features.incidents.incident_causes import LoadedCause
    from rollout.kernel.statistics.value_search import ValueSearch
    from rollout.live.work.user_runs import UserRun


class CauseCounts(AttributeForm):
    """Judged cases and those in which the version differs, with its 95 % interval."""

    differing: int = Field(validation_alias="count")
    judged: int = Field(validation_alias="n")
    share: float | None = Field(validation_alias="rate")
    low: float | None
    high: float | None


class CauseValue(AttributeForm):
    """A value's cases against all others of the same time, and before and after the incident.

    The intervals of all values cover together with 95 %.
    """

    source: str = Field(validation_alias=AliasPath("compared", "source"), examples=["attribute"])
    name: str = Field(validation_alias=AliasPath("compared", "kind"), examples=["form"])
    value: str = Field(validation_alias=AliasPath("compared", "value"), examples=["new"])
    verdict: Literal["stands-out", "follows", "new", "chance"] = Field(
        description="It can be the cause; stands out, but follows from the cause; is new and can't"
        " be told yet; or could differ by chance."
    )
    chance: float = Field(
        validation_alias=AliasPath("compared", "chance"),
        description="Holm's p-value of Fisher's exact test against the others.",
    )
    differing: int = Field(validation_alias=AliasPath("compared", "count"))
    judged: int = Field(validation_alias=AliasPath("compared", "n"))
    low: float = Field(validation_alias=AliasPath("compared", "low"))
    high: float = Field(validation_alias=AliasPath("compared", "high"))
    others_differing: int = Field(validation_alias=AliasPath("compared", "rest_count"))
    others_judged: int = Field(validation_alias=AliasPath("compared", "rest_n"))
    visible_difference: float | None = Field(
        description="This difference to the others would stand out 8 times in 10; null if none."
    )
    before: CauseCounts
    during: CauseCounts
    after: CauseCounts
    others_before: CauseCounts


class CauseNewValue(AttributeForm):
    """An attribute value that no judged case had before the day of the change."""

    name: str = Field(validation_alias="kind")
    value: str
    since: CauseCounts
    others: CauseCounts


class CauseGap(BaseModel):
    """Values of a property that were not compared; without a number, there was none to compare."""

    source: str
    name: str
    values: int | None


def _list_gaps(search: "ValueSearch") -> list[CauseGap]:
    return [
        *(CauseGap(source=key[0], name=key[1], values=left) for key, left in search.omitted),
        *(CauseGap(source=key[0], name=key[1], values=None) for key in search.uncompared),
    ]


NO_CASES: Final[JsonDict] = {"differing": 0, "judged": 0, "share": None, "low": None, "high": None}
CAUSE: Final[JsonDict] = {
    "site": "lisbon",
    "window": "day",
    "version": "v1",
    "since": NOON,
    "until": LATER,
    "started_at": None,
    "opened_at": None,
    "batch": None,
    "compared": 0,
    "before": NO_CASES,
    "during": {"differing": 3, "judged": 152, "share": 0.0197, "low": 0.0041, "high": 0.0566},
    "after": NO_CASES,
    "values": [],
    "new_values": [],
    "not_compared": [{"source": "attribute", "name": "form", "values": None}],
}


class Cause(AttributeForm, json_schema_extra={"example": CAUSE}):
    """Since when and in which cases a version differs around an incident."""

    site: str
    window: str
    version: str
    since: datetime
    until: datetime
    started_at: datetime | None = Field(description="Likeliest begin; null if no rise is likely.")
    opened_at: datetime | None = Field(description="Of the incident; null of a cell or a filter.")
    batch: int | None = Field(description="Judged cases by which your figures move; null is one.")
    compared: Annotated[int, BeforeValidator(len)] = Field(
        validation_alias=AliasPath("cause", "search", "values"),
        description="Number of values compared since the begin.",
    )
    before: CauseCounts = Field(validation_alias=AliasPath("cause", "before"))
    during: CauseCounts = Field(validation_alias=AliasPath("cause", "during"))
    after: CauseCounts = Field(validation_alias=AliasPath("cause", "after"))
    values: list[CauseValue] = Field(
        validation_alias=AliasPath("cause", "findings"),
        description="Those that can be the cause first, at least 50.",
    )
    new_values: list[CauseNewValue] = Field(validation_alias=AliasPath("cause", "new_values"))
    not_compared: Annotated[list[CauseGap], BeforeValidator(_list_gaps)] = Field(
        validation_alias=AliasPath("cause", "search")
    )


class IncidentCauseAnswer(
    BaseModel, json_schema_extra={"example": {"incident": "I-3", "cause": None}}
):
    """The cause of an incident; null if it names no version in a cell of the policy."""

    incident: str
    cause: Cause | None


class CauseProgress(
    BaseModel, json_schema_extra={"example": {"started_at": NOON, "searches_before": 0}}
):
    """A search for a cause that goes on; the same request later finds its end."""

    started_at: datetime
    searches_before: int = Field(description="Searches of others that end or begin before it.")


SEARCHING: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": CauseProgress, "description": "it takes longer; send the same request again"}
}


def build_cause_progress(run: "UserRun[str, LoadedCause | None]") -> JSONResponse:
    """Return the answer while a search works: 202, and when to ask again."""
    progress = CauseProgress(started_at=run.started_at, searches_before=run.runs_before)
    return JSONResponse(
        progress.model_dump(mode="json"), 202, headers={"Retry-After": str(RELOAD_SECONDS)}
    )


class DetectorPoint(AttributeForm):
    """The detector after a tick; counts since its start."""

    at: datetime
    value_log10: float
    against: int
    records: int


class DetectorCourseBody(AttributeForm):
    """A guard's detector from its start to the alarm."""

    guard: str
    threshold: float
    points: list[DetectorPoint] = Field(description="At most 200, the last one at the alarm.")


class DetectorCourseAnswer(
    BaseModel, json_schema_extra={"example": {"incident": "I-3", "course": None, "hidden": None}}
):
    """The course of an incident's detector; null without one, or if it is hidden."""

    incident: str
    course: DetectorCourseBody | None
    hidden: Literal["asked", "open", "recounted"] | None = Field(
        description="`asked`: you may be asked for blind reviews at the site. `open`: a reviewer"
        " may still decide one of its cases blind. `recounted`: today's records are not those it"
        " read."
    )


router = APIRouter(prefix="/v1/rollouts/{rollout}/incidents", tags=["incidents"])
INCIDENT: dict[str, Any] = {
    "id": "I-3",
    "kind": "alarm",
    "opened_at": NOON,
    **CELL,
    "version": "v7",
    "guard": "agreement>=0.93",
    "effect": "narrowed",
    "reason": "agreement at least 93 %: 12 of 40 blind decisions disagree",
    "alarms": [
        {
            "condition": {"measure": "agreement", "threshold": "0.93"},
            "against": 12,
            "records": 40,
        }
    ],
    "trigger": None,
    "about": "",
    "acknowledged_at": None,
    "acknowledged_by": "",
    "note": "",
    "revision": 42,
    "unopened": 0,
}
ACKNOWLEDGED = build_command_example(
    "IncidentAcknowledged", "bo", {"incident": "I-3", "note": "snow on the lens"}
)
ACKNOWLEDGED_BY_STATE = {"open": False, "acknowledged": True, "all": None}
State = Annotated[
    Literal["open", "acknowledged", "all"], Query(description="state of the incidents")
]


class IncidentList(
    Page[IncidentStatus], json_schema_extra={"example": {"items": [INCIDENT], "next": None}}
):
    """A page of incidents, newest first. `next` is null on the last page."""


class AcknowledgementRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"note": "snow on the lens"}}
):
    """An optional note on the incident."""

    note: Reason = ""


@router.get("", operation_id="listIncidents", summary="List incidents")
def list_incidents(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    state: State = "open",
    after: After = None,
    limit: Limit = 50,
) -> IncidentList:
    """Return incidents, newest first; by default only open ones."""
    incidents = load_incidents(
        service,
        caller,
        rollout,
        acknowledged=ACKNOWLEDGED_BY_STATE[state],
        before=decode_number(after),
        limit=limit,
    )
    return IncidentList(items=list(incidents.items), next=encode_number(incidents.before))


@router.get(
    "/{incident}",
    operation_id="getIncident",
    summary="Get an incident",
    responses=build_responses(INCIDENT),
)
def get_incident(
    rollout: str,
    incident: str,
    service: ServiceDependency,
    caller: Reader,
) -> IncidentStatus:
    """Return an incident with its cause and its effect."""
    return load_incident(service, caller, rollout, incident)


@router.get(
    "/{incident}/cause",
    operation_id="findIncidentCause",
    summary="Find an incident's cause",
    response_model=IncidentCauseAnswer,
    responses=SEARCHING,
)
def find_incident_cause(
    request: Request,
    rollout: str,
    incident: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> IncidentCauseAnswer | JSONResponse:
    """Return since when and in which cases the version differs from blind decisions.

    Attribute values, answers, hours and weekdays are compared with all other cases of the same
    time; for operators also reviewers. The chance that any stands out without cause is at most 5 %.
    If you may be asked for blind reviews at the site, figures move in batches. A search of more
    than a second answers 202 and goes on: send the request again after `Retry-After`.
    """
    from rollout.features.incidents.incident_causes import load_incident_cause
    from rollout.features.incidents.incident_impact import load_incident_impact

    impact = load_incident_impact(service, caller, rollout, incident, at=now)
    load = partial(load_incident_cause, service, caller, rollout, impact, at=now)
    search = request.app.state.cause_runs.find(caller, (rollout, impact.incident.id), load, at=now)
    if search.run is not None:
        return build_cause_progress(search.run)
    return IncidentCauseAnswer.model_validate({"incident": incident, "cause": search.loaded})


@router.get(
    "/{incident}/detector",
    operation_id="getDetectorCourse",
    summary="Get the course of an incident's detector",
)
def get_detector_course(
    rollout: str,
    incident: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> DetectorCourseAnswer:
    """Return the values of the guard's detector by the records that it read, until the alarm.

    The alarm is raised at `threshold`. Guards of shares over a time, of slices and of gains have no
    such course. It is hidden while a reviewer may still decide one of its cases blind, and from
    users who may be asked for blind reviews at the site.
    """
    from rollout.features.incidents.incident_causes import load_detector_course
    from rollout.features.incidents.incident_impact import load_incident_impact

    impact = load_incident_impact(service, caller, rollout, incident, at=now)
    loaded = load_detector_course(service, caller, rollout, impact, at=now)
    return DetectorCourseAnswer.model_validate(
        {
            "incident": incident,
            "course": loaded and loaded.course,
            "hidden": loaded and (loaded.hidden or None),
        }
    )


@router.post(
    "/{incident}/acknowledgement",
    operation_id="acknowledgeIncident",
    summary="Acknowledge an incident",
    responses=build_responses(ACKNOWLEDGED),
)
def acknowledge_incident(
    rollout: str,
    incident: str,
    body: AcknowledgementRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> CommandResult:
    """Acknowledge an incident.

    This closes the incident. It does not restore a stage or a grant. It is safe to retry: the first
    acknowledgement is kept. Requires the operator role.
    """
    return record_acknowledgement(
        service.database, caller, rollout, incident, at=now, note=body.note
    )


causes_router = APIRouter(prefix="/v1/rollouts/{rollout}/cause", tags=["cells"])
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


@causes_router.get(
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
    caller: Reader,
    cases: Annotated[CauseFilter, Query()],
) -> Cause | JSONResponse:
    """Return since when and in which cases a version differs, by default of the last 30 days.

    The same figures as of an incident, of all cells that you may read or of some, for at most 90
    days. If you may be asked for blind reviews at a site, its figures move in batches, and days or
    attributes are refused with 422. Fails with 404 if there is no such cell or version. A search of
    more than a second answers 202 and goes on: send the request again after `Retry-After`.
    """
    from rollout.features.incidents.incident_causes import load_cause

    query = UnitSelection(
        cases.version or None,
        cases.site or None,
        cases.window or None,
        parse_attributes(cases.attribute),
        cases.since,
        cases.until,
    )
    load = partial(load_cause, service, caller, rollout, query, at=now)
    search = request.app.state.cause_runs.find(caller, (rollout, query), load, at=now)
    if search.run is not None:
        return build_cause_progress(search.run)
    return Cause.model_validate(search.loaded)


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
