"""Training rows with their manifest, and label cleaning.

Label cleaning: cases whose labels need a check, and choices for training.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AliasPath, AwareDatetime, BaseModel, Field

from api.auth import CurrentTime, Operator, Reader, ServiceDependency
from api.schema_forms import (
    After,
    AttributeForm,
    ItemList,
    Limit,
    Page,
    add_fields_of,
    add_input_of,
    build_responses,
    decode_cursor,
    decode_number,
    encode_cursor,
    encode_number,
)
from api.web_kit.additions import OptionalPart
from rollout.engine.records.reviews import (
    HUMANS_DISAGREE,
    MAX_LISTED,
    CleaningChoice,
    CleaningChoiceRequest,
    CleaningChoiceResult,
)
from rollout.features.reports.inputs.divergence_columns import ExportManifest, Loss, SourceCount
from rollout.kernel.arrays import LateModule

if TYPE_CHECKING:
    from rollout.features.reports.figures.label_issues import TrainingExport
    from rollout.features.training import cleaning
    from rollout.features.training.cleaning import TrainingOptions
else:
    cleaning = LateModule("rollout.features.training.cleaning")


router = APIRouter(prefix="/v1/rollouts/{rollout}/training", tags=["training"])
Form = Literal["jsonl", "csv", "parquet"]
Source = Literal["blind", "audit", "assisted", "outcome", "unknown", "model-made"]
MEDIA = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
}
ROW = (
    '{"case_key":"creek-0412","site":"creek","window":"night",'
    '"occurred_at":"2027-06-01T01:10:00.000000Z","episode":null,"lever":"alarm","label":"bear",'
    '"source":"audit","weight":10.0,"version":"v7","cleaned":null}\n'
)
TABLE = (
    "case_key,site,window,occurred_at,episode,lever,label,source,weight,version,cleaned\n"
    "creek-0412,creek,night,2027-06-01T01:10:00.000000Z,,alarm,bear,audit,10.0,v7,\n"
)
MANIFEST: dict[str, Any] = {
    "schema": "rollout-training/1",
    "rollout": "bear-alarm",
    "policy": "3fe1…",
    "versions": ["v7"],
    "sources": [
        {"source": "blind", "rows": 900, "weight": 900.0},
        {"source": "audit", "rows": 12, "weight": 120.0},
    ],
    "first": "2027-05-01T00:10:00+00:00",
    "last": "2027-06-01T01:10:00+00:00",
    "rows": 912,
    "cases": 912,
    "weight": 1020.0,
    "excluded": {"no label": 4, "not asked for": 108, "open for review": 7},
    "cleaned": {"relabel": 3, "drop": 1, "keep": 5},
    "columns": ["case_key", "site", "window", "occurred_at", "episode", "lever", "label"],
    "sha256": "9f2c…",
}
FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "one row for each case and lever; the ETag is the manifest's `sha256`",
        "content": {
            MEDIA["jsonl"]: {"schema": {"type": "string"}, "example": ROW},
            MEDIA["csv"]: {"schema": {"type": "string"}, "example": TABLE},
            MEDIA["parquet"]: {
                "schema": {"type": "string", "format": "binary"},
                "example": "PAR1… the same columns",
            },
        },
    }
}


@add_fields_of(SourceCount)
class TrainingSource(AttributeForm):
    """The number and total weight of rows whose label has this source."""


@add_fields_of(ExportManifest, "schema")
class TrainingManifest(
    AttributeForm, json_schema_extra={"example": MANIFEST}, protected_namespaces=()
):
    """A description of an export. `sha256` is the hash of its rows as JSON Lines."""

    form: str = Field(alias="schema")


Sources = Annotated[
    list[Source] | None,
    Query(description="sources of labels; default: all except `model-made`"),
]
Instant = Annotated[AwareDatetime | None, Query(examples=["2027-05-01T00:00:00Z"])]


def _get_options(
    source: Sources = None, since: Instant = None, until: Instant = None
) -> "TrainingOptions":
    from rollout.features.reports.figures.label_sources import HUMAN_SOURCES

    return cleaning.TrainingOptions(tuple(source or HUMAN_SOURCES), since, until)


def _build_export(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    options: Annotated["TrainingOptions", Depends(_get_options)],
) -> "TrainingExport":
    return cleaning.export_training_rows(service.database, caller, rollout, options, now)


RequestedExport = Annotated["TrainingExport", Depends(_build_export)]


@router.get(
    "",
    operation_id="exportTrainingRows",
    summary="Export training rows",
    response_class=StreamingResponse,
    responses=FILE,
)
def export_training_rows(
    export: RequestedExport, form: Annotated[Form, Query(alias="format")] = "jsonl"
) -> StreamingResponse:
    """Return a row for each labeled case and lever.

    Each row has the label, its source and its weight. Cases under review and cases with the choice
    `drop` are excluded.
    """
    from rollout.features.reports.figures.label_issues import format_rows

    response = StreamingResponse(format_rows(export.rows, form), media_type=MEDIA[form])
    response.headers["ETag"] = f'"{export.manifest.sha256}"'
    response.headers["Content-Disposition"] = f'attachment; filename="training.{form}"'
    return response


@router.get(
    "/manifest", operation_id="getTrainingManifest", summary="Get the manifest of the training rows"
)
def get_training_manifest(export: RequestedExport) -> TrainingManifest:
    """Return the manifest of the rows that the same query exports."""
    return TrainingManifest.model_validate(export.manifest)


cleanings_router = APIRouter(prefix="/v1/rollouts/{rollout}/cleanings", tags=["training"])
CleaningInstant = Annotated[AwareDatetime | None, Query(examples=["2027-06-01T00:00:00Z"])]
NO_NUL = "^[^\\x00]*$"
Name = Annotated[str, Field(max_length=200, pattern=NO_NUL)]

CHOICE: dict[str, Any] = {
    "key": "creek-0412",
    "lever": "alarm",
    "choice": "relabel",
    "label": "bear",
    "reason": "ears behind the branch",
    "by": "mia",
    "at": "2027-06-02T09:00:00Z",
    "version": "v7",
    "report": "R-12",
}
WORK_ITEM: dict[str, Any] = {
    "case_key": "creek-0412",
    "version": "v7",
    "lever": "alarm",
    "site": "creek",
    "window": "night",
    "occurred_at": "2027-06-01T01:10:00Z",
    "human": "no-bear",
    "model": "bear",
    "confidence": 0.97,
    "loss": 3.51,
    "cost": 20.0,
    "kind": "confident and different",
    "outcome": None,
    "votes": [["no-bear", 1]],
    "choice": CHOICE,
}
CHOICE_REQUEST: dict[str, Any] = {
    "key": "creek-0412",
    "choice": "relabel",
    "label": "bear",
    "reason": "ears",
}
CHOICE_RESULT: dict[str, Any] = {
    "key": "creek-0412",
    "lever": "alarm",
    "status": "saved",
    "reason": "",
}


@add_fields_of(CleaningChoice)
class TrainingChoice(AttributeForm, json_schema_extra={"example": CHOICE}):
    """A user's choice about a label for training. It is never evidence."""


