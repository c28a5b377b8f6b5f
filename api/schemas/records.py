"""What is sent as records and what is answered; cases explained; what was set aside."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.paging import Page
from rollout.formats.records.schema import ITEM

CASE = {
    "kind": "case",
    "key": "creek-0412",
    "site": "creek",
    "occurred_at": "2027-06-01T05:12:09-06:00",
    "attributes": {"weather": "dry"},
}
PREDICTION = {
    "kind": "prediction",
    "key": "creek-0412",
    "version": "v7",
    "answers": {"alarm": "bear"},
    "confidence": 0.97,
    "latency_ms": 140,
    "at": "2027-06-01T05:12:10-06:00",
}
DECISION = {
    "kind": "decision",
    "key": "creek-0412",
    "reviewer": "ana",
    "answers": {"alarm": "bear"},
    "exposure": "blind",
    "submitted_at": "2027-06-01T05:13:30-06:00",
}
ITEMS: list[Mapping[str, Any]] = [CASE, PREDICTION, DECISION]


def _inlined(part: Any, defs: Mapping[str, Any]) -> Any:
    if isinstance(part, dict) and "$ref" in part:
        return _inlined(defs[part["$ref"].rsplit("/", 1)[-1]], defs)
    if isinstance(part, dict):
        remaining = {
            key: value for key, value in part.items() if key not in {"$defs", "discriminator"}
        }
        return {name: _inlined(inner_part, defs) for name, inner_part in remaining.items()}
    return [_inlined(inner_part, defs) for inner_part in part] if isinstance(part, list) else part


def item_schema() -> Mapping[str, Any]:
    """Return the JSON schema of one item."""
    schema = ITEM.json_schema()
    inlined_schema: Mapping[str, Any] = _inlined(schema, schema["$defs"])
    return inlined_schema


class RecordResult(BaseModel):
    """What became of one item."""

    index: int = Field(description="the item's place in the body, from 0; of NDJSON the line's")
    key: str
    status: Literal["accepted", "duplicate", "conflict", "rejected", "not_stored", "unknown"]
    reason: str = Field(description="why it was not used, or what it waits for; mostly empty")


ANSWER: dict[str, Any] = {"index": 0, "key": "creek-0412", "status": "accepted", "reason": ""}


class RecordResultList(BaseModel):
    """What became of each item, in the order of the body."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [ANSWER]}})

    items: list[RecordResult]


CASE_EXAMPLE: dict[str, Any] = {
    "key": "creek-0412",
    "site": "creek",
    "window": "night",
    "occurred_at": "2027-06-01T11:12:09Z",
    "received_at": "2027-06-01T11:12:11Z",
    "episode": None,
    "attributes": {"weather": "dry"},
    "versions": ["v7"],
    "differs": False,
}


class CaseSummary(BaseModel):
    """A case in a list."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": CASE_EXAMPLE})

    key: str
    site: str
    window: str
    occurred_at: datetime
    received_at: datetime
    episode: str | None = None
    attributes: dict[str, str]
    versions: list[str] = Field(description="who predicted; empty where that is not shown to you")
    differs: bool | None = Field(description="a prediction and a verdict differ; null: not shown")


class CasePrediction(BaseModel):
    """A version's answer, and the assignment that was given with it."""

    model_config = ConfigDict(from_attributes=True)

    version: str
    answers: dict[str, str | None]
    confidence: float | None
    latency_ms: float | None
    error: str | None
    at: datetime | None
    scope_revision: int | None
    decider: str | None
    exposure: str | None
    share: float | None


class CaseDecision(BaseModel):
    """A person's verdict, and how much of the model they had seen."""

    model_config = ConfigDict(from_attributes=True)

    reviewer: str
    answers: dict[str, str | None]
    unsure: bool
    claimed_exposure: str = Field(validation_alias="claims")
    exposure: str
    task_number: int | None = Field(validation_alias="seat")
    submitted_at: datetime | None
    note: str | None


class CaseAction(BaseModel):
    """What was done, and by what permission."""

    model_config = ConfigDict(from_attributes=True)

    lever: str
    action: str
    by: str
    version: str | None
    at: datetime
    scope_revision: int | None
    authorization: str = Field(validation_alias="permission")


class CaseOutcome(BaseModel):
    """What turned out to be true."""

    model_config = ConfigDict(from_attributes=True)

    at: datetime
    answers: dict[str, str | None]
    harm: str | None
    source: str


class CountedUnit(BaseModel):
    """Where the case was counted: on which track, in which slot and attempt, as what."""

    model_config = ConfigDict(from_attributes=True)

    version: str
    track: str
    slot: datetime
    site: str
    window: str
    attempt: int
    definition: str
    lever: str
    predicted: str
    decided: str
    reviewer: str | None
    excluded: str | None


class CaseExplanation(BaseModel):
    """One case: who decided, by what permission, what was said, and where it was counted.

    `hidden`: what versions and others said is kept from you, because you may judge the case.
    """

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "case": CASE_EXAMPLE,
                "hidden": False,
                "pending": "closes 2027-06-02T11:12:11+00:00",
                "predictions": [],
                "decisions": [],
                "actions": [],
                "outcomes": [],
                "counted_units": [],
            }
        },
    )

    case: CaseSummary
    hidden: bool
    pending: str = Field(
        validation_alias="waits", description="what has yet to come before the case is settled"
    )
    predictions: list[CasePrediction]
    decisions: list[CaseDecision]
    actions: list[CaseAction]
    outcomes: list[CaseOutcome]
    counted_units: list[CountedUnit] = Field(validation_alias="counted")


SET_ASIDE: dict[str, Any] = {
    "number": 7,
    "received_at": "2027-06-01T12:00:00Z",
    "kind": "case",
    "key": "creek-0412",
    "body": '{"key": "creek-0412", "kind": "case"}',
    "reason": "site: Field required",
}


class RejectedRecord(BaseModel):
    """Something that could not be used, as it came, with the reason."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": SET_ASIDE})

    number: int
    received_at: datetime
    kind: str
    key: str
    body: str
    reason: str


class RejectedRecordList(Page[RejectedRecord]):
    """Rejected records, the oldest first."""


class CaseList(Page[CaseSummary]):
    """Cases, the newest first."""
