"""Who asks: a key in `Authorization: Bearer`, or the session cookie of the console.

The middleware finds out who it is and nothing more. What they may do is said at each route by
`By`, and judged again in the services.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from rollout.core.errors import CrossSite, Unauthenticated
from rollout.core.rights import Act, Caller, require
from rollout.services.service import Service

COOKIES = ("__Host-rollout", "rollout")  # the second without TLS, on one's own machine
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OWN = frozenset({"same-origin", "none"})
NOBODY = "give a key: `Authorization: Bearer ro_…`; `rollout keys make` makes one"


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Put the caller, or the reason why there is none, into the request's state."""

    app: ASGIApp
    service: Service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who asks, without holding up other requests while the database is asked."""
        if scope["type"] == "http":
            scope.setdefault("state", {})["who"] = await self._who(scope)
        await self.app(scope, receive, send)

    async def _who(self, scope: Scope) -> Caller | Exception:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            return await self._caller(headers, scope["method"])
        except Exception as error:  # noqa: BLE001 - raised again where a route asks who it is
            return error

    async def _caller(self, headers: Mapping[bytes, str], method: str) -> Caller:
        at = self.service.clock.now()
        kind, _, key = headers.get(b"authorization", "").partition(" ")
        if kind.lower() == "bearer" and key:
            return await run_in_threadpool(self.service.door.caller_of_key, key.strip(), at)
        token = _cookie(headers.get(b"cookie", ""))
        if not token:
            raise Unauthenticated(NOBODY)
        if method not in SAFE and headers.get(b"sec-fetch-site", "cross-site") not in OWN:
            raise CrossSite("a form on another site may not do this; open the console itself")
        return await run_in_threadpool(self.service.door.caller_of_session, token, at)


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header)
    except CookieError:
        return ""
    return next((found[name].value for name in COOKIES if name in found), "")


def caller(request: Request) -> Caller:
    """Return who asks.

    Raises:
        Unauthenticated: nobody that is known.
    """
    found = request.state.who
    if isinstance(found, Exception):
        raise found
    assert isinstance(found, Caller)  # noqa: S101 - the middleware puts one or the other
    return found


class Judged:
    """A route's condition: the caller may do `act` in the path's rollout."""

    def __init__(self, act: Act) -> None:
        self.act = act

    async def __call__(self, request: Request) -> Caller:
        """Return the caller, or refuse; sites are judged in the service."""
        found = caller(request)
        if self.act is Act.BE:  # whoever is known; what they are shown is theirs alone
            return found
        require(found, self.act, str(request.path_params.get("rollout", "")))
        return found


def By(act: Act) -> Any:  # noqa: N802 - read as a word of the route's signature
    """Say who may ask a route; it stands in the annotation of the route's `who`."""
    return Depends(Judged(act))
