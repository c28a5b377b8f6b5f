"""Requests of test clients that reach the application in one step, and get its whole response.

Starlette's client crosses to the application's thread eight times for each request, since it gives
a response away while it is still being sent. That took half of what a test's request costs. Only
event streams need it.
"""

from typing import Any, Final
from urllib.parse import unquote

import anyio
import httpx2
from starlette.testclient import _TestClientTransport

STREAM_PATH: Final = "/events"
PORTS: Final = {"http": 80, "https": 443}


class WholeResponseTransport(_TestClientTransport):
    """Call an application once for each request, and return when it has returned."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the whole response; an event stream's is read while it is sent."""
        if request.url.path.endswith(STREAM_PATH) or request.url.scheme not in PORTS:
            return super().handle_request(request)
        sent = _SentResponse()
        with self.portal_factory() as portal:
            try:
                portal.call(sent.receive_from, self.app, self._build_scope(request), request.read())
            except Exception:
                if self.raise_server_exceptions:
                    raise
        if self.raise_server_exceptions:
            assert sent.status is not None, "the application sent no response"
        content = b"" if request.method == "HEAD" else b"".join(sent.parts)
        return httpx2.Response(
            sent.status or 500,
            headers=sent.headers,
            stream=httpx2.ByteStream(content),
            request=request,
        )

    def _build_scope(self, request: httpx2.Request) -> dict[str, Any]:
        url, headers = request.url, request.headers
        raw_headers = [(name.lower().encode(), v.encode()) for name, v in headers.multi_items()]
        if "host" not in headers:
            raw_headers.insert(0, (b"host", url.netloc))
        return {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "path": unquote(url.path),
            "raw_path": url.raw_path.partition(b"?")[0],
            "root_path": self.root_path,
            "scheme": url.scheme,
            "query_string": url.query,
            "headers": raw_headers,
            "client": self.client,
            "server": [url.raw_host.decode("ascii"), url.port or PORTS[url.scheme]],
            "extensions": {},
            "state": self.app_state.copy(),
        }


class _SentResponse:
    """What an application sends as the response to one request."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []

    async def receive_from(self, app: Any, scope: dict[str, Any], body: bytes) -> None:
        """Run the application; it is told of a disconnect after its response."""
        waiting, complete = [body], anyio.Event()

        async def receive() -> dict[str, Any]:
            if waiting:
                return {"type": "http.request", "body": waiting.pop()}
            await complete.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                assert self.status is None, "two responses to one request"
                self.status, self.headers = message["status"], list(message.get("headers", []))
                return
            assert self.status is not None, "a body before the response's start"
            assert not complete.is_set(), "a body after the response's end"
            self.parts.append(bytes(message.get("body", b"")))
            if not message.get("more_body", False):
                complete.set()

        await app(scope, receive, send)
