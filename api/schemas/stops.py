"""Which cells are to be narrowed or stopped, as they are named."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from api.schemas.examples import CELL, NOON, written
from rollout.core.calendar.sites import Cell
from rollout.services.stops.stops import Named

MOST_SAID = 2_000  # letters of a reason that are kept
Name = Annotated[str, Field(description="what fits nothing takes nothing from what fits")]


def _reason(said: object) -> str:
    """Return a reason in letters that can be kept: it is asked for, and holds up nothing."""
    text = said if isinstance(said, str) else "" if said is None else json.dumps(said)
    cleaned = text[:MOST_SAID].encode(errors="replace").decode()
    return cleaned.replace("\0", "\N{REPLACEMENT CHARACTER}")


Reason = Annotated[str, BeforeValidator(_reason), WithJsonSchema({"default": ""})]
REACH: list[dict[str, Any]] = [
    {"site": "creek", "within_seconds": 60.5},
    {"site": "far-camp", "within_seconds": 43200.5},
]
HELD: dict[str, Any] = {
    "id": "S-42",
    "by": "bo",
    "at": NOON,
    "reason": "smoke",
    "drill": False,
    "cells": [CELL],
    "resume_proposal": "",
    "resume_required_approvals": ["operator", "operator"],
}
SAYS = (
    "it holds for the next question, and every effect of earlier answers has ended: creek within 1m"
)
LEFT_OUT = [{"target": "far-camp", "reason": "bo is no operator there"}]
STOPPED = written(
    "Stopped",
    "bo",
    {"stop": "S-42", "cells": [CELL], "reason": "smoke", "drill": False},
    cells=[CELL],
    excluded=LEFT_OUT,
    active_stops=[HELD],
    stop_latency=REACH[:1],
    last_drill=None,
    text=SAYS,
)
NARROWED = written(
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
    excluded=LEFT_OUT,
    stop_latency=REACH[:1],
    text=SAYS,
)
RESUME = written(
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
    "items": [HELD],
    "stop_latency": REACH,
    "last_drill": "2027-05-03T09:00:00Z",
}


class CellSelector(BaseModel):
    """A cell by its two names."""

    model_config = ConfigDict(json_schema_extra={"example": CELL})

    site: Name
    window: Name


class TargetFields(BaseModel):
    """Cells by name, by patterns of sites and windows with `*` (both have to fit), or all.

    A field that is not known holds nothing up.
    """

    cells: list[CellSelector] = Field(default_factory=list, max_length=10_000)
    sites: list[Name] = Field(default_factory=list, max_length=1_000)
    windows: list[Name] = Field(default_factory=list, max_length=1_000)
    all: bool = False
    reason: Reason = Field(default="", description="nothing waits for it")

    @property
    def named(self) -> Named:
        """Return which cells are meant."""
        cells = tuple(Cell(cell.site, cell.window) for cell in self.cells)
        return Named(cells, tuple(self.sites), tuple(self.windows), self.all)


class StopRequest(TargetFields):
    """What is to be stopped; a drill holds all the same."""

    model_config = ConfigDict(json_schema_extra={"example": {"all": True, "reason": "smoke"}})

    drill: bool = False


class NarrowingRequest(TargetFields):
    """What is to go down, and to which stage."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"sites": ["creek"], "to": "supervised", "reason": "fog"}},
    )

    to: Name
