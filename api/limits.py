"""Limits of requests (size, time and rate) and of connections.

Requests: the middleware reads the whole body before anything is parsed, but for uploaded files,
which their page receives bit by bit. The limit of size holds for the body raw and inflated. A body
that is too large, too slow or invalid gzip has no effect, and neither has a request with two hosts.
The rate limit does not apply to stops, narrowings and rejections.

Connections: half-sent requests never keep everybody else out. Each connection takes a file of the
process. Near the soft limit of files only addresses from which somebody authenticated within a day
get another connection, so that operators can still stop. One address has a part of all connections
without an authenticated request; its newest one takes the place of the oldest that waits for a
head. Trusted proxies are exempt: they limit by themselves.
"""

import asyncio
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, Literal
from urllib.parse import urlsplit, urlunsplit

from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http_protocol import HTTP_PROTOCOL
from api.priority_threads import is_narrowing
from api.problems import build_problem
from rollout.data.database.append_failures import StoreError
from rollout.engine.decide.permissions import Caller, may_upload
from rollout.features.access.sign_in import find_network
from rollout.live.clock import Clock
from rollout.settings import REQUEST_RATE

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

RESERVED_FILES: Final = (
    100  # for the database, logs, reports and connections of recognized addresses
)
MAX_CONNECTIONS: Final = 100_000
ADDRESS_PARTS: Final = 4  # one address has at most a fourth without an authenticated request
FEW: Final = 8  # of an address beyond the cap
NEAR_PARTS: Final = 4  # the last fourth is near the cap
MEMORY_SECONDS: Final = 86_400.0
MAX_RECOGNIZED: Final = 10_000
HEAD_SECONDS: Final = 10.0
STATE_KEY: Final = "connection"  # of a request's connection, in its state
FULL_ANSWER: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 10\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)
Network = IPv4Network | IPv6Network


@dataclass(slots=True, eq=False)
class Connection:
    """One connection.

    Attributes:
        network: whose it is; "" for trusted proxies and sockets of this machine without address.
        close: ends it at once.
        is_anonymous: whether no request of it was authenticated yet.
        is_waiting: whether it waits for a head, or for its rest.
    """

    limits: "ConnectionLimits"
    network: str
    close: Callable[[], None]
    is_anonymous: bool = True
    is_waiting: bool = True


