"""Cells and their evidence as they are answered: numbers that a reader can draw and compare."""

from datetime import datetime
from math import isfinite
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.schemas.examples import NOON
from rollout.services.cells.cells import CellStatus, GuardStatus

NOW: dict[str, Any] = {
    "site": "creek",
    "window": "night",
    "stage": "supervised",
    "version": "v7",
    "until": "2027-08-30T12:00:00Z",
    "ceiling": "autonomous",
    "withheld": "",
    "suspended_by": [],
    "stops": [],
    "proposals": [],
    "next_step": "autonomous: 120 of 200 judged units; 12 of 30 days",
}
CONDITION: dict[str, Any] = {
    "condition": "agreement at least 95 %",
    "measure": "agreement",
    "label": None,
    "lever": None,
    "threshold": 0.95,
    "at_least": True,
    "n": 426,
    "counts": [418, 8],
    "estimate": 0.9812,
    "bound": 0.9551,
    "log_e": 4.27,
    "log_e_needed": 2.9957,
    "met": True,
    "probability_below": None,
    "records_needed_min": None,
    "records_needed_median": None,
    "records_needed_p90": None,
}
PATH: dict[str, Any] = {
    "condition": "agreement at least 95 %",
    "measure": "agreement",
    "at_least": True,
    "threshold": 0.95,
    "to": "supervised",
    "attempt": 1,
    "risk": 0.05,
    "at": [NOON],
    "n": [426],
    "estimate": [0.9812],
    "bound": [0.9551],
}
EVIDENCE: dict[str, Any] = {
    "version": "v7",
    "stage": "supervised",
    "acting": True,
    "since": NOON,
    "attempt": 1,
    "attempt_since": "2027-05-01T00:00:00Z",
    "closed_units": 430,
    "decided_units": 426,
    "undecided_units": 4,
    "decided_units_per_day": 14.0,
    "gate": {
        "to": "autonomous",
        "risk": 0.01,
        "met": False,
        "missing": ["12 of 30 days"],
        "required_approvals": ["operator", "safety"],
        "conditions": [CONDITION],
    },
    "next_step": "autonomous: 12 of 30 days",
    "path": [PATH],
}
HAPPENED: dict[str, Any] = {
    "revision": 41,
    "at": NOON,
    "local": "Tue 1 Jun 06:00",
    "kind": "Widened",
    "version": "v7",
    "to": "supervised",
    "by": "policy",
    "text": "v7 goes up to supervised, until Mon 30 Aug 06:00; approved by ana and bo",
}


def _finite(value: Any) -> Any:
    """Return None for what has no number: JSON knows no infinity."""
    return None if isinstance(value, float) and not isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
FROM = ConfigDict(from_attributes=True)


class GateCondition(BaseModel):
    """A condition of a gate on the evidence that there is: see `docs/api.md`."""

    model_config = FROM

    condition: str
    measure: str
    label: str | None
    lever: str | None
    threshold: float = Field(validation_alias="line")
    at_least: bool
    n: int
    counts: list[int]
    estimate: Number
    bound: Number
    log_e: Number
    log_e_needed: Number = Field(validation_alias="needed")
    met: bool
    records_needed_min: int | None = Field(validation_alias="further")
    probability_below: Number = Field(validation_alias="below")
    records_needed_median: int | None = Field(validation_alias="median")
    records_needed_p90: int | None = Field(validation_alias="ninety")


class GateProgress(BaseModel):
    """The gate in play: its conditions, and what is missing beside them in words."""

    model_config = FROM

    to: str
    risk: float
    met: bool
    missing: list[str] = Field(validation_alias="lacks")
    required_approvals: list[str] = Field(validation_alias="approvals")
    conditions: list[GateCondition]


class EvidencePath(BaseModel):
    """How a condition's evidence went, look by look; lists run in parallel, at most 400 long."""

    model_config = FROM

    condition: str
    measure: str
    at_least: bool
    threshold: float = Field(validation_alias="line")
    to: str
    attempt: int
    risk: float
    at: list[datetime]
    n: list[int]
    estimate: list[Number]
    bound: list[Number]


class CellEvidence(BaseModel):
    """What one version has shown in the cell, and what decides about its next step."""

    model_config = FROM

    version: str
    stage: str
    acting: bool
    since: datetime
    attempt: int
    attempt_since: datetime
    closed_units: int = Field(validation_alias="closed")
    decided_units: int = Field(validation_alias="judged")
    undecided_units: int = Field(validation_alias="missing")
    decided_units_per_day: Number = Field(validation_alias="per_day")
    gate: GateProgress | None
    next_step: str = Field(validation_alias="decides_next")
    path: list[EvidencePath]


class CellActivity(BaseModel):
    """One row of the ledger about the cell, in words."""

    model_config = FROM

    revision: int
    at: datetime
    local: str
    kind: str
    version: str | None
    to: str | None
    by: str
    text: str


class CellDetails(BaseModel):
    """A cell: what is allowed now, its evidence against the lines, its guards, its history."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "status": NOW,
                "evidence": [EVIDENCE],
                "guards": [
                    {
                        "guard": "agreement at least 93 %",
                        "text": "agreement at least 93 %",
                        "action": "one-stage",
                        "suspends": False,
                        "reported": False,
                        "last_alarm": None,
                    }
                ],
                "history": [HAPPENED],
            }
        },
    )

    status: CellStatus
    evidence: list[CellEvidence]
    guards: list[GuardStatus]
    history: list[CellActivity]


class CellList(BaseModel):
    """Some cells, in the policy's order, as of a revision; `next` is null at the end."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "rollout": "bear-alarm",
                "revision": 42,
                "hash": "9f2c…",
                "policy": 3,
                "items": [NOW],
                "next": None,
            }
        }
    )

    rollout: str
    revision: int
    hash: str
    policy: int
    items: list[CellStatus]
    next: str | None