@add_fields_of(Loss, "attributes", part="loss")
class CleaningItem(AttributeForm, json_schema_extra={"example": WORK_ITEM}):
    """A case whose label needs a check. `choice` is the current choice, or null."""

    votes: Sequence[tuple[str, int]] = Field(validation_alias=AliasPath("loss", "votes"))
    choice: TrainingChoice | None


class CleaningItemList(Page[CleaningItem]):
    """Cases whose labels need a check, the largest cost times loss first."""


class TrainingChoiceList(Page[TrainingChoice]):
    """Training choices, newest first."""


class TopLossList(ItemList[CleaningItem], json_schema_extra={"example": {"items": [WORK_ITEM]}}):
    """The divergences in the evidence, the largest cost times loss first."""


@add_input_of(CleaningChoiceRequest, text=Name)
class ChoiceEntry(BaseModel, extra="forbid", json_schema_extra={"example": CHOICE_REQUEST}):
    """A choice: `relabel` (with `label`), `drop` or `keep`.

    `lever` is optional if the policy has one lever.
    """

    key: Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NUL)]
    reason: Annotated[str, Field(max_length=1_000, pattern=NO_NUL)] = ""


class ChoiceRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"items": [CHOICE_REQUEST]}}
):
    """Choices to store. Each has its own result; a rejected one does not affect the others."""

    items: list[ChoiceEntry] = Field(max_length=1_000)


@add_fields_of(CleaningChoiceResult)
class ChoiceResult(AttributeForm, json_schema_extra={"example": CHOICE_RESULT}):
    """The result of one choice: `saved`, `unchanged`, or `rejected` with a reason."""


