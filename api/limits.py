"""What one request may cost: the size of its body, raw and inflated, its time, its rate.

Bodies are read here, whole, before anything is parsed: a body that is too large, too slow or no
gzip is answered with a problem and has no effect. Stops, narrowings and rejections are never
held up by the rate.
"""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.priority_threads import narrows
from api.problems import problem
from rollout.core.scope.permissions import Caller
from rollout.services.support.clock import Clock

RAW = 8 * 2**20
INFLATED = 32 * 2**20
STRANGERS = 64 * 2**10  # bytes of a body from nobody that is known
BUDGET = 256 * 2**20  # bytes of all bodies that are being handled
SECONDS = 30.0
RATE, BURST = 500.0, 2_000.0  # requests a second of one caller, and how many at once
STRANGERS_RATE, STRANGERS_BURST = 5.0, 50.0  # of everybody who is not known, by address
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


class BadBodyError(Exception):
    """A body that can't be taken: `code`, `status` and what to do instead."""

    def __init__(self, code: str, status: int, says: str) -> None:
        super().__init__(says)
        self.code, self.status = code, status


@dataclass(slots=True)
class Bucket:
    """Requests that may still come at once; it fills up at the rate."""

    left: float
    at: float

    def take(self, now: float, rate: float, burst: float) -> bool:
        """Take one; say whether there was one."""
        self.left = min(burst, self.left + max(0.0, now - self.at) * rate)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class Limits:
    """The middleware; one process' counts."""

    app: ASGIApp
    clock: Clock
    held: int = 0
    buckets: dict[str, Bucket] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through with its body read, or answer why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _with_headers(send)
        if not self._in_time(scope):
            answer = problem("too-many-requests", "too many requests; wait a second and ask again")
            await answer(scope, receive, send)
            return
        await self._with_body(scope, receive, send)

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(scope, receive)
        except (BadBodyError, TimeoutError) as error:
            await _refusal(error)(scope, receive, send)
            return
        body_size = len(body)
        self.held += body_size
        try:
            await self.app(_plain(scope), _once(body, receive), send)
        finally:
            self.held -= body_size

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        limit = RAW if isinstance(scope["state"].get("who"), Caller) else STRANGERS
        received = await self._read(receive, headers, limit)
        body = await _inflated(received, headers.get(b"content-encoding", b""))
        if not narrows(scope):
            self._check_budget(len(body))
        return body

    async def _read(self, receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
        content_length = headers.get(b"content-length", b"0")
        if content_length.isdigit() and int(content_length) > limit:
            raise _too_large(limit)
        message = await asyncio.wait_for(receive(), SECONDS)
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return body  # whole at once, as nearly all are
        async with asyncio.timeout(SECONDS):
            return await self._rest(receive, body, limit)

    async def _rest(self, receive: Receive, first: bytes, limit: int) -> bytes:
        parts, size, has_more = [first], len(first), True
        self.held += size
        try:
            while has_more:
                message = await receive()
                part = message.get("body", b"")
                size, self.held = size + len(part), self.held + len(part)
                if size > limit:
                    raise _too_large(limit)
                self._check_budget(0)
                parts.append(part)
                has_more = message.get("more_body", False)
            return b"".join(parts)
        finally:
            self.held -= size

    def _check_budget(self, more: int) -> None:
        if self.held + more > BUDGET:
            text = "too much is being received at once; nothing was done, send it again shortly"
            raise BadBodyError("too-many-requests", HTTPStatus.SERVICE_UNAVAILABLE, text)

    def _in_time(self, scope: Scope) -> bool:
        caller = scope["state"].get("who")
        is_known = isinstance(caller, Caller)
        if is_known and narrows(scope):
            return True
        bucket_name = (
            f"caller {caller.name}" if isinstance(caller, Caller) else f"from {_address(scope)}"
        )
        rate, burst = (RATE, BURST) if is_known else (STRANGERS_RATE, STRANGERS_BURST)
        now = self.clock.boot()
        if len(self.buckets) > 10_000:
            self.buckets.clear()
        return self.buckets.setdefault(bucket_name, Bucket(burst, now)).take(now, rate, burst)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "nowhere"


def _too_large(limit: int) -> BadBodyError:
    text = f"a body has at most {limit // 2**10} KiB; send it in several requests"
    return BadBodyError("too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)


async def _inflated(raw: bytes, encoding: bytes) -> bytes:
    match encoding.strip().lower():
        case b"" | b"identity":
            return raw
        case b"gzip" | b"x-gzip":
            return await run_in_threadpool(inflate, raw, INFLATED)
    text = "Content-Encoding is gzip, or left out"
    raise BadBodyError("unknown-encoding", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text)


def inflate(raw: bytes, most: int) -> bytes:
    """Return what gzip holds, of one or several members, never making more than `most` bytes.

    Raises:
        BadBodyError: it is no gzip, is cut short, or would be larger.
    """
    parts: list[bytes] = []
    remaining, compressed = most, raw
    while compressed:
        inflater = zlib.decompressobj(wbits=31)
        try:
            part = inflater.decompress(compressed, remaining + 1)
        except zlib.error as error:
            raise _no_gzip() from error
        remaining -= len(part)
        if remaining < 0:
            raise _too_large(most)
        if not inflater.eof:
            raise _no_gzip()
        parts.append(part)
        compressed = inflater.unused_data
    return b"".join(parts)


def _no_gzip() -> BadBodyError:
    text = "the body is no whole gzip; send it again, or without Content-Encoding"
    return BadBodyError("broken-encoding", HTTPStatus.BAD_REQUEST, text)


def _plain(scope: Scope) -> Scope:
    dropped = {b"content-encoding", b"content-length"}
    return {
        **scope,
        "headers": [(name, value) for name, value in scope["headers"] if name not in dropped],
    }


def _once(body: bytes, receive: Receive) -> Receive:
    is_consumed = False

    async def next_message() -> Message:
        nonlocal is_consumed
        if is_consumed:
            return await receive()  # only "disconnected" can follow
        is_consumed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _refusal(error: Exception) -> JSONResponse:
    if isinstance(error, BadBodyError):
        return problem(error.code, str(error), error.status)
    return problem("too-slow", f"the body took over {SECONDS:.0f} s; nothing was done", 408)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            extra = [pair for pair in HEADERS if pair[0] not in present]
            if b"cache-control" not in present:
                extra.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return sending
