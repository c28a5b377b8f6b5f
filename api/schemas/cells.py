"""Schemas of cells and their evidence."""

from datetime import datetime
from math import isfinite
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from api.schemas.examples import NOON
from api.schemas.stops import Reason
from rollout.services.cells.cells import CellStatus, GuardStatus
from rollout.services.cells.evidence_pauses import CellEvidenceMode
from rollout.services.engine.cell_gains import Gain

CELL_STATUS: dict[str, Any] = {
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
    "next_step": "autonomous: 120 of 200 decided units; 12 of 30 days",
    "confidence_floor": None,
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
    "attempt_number": 1,
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
EVENT_DESCRIPTION: dict[str, Any] = {
    "revision": 41,
    "at": NOON,
    "local": "Tue 1 Jun 06:00",
    "kind": "Widened",
    "version": "v7",
    "to": "supervised",
    "by": "policy",
    "text": "v7 widened to supervised until Mon 30 Aug 06:00; approved by ana and bo",
}


def _drop_non_finite(value: Any) -> Any:
    """Return None for infinite numbers and NaN, which JSON can't represent."""
    return None if isinstance(value, float) and not isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_drop_non_finite)]
FROM_ATTRIBUTES = ConfigDict(from_attributes=True)


class CellEvidenceRequest(BaseModel):
    """Whether units of the cell count, with an optional reason."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"evidence": "watch", "reason": "hopeless"}}
    )

    evidence: CellEvidenceMode
    reason: Reason = ""


class GateCondition(BaseModel):
    """A condition of a gate with its current evidence; see `docs/how-to/api.md`."""

    model_config = FROM_ATTRIBUTES

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
    """The next gate: its conditions, and in `missing` its other unmet requirements."""

    model_config = FROM_ATTRIBUTES

    to: str
    risk: float
    met: bool
    missing: list[str] = Field(validation_alias="lacks")
    required_approvals: list[str] = Field(validation_alias="approvals")
    conditions: list[GateCondition]


class EvidencePath(BaseModel):
    """The course of a condition's evidence. The lists are parallel, with at most 400 items."""

    model_config = FROM_ATTRIBUTES

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
    """The evidence of one version in the cell, and its next step."""

    model_config = FROM_ATTRIBUTES

    version: str
    stage: str
    acting: bool
    since: datetime
    attempt: int = Field(description="1 plus how often the version's evidence restarted here.")
    attempt_since: datetime
    attempt_number: int = Field(
        description="Number of the attempt in the cell's year; 0 before its first unit."
    )
    closed_units: int = Field(validation_alias="closed")
    decided_units: int = Field(validation_alias="judged")
    undecided_units: int = Field(validation_alias="missing")
    decided_units_per_day: Number = Field(validation_alias="per_day")
    gate: GateProgress | None
    next_step: str = Field(validation_alias="decides_next")
    path: list[EvidencePath]


class CellActivity(BaseModel):
    """A ledger event about the cell, as text."""

    model_config = FROM_ATTRIBUTES

    revision: int
    at: datetime
    local: str
    kind: str
    version: str | None
    to: str | None
    by: str
    text: str


class CellDetails(BaseModel):
    """A cell with its state, evidence, guards, history, and what versions brought."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "status": CELL_STATUS,
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
                "history": [EVENT_DESCRIPTION],
                "gains": [],
            }
        },
    )

    status: CellStatus
    evidence: list[CellEvidence]
    guards: list[GuardStatus]
    history: list[CellActivity]
    gains: list[Gain]


class CellList(BaseModel):
    """A page of cells in the policy's order. `next` is null on the last page."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "rollout": "bear-alarm",
                "revision": 42,
                "hash": "9f2c…",
                "policy": 3,
                "items": [CELL_STATUS],
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
