"""The audit ledger: read its rows, sign its head, verify its hashes, and follow its revisions.

Server-sent events: one event for each new revision of a ledger.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.auth import (
    AuthenticationMiddleware,
    Caller,
    Permission,
    Reader,
    RequirePermission,
    ServiceDependency,
)
from api.schema_forms import CELL, Limit, add_fields_of, build_responses
from rollout.data.database.append_failures import StoreError
from rollout.data.ledger.ledger import StoredLedgerHead
from rollout.engine.decide.permissions import require_permission
from rollout.engine.ledger.ledger import CanonicalRow, Checkpoint, LedgerText
from rollout.features.ledger.ledger_reader import (
    LedgerVerification,
    iterate_ledger_lines,
    sign_head,
    verify_stored_ledger,
)
from rollout.kernel.errors import RefusalError, TooManyAttemptsError
from rollout.live.service import Service

router = APIRouter(prefix="/v1/rollouts/{rollout}/ledger", tags=["ledger"])
NDJSON, JSON = "application/x-ndjson", "application/json"
MAX_REVISION = 2**31 - 1  # the largest integer of the database
Revision = Annotated[int, Query(ge=0, le=MAX_REVISION)]
ROW: dict[str, Any] = {
    "rollout": "bear-alarm",
    "revision": 42,
    "at": 1811851200000000,
    "kind": "Narrowed",
    "actor": "bo",
    "body": {**CELL, "version": "v7", "from_stage": "autonomous", "to_stage": "supervised"},
    "access_head": 12,
    "slot": None,
    "previous": "51d0…",
    "hash": "9f2c…",
}
VERIFIED: dict[str, Any] = {
    "rollout": "bear-alarm",
    "rows": 42,
    "head": "9f2c…",
    "intact": True,
    "fault": "",
    "head_matches": None,
}


CHECKPOINT: dict[str, Any] = {
    "ledger": "bear-alarm",
    "revision": 42,
    "hash": "9f2c…",
    "at": 1811851200000000,
    "key": "03a1…",
    "signature": "d75a…",
}


@add_fields_of(Checkpoint)
class LedgerCheckpoint(BaseModel):
    """A signed head of a ledger. `at` is in microseconds since 1970 (UTC).

    The signature is of `rollout-checkpoint-1`, a line end, and the canonical JSON of `at`, `hash`,
    `ledger` and `revision`. `key` and `signature` are in hex.
    """

    at: int


@add_fields_of(LedgerText)
class LedgerRowText(BaseModel):
    """A text that the ledger stores outside the hashed row, with its salt."""

    salt: str


@add_fields_of(CanonicalRow, "names")
class LedgerRow(BaseModel):
    """A row as stored. `at` is in microseconds since 1970 (UTC); see `docs/reference/ledger.md`."""

    hash: str
    texts: dict[str, LedgerRowText] = Field(default_factory=dict)


class LedgerRowList(BaseModel, json_schema_extra={"example": {"items": [ROW], "next": 42}}):
    """A page of rows. `next` is the next page's `after`, or null on the last page."""

    items: list[LedgerRow]
    next: int | None


LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "one row on each line; a page if `Accept` includes JSON",
        "content": {NDJSON: {"schema": {"type": "string"}, "example": json.dumps(ROW) + "\n"}},
    }
}


@router.get(
    "",
    operation_id="readLedger",
    summary="Read the audit ledger",
    response_model=LedgerRowList,
    responses=LINES,
)
def read_ledger(
    rollout: str,
    request: Request,
    service: ServiceDependency,
    caller: Reader,
    after: Revision = 0,
    limit: Limit = 1_000,
) -> Response:
    """Return ledger rows after a revision, oldest first.

    By default all rows are streamed as NDJSON, which `rollout ledger verify` accepts. With `Accept:
    application/json` the response is one page. Rows appended during the request are not included.
    """
    if JSON not in request.headers.get("accept", ""):
        lines = iterate_ledger_lines(service, caller, rollout, after=after)
        return StreamingResponse((f"{line}\n" for line in lines), media_type=NDJSON)
    rows = [
        json.loads(line)
        for line in iterate_ledger_lines(service, caller, rollout, after=after, limit=limit)
    ]
    next_cursor = rows[-1]["revision"] if len(rows) == limit else None
    page = LedgerRowList(items=[LedgerRow.model_validate(row) for row in rows], next=next_cursor)
    return Response(page.model_dump_json(exclude_unset=True), media_type=JSON)


@router.get(
    "/checkpoint",
    operation_id="signLedgerHead",
    summary="Get a signed head of the audit ledger",
    responses=build_responses(CHECKPOINT),
)
def sign_ledger_head(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
) -> LedgerCheckpoint:
    """Return the ledger's newest revision and hash, signed with Ed25519. Keep it elsewhere.

    A ledger that is rewritten later no longer has this row: `rollout ledger verify --checkpoint`
    and `rollout doctor --heads` find that. Without a key of the service the answer is 409.
    """
    return LedgerCheckpoint.model_validate_json(
        sign_head(service, caller, rollout, service.checkpoints.require_signer()).format()
    )


