"""Everything that is ingested comes in here: JSON or NDJSON, an answer for each item."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.deps import Act, By, Caller, Served
from api.problems import problem
from api.request_metrics import Counts
from api.schemas.records import ANSWER, ITEMS, RecordResultList, item_schema
from rollout import faults
from rollout.core.records.records import Heartbeat
from rollout.core.scope.permissions import require
from rollout.formats.records.parse import Acted, Reader, Sent, TooManyItems, numbered_lines
from rollout.services.engine.service import Service
from rollout.services.records.ingest import reader, receive
from rollout.store.database.errors import OutcomeUnknown, StoreError
from rollout.store.records.records import Answer

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["records"])
lines_of = msgspec.json.Encoder().encode_lines
JSON, NDJSON = "application/json", "application/x-ndjson"
LINES = frozenset({NDJSON, "application/ndjson", "application/jsonl"})
LARGEST_JSON = 8 * 2**20
ITEM = item_schema()
LINE = json.dumps(ITEMS[0])
LIST = {"type": "array", "items": ITEM, "maxItems": 10_000}
BODY = {
    "required": True,
    "content": {
        JSON: {
            "schema": {
                "anyOf": [
                    {"type": "object", "required": ["items"], "properties": {"items": LIST}},
                    LIST,
                ]
            },
            "example": {"items": ITEMS},
        },
        NDJSON: {"schema": {"type": "string", "description": "an item a line"}, "example": LINE},
    },
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An answer for each item. Of NDJSON a line each, in the form of `items`.",
        "content": {NDJSON: {"schema": {"type": "string"}, "example": ANSWER}},
    }
}


class RecordResultStruct(msgspec.Struct, frozen=True, gc=False):
    """What became of an item: an `AnswerOut`, as light as it can be."""

    index: int
    key: str
    status: str
    reason: str


@router.post(
    "/records",
    operation_id="storeRecords",
    summary="Store cases, predictions, decisions, actions, outcomes and heartbeats",
    response_model=RecordResultList,
    responses=ANSWERS,
    openapi_extra={"requestBody": BODY},
)
async def store_records(
    rollout: str,
    request: Request,
    service: Served,
    who: Annotated[Caller, By(Act.RECORD)],
) -> Response:
    """Keep each item once and answer it; one bad item takes nothing from its neighbours.

    Send items in any order, and again where you got no answer. What can't be used becomes a
    rejected record with its reason. Each line of NDJSON is answered by a line; `not_stored` or
    `unknown` means that the database failed on the way: send these lines again.
    """
    body, counts, at = await request.body(), request.app.state.counts, service.clock.now()
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if kind in LINES:
        parts = _streamed(service, who, rollout, body, at, counts)
        first = await run_in_threadpool(next, parts, b"")  # what refuses all of it is a problem
        return StreamingResponse(chain([first], parts), media_type=NDJSON)
    if kind != JSON:
        says = f"{kind} is none of {JSON} and {NDJSON}; name one as Content-Type"
        return problem("unsupported-media-type", says, 415)
    return await run_in_threadpool(_whole, service, who, rollout, body, at, counts)


def _whole(
    service: Service, who: Caller, rollout: str, body: bytes, at: datetime, counts: Counts
) -> Response:
    require(who, Act.RECORD, rollout)
    if len(body) > LARGEST_JSON:
        raise TooManyItems(f"JSON has at most {LARGEST_JSON // 2**20} MiB; send it as NDJSON")
    items = reader(service, rollout, at).body(body)
    results = receive(service, who, rollout, items, at)
    counts.recorded(rollout, (result.verdict for result in results))
    item_results = _told(range(len(items)), items, results)
    return Response(msgspec.json.encode({"items": item_results}), media_type=JSON)


def _streamed(
    service: Service, who: Caller, rollout: str, body: bytes, at: datetime, counts: Counts
) -> Iterator[bytes]:
    """Yield the answers to NDJSON, as many at once as are kept in one transaction."""
    require(who, Act.RECORD, rollout)
    item_reader, failure_text = reader(service, rollout, at), ""
    for numbers, lines in numbered_lines(body):
        status = "not_stored"
        if not failure_text:
            try:
                results, encoded = _kept(service, who, rollout, item_reader, numbers, lines)
                counts.recorded(rollout, (result.verdict for result in results))
                yield encoded
                faults.point("records.answered")
                continue
            except StoreError as error:
                failure_text = f"{error}; send this line and those after it again"
                status = "unknown" if isinstance(error, OutcomeUnknown) else status
        yield _not_kept(numbers, status, failure_text)


def _kept(
    service: Service,
    who: Caller,
    rollout: str,
    reads: Reader,
    numbers: Sequence[int],
    lines: Sequence[bytes],
) -> tuple[Sequence[Answer], bytes]:
    items = reads.lines(lines)
    results = receive(service, who, rollout, items, reads.now)
    return results, lines_of(_told(numbers, items, results))


def _not_kept(numbers: Iterable[int], verdict: str, reason: str) -> bytes:
    return lines_of([RecordResultStruct(number, "", verdict, reason) for number in numbers])


def _told(
    numbers: Iterable[int], sent: Sequence[Sent], answers: Sequence[Answer]
) -> list[RecordResultStruct]:
    return [
        RecordResultStruct(
            number,
            item.key if isinstance(item, tuple) else _key(item),
            result.verdict,
            result.reason,
        )
        for number, item, result in zip(numbers, sent, answers, strict=True)
    ]


def _key(item: Sent) -> str:
    if isinstance(item, Acted):
        return item.action.key
    return item.site if isinstance(item, Heartbeat) else item.key
