"""The parser of HTTP requests: httptools where it is installed, else h11, which takes longer.

With httptools, uvicorn keeps a head of any length in memory, and adds trailers to the headers, by
which a client could replace what a trusted proxy has set. It takes the body of a request that
offers another protocol, as Java's client does, for the next request. Here it does nothing of that,
as with h11.

Threads reserved for requests that narrow, so that load never delays a stop.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import partial, wraps
from typing import Any, Final, Literal, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

MAX_HEAD_BYTES: Final = 64 * 2**10
"""Bytes of a head or of trailers beyond the read in which they begin, with either parser."""
LONG_HEAD_TEXT: Final = "The head of the request is too long."
HTTP_PROTOCOL: type[asyncio.Protocol] | Literal["h11"]
"""uvicorn's setting for the faster parser that is installed."""

INVALID_TEXT: Final = "Invalid HTTP request received."

try:
    import httptools
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:
    HTTP_PROTOCOL = "h11"
else:

    class BoundedHttpProtocol(HttpToolsProtocol):
        """A connection that refuses long heads, and ignores trailers and other protocols."""

        _is_head_read = False
        _is_offer_ignored = False
        _is_refused = False
        _steps = 0
        _waiting_bytes = 0

        def data_received(self, data: bytes) -> None:
            """Parse what came; refuse a request whose next part is too long."""
            if self._is_refused:
                return
            steps = self._steps
            self._unset_keepalive_if_required()
            try:
                self._parse(memoryview(data))
            except httptools.HttpParserError:
                self.logger.warning(INVALID_TEXT)
                self.send_400_response(INVALID_TEXT)
                return
            if self._steps != steps:
                self._waiting_bytes = 0
                return
            self._waiting_bytes += len(data)
            if self._waiting_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.logger.warning(LONG_HEAD_TEXT)
                self.send_400_response(LONG_HEAD_TEXT)

        def send_400_response(self, msg: str) -> None:
            """Refuse what came; a request before it gets its own answer, and then the end."""
            self._is_refused = True
            cycle: Any = self.cycle  # None before the first request
            if cycle is None or cycle.response_complete or cycle.more_body:
                super().send_400_response(msg)
            else:
                cycle.keep_alive = False

        def _parse(self, data: memoryview) -> None:
            """Parse what came; parse heads that offer another protocol again without the offer."""
            while data:
                try:
                    self.parser.feed_data(data)
                except httptools.HttpParserUpgrade as upgrade:
                    if self._should_upgrade():
                        self.handle_websocket_upgrade()
                        return
                    data = data[upgrade.args[0] :]
                    self._parse_without_offer()
                else:
                    return

        def _parse_without_offer(self) -> None:
            """Parse the last head again without its offer; then its body is no other request."""
            method = self.parser.get_method()
            if method == b"CONNECT":
                raise httptools.HttpParserError("no tunnels")
            version = self.parser.get_http_version().encode()
            lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
            lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            self.parser.feed_data(b"\r\n".join((*lines, b"\r\n")))

        def on_message_begin(self) -> None:
            """Begin a request."""
            self._is_head_read, self._steps = False, self._steps + 1
            self._is_offer_ignored = False
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            """Keep a header, but no trailer."""
            if not self._is_head_read:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """Start the application, unless the head is parsed again."""
            self._is_head_read, self._steps = True, self._steps + 1
            self._is_offer_ignored = self.parser.should_upgrade() and not self._should_upgrade()
            if not self._is_offer_ignored:
                super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Pass on a part of the body."""
            self._steps += 1
            super().on_body(body)

        def on_message_complete(self) -> None:
            """End the request."""
            self._steps += 1
            if not self._is_offer_ignored:
                super().on_message_complete()

    HTTP_PROTOCOL = BoundedHttpProtocol


NARROWING_PATHS: Final = ("/stops", "/narrowings", "/rejection", "/retirement")
NARROWING_PAGES: Final = (
    *("/stop", "/stop/confirm", "/stop/done"),
    *("/narrow", "/narrow/confirm", "/narrow/done", "/rejection"),
)
PRIORITY_THREADS: Final = CapacityLimiter(8)
LOOK_UP_THREADS: Final = CapacityLimiter(8)
"""For callers who are not known yet: whoever they are, they hold up no handler of a stop."""
P = ParamSpec("P")
T = TypeVar("T")


def is_narrowing(scope: Mapping[str, Any]) -> bool:
    """Return whether a request can only narrow what the model may do."""
    path = str(scope["path"])
    if path.startswith("/console/"):  # GET as well: the page with the form
        return path.endswith(NARROWING_PAGES)
    return scope["method"] == "POST" and path.startswith("/v1/") and path.endswith(NARROWING_PATHS)


def is_latchable(scope: Mapping[str, Any]) -> bool:
    """Return whether memory can hold what a request does: a stop or a narrowing."""
    match scope["method"], str(scope["path"]).split("/"):
        case "POST", ["", "v1", "rollouts", _, "stops" | "narrowings"]:
            return True
        case "POST", ["", "console", "rollouts", _, "stop" | "narrow", "confirm"]:
            return True
    return False


async def run_with_priority(work: Callable[[], T]) -> T:
    """Run a function on a reserved thread."""
    return await to_thread.run_sync(work, limiter=PRIORITY_THREADS)


async def look_up_with_priority(look_up: Callable[[], T]) -> T:
    """Run the look-up of a caller on a reserved thread."""
    return await to_thread.run_sync(look_up, limiter=LOOK_UP_THREADS)


def prioritize(handler: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Run a route's handler on a reserved thread."""

    @wraps(handler)
    async def handle(*args: P.args, **kwargs: P.kwargs) -> T:
        return await run_with_priority(partial(handler, *args, **kwargs))

    return handle
