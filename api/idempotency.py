"""`Idempotency-Key`: asking again with the same key and the same content gets the first answer.

Each operation is safe to repeat by itself; the key adds that the *answer* is the same. An answer
that holds a secret is never kept. What failed by a fault of the service is not kept either.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256

from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.lane import narrows
from api.problems import MEDIA_TYPE, problem
from rollout import faults
from rollout.core.rights import Caller
from rollout.services.service import Service
from rollout.store.replies import Replies, Reply

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
OWN_KEYS = ("/records", "/assignments")  # these are known by their own keys
SECRET = ("/v1/keys", "/v1/people", "/v1/session")
KEPT_FOR = timedelta(days=1)
LONGEST_KEY = 200
LARGEST = 2**20  # bytes of an answer that is kept


@dataclass(slots=True)
class Heard:
    """An answer as it goes by."""

    status: int = 500
    json: bool = False
    parts: list[bytes] = field(default_factory=list)

    @property
    def worth_keeping(self) -> bool:
        """Say whether it is an answer and not a fault, and small."""
        return self.json and self.status < 500 and sum(map(len, self.parts)) <= LARGEST


@dataclass(slots=True)
class Idempotency:
    """The middleware. It stands behind the one that reads bodies and says who asks."""

    app: ASGIApp
    service: Service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as before, or let the request through and keep its answer."""
        key, who = _key(scope), scope.get("state", {}).get("who")
        if key is None or not isinstance(who, Caller):
            await self.app(scope, receive, send)
            return
        if not (0 < len(key) <= LONGEST_KEY and key.isprintable() and key.isascii()):
            says = f"Idempotency-Key has 1 to {LONGEST_KEY} letters, printable ASCII"
            await problem("malformed", says, 400)(scope, receive, send)
            return
        message = await receive()
        asked = _hash(scope, message.get("body", b""))
        found = await run_in_threadpool(self._find, who.name, key)
        if found is not None:
            await _again(found, asked)(scope, receive, send)
            return
        heard = Heard()
        await self.app(scope, _first(message, receive), _hearing(send, heard))
        if heard.worth_keeping:
            body = b"".join(heard.parts).decode()
            await run_in_threadpool(self._keep, who.name, key, Reply(asked, heard.status, body))

    def _find(self, principal: str, key: str) -> Reply | None:
        with self.service.database.reading() as transaction:
            found = Replies(transaction).find(principal, key, at=self.service.clock.now())
        faults.point("reply.sought")
        return found

    def _keep(self, principal: str, key: str, reply: Reply) -> None:
        at = self.service.clock.now()
        with self.service.database.writing() as transaction:
            Replies(transaction).keep(principal, key, reply, at=at, until=at + KEPT_FOR)


def _key(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] not in CHANGING:
        return None
    path = scope["path"]
    if narrows(scope):
        return None  # it is made whenever it is asked for: what held then may hold no more
    if path.endswith(OWN_KEYS) or path.startswith(SECRET):
        return None
    found = dict(scope["headers"]).get(b"idempotency-key")
    return None if found is None else str(found.decode("latin-1"))


def _hash(scope: Scope, body: bytes) -> bytes:
    asked = (scope["method"], scope["path"], scope["query_string"].decode("latin-1"))
    return sha256("\n".join(asked).encode() + b"\n" + body).digest()


def _again(found: Reply, asked: bytes) -> Response:
    if found.request != asked:
        says = "this Idempotency-Key was used for another request; take a new key for a new one"
        return problem("conflict", says)
    media = MEDIA_TYPE if found.status >= 400 else JSONResponse.media_type
    return Response(found.body, found.status, {"Idempotent-Replay": "true"}, media_type=media)


def _first(message: Message, receive: Receive) -> Receive:
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return message

    return next_message


def _hearing(send: Send, heard: Heard) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            heard.status = message["status"]
            kind = dict(message["headers"]).get(b"content-type", b"")
            heard.json = b"json" in kind and b"ndjson" not in kind
        elif message["type"] == "http.response.body":
            heard.parts.append(message.get("body", b""))
        await send(message)

    return sending
