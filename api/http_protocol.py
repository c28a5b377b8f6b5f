"""The parser of HTTP requests: httptools where it is installed, else h11, which takes longer.

With httptools, uvicorn keeps a head of any length in memory, and adds trailers to the headers, by
which a client could replace what a trusted proxy has set. Here it does neither, as with h11.
"""

import asyncio
from typing import Final, Literal

MAX_HEAD_BYTES: Final = 64 * 2**10
"""Bytes of a head or of trailers beyond the read in which they begin, as with h11."""
LONG_HEAD_TEXT: Final = "The head of the request is too long."
HTTP_PROTOCOL: type[asyncio.Protocol] | Literal["h11"]
"""uvicorn's setting for the faster parser that is installed."""

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:
    HTTP_PROTOCOL = "h11"
else:

    class BoundedHttpProtocol(HttpToolsProtocol):
        """A connection that refuses long heads and ignores trailers."""

        _is_head_read = False
        _steps = 0
        _waiting_bytes = 0

        def data_received(self, data: bytes) -> None:
            """Parse what came; refuse a request whose next part is too long."""
            steps = self._steps
            super().data_received(data)
            if self._steps != steps:
                self._waiting_bytes = 0
                return
            self._waiting_bytes += len(data)
            if self._waiting_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.logger.warning(LONG_HEAD_TEXT)
                self.send_400_response(LONG_HEAD_TEXT)

        def on_message_begin(self) -> None:
            """Begin a request."""
            self._is_head_read, self._steps = False, self._steps + 1
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            """Keep a header, but no trailer."""
            if not self._is_head_read:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """Start the application."""
            self._is_head_read, self._steps = True, self._steps + 1
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Pass on a part of the body."""
            self._steps += 1
            super().on_body(body)

        def on_message_complete(self) -> None:
            """End the request."""
            self._steps += 1
            super().on_message_complete()

    HTTP_PROTOCOL = BoundedHttpProtocol
