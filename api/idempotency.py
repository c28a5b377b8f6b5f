"""`Idempotency-Key`: a repeated request gets the stored response.

Each operation is idempotent without the key; the key guarantees an identical response. A response
is stored before it is sent, and concurrent requests with one key get the same response. Responses
with secrets and server errors are not stored.
"""

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256

from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.limits import replay_message
from api.priority_threads import is_narrowing
from api.problems import MEDIA_TYPE, build_problem
from rollout import faults
from rollout.data.access.idempotency_keys import IdempotencyKeys, IdempotentResponse
from rollout.data.database.append_failures import DatabaseUnavailableError, StoreError
from rollout.engine.decide.permissions import Caller
from rollout.live.service import Service

CHANGING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SELF_KEYED_PATHS = ("/records", "/assignments")  # their items have keys of their own
SECRET_PATHS = ("/v1/keys", "/v1/users", "/v1/session")
RETENTION = timedelta(days=1)
MAX_KEY_LENGTH = 200
MAX_RESPONSE_BYTES = 2**20  # larger responses are not stored
NOT_STORED = "it may have been done; ask again with the same Idempotency-Key, nothing is done twice"
_SERVER_ERROR = 500  # from here on, statuses are server errors
log = logging.getLogger("rollout.api")


@dataclass(slots=True)
class BufferedResponse:
    """A response that is buffered while it may be stored, otherwise passed on.

    Small JSON responses that are not server errors are stored.
    """

    status: int = 500
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    is_storable: bool = False

    @property
    def body(self) -> str:
        """Return the body as text."""
        return b"".join(message.get("body", b"") for message in self.messages).decode()

    def wrap_send(self, send: Send) -> Send:
        """Return the `send` function for the application."""

        async def send_or_buffer(message: Message) -> None:
            self._inspect(message)
            if self.is_storable:
                self.messages.append(message)
                return
            buffered, self.messages = self.messages, []
            for earlier in (*buffered, message):
                await send(earlier)

        return send_or_buffer

    def _inspect(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kind = dict(message["headers"]).get(b"content-type", b"")
            self.is_storable = (
                b"json" in kind and b"ndjson" not in kind and self.status < _SERVER_ERROR
            )
        self.size += len(message.get("body", b""))
        self.is_storable = self.is_storable and self.size <= MAX_RESPONSE_BYTES

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the buffered messages."""
        for message in self.messages:
            await send(message)


@dataclass(slots=True)
class IdempotencyMiddleware:
    """Middleware that stores and replays responses. It needs the caller and the whole body."""

    app: ASGIApp
    service: Service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Replay the stored response, or handle the request and store its response."""
        key, caller = _find_key(scope), scope.get("state", {}).get("caller")
        if key is None or not isinstance(caller, Caller):
            await self.app(scope, receive, send)
            return
        if not (0 < len(key) <= MAX_KEY_LENGTH and key.isprintable() and key.isascii()):
            text = f"Idempotency-Key has 1 to {MAX_KEY_LENGTH} letters, printable ASCII"
            await build_problem("malformed", text, 400)(scope, receive, send)
            return
        message = await receive()
        request_hash = _hash_request(scope, message.get("body", b""))
        try:
            stored = await run_in_threadpool(self._find_response, caller.name, key)
        except StoreError as error:  # outside of the application's error handlers
            await build_problem(error.code, str(error))(scope, receive, send)
            return
        if stored is not None:
            await _replay_response(stored, request_hash)(scope, receive, send)
            return
        response = BufferedResponse()
        await self.app(scope, replay_message(message, receive), response.wrap_send(send))
        if response.is_storable:
            answer = await self._store_response(caller.name, key, request_hash, response)
            await answer(scope, receive, send)

    def _find_response(self, principal: str, key: str) -> IdempotentResponse | None:
        with self.service.database.begin_read() as transaction:
            stored = IdempotencyKeys(transaction).find(
                principal, key, at=self.service.wall_clock.now()
            )
        faults.reach_point("reply.sought")
        return stored

    async def _store_response(
        self, principal: str, key: str, request_hash: bytes, response: BufferedResponse
    ) -> ASGIApp:
        """Store a response and return the one stored under the key, new or earlier."""
        reply = IdempotentResponse(request_hash, response.status, response.body)
        try:
            stored = await run_in_threadpool(self._store_reply, principal, key, reply)
        except DatabaseUnavailableError:  # the outage itself is logged once
            return build_problem("outcome-unknown", NOT_STORED)
        except Exception:  # any error: a response that isn't stored isn't sent
            log.exception("a response with an Idempotency-Key could not be stored")
            return build_problem("outcome-unknown", NOT_STORED)
        return response if stored == reply else _replay_response(stored, request_hash)

    def _store_reply(
        self, principal: str, key: str, reply: IdempotentResponse
    ) -> IdempotentResponse:
        at = self.service.wall_clock.now()
        with self.service.database.begin_write() as transaction:
            replies = IdempotencyKeys(transaction)
            replies.store(principal, key, reply, at=at, until=at + RETENTION)
            return replies.find(principal, key, at=at) or reply


def _find_key(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] not in CHANGING_METHODS:
        return None
    path = scope["path"]
    if is_narrowing(scope):
        return None  # always executed: a replayed response could be out of date
    if path.endswith(SELF_KEYED_PATHS) or path.startswith(SECRET_PATHS):
        return None
    header = dict(scope["headers"]).get(b"idempotency-key")
    return None if header is None else str(header.decode("latin-1"))


def _hash_request(scope: Scope, body: bytes) -> bytes:
    parts = (scope["method"], scope["path"], scope["query_string"].decode("latin-1"))
    return sha256("\n".join(parts).encode() + b"\n" + body).digest()


def _replay_response(stored: IdempotentResponse, request_hash: bytes) -> Response:
    if stored.request != request_hash:
        text = "this Idempotency-Key was used for another request; take a new key for a new one"
        return build_problem("conflict", text)
    media_type = MEDIA_TYPE if stored.status >= 400 else JSONResponse.media_type
    return Response(
        stored.body, stored.status, {"Idempotent-Replay": "true"}, media_type=media_type
    )
