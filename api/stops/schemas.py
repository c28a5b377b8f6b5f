"""Schemas of stops and narrowings, with examples."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from api.schema_forms import CELL, NOON, build_command_example
from rollout.engine.decide.stops import StopTarget
from rollout.kernel.calendar.instants import Cell

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
