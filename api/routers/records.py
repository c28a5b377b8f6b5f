"""Records: store a batch as JSON or NDJSON, with a result for each item."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth import Caller, Permission, RequirePermission, ServiceDependency
from api.metrics import RequestCounts
from api.problems import build_problem
from api.schemas.examples import inline_schema
from api.schemas.records import ITEMS, RECORD_RESULT, RecordResult, RecordResultList
from rollout import faults
from rollout.data.database.errors import CommitUnknownError, StoreError
from rollout.data.records.records import RecordReceipt
from rollout.engine.decide.permissions import require_permission
from rollout.engine.files.parse import (
    ActionWithPermit,
    DeclaringPrediction,
    ItemReader,
    PlacedDecision,
    SentItem,
    TooManyItemsError,
    split_lines,
)
from rollout.engine.files.schema import ITEM_ADAPTER
from rollout.engine.records.records import Heartbeat, Record
from rollout.features.records.ingest import build_reader, ingest_items
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
        yield _encode_failures(numbers, status, failure_text)


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


def _encode_failures(numbers: Iterable[int], status: str, reason: str) -> bytes:
    return encode_lines([RecordResultStruct(number, "", status, reason) for number in numbers])


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
