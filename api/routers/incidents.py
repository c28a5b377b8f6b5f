"""Incidents: what tripped, what it did, and that somebody has seen it."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, cursor, number_of
from api.schemas.examples import CELL, NOON, answers, written
from api.schemas.stops import Reason
from rollout.services.engine.command_results import CommandResult
from rollout.services.incidents.incidents import (
    IncidentStatus,
    acknowledge,
    incident_of,
    incidents_of,
)

router = APIRouter(prefix="/v1/rollouts/{rollout}/incidents", tags=["incidents"])
INCIDENT: dict[str, Any] = {
    "id": "I-3",
    "kind": "alarm",
    "opened_at": NOON,
    **CELL,
    "version": "v7",
    "guard": "agreement at least 93 %",
    "effect": "narrowed",
    "reason": "agreement at least 93 %: 12 of 40 records against it",
    "about": "",
    "acknowledged_at": None,
    "acknowledged_by": "",
    "note": "",
    "revision": 42,
}
SEEN = written("IncidentAcknowledged", "bo", {"incident": "I-3", "note": "snow on the lens"})
WHICH = {"open": False, "acknowledged": True, "all": None}
State = Annotated[Literal["open", "acknowledged", "all"], Query(description="which of them")]


class IncidentList(BaseModel):
    """Some incidents, the newest first; `next` is null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [INCIDENT], "next": None}})

    items: list[IncidentStatus]
    next: str | None


class AcknowledgementRequest(BaseModel):
    """What whoever has seen it says to it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"note": "snow on the lens"}}
    )

    note: Reason = ""


@router.get("", operation_id="listIncidents", summary="List incidents")
def list_incidents(
    rollout: str,
    service: Served,
    who: Annotated[Caller, By(Act.READ)],
    state: State = "open",
    after: After = None,
    limit: Limit = 50,
) -> IncidentList:
    """Return what a person has to look at, or has, the newest first."""
    found = incidents_of(
        service,
        who,
        rollout,
        acknowledged=WHICH[state],
        before=number_of(after),
        limit=limit,
    )
    further = None if found.before is None else cursor(str(found.before))
    return IncidentList(items=list(found.items), next=further)


@router.get(
    "/{incident}",
    operation_id="getIncident",
    summary="Get an incident",
    responses=answers(INCIDENT),
)
def get_incident(
    rollout: str, incident: str, service: Served, who: Annotated[Caller, By(Act.READ)]
) -> IncidentStatus:
    """Return what tripped and what it did."""
    return incident_of(service, who, rollout, incident)


@router.post(
    "/{incident}/acknowledgement",
    operation_id="acknowledgeIncident",
    summary="Acknowledge an incident",
    responses=answers(SEEN),
)
def acknowledge_incident(
    rollout: str,
    incident: str,
    body: AcknowledgementRequest,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.OPERATE)],
) -> CommandResult:
    """Say that an incident was seen; it gives nothing back."""
    return acknowledge(service.database, who, rollout, incident, at=now, note=body.note)
