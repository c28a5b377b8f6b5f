"""Records and cases: store, list and explain them, list rejected ones; baselines and planted cases.

A batch comes as JSON or NDJSON; each item has a result. Rejected items conflict, or could not be
used. Baselines say how often humans acted before the rollout. Planted cases are scenarios and
seeded rare events.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.auth import Admin, Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.metrics import RequestCounts
from api.problems import build_problem
from api.records.schemas import (
    CASE_EXAMPLE,
    ITEMS,
    RECORD_RESULT,
    REJECTED_RECORD,
    CaseExplanation,
    CaseList,
    CaseSummary,
    RecordResult,
    RecordResultList,
    RejectedRecord,
    RejectedRecordList,
)
from api.schema_forms import (
    After,
    AttributeForm,
    ItemList,
    Limit,
    Page,
    add_fields_of,
    add_input_of,
    build_responses,
    decode_number,
    encode_number,
    inline_schema,
)
from rollout import faults
from rollout.data.database.append_failures import CommitUnknownError, StoreError
from rollout.data.records.case_pages import CaseFilter
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
from rollout.engine.records.records import BaselineCount, Heartbeat, Record
from rollout.features.divergences.cases import find_cases, load_case_details, load_rejected_records
from rollout.features.records.baselines import load_baselines, store_baselines
from rollout.features.records.ingest import build_reader, ingest_items
from rollout.features.records.planted_cases import MAX_CASES, PlantingRequest, PlantingResult
from rollout.features.records.planted_cases import declare_planted_cases as declare_in_service
from rollout.live.service import Service

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
