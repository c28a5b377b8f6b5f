"""Server-sent events: one event for each new revision of a ledger."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, FastAPI, Header, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth import (
    AuthenticationMiddleware,
    Caller,
    Permission,
    RequirePermission,
    ServiceDependency,
)
from rollout.data.database.errors import StoreError
from rollout.data.ledger.ledger import StoredLedgerHead
from rollout.engine.decide.permissions import require_permission
from rollout.kernel.errors import RefusalError, TooManyAttemptsError
from rollout.live.service import Service

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["events"])
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


@router.get(
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
