"""Schemas of records, explained cases and rejected records."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import AliasPath, BaseModel, ConfigDict, Field

from api.schema_forms import (
    AttributeForm,
    FormT,
    ItemList,
    Page,
    add_fields,
    add_fields_of,
    convert_type,
)
from rollout.data.records.case_pages import CaseCount
from rollout.engine.records.records import (
    RECORD_FIELDS,
    Action,
    Case,
    Decision,
    Outcome,
    Prediction,
    Record,
    RejectedItem,
)
from rollout.features.divergences.cases import CaseDetails, ListedCase

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


class RecordResult(BaseModel):
    """The result of one item."""

    index: int = Field(description="zero-based index of the item, or of the NDJSON line")
    key: str
    status: Literal["accepted", "duplicate", "conflict", "rejected", "not_stored", "unknown"]
    reason: str = Field(description="why the item was not used, or what is missing; usually empty")
    drawn: list[str] | None = Field(
        default=None,
        description="of a case the versions with a `sample` that run on it; missing where the"
        " policy has no such version",
    )


RECORD_RESULT: dict[str, Any] = {
    "index": 0,
    "key": "creek-0412",
    "status": "accepted",
    "reason": "",
}


class RecordResultList(
    ItemList[RecordResult], json_schema_extra={"example": {"items": [RECORD_RESULT]}}
):
    """The result of each item, in the order of the request."""


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
    "compared": True,
}


def _add_shown(
    kind: type[Record], part: str = "", value: type | None = None
) -> Callable[[type[FormT]], type[FormT]]:
    """Return what adds to a form the fields of a record that are shown.

    With `part` the form is of a `value` that holds the record under that name.
    """
    fields = {}
    for field in RECORD_FIELDS[kind]:
        if field.rule.is_shown:
            alias = field.name if field.name != field.shown_name else None
            plain = convert_type(field.plain)
            hint = plain | None if field.is_optional else plain
            fields[field.shown_name] = (
                hint,
                Field(validation_alias=AliasPath(part, field.name) if part else alias),
            )
    return add_fields(fields, value or kind)


@_add_shown(Case, "record", ListedCase)
@add_fields_of(ListedCase, "number", "is_compared", "record", "closes_at")
class CaseSummary(AttributeForm, json_schema_extra={"example": CASE_EXAMPLE}):
    """A case in a list."""

    versions: list[str] = Field(description="versions with a prediction; empty if hidden")
    differs: bool | None = Field(
        description="whether a prediction and a human decision differ; null if hidden"
    )
    compared: bool = Field(
        validation_alias="is_compared",
        description="whether both exist, the decision being sure; false if hidden",
    )


@_add_shown(Prediction)
class CasePrediction(AttributeForm):
    """A version's prediction, and the assignment it was made under."""


@_add_shown(Decision)
class CaseDecision(AttributeForm):
    """A human decision, and the reviewer's exposure to the model's answer."""


@_add_shown(Action)
class CaseAction(AttributeForm):
    """An action, and whether it was authorized."""


@_add_shown(Outcome)
class CaseOutcome(AttributeForm):
    """What turned out to be true."""


@add_fields_of(CaseCount)
class CountedUnit(AttributeForm):
    """An entry of the case in the evidence: track, slot, attempt and values."""


@add_fields_of(CaseDetails)
class CaseExplanation(AttributeForm):
    """A case with its predictions, decisions, actions, outcomes and evidence.

    If `hidden` is true, answers are left out because you may be asked to review the case, or send
    its decision or outcome while it can still count. An answer that the assignment gives to humans
    is shown; what you send of the case afterwards is at least `assisted`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "case": CASE_EXAMPLE,
                "hidden": False,
                "registered_by": "camera-1",
                "planted": False,
                "asked": True,
                "pending": "closes 2027-06-02T11:12:11+00:00",
                "predictions": [],
                "decisions": [],
                "actions": [],
                "outcomes": [],
                "counted_units": [],
            }
        }
    )

    registered_by: str | None = Field(
        description="account that registered the case, or `imports`; null if hidden or unknown"
    )
    planted: bool | None = Field(
        description="whether a user declared the case as planted, so that no figure about the cases"
        " that occur counts it; null if hidden, and for programs"
    )
    asked: bool | None = Field(
        description="whether a blind decision is asked for, as of an audited case; null if hidden,"
        " and until the case closes for who may send predictions"
    )
    pending: str = Field(description="what is missing before the case is complete")


REJECTED_RECORD: dict[str, Any] = {
    "number": 7,
    "received_at": "2027-06-01T12:00:00Z",
    "kind": "case",
    "key": "creek-0412",
    "body": '{"key": "creek-0412", "kind": "case"}',
    "reason": "site: Field required",
}


@add_fields_of(RejectedItem, "is_placeless", part="item")
class RejectedRecord(AttributeForm, json_schema_extra={"example": REJECTED_RECORD}):
    """An item that could not be used, as it was sent, with the reason."""

    number: int
    received_at: datetime


class RejectedRecordList(Page[RejectedRecord]):
    """Rejected records, oldest first."""


class CaseList(Page[CaseSummary]):
    """Cases, newest first."""
