"""Schemas of cells and their evidence."""

from datetime import datetime
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from api.schema_forms import NOON, AttributeForm, add_fields_of, encode_number
from rollout.engine.words.event_text import EventDescription
from rollout.features.cells.cells import CellDetail, CellPage
from rollout.features.reports.inputs.cell_facts import (
    CellTimeline,
    ConditionFacts,
    GateFacts,
    TimelineBucket,
    TimelineGap,
    TimelineMark,
    TimelinePoint,
    TimelineStage,
    TimelineThreshold,
    TimelineVersion,
)
from rollout.kernel.facts import EvidenceSeries

DAY = "2027-06-01T06:00:00Z"
Decider = Literal["human", "confirmed", "model"]


class TimelineSpan(BaseModel):
    """Which part of a timeline is wanted."""

    since: AwareDatetime | None = Field(None, alias="from", examples=[DAY])
    until: AwareDatetime | None = Field(None, examples=[NOON])
    version: str = Field("", max_length=200, description="Only this version's points.")


@add_fields_of(TimelineBucket)
class TimelineBucketItem(AttributeForm):
    """Closed units of a bucket by who decided them under the stage; it ends with the next."""

    confirmed: int = Field(description="Humans decided with the model's answer before them.")


@add_fields_of(TimelineStage)
class TimelineStageItem(AttributeForm):
    """A time on one stage: the acting version, empty in shadow, and who decided."""

    decider: Decider
    model_share: float | None = Field(
        description="Share of cases drawn for the model; null where humans decided."
    )


@add_fields_of(TimelinePoint)
class TimelinePointItem(AttributeForm):
    """A version in a bucket: blind decisions, their share or mean cost, and the gate's bound."""

    bucket: int = Field(description="Index in `buckets`.")
    bound: float | None = Field(
        description="Of the attempt up to the bucket's end; null without a gate on the measure, "
        "and for a caller who may be asked for blind reviews."
    )


@add_fields_of(TimelineVersion)
class TimelineVersionItem(AttributeForm):
    """A version's points, one for each bucket with figures."""


@add_fields_of(TimelineThreshold)
class TimelineThresholdItem(AttributeForm):
    """A threshold of the policy in force on the measure: of gates or of a guard."""

    kind: Literal["gate", "guard"]


@add_fields_of(TimelineMark)
class TimelineMarkItem(AttributeForm):
    """An event; `revision` is its ledger entry, 0 for the first units with a new value."""


@add_fields_of(TimelineGap)
class TimelineGapItem(AttributeForm):
    """A time of which records were deleted: counts stay, cases can't be opened."""

    kind: Literal["purged"]


@add_fields_of(CellTimeline)
class Timeline(AttributeForm):
    """What the console draws of a cell: at most 400 buckets of closed units.

    `counted_until` is the last tick. `batch` is the number of judged units by which figures move
    at once if you may be asked for blind reviews at the site, else null.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "site": "creek",
                "window": "night",
                "timezone": "America/Vancouver",
                "since": DAY,
                "until": NOON,
                "counted_until": NOON,
                "bucket": "hour",
                "measure": "agreement",
                "at_least": True,
                "batch": None,
                "buckets": [{"since": DAY, "human": 3, "confirmed": 11, "model": 0}],
                "stages": [
                    {
                        "stage": "supervised",
                        "version": "v7",
                        "decider": "confirmed",
                        "since": DAY,
                        "until": NOON,
                        "model_share": None,
                    }
                ],
                "versions": [
                    {
                        "version": "v7",
                        "acting": True,
                        "points": [{"bucket": 0, "judged": 3, "value": 1.0, "bound": 0.9551}],
                    }
                ],
                "thresholds": [{"kind": "gate", "name": "gate to autonomous", "value": 0.95}],
                "marks": [
                    {
                        "at": DAY,
                        "revision": 41,
                        "kind": "Widened",
                        "text": "v7 widened to supervised",
                        "tone": "wider",
                    }
                ],
                "gaps": [],
            }
        }
    )

    bucket: str = Field(description="`hour`, `day`, `week`, `4 weeks` or `52 weeks`.")
    thresholds: list[TimelineThresholdItem]
    gaps: list[TimelineGapItem]


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
    "model_share": None,
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
    "records_needed_p50": None,
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
    "losses": {"without a decision": 4},
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


Number = Annotated[  # None for infinite numbers and NaN, which JSON can't represent
    float | None,
    BeforeValidator(lambda v: None if isinstance(v, float) and not isfinite(v) else v),
]


@add_fields_of(ConditionFacts, "is_planted")
class GateCondition(AttributeForm):
    """A condition of a gate with its current evidence; see `docs/how-to/api.md`."""

    estimate: Number
    bound: Number
    log_e: Number
    log_e_needed: Number
    probability_below: Number


@add_fields_of(GateFacts, "cases")
class GateProgress(AttributeForm):
    """The next gate: its conditions, its other `unmet` requirements, and these in words."""


@add_fields_of(EvidenceSeries)
class EvidencePath(AttributeForm):
    """The course of a condition's evidence. The lists are parallel, with at most 400 items."""

    estimate: list[Number]
    bound: list[Number]


class CellEvidence(AttributeForm):
    """The evidence of one version in the cell, and its next step."""

    version: str
    stage: str
    acting: bool
    since: datetime
    attempt: int = Field(description="1 plus how often the version's evidence restarted here.")
    attempt_since: datetime
    attempt_number: int = Field(
        description="Number of the attempt in the cell's year; 0 before its first unit."
    )
    closed_units: int
    decided_units: int
    undecided_units: int
    losses: dict[str, int] = Field(description="Why units are missing, and how many.")
    decided_units_per_day: Number
    gate: GateProgress | None
    next_step: str
    path: list[EvidencePath]


@add_fields_of(EventDescription, "site", "window", "short_text", "simulated", "effect")
class CellActivity(AttributeForm):
    """A ledger event about the cell, as text."""


@add_fields_of(CellDetail, "lateness")
class CellDetails(AttributeForm):
    """A cell with its state, evidence, guards, history, and what versions brought."""

    model_config = ConfigDict(
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
        }
    )

    evidence: list[CellEvidence]
    history: list[CellActivity]


@add_fields_of(CellPage)
class CellList(
    AttributeForm,
    json_schema_extra={
        "example": {
            "rollout": "bear-alarm",
            "revision": 42,
            "hash": "9f2c…",
            "policy": 3,
            "items": [CELL_STATUS],
            "next": None,
        }
    },
):
    """A page of cells in the policy's order. `next` is null on the last page."""

    next: Annotated[str | None, BeforeValidator(encode_number)]
