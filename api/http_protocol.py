"""The parser of HTTP requests: httptools where it is installed, else h11, which takes longer.

With httptools, uvicorn keeps a head of any length in memory, and adds trailers to the headers, by
which a client could replace what a trusted proxy has set. It takes the body of a request that
offers another protocol, as Java's client does, for the next request. Here it does nothing of that,
as with h11.
"""

import asyncio
from typing import Any, Final, Literal

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
