"""`Idempotency-Key`: asking again with the same key and the same content gets the first answer.

Each operation is safe to repeat by itself; the key adds that the *answer* is the same. So an answer
is kept before it is given, and of two who ask at once both hear the one that stands. An answer that
holds a secret is never kept. What failed by a fault of the service is not kept either.
"""

import logging
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256

from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.priority_threads import narrows
from api.problems import MEDIA_TYPE, problem
from rollout import faults
from rollout.core.scope.permissions import Caller
from rollout.services.engine.service import Service
from rollout.store.database.idempotency_keys import Replies, Reply

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
OWN_KEYS = ("/records", "/assignments")  # these are known by their own keys
SECRET = ("/v1/keys", "/v1/users", "/v1/session")
KEPT_FOR = timedelta(days=1)
LONGEST_KEY = 200
LARGEST = 2**20  # bytes of an answer that is kept
UNKEPT = "it may have been done; ask again with the same Idempotency-Key, nothing is done twice"
_FAULT = 500  # statuses from here on are the service's own faults
log = logging.getLogger("rollout.api")


@dataclass(slots=True)
class Heard:
    """An answer: held back while it may be worth keeping, let go by where it is not.

    What is kept is JSON, no fault of the service, and small.
    """

    status: int = 500
    held: list[Message] = field(default_factory=list)
    size: int = 0
    holds: bool = False

    @property
    def body(self) -> str:
        """Return what it says."""
        return b"".join(message.get("body", b"") for message in self.held).decode()

    def hearing(self, send: Send) -> Send:
        """Return what an application sends to instead."""

        async def sending(message: Message) -> None:
            self._hear(message)
            if self.holds:
                self.held.append(message)
                return
            buffered, self.held = self.held, []
            for earlier in (*buffered, message):
                await send(earlier)

        return sending

    def _hear(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            kind = dict(message["headers"]).get(b"content-type", b"")
            self.holds = b"json" in kind and b"ndjson" not in kind and self.status < _FAULT
        self.size += len(message.get("body", b""))
        self.holds = self.holds and self.size <= LARGEST

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Give it."""
        for message in self.held:
            await send(message)


@dataclass(slots=True)
class Idempotency:
    """The middleware. It stands behind the one that reads bodies and says who asks."""

    app: ASGIApp
    service: Service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as before, or let the request through and keep its answer."""
        key, caller = _key(scope), scope.get("state", {}).get("who")
        if key is None or not isinstance(caller, Caller):
            await self.app(scope, receive, send)
            return
        if not (0 < len(key) <= LONGEST_KEY and key.isprintable() and key.isascii()):
            text = f"Idempotency-Key has 1 to {LONGEST_KEY} letters, printable ASCII"
            await problem("malformed", text, 400)(scope, receive, send)
            return
        message = await receive()
        request_hash = _hash(scope, message.get("body", b""))
        stored = await run_in_threadpool(self._find, caller.name, key)
        if stored is not None:
            await _again(stored, request_hash)(scope, receive, send)
            return
        response = Heard()
        await self.app(scope, _first(message, receive), response.hearing(send))
        if response.holds:
            answer = await self._kept(caller.name, key, request_hash, response)
            await answer(scope, receive, send)

    def _find(self, principal: str, key: str) -> Reply | None:
        with self.service.database.reading() as transaction:
            stored = Replies(transaction).find(principal, key, at=self.service.clock.now())
        faults.point("reply.sought")
        return stored

    async def _kept(self, principal: str, key: str, asked: bytes, heard: Heard) -> ASGIApp:
        """Keep an answer and return the one that stands under the key: this one, or an earlier."""
        reply = Reply(asked, heard.status, heard.body)
        try:
            stored = await run_in_threadpool(self._keep, principal, key, reply)
        except Exception:  # whatever it is: what isn't kept isn't said
            log.exception("an answer under an Idempotency-Key could not be kept")
            return problem("outcome-unknown", UNKEPT)
        return heard if stored == reply else _again(stored, asked)

    def _keep(self, principal: str, key: str, reply: Reply) -> Reply:
        at = self.service.clock.now()
        with self.service.database.writing() as transaction:
            replies = Replies(transaction)
            replies.keep(principal, key, reply, at=at, until=at + KEPT_FOR)
            return replies.find(principal, key, at=at) or reply


def _key(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] not in CHANGING:
        return None
    path = scope["path"]
    if narrows(scope):
        return None  # it is made whenever it is asked for: what held then may hold no more
    if path.endswith(OWN_KEYS) or path.startswith(SECRET):
        return None
    header = dict(scope["headers"]).get(b"idempotency-key")
    return None if header is None else str(header.decode("latin-1"))


def _hash(scope: Scope, body: bytes) -> bytes:
    parts = (scope["method"], scope["path"], scope["query_string"].decode("latin-1"))
    return sha256("\n".join(parts).encode() + b"\n" + body).digest()


def _again(found: Reply, asked: bytes) -> Response:
    if found.request != asked:
        text = "this Idempotency-Key was used for another request; take a new key for a new one"
        return problem("conflict", text)
    media_type = MEDIA_TYPE if found.status >= 400 else JSONResponse.media_type
    return Response(found.body, found.status, {"Idempotent-Replay": "true"}, media_type=media_type)


def _first(message: Message, receive: Receive) -> Receive:
    is_consumed = False

    async def next_message() -> Message:
        nonlocal is_consumed
        if is_consumed:
            return await receive()
        is_consumed = True
        return message

    return next_message
