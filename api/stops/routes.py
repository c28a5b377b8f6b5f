"""Stops and narrowings: reduce the model's scope at once."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from api.auth import CurrentTime, Operator, Reader, ServiceDependency
from api.priority_threads import run_with_priority
from api.schema_forms import CELL, NOON, build_command_example, build_responses
from rollout.engine.decide.stops import StopTarget
from rollout.features.stops import stops
from rollout.features.stops.stops import latch_narrowing, latch_stop
from rollout.kernel.calendar.instants import Cell
from rollout.live.rollout_state import CommandResult

MAX_REASON_LENGTH = 2_000  # characters; the rest is cut off
Name = Annotated[str, Field(description="a name without a match is ignored")]


def _clean_reason(value: object) -> str:
    """Return a reason that can be stored; a malformed reason never delays a stop."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    cleaned = text[:MAX_REASON_LENGTH].encode(errors="replace").decode()
    return cleaned.replace("\0", "\N{REPLACEMENT CHARACTER}")


Reason = Annotated[str, BeforeValidator(_clean_reason), WithJsonSchema({"default": ""})]
STOP_LATENCIES: list[dict[str, Any]] = [
    {"site": "creek", "within_seconds": 60.5},
    {"site": "far-camp", "within_seconds": 43200.5},
]
ACTIVE_STOP: dict[str, Any] = {
    "id": "S-42",
    "by": "bo",
    "at": NOON,
    "reason": "smoke",
    "drill": False,
    "cells": [CELL],
    "resume_proposal": "",
    "resume_required_approvals": ["operator", "operator"],
}
STOP_TEXT = (
    "applies from the next assignment on; the model stops acting on earlier assignments at creek"
    " within 1 min 1 s"
)
EXCLUDED_TARGETS = [{"target": "far-camp", "reason": "bo is no operator there"}]
STOPPED = build_command_example(
    "Stopped",
    "bo",
    {"stop": "S-42", "cells": [CELL], "reason": "smoke", "drill": False},
    stop="S-42",
    cells=[CELL],
    excluded=EXCLUDED_TARGETS,
    active_stops=[ACTIVE_STOP],
    stop_latency=STOP_LATENCIES[:1],
    last_drill=None,
    text=STOP_TEXT,
)
NARROWED = build_command_example(
    "Narrowed",
    "bo",
    {
        **CELL,
        "version": "v7",
        "from_stage": "autonomous",
        "to_stage": "supervised",
        "reason": "fog",
    },
    cells=[CELL],
    excluded=EXCLUDED_TARGETS,
    stop_latency=STOP_LATENCIES[:1],
    text=STOP_TEXT,
)
NEXT_ATTEMPT = build_command_example(
    "Narrowed",
    "bo",
    {
        **CELL,
        "version": "v7",
        "from_stage": "shadow",
        "to_stage": "shadow",
        "restart": True,
        "reason": "the box was offline",
    },
)
RESUME = build_command_example(
    "ProposalRaised",
    "bo",
    {"proposal": "P-8", "kind": "resume", "about": "S-42"},
    stop="S-42",
    proposal="P-8",
    required_approvals=["operator", "operator"],
    evidence_hash="3fe1c3",
    text="P-8 needs 2 operators other than bo",
)
STOPS: dict[str, Any] = {
    "items": [ACTIVE_STOP],
    "stop_latency": STOP_LATENCIES,
    "last_drill": "2027-05-03T09:00:00Z",
}


class CellSelector(BaseModel, json_schema_extra={"example": CELL}):
    """A cell: a site and a window."""

    site: Name
    window: Name


class TargetFields(BaseModel):
    """The cells to select, by name, by patterns with `*`, or all.

    If both `sites` and `windows` are given, both must match. Unknown fields are ignored.
    """

    cells: list[CellSelector] = Field(default_factory=list, max_length=10_000)
    sites: list[Name] = Field(default_factory=list, max_length=1_000)
    windows: list[Name] = Field(default_factory=list, max_length=1_000)
    all: bool = False
    reason: Reason = Field(default="", description="optional")

    @property
    def target(self) -> StopTarget:
        """Return the selected cells."""
        cells = tuple(Cell(cell.site, cell.window) for cell in self.cells)
        return StopTarget(cells, tuple(self.sites), tuple(self.windows), self.all)


