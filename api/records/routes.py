"""Records and cases: store, list and explain them, list rejected ones; baselines and planted cases.

A batch comes as JSON or NDJSON; each item has a result. Rejected items conflict, or could not be
used. Baselines say how often humans acted before the rollout. Planted cases are scenarios and
seeded rare events.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AliasPath, AwareDatetime, BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from api.auth import Admin, Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.metrics import RequestCounts
from api.problems import build_problem
from api.schema_forms import (
    After,
    AttributeForm,
    FormT,
    ItemList,
    Limit,
    Page,
    add_fields,
    add_fields_of,
    add_input_of,
    build_responses,
    convert_type,
    decode_number,
    encode_number,
    inline_schema,
)
from rollout import faults
from rollout.data.database.append_failures import CommitUnknownError, StoreError
from rollout.data.records.case_pages import CaseCount, CaseFilter
from rollout.data.records.records import RecordReceipt
from rollout.engine.decide.permissions import require_permission
from rollout.engine.files.parse import (
    ITEM_ADAPTER,
    ActionWithPermit,
    DeclaringPrediction,
    ItemReader,
    PlacedDecision,
    SentItem,
    TooManyItemsError,
    split_lines,
)
from rollout.engine.records.records import (
    RECORD_FIELDS,
    Action,
    BaselineCount,
    Case,
    Decision,
    Heartbeat,
    Outcome,
    Prediction,
    Record,
    RejectedItem,
)
from rollout.features.divergences.cases import (
    CaseDetails,
    ListedCase,
    find_cases,
    load_case_details,
    load_rejected_records,
)
from rollout.features.records.baselines import load_baselines, store_baselines
from rollout.features.records.ingest import build_reader, ingest_items
from rollout.features.records.planted_cases import MAX_CASES, PlantingRequest, PlantingResult
from rollout.features.records.planted_cases import declare_planted_cases as declare_in_service
from rollout.live.service import Service

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


router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["records"])
encode_lines = msgspec.json.Encoder().encode_lines
JSON, NDJSON = "application/json", "application/x-ndjson"
LINES = frozenset({NDJSON, "application/ndjson", "application/jsonl"})
MAX_JSON_BYTES = 8 * 2**20
ITEM = inline_schema(ITEM_ADAPTER)
LINE = json.dumps(ITEMS[0])
ITEMS_SCHEMA = {"type": "array", "items": ITEM, "maxItems": 10_000}
BODY = {
    "required": True,
    "content": {
        JSON: {
            "schema": {
                "anyOf": [
                    {
                        "type": "object",
                        "required": ["items"],
                        "properties": {"items": ITEMS_SCHEMA},
                    },
                    ITEMS_SCHEMA,
                ]
            },
            "example": {"items": ITEMS},
        },
        NDJSON: {
            "schema": {"type": "string", "description": "one item on each line"},
            "example": LINE,
        },
    },
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "a result for each item; for NDJSON, one result on each line",
        "content": {NDJSON: {"schema": {"type": "string"}, "example": RECORD_RESULT}},
    }
}


RecordResultStruct: Final = msgspec.defstruct(
    "RecordResultStruct",
    [
        (name, Any) if field.is_required() else (name, Any, field.default)
        for name, field in RecordResult.model_fields.items()
    ],
    frozen=True,
    gc=False,
    omit_defaults=True,
)
"""A `RecordResult` that is fast to encode."""


@router.post(
    "/records",
    operation_id="storeRecords",
    summary="Store cases, predictions, decisions, actions, outcomes and heartbeats",
    response_model=RecordResultList,
    responses=RESPONSES,
    openapi_extra={"requestBody": BODY},
)
async def store_records(
    rollout: str,
    request: Request,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.SEND_RECORDS)],
) -> Response:
    """Store each item once and return a result for each.

    Items can be in any order, but in NDJSON, which is stored in parts, an action comes after its
    prediction. An item that cannot be used becomes a rejected record with a reason and does not
    affect the others.

    If you get no response, retry: records that are already stored return `duplicate`. NDJSON
    requests get one result line for each line. `not_stored` or `unknown` means that the database
    failed; send these lines again.
    """
    body, counts, at = await request.body(), request.app.state.counts, service.clock.now()
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind in LINES:
        parts = _stream_lines(service, caller, rollout, body, at, counts)
        first = await run_in_threadpool(
            next, parts, b""
        )  # an error of the whole request becomes a problem
        return StreamingResponse(chain([first], parts), media_type=NDJSON)
    if kind != JSON:
        result = f"{kind} is none of {JSON} and {NDJSON}; name one as Content-Type"
        return build_problem("unsupported-media-type", result, 415)
    return await run_in_threadpool(_store_json, service, caller, rollout, body, at, counts)


def _store_json(
    service: Service,
    caller: Caller,
    rollout: str,
    body: bytes,
    now: datetime,
    counts: RequestCounts,
) -> Response:
    require_permission(caller, Permission.SEND_RECORDS, rollout)
    if len(body) > MAX_JSON_BYTES:
        raise TooManyItemsError(
            f"JSON has at most {MAX_JSON_BYTES // 2**20} MiB; send it as NDJSON"
        )
    items = build_reader(service, rollout, now).read_body(body)
    results = ingest_items(service, caller, rollout, items, now)
    counts.count_records(rollout, (result.status for result in results))
    item_results = _build_results(range(len(items)), items, results)
    return Response(msgspec.json.encode({"items": item_results}), media_type=JSON)


def _stream_lines(
    service: Service,
    caller: Caller,
    rollout: str,
    body: bytes,
    now: datetime,
    counts: RequestCounts,
) -> Iterator[bytes]:
    """Yield the results of NDJSON lines, one part for each transaction."""
    require_permission(caller, Permission.SEND_RECORDS, rollout)
    item_reader, failure_text = build_reader(service, rollout, now), ""
    for numbers, lines in split_lines(body):
        status = "not_stored"
        if not failure_text:
            try:
                results, encoded = _store_lines(
                    service, caller, rollout, item_reader, numbers, lines
                )
                counts.count_records(rollout, (result.status for result in results))
                yield encoded
                faults.reach_point("records.answered")
                continue
            except StoreError as error:
                failure_text = f"{error}; send this line and those after it again"
                status = "unknown" if isinstance(error, CommitUnknownError) else status
        yield encode_lines(
            [RecordResultStruct(number, "", status, failure_text) for number in numbers]
        )


def _store_lines(
    service: Service,
    caller: Caller,
    rollout: str,
    item_reader: ItemReader,
    numbers: Sequence[int],
    lines: Sequence[bytes],
) -> tuple[Sequence[RecordReceipt], bytes]:
    items = item_reader.read_lines(lines)
    results = ingest_items(service, caller, rollout, items, item_reader.now)
    return results, encode_lines(_build_results(numbers, items, results))


def _build_results(
    numbers: Iterable[int], items: Sequence[SentItem], results: Sequence[RecordReceipt]
) -> list[msgspec.Struct]:
    return [
        RecordResultStruct(
            number,
            item.key if isinstance(item, Record) else _get_key(item),
            result.status,
            result.reason,
            result.drawn,
        )
        for number, item, result in zip(numbers, items, results, strict=True)
    ]


def _get_key(item: SentItem) -> str:
    if isinstance(item, ActionWithPermit):
        return item.action.key
    if isinstance(item, DeclaringPrediction):
        return item.prediction.key
    if isinstance(item, PlacedDecision):
        return item.decision.key
    return item.site if isinstance(item, Heartbeat) else item.key


cases_router = APIRouter(prefix="/v1/rollouts/{rollout}/cases", tags=["records"])
Reader = Annotated[Caller, RequirePermission(Permission.READ_CASES)]
NO_NUL = "^[^\\x00]*$"
Key = Annotated[str, Path(min_length=1, max_length=200, pattern=NO_NUL, examples=["creek-0412"])]
Name = Annotated[str | None, Field(min_length=1, max_length=200, pattern=NO_NUL)]
Instant = Annotated[AwareDatetime | None, Field(examples=["2027-06-01T00:00:00Z"])]


class CaseSelection(BaseModel):
    """Cases of a cell and a time."""

    site: Name = None
    window: Name = None
    version: Name = None
    since: Instant = None
    until: Instant = None


class CaseQuery(CaseSelection):
    """Filter of cases. `since` and `until` (exclusive) refer to the time of the case."""

    differs: bool = Field(
        default=False, description="only cases where a prediction and a human decision differ"
    )
    harmed: bool = Field(default=False, description="only cases of which an outcome names a harm")

    @property
    def filter(self) -> CaseFilter:
        """Return the filter that the store applies."""
        sites = None if self.site is None else {self.site}
        return CaseFilter(sites=sites, **self.model_dump(exclude={"site"}))


@cases_router.get(
    "",
    operation_id="listCases",
    summary="List cases, newest first",
    response_model=CaseList,
    responses=build_responses({"items": [CASE_EXAMPLE], "next": None}),
)
def list_cases(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    case_query: Annotated[CaseQuery, Depends()],
    after: After = None,
    limit: Limit = 100,
) -> Page[CaseSummary]:
    """Return the cases at sites you can read, newest first.

    For a case that you may still be asked to review, or whose decision or outcome you can still
    send, the versions' answers are hidden. If a filter would disclose an answer, the case is
    excluded. A page can hold fewer than `limit` items before
    the last page: continue until `next` is null.
    """
    position = decode_number(after)
    page = find_cases(
        service.database, caller, rollout, case_query.filter, now, before=position, limit=limit
    )
    items = [CaseSummary.model_validate(case_item) for case_item in page.items]
    return Page(items=items, next=encode_number(page.next))


@cases_router.get("/{key:path}", operation_id="explainCase", summary="Explain a case")
def explain_case(
    rollout: str, key: Key, service: ServiceDependency, caller: Reader, now: CurrentTime
) -> CaseExplanation:
    """Return everything that is known about a case.

    This includes predictions, human decisions, actions with their authorization, outcomes, and the
    evidence in which the case was counted. Fails with 404 if there is no such case at a site you
    can read.
    """
    return CaseExplanation.model_validate(
        load_case_details(service.database, caller, rollout, key, now)
    )


rejected_records_router = APIRouter(
    prefix="/v1/rollouts/{rollout}/rejected-records", tags=["records"]
)


@rejected_records_router.get(
    "",
    operation_id="listRejectedRecords",
    summary="List rejected records",
    response_model=RejectedRecordList,
    responses=build_responses({"items": [REJECTED_RECORD], "next": None}),
)
def list_rejected_records(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    now: CurrentTime,
    after: After = None,
    limit: Limit = 100,
) -> Page[RejectedRecord]:
    """Return rejected and conflicting items with the reason, oldest first.

    Each item is listed once, as it was sent.
    """
    position = decode_number(after) or 0
    rejected_records = load_rejected_records(
        service.database, caller, rollout, now, after=position, limit=limit
    )
    items = [RejectedRecord.model_validate(record) for record in rejected_records]
    return Page(items=items, next=encode_number(items[-1].number) if len(items) == limit else None)


baselines_router = APIRouter(prefix="/v1/rollouts/{rollout}/baselines", tags=["records"])
BaselineName = Annotated[str, Field(min_length=1, max_length=200, pattern="^[^\\x00]*$")]
EXAMPLE: dict[str, Any] = {
    "site": "creek",
    "window": "night",
    "lever": "alarm",
    "action": "sound-alarm",
    "n": 41,
    "since": "2026-01-01T00:00:00Z",
    "until": "2027-01-01T00:00:00Z",
}


@add_input_of(BaselineCount, "imported_by", text=BaselineName)
class BaselineEntry(BaseModel, extra="forbid", json_schema_extra={"example": EXAMPLE}):
    """A count of one action by humans in a cell, from `since` to `until` (exclusive).

    Of a lever with `many` an action is a set: its labels, joined by `;`.
    """

    action: Annotated[str, Field(min_length=1, max_length=500, pattern="^[^\\x00]*$")]
    n: int = Field(ge=0, lt=2**31, strict=True)


class BaselineImportRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"items": [EXAMPLE]}}
):
    """Baselines to import."""

    items: list[BaselineEntry] = Field(max_length=10_000)


class ImportedBaseline(
    BaselineEntry,
    from_attributes=True,
    json_schema_extra={"example": {**EXAMPLE, "imported_by": "ana"}},
):
    """A baseline and the user who imported it."""

    imported_by: str


class BaselineList(
    ItemList[ImportedBaseline],
    json_schema_extra={"example": {"items": [{**EXAMPLE, "imported_by": "ana"}]}},
):
    """The current baselines.

    If several entries have the same cell, action and time span, only the last one is listed.
    """


class BaselineImportResult(BaseModel, json_schema_extra={"example": {"new": 1}}):
    """The number of new entries; entries that were already stored are not counted."""

    new: int


@baselines_router.post(
    "", operation_id="importBaselines", summary="Import how often humans acted before the rollout"
)
def import_baselines(
    rollout: str,
    history: BaselineImportRequest,
    service: ServiceDependency,
    caller: Admin,
    now: CurrentTime,
) -> BaselineImportResult:
    """Import how often humans acted before the rollout.

    Each entry is stored with your name. All entries are stored, or none. It is safe to retry:
    entries that are already stored change nothing. Requires the admin role.
    """
    result = [BaselineCount(**item.model_dump()) for item in history.items]
    return BaselineImportResult(new=store_baselines(service.database, caller, rollout, result, now))


@baselines_router.get("", operation_id="listBaselines", summary="List baselines")
def list_baselines(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
) -> BaselineList:
    """Return the baselines of the sites you can read."""
    baselines = load_baselines(service.database, caller, rollout)
    return BaselineList(items=[ImportedBaseline.model_validate(baseline) for baseline in baselines])


planted_cases_router = APIRouter(prefix="/v1/rollouts/{rollout}/planted-cases", tags=["records"])
PlantedCaseKey = Annotated[str, Field(min_length=1, max_length=200, pattern="^[^\\x00]*$")]
PLANTED_CASES_EXAMPLE: dict[str, Any] = {
    "keys": ["scenario-bear-01", "scenario-bear-02"],
    "reason": "bears are rare in spring: 2 recorded scenarios",
}


class PlantedCasesRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": PLANTED_CASES_EXAMPLE}
):
    """Keys of cases that are planted, and what they are for."""

    keys: list[PlantedCaseKey] = Field(min_length=1, max_length=MAX_CASES)
    reason: str = Field(min_length=1, max_length=2000, pattern="^[^\\x00]*$")


@add_fields_of(PlantingResult)
class PlantedCasesResult(AttributeForm, json_schema_extra={"example": {"new": 2, "repeated": 0}}):
    """The number of cases declared now, and of those declared before."""


@planted_cases_router.post(
    "", operation_id="declarePlantedCases", summary="Declare cases as planted before they are sent"
)
def declare_planted_cases(
    rollout: str,
    declaration: PlantedCasesRequest,
    service: ServiceDependency,
    caller: Admin,
    now: CurrentTime,
) -> PlantedCasesResult:
    """Declare cases as planted: a population of their own, in no figure about cases that occur.

    All keys are declared, or none. It is safe to retry. A key is refused if any record of its case
    is stored: then its answers could be known. You are not asked to review these cases. Requires
    the admin role.
    """
    request = PlantingRequest(frozenset(declaration.keys), declaration.reason)
    result = declare_in_service(service.database, caller, rollout, request, now)
    return PlantedCasesResult.model_validate(result)