class ChoiceResultList(
    ItemList[ChoiceResult], json_schema_extra={"example": {"items": [CHOICE_RESULT]}}
):
    """The results, in the order of the choices."""


COUNTED_RESPONSES = build_responses(
    {"items": [{**WORK_ITEM, "kind": HUMANS_DISAGREE, "choice": None}]}
)


def _get_list_options(
    since: CleaningInstant = None,
    until: CleaningInstant = None,
    has_choice: Annotated[
        bool | None, Query(description="only items with (or without) a choice")
    ] = None,
) -> dict[str, Any]:
    return {"since": since, "until": until, "has_choice": has_choice}


@cleanings_router.get(
    "",
    operation_id="listCleaningItems",
    summary="List cases whose labels to check",
    response_model=CleaningItemList,
    responses=build_responses({"items": [WORK_ITEM], "next": None}),
)
def list_cleaning_items(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    options: Annotated[dict[str, Any], Depends(_get_list_options)],
    after: After = None,
    limit: Limit = 100,
) -> Page[CleaningItem]:
    """Return the cases whose labels are most likely wrong.

    The largest cost times loss comes first. A case is listed if a version was confident and
    disagreed with the human, if reviewers disagree, or if a reviewer may have made a slip; other
    cases in which they differ come last. Covers cases of the last 30 days, or from `since` to
    `until` (exclusive). Cases under review are excluded. Listed cases count as shown to you.
    """
    issues = cleaning.load_label_issues(service.database, caller, rollout, now, **options)
    start = issues.find_place_after(decode_cursor(after))
    items = list(issues[start : start + limit])
    has_more = len(issues) > start + limit
    cleaning.record_work_list_exposure(service.database, caller, rollout, items, now)
    return Page(
        items=[CleaningItem.model_validate(item) for item in items],
        next=encode_cursor(items[-1].name) if has_more else None,
    )


@cleanings_router.get(
    "/top-losses",
    operation_id="listTopLosses",
    summary="List the costliest divergences",
    responses=COUNTED_RESPONSES,
)
def list_top_losses(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    version: Annotated[str | None, Query(max_length=200, pattern=NO_NUL)] = None,
    has_choice: Annotated[
        bool | None, Query(description="only items with (or without) a choice")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = MAX_LISTED,
) -> TopLossList:
    """Return the divergences with the highest cost times loss.

    Covers all units that are evidence. The response time does not depend on their number. Cases
    under review are excluded. Listed cases count as shown to you.
    """
    from rollout.features.divergences.case_explanation import load_costliest_counted_pairs

    losses = load_costliest_counted_pairs(
        service.database, caller, rollout, now, version=version, has_choice=has_choice, limit=limit
    )
    cleaning.record_work_list_exposure(service.database, caller, rollout, losses, now)
    return TopLossList(items=[CleaningItem.model_validate(item) for item in losses])


@cleanings_router.get(
    "/choices",
    operation_id="listTrainingChoices",
    summary="List training choices",
    response_model=TrainingChoiceList,
    responses=build_responses({"items": [CHOICE], "next": None}),
)
def list_training_choices(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    after: After = None,
    limit: Limit = 100,
) -> Page[TrainingChoice]:
    """Return every choice, newest first.

    If there are several choices on one case and lever, the newest applies. Choices at sites you
    cannot read and choices on gold cases under review are excluded, so a page can hold fewer than
    `limit` items before the last page: continue until `next` is null.
    """
    choices, last = cleaning.load_choices(
        service.database, caller, rollout, now, before=decode_number(after), limit=limit
    )
    items = [TrainingChoice.model_validate(choice) for choice in choices]
    return Page(items=items, next=encode_number(last))


@cleanings_router.post("", operation_id="recordTrainingChoices", summary="Record training choices")
def record_training_choices(
    rollout: str,
    body: ChoiceRequest,
    service: ServiceDependency,
    caller: Operator,
    now: CurrentTime,
) -> ChoiceResultList:
    """Store choices for the next export of training rows.

    Records and evidence do not change. It is safe to retry: a choice that already applies returns
    `unchanged`. Requires the operator role.
    """
    requests = [CleaningChoiceRequest(**choice.model_dump()) for choice in body.items]
    results = cleaning.store_choices(service.database, caller, rollout, requests, now)
    return ChoiceResultList(items=[ChoiceResult.model_validate(result) for result in results])


PART = OptionalPart(
    routers=(cleanings_router, router),
    pages="training.pages",
    sections={"divergences": "training_section"},
)