class StopRequest(TargetFields, json_schema_extra={"example": {"all": True, "reason": "smoke"}}):
    """The cells to stop. A drill stops them like any other stop."""

    drill: bool = False


class AttemptRequest(
    TargetFields,
    json_schema_extra={
        "example": {"sites": ["creek"], "version": "v7", "reason": "the box was offline"}
    },
):
    """The cells and the version whose next attempt begins."""

    version: Name


class NarrowingRequest(
    TargetFields,
    json_schema_extra={"example": {"sites": ["creek"], "to": "supervised", "reason": "fog"}},
):
    """The cells to narrow, and the stage to narrow them to."""

    to: Name


router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["stops"])


@router.get(
    "/stops",
    operation_id="listStops",
    summary="List active stops",
    responses=build_responses(STOPS),
)
def list_stops(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> stops.StopList:
    """Return the active stops, and how soon a new stop would hold.

    `last_drill` is the time of the last drill.
    """
    return stops.load_stops(service, caller, rollout, at=now)


@router.post(
    "/stops",
    operation_id="createStop",
    summary="Stop the model in some cells or everywhere",
    responses=build_responses(STOPPED, 200, 201, model=stops.StopResult),
)
async def create_stop(
    rollout: str,
    body: StopRequest,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> stops.StopResult:
    """Stop the model in the selected cells, so that humans decide.

    The stop applies to all selected cells that you may operate. The others are listed in
    `excluded`. No reason is required. Returns 201 for a new stop, or 200 if active stops already
    cover the cells; `stop` is its id, or that of the newest of these. It is safe to retry. Rate
    limits do not apply.
    """
    with latch_stop(
        service,
        caller,
        rollout,
        body.target,
        at=now,
        reason=body.reason,
        is_drill=body.drill,
    ) as write_stop:
        result = await run_with_priority(write_stop)
    service.state_cache.invalidate(rollout)  # other replicas notice it within moments
    response.status_code = 201 if result.events else 200
    return result


@router.post(
    "/narrowings",
    operation_id="createNarrowing",
    summary="Narrow cells to a lower stage",
    responses=build_responses(NARROWED, 200, 201, model=stops.NarrowingResult),
)
async def create_narrowing(
    rollout: str,
    body: NarrowingRequest,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> stops.NarrowingResult:
    """Narrow the selected cells to a lower stage.

    Grants above `to` end in all selected cells that you may operate. The others are listed in
    `excluded`. It is safe to retry. Rate limits do not apply.
    """
    with latch_narrowing(
        service, caller, rollout, body.target, body.to, at=now, reason=body.reason
    ) as write_narrowing:
        result = await run_with_priority(write_narrowing)
    service.state_cache.invalidate(rollout)
    response.status_code = 201 if result.events else 200
    return result


@router.post(
    "/attempts",
    operation_id="beginNextAttempt",
    summary="Begin a version's next attempt",
    status_code=201,
    responses=build_responses(NEXT_ATTEMPT, 201),
)
def begin_next_attempt(
    rollout: str,
    body: AttemptRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> CommandResult:
    """Begin the next attempt of a version in the selected cells that you may operate.

    For evidence with a bad start, such as a box that was offline. Grants stay. The next attempt
    takes the next share of the year's risk, and counts only units that occur from now on. A reason
    is required.
    """
    return stops.begin_next_attempt(
        service.database, caller, rollout, body.target, body.version, at=now, reason=body.reason
    )


@router.post(
    "/stops/{stop}/resume",
    operation_id="proposeResume",
    summary="Propose to end a stop",
    responses=build_responses(RESUME, 200, 201, model=stops.ResumeResult),
)
def propose_resume(
    rollout: str,
    stop: str,
    response: Response,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> stops.ResumeResult:
    """Create a proposal to end a stop.

    Other users must approve it; you cannot approve it yourself. Returns 201 for a new proposal, or
    200 if one is already open.
    """
    result = stops.propose_resume(service.database, caller, rollout, stop, at=now)
    response.status_code = 201 if result.events else 200
    return result
