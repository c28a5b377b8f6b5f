"""Server-sent events: something has changed, read it again."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, FastAPI, Header, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth import Authenticate
from api.deps import Act, By, Caller, Served
from rollout.core.errors import Refusal, TooManyTries
from rollout.core.scope.permissions import require
from rollout.services.engine.service import Service
from rollout.store.database.errors import StoreError
from rollout.store.ledger.ledger import Head

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["events"])
MOST = 200  # streams of one process
EVERY = 0.5  # seconds between two looks
SILENCE = 15.0  # seconds after which a comment shows that the stream is alive
MEDIA_TYPE = "text/event-stream"
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "events; `id` is the revision, and `Last-Event-ID` goes on from there",
        "content": {
            MEDIA_TYPE: {
                "schema": {"type": "string"},
                "example": 'id: 42\nevent: changed\ndata: {"rollout":"bear-alarm","revision":42,'
                '"hash":"9f2c…"}\n\n',
            }
        },
    }
}


class Streams:
    """The open streams of one process; `close` ends them, so that nothing waits for them."""

    def __init__(self) -> None:
        """None is open."""
        self.open = 0
        self.closing = False

    def close(self) -> None:
        """Let every stream end at its next look, half a second from now at the latest."""
        self.closing = True


def streams_of(app: FastAPI) -> Streams:
    """Return the streams of an application."""
    streams: Streams | None = getattr(app.state, "streams", None)
    if streams is None:
        streams = app.state.streams = Streams()
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
    service: Served,
    who: Annotated[Caller, By(Act.WATCH)],
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> StreamingResponse:
    """Tell of the present revision, and of each later one within a second.

    The stream ends when the caller's rights do, and when the service stops: connect again.
    """
    streams = streams_of(request.app)
    if streams.open >= MOST:
        raise TooManyTries(f"{MOST} streams are open here; connect again in a while, or poll")
    await run_in_threadpool(service.watch.rollout, rollout)
    again = partial(_allowed, request, service, who, rollout)
    told = changes(service, streams, rollout, last_event_id, again)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(told, media_type=MEDIA_TYPE, headers=headers)


async def changes(
    service: Service,
    streams: Streams,
    rollout: str,
    last: str | None,
    allowed: Callable[[], Awaitable[bool]],
) -> AsyncIterator[str]:
    """Yield an event for each new head, and a comment when nothing was said for a while.

    Args:
        service: the replica.
        streams: those of this process.
        rollout: its name.
        last: the revision that was heard of last, as `Last-Event-ID` brings it.
        allowed: says whether the caller may still listen; asked at each look.
    """
    streams.open += 1
    silent_seconds, sent_revision = 0.0, last
    try:
        while not streams.closing and await allowed():
            head = await run_in_threadpool(_head, service, rollout)
            if head is None:
                return  # the database can't be asked: who connects again is told so
            if str(head.revision) != sent_revision:
                yield _event(rollout, head)
                silent_seconds, sent_revision = 0.0, str(head.revision)
            elif silent_seconds >= SILENCE:
                yield ": still here\n\n"
                silent_seconds = 0.0
            await anyio.sleep(EVERY)
            silent_seconds += EVERY
    finally:
        streams.open -= 1


def _head(service: Service, rollout: str) -> Head | None:
    try:
        return service.watch.rollout(rollout).head
    except (StoreError, Refusal):
        return None


def _event(rollout: str, head: Head) -> str:
    fields: dict[str, Any] = {"rollout": rollout, "revision": head.revision, "hash": head.hash}
    data = json.dumps(fields, separators=(",", ":"))
    return f"id: {head.revision}\nevent: changed\ndata: {data}\n\n"


async def _allowed(request: Request, service: Service, who: Caller, rollout: str) -> bool:
    """Say whether whoever opened the stream may still listen: keys and rights end meanwhile."""
    current_caller = await Authenticate(request.app, service)._who(request.scope)  # noqa: SLF001 - as at the door
    if isinstance(current_caller, Exception) or current_caller.name != who.name:
        return False
    try:
        require(current_caller, Act.WATCH, rollout)
    except Refusal:
        return False
    return True