@dataclass(slots=True)
class ConnectionLimits:
    """The connections of one process.

    Attributes:
        cap: connections beyond which only recognized addresses get one.
        trusted_proxies: networks that are exempt.
    """

    cap: int
    trusted_proxies: Collection[Network] = ()
    read_clock: Callable[[], float] = time.monotonic
    open: int = 0
    recognized: dict[str, float] = field(default_factory=dict)
    anonymous: dict[str, dict[Connection, None]] = field(default_factory=dict)

    def build_connection(self, address: str, close: Callable[[], None]) -> Connection:
        """Return a new connection, which is not admitted yet; `address` is "" for none."""
        is_exempt = not address or any(
            ip_address(address) in network for network in self.trusted_proxies
        )
        return Connection(self, "" if is_exempt else find_network(address), close)

    def admit(self, connection: Connection) -> bool:
        """Count a connection; return whether it may stay."""
        self.open += 1
        if not connection.network:
            return True
        if self.open > self.cap and not self._is_recognized(connection.network):
            return False
        others = self.anonymous.setdefault(connection.network, {})
        limit = FEW if self.open > self.cap else max(1, self.cap // ADDRESS_PARTS)
        if len(others) >= limit:
            oldest = next((other for other in others if other.is_waiting), None)
            if oldest is None:
                return False
            self._drop_anonymous(oldest)
            oldest.close()
        self.anonymous.setdefault(connection.network, {})[connection] = None
        return True

    def remove(self, connection: Connection) -> None:
        """Forget a connection that ended, admitted or not."""
        self.open -= 1
        self._drop_anonymous(connection)

    def recognize(self, connection: Connection) -> None:
        """Remember that a request of the connection was authenticated."""
        connection.is_anonymous = False
        self._drop_anonymous(connection)
        self.recognized.pop(connection.network, None)
        self.recognized[connection.network] = self.read_clock()
        if len(self.recognized) > MAX_RECOGNIZED:
            del self.recognized[next(iter(self.recognized))]

    def must_close(self, connection: Connection) -> bool:
        """Return whether a connection ends after its answer, to leave its file to others."""
        is_near = self.open >= self.cap - self.cap // NEAR_PARTS
        return is_near and connection.is_anonymous and bool(connection.network)

    def _is_recognized(self, network: str) -> bool:
        return self.read_clock() - self.recognized.get(network, -MEMORY_SECONDS) < MEMORY_SECONDS

    def _drop_anonymous(self, connection: Connection) -> None:
        others = self.anonymous.get(connection.network)
        if others is not None and others.pop(connection, self) is None and not others:
            del self.anonymous[connection.network]


def recognize_caller(scope: Scope) -> None:
    """Remember that the request of a scope was authenticated, if a server limits connections."""
    connection = scope["state"].get(STATE_KEY)
    if connection is not None:
        connection.limits.recognize(connection)


def must_close(scope: Scope) -> bool:
    """Return whether the connection of a request ends after its answer."""
    connection = scope["state"].get(STATE_KEY)
    return connection is not None and connection.limits.must_close(connection)


def read_connection_limits(trusted_proxies: str) -> ConnectionLimits:
    """Return the limits under this process's soft limit of files."""
    files = MAX_CONNECTIONS
    if resource is not None:
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = files if soft_limit == resource.RLIM_INFINITY else min(files, soft_limit)
    networks = tuple(
        ip_network(part.strip()) for part in trusted_proxies.split(",") if part.strip()
    )
    return ConnectionLimits(max(files - RESERVED_FILES, files // 2), networks)


class GuardedConnection(asyncio.Protocol):
    """What a connection of either parser adds: it is admitted, and its heads come in time."""

    limits: ConnectionLimits
    head_seconds = HEAD_SECONDS
    app_state: dict[str, Any]
    client: tuple[str, int] | None
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: Any
    _connection: Connection
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or end it with 503."""
        super().connection_made(transport)
        address = "" if self.client is None else self.client[0]
        self._connection = self.limits.build_connection(address, self.transport.abort)
        if not self.limits.admit(self._connection):
            self.transport.write(FULL_ANSWER)
            self.transport.close()
            return
        self.app_state = {**self.app_state, STATE_KEY: self._connection}
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the place to another connection."""
        self._stop_head_timer()
        self.limits.remove(self._connection)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; the time for a head begins with its first byte."""
        last_cycle = self.cycle
        super().data_received(data)
        if self.cycle is not last_cycle:
            self._stop_head_timer()
            self._connection.is_waiting = self.cycle.response_complete
        elif self._connection.is_waiting:
            self._start_head_timer()

    def on_response_complete(self) -> None:
        """Wait for the next head, unless it came already."""
        super().on_response_complete()  # type: ignore[misc]  # of either parser's class
        self._connection.is_waiting = self.cycle.response_complete

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def build_protocol(
    limits: ConnectionLimits, parser: type[asyncio.Protocol] | Literal["h11"] = HTTP_PROTOCOL
) -> type[asyncio.Protocol]:
    """Return uvicorn's setting for a parser, by default the fastest, with limits of connections."""
    if parser == "h11":
        from uvicorn.protocols.http.h11_impl import H11Protocol

        parser = H11Protocol
    return type("LimitedProtocol", (GuardedConnection, parser), {"limits": limits})


BURST_SECONDS = 4.0  # of a caller's rate, at once after a pause
ANONYMOUS_RATE, ANONYMOUS_BURST = 5.0, 50.0  # of unknown callers, by address
MAX_BUCKETS = 10_000
KEY_PREFIX = "key_prefix"  # of a request's key, in its state; "" for sessions


@dataclass(slots=True)
class RateBucket:
    """A token bucket: requests that are still allowed at once."""

    remaining: float
    at: float

    def count_remaining(self, now: float, rate: float, burst: float) -> float:
        """Return how many tokens there are now."""
        return min(burst, self.remaining + max(0.0, now - self.at) * rate)

    def take(self, now: float, rate: float, burst: float) -> bool:
        """Take one token; return False if there is none."""
        self.remaining = self.count_remaining(now, rate, burst)
        self.at = now
        if self.remaining < 1:
            return False
        self.remaining -= 1
        return True


@dataclass(slots=True)
class RequestRates:
    """The buckets of keys, of signed-in users and of addresses.

    Attributes:
        caller_rate: requests a second of one key, or of one user's sessions.
    """

    clock: Clock
    caller_rate: float = REQUEST_RATE
    buckets: dict[str, RateBucket] = field(default_factory=dict)

    def take_for_caller(self, caller: Caller, key_prefix: str) -> bool:
        """Count a request of a key, or of a user without one; return False after too many."""
        return self._take_as_caller(f"key {key_prefix}" if key_prefix else f"caller {caller.name}")

    def take_for_address(self, scope: Scope) -> bool:
        """Count a request of an unknown caller; return False if there were too many."""
        return self._take(_name_address(scope), ANONYMOUS_RATE, ANONYMOUS_BURST)

    def take_for_unidentified(self, scope: Scope) -> bool:
        """Count a request whose caller the database could not identify, as a caller's."""
        return self._take_as_caller(f"unidentified {_name_address(scope)}")

    def may_look_up(self, scope: Scope) -> bool:
        """Return whether an address may make the service look up another key or session."""
        bucket = self.buckets.get(_name_address(scope))
        if bucket is None:
            return True
        now = self.clock.read_boot_clock()
        return bucket.count_remaining(now, ANONYMOUS_RATE, ANONYMOUS_BURST) >= 1

    def _take_as_caller(self, name: str) -> bool:
        return self._take(name, self.caller_rate, self.caller_rate * BURST_SECONDS)

    def _take(self, name: str, rate: float, burst: float) -> bool:
        now = self.clock.read_boot_clock()
        bucket = self.buckets.pop(name, None) or RateBucket(burst, now)
        self.buckets[name] = bucket  # the last used one comes last
        if len(self.buckets) > MAX_BUCKETS:  # whoever floods from many addresses resets no other
            del self.buckets[next(iter(self.buckets))]
        return bucket.take(now, rate, burst)


def _name_address(scope: Scope) -> str:
    client = scope.get("client")
    return f"from {find_network(client[0]) if client else 'nowhere'}"


MAX_RAW_BYTES = 8 * 2**20
MAX_INFLATED_BYTES = 32 * 2**20
MAX_ANONYMOUS_BYTES = 64 * 2**10  # for unknown callers
MAX_TOTAL_BYTES = 256 * 2**20  # of all requests in progress
BODY_TIMEOUT = 30.0
REPEATED_HOST_TEXT = "a request has one `Host` header; this one has several, send it with one"
"""One check would read the first of them, another one the last: h11 refuses them by itself."""
API_PATHS = ("/v1/", "/ofrep/")
UPLOAD_PATH = "/console/files"
UPLOAD_TYPE = b"multipart/form-data"
CLOSED_POLICY = (
    "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", CLOSED_POLICY.encode()),
)
"""Headers of responses that don't set their own."""
TRANSPORT_HEADER = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
"""Header of responses over TLS, at the proxy or here."""


class BadBodyError(Exception):
    """A body that can't be accepted, with the code and status of the problem."""

    def __init__(self, code: str, status: int, text: str) -> None:
        super().__init__(text)
        self.code, self.status = code, status


@dataclass(slots=True)
class LimitsMiddleware:
    """Middleware that applies the limits, with the counts of one process."""

    app: ASGIApp
    rates: RequestRates
    held_bytes: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request with its body read, or return a problem."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _add_headers(scope, send)
        if not self._is_within_rate(scope):
            answer = build_problem(
                "too-many-requests", "too many requests; wait a second and ask again"
            )
            await answer(scope, receive, send)
            return
        if [name for name, _ in scope["headers"]].count(b"host") > 1:
            await build_problem("repeated-host", REPEATED_HOST_TEXT, 400)(scope, receive, send)
            return
        if is_upload(scope):
            await self.app(scope, receive, send)
            return
        await self._handle_with_body(scope, receive, send)

    async def _handle_with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._read_body(scope, receive)
        except (BadBodyError, TimeoutError) as error:
            await _build_refusal(error)(scope, receive, send)
            return
        body_size = len(body)
        self.held_bytes += body_size
        try:
            message = {"type": "http.request", "body": body, "more_body": False}
            await self.app(_drop_body_headers(scope), replay_message(message, receive), send)
        finally:
            self.held_bytes -= body_size

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        headers = dict(scope["headers"])
        limit = (
            MAX_RAW_BYTES
            if isinstance(scope["state"].get("caller"), Caller) or _is_unidentified(scope)
            else MAX_ANONYMOUS_BYTES
        )
        body = await _decode_body(
            await self._receive(receive, headers, limit), headers.get(b"content-encoding", b"")
        )
        if not is_narrowing(scope):
            self._check_budget(len(body))
        return body

    async def _receive(self, receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
        content_length = headers.get(b"content-length", b"0")
        if content_length.isdigit() and int(content_length) > limit:
            raise _build_too_large_error(limit)
        async with asyncio.timeout(BODY_TIMEOUT):  # `wait_for` would run a task
            message = await receive()
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise _build_too_large_error(limit)
        if not message.get("more_body") and message.get("type") != "http.disconnect":
            return body  # nearly all bodies come in one message
        async with asyncio.timeout(BODY_TIMEOUT):
            return await self._receive_parts(receive, message, limit)

    async def _receive_parts(self, receive: Receive, message: Message, limit: int) -> bytes:
        parts, size = list[bytes](), 0
        try:
            while True:
                if message.get("type") == "http.disconnect":
                    text = "the connection ended within the body; nothing was done, send it again"
                    raise BadBodyError("too-slow", 408, text)
                part = message.get("body", b"")
                size, self.held_bytes = size + len(part), self.held_bytes + len(part)
                if size > limit:
                    raise _build_too_large_error(limit)
                self._check_budget(0)
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
                message = await receive()
        finally:
            self.held_bytes -= size

    def _check_budget(self, size: int) -> None:
        if self.held_bytes + size > MAX_TOTAL_BYTES:
            text = "too much is being received at once; nothing was done, send it again shortly"
            raise BadBodyError("too-many-requests", HTTPStatus.SERVICE_UNAVAILABLE, text)

    def _is_within_rate(self, scope: Scope) -> bool:
        caller = scope["state"].get("caller")
        if _is_unidentified(scope):
            return is_narrowing(scope) or self.rates.take_for_unidentified(scope)
        if not isinstance(caller, Caller):
            return self.rates.take_for_address(scope)
        return is_narrowing(scope) or self.rates.take_for_caller(
            caller, scope["state"].get(KEY_PREFIX, "")
        )


def is_upload(scope: Scope) -> bool:
    """Return whether a request brings files of a user who may upload some.

    Its body is not read here; the page limits its size and time, and how many come at once.
    """
    if scope["path"] != UPLOAD_PATH or scope["method"] != "POST":
        return False
    headers, caller = dict(scope["headers"]), scope["state"].get("caller")
    return (
        headers.get(b"content-type", b"").lower().startswith(UPLOAD_TYPE)
        and isinstance(caller, Caller)
        and may_upload(caller)
    )


def _is_unidentified(scope: Scope) -> bool:
    """Return whether the database failed while the caller of an API request was looked up.

    Such a caller isn't a stranger: limits for strangers would answer with 413 or 429, after which a
    client may drop what it wanted to send.
    """
    return isinstance(scope["state"].get("caller"), StoreError) and str(scope["path"]).startswith(
        API_PATHS
    )


def _build_too_large_error(limit: int) -> BadBodyError:
    text = f"a body has at most {limit // 2**10} KiB; send it in several requests"
    return BadBodyError("too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)


async def _decode_body(raw: bytes, encoding: bytes) -> bytes:
    match encoding.strip().lower():
        case b"" | b"identity":
            return raw
        case b"gzip" | b"x-gzip":
            return await run_in_threadpool(inflate, raw, MAX_INFLATED_BYTES)
    text = "Content-Encoding is gzip, or left out"
    raise BadBodyError("unknown-encoding", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text)


def inflate(raw: bytes, limit: int) -> bytes:
    """Return the content of gzip, of one or several members, at most `limit` bytes.

    Raises:
        BadBodyError: the data is not gzip, is truncated, or would exceed the limit.
    """
    parts: list[bytes] = []
    remaining, compressed = limit, raw
    while compressed:
        inflater = zlib.decompressobj(wbits=31)
        try:
            part = inflater.decompress(compressed, remaining + 1)
        except zlib.error as error:
            raise _build_gzip_error() from error
        remaining -= len(part)
        if remaining < 0:
            raise _build_too_large_error(limit)
        if not inflater.eof:
            raise _build_gzip_error()
        parts.append(part)
        compressed = inflater.unused_data
    return b"".join(parts)


def _build_gzip_error() -> BadBodyError:
    text = "the body is no whole gzip; send it again, or without Content-Encoding"
    return BadBodyError("broken-encoding", HTTPStatus.BAD_REQUEST, text)


def _drop_body_headers(scope: Scope) -> Scope:
    dropped = {b"content-encoding", b"content-length"}
    return {
        **scope,
        "headers": [(name, value) for name, value in scope["headers"] if name not in dropped],
    }


def replay_message(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that returns a message first."""
    is_consumed = False

    async def get_next_message() -> Message:
        nonlocal is_consumed
        if is_consumed:
            return await receive()  # only "http.disconnect" can follow
        is_consumed = True
        return message

    return get_next_message


def _build_refusal(error: Exception) -> JSONResponse:
    if isinstance(error, BadBodyError):
        return build_problem(error.code, str(error), error.status)
    return build_problem(
        "too-slow", f"the body took over {BODY_TIMEOUT:.0f} s; nothing was done", 408
    )


def _add_headers(scope: Scope, send: Send) -> Send:
    headers = (*SECURITY_HEADERS, *([TRANSPORT_HEADER] if scope.get("scheme") == "https" else []))

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            extra = [pair for pair in headers if pair[0] not in present]
            if b"cache-control" not in present:
                extra.append((b"cache-control", b"no-store"))
            if must_close(scope):
                extra.append((b"connection", b"close"))
            own = message["headers"]
            if message["status"] == HTTPStatus.TEMPORARY_REDIRECT:
                own = [
                    (name, _drop_host(text) if name == b"location" else text) for name, text in own
                ]
            message = {**message, "headers": [*own, *extra]}
        await send(message)

    return send_with_headers


def _drop_host(location: bytes) -> bytes:
    """Return a path without the host, which Starlette takes from the request's header.

    >>> _drop_host(b"http://example.org/v1/me?a=b"), _drop_host(b"http://x//example.org/")
    (b'/v1/me?a=b', b'/example.org/')
    """
    parts = urlsplit(location)
    return urlunsplit((b"", b"", b"/" + parts.path.lstrip(b"/"), parts.query, b""))