@router.get(
    "/verification",
    operation_id="verifyLedger",
    summary="Verify the audit ledger",
    responses=build_responses(VERIFIED),
)
def verify_ledger(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    revision: Annotated[int | None, Query(ge=1, le=MAX_REVISION)] = None,
    row_hash: Annotated[str | None, Query(alias="hash", max_length=64)] = None,
) -> LedgerVerification:
    """Recompute every hash of the ledger and return the result.

    A truncated or completely rewritten ledger can be valid in itself. To detect that, pass the
    `revision` and `hash` of a row that you saved earlier.
    """
    return verify_stored_ledger(service, caller, rollout, revision=revision, row_hash=row_hash)


events_router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["events"])
MAX_STREAMS = 200  # per process
POLL_SECONDS = 0.5  # seconds
COMMENT_SECONDS = 15.0  # seconds without an event
MEDIA_TYPE = "text/event-stream"
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "events; `id` is the revision, from which `Last-Event-ID` continues",
        "content": {
            MEDIA_TYPE: {
                "schema": {"type": "string"},
                "example": 'id: 42\nevent: changed\ndata: {"rollout":"bear-alarm","revision":42,'
                '"hash":"9f2c…"}\n\n',
            }
        },
    }
}


class EventStreams:
    """The number of open streams of one process, and whether they are closing."""

    def __init__(self) -> None:
        """Start with no open stream."""
        self.open = 0
        self.closing = False

    def close(self) -> None:
        """End every stream at its next poll, within half a second."""
        self.closing = True


def get_streams(app: FastAPI) -> EventStreams:
    """Return the streams of an application."""
    streams: EventStreams | None = getattr(app.state, "streams", None)
    if streams is None:
        streams = app.state.streams = EventStreams()
    return streams


@events_router.get(
    "/events",
    operation_id="streamEvents",
    summary="Stream ledger changes as server-sent events",
    response_class=StreamingResponse,
    responses=STREAM,
)
async def stream_events(
    rollout: str,
    request: Request,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ_SCOPE)],
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> StreamingResponse:
    """Return a stream with the current revision and each later one.

    A new revision is sent within a second. Events carry no content: read the changed resources
    again. The stream ends when your permission ends or the service stops. Reconnect with
    `Last-Event-ID`. If too many streams are open, the request fails with 429: retry later, or poll.
    """
    streams = get_streams(request.app)
    if streams.open >= MAX_STREAMS:
        raise TooManyAttemptsError(
            f"{MAX_STREAMS} streams are open here; connect again in a while, or poll"
        )
    await run_in_threadpool(service.state_cache.load_rollout, rollout)
    check_access = partial(_has_access, request, service, caller, rollout)
    changes = stream_changes(service, streams, rollout, last_event_id, check_access)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(changes, media_type=MEDIA_TYPE, headers=headers)


async def stream_changes(
    service: Service,
    streams: EventStreams,
    rollout: str,
    last_revision: str | None,
    check_access: Callable[[], Awaitable[bool]],
) -> AsyncIterator[str]:
    """Yield an event for each new head, and comments to keep the connection alive.

    Args:
        service: the replica.
        streams: those of this process.
        rollout: its name.
        last_revision: the revision of `Last-Event-ID`.
        check_access: returns whether the caller may still read; called at each poll.
    """
    streams.open += 1
    silent_seconds, sent_revision = 0.0, last_revision
    try:
        while not streams.closing and await check_access():
            head = await run_in_threadpool(_find_head, service, rollout)
            if head is None:
                return  # the database is unavailable: a reconnect returns the error
            if str(head.revision) != sent_revision:
                yield _format_event(rollout, head)
                silent_seconds, sent_revision = 0.0, str(head.revision)
            elif silent_seconds >= COMMENT_SECONDS:
                yield ": still here\n\n"
                silent_seconds = 0.0
            await anyio.sleep(POLL_SECONDS)
            silent_seconds += POLL_SECONDS
    finally:
        streams.open -= 1


def _find_head(service: Service, rollout: str) -> StoredLedgerHead | None:
    try:
        return service.state_cache.load_rollout(rollout).head
    except (StoreError, RefusalError):
        return None


def _format_event(rollout: str, head: StoredLedgerHead) -> str:
    fields: dict[str, Any] = {"rollout": rollout, "revision": head.revision, "hash": head.hash}
    data = json.dumps(fields, separators=(",", ":"))
    return f"id: {head.revision}\nevent: changed\ndata: {data}\n\n"


async def _has_access(request: Request, service: Service, caller: Caller, rollout: str) -> bool:
    """Return whether the caller still has the permission to read the stream."""
    middleware = AuthenticationMiddleware(request.app, service)
    current_caller = await middleware._identify_caller(request.scope)  # noqa: SLF001 - the same check as for any request
    if isinstance(current_caller, Exception) or current_caller.name != caller.name:
        return False
    try:
        require_permission(current_caller, Permission.READ_SCOPE, rollout)
    except RefusalError:
        return False
    return True
