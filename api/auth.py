"""Who asks: a key in `Authorization: Bearer`, or the session cookie of the console.

The middleware finds out who it is and nothing more. What they may do is said at each route by
`By`, and judged again in the services.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from api.priority_threads import at_once, narrows
from api.session_cookie import token_of
from rollout.core.errors import CrossSite, Unauthenticated
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.service import Service

CSRF = b"x-csrf-token"  # the page's token, given when the session began
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FROM = b"sec-fetch-site"
OWN = frozenset({"same-origin", "none"})
ANOTHER = "a page of another site may not do this; open the console itself"
FOR = b"sec-fetch-dest"
OPENED = frozenset({"document", "empty"})
"""What a session asks for: pages that somebody opens, and what our script fetches. A picture of a
case could have an address here, and showing it would else be taken for a look by the person."""
NO_PICTURE = "a session opens pages; this was asked for as a part of one"
PAGES = "/console/"  # forms carry their token in the body: each route asks for it by `Signed`
KEY = b"x-api-key"  # as OpenFeature clients may send it
Aside = Callable[[Callable[[], Caller]], Awaitable[Caller]]
NOBODY = "send an API key: `Authorization: Bearer ro_…`; `rollout keys create` creates one"


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
            run_in_thread = at_once if narrows(scope) else run_in_threadpool
            is_form = str(scope["path"]).startswith(PAGES)
            return await self._caller(
                headers, scope["method"], scope["scheme"], run_in_thread, form=is_form
            )
        except Exception as error:  # noqa: BLE001 - raised again where a route asks who it is
            return error

    async def _caller(
        self,
        headers: Mapping[bytes, str],
        method: str,
        scheme: str,
        aside: Aside,
        *,
        form: bool,
    ) -> Caller:
        at = self.service.clock.now()
        kind, _, key = headers.get(b"authorization", "").partition(" ")
        kind, key = (kind, key) if kind else ("bearer", headers.get(KEY, ""))
        if kind.lower() == "bearer" and key:
            authenticator, text = self.service.door, key.strip()
            cached_caller = authenticator.at_hand(
                text, at
            )  # on most requests: no thread, no waiting
            if cached_caller is not None:
                return cached_caller
            return await aside(partial(authenticator.caller_of_key, text, at))
        token = token_of(scheme, headers)
        if not token:
            raise Unauthenticated(NOBODY)
        if method not in SAFE and headers.get(FROM, "cross-site") not in OWN:
            raise CrossSite(ANOTHER)
        if headers.get(FOR, "document") not in OPENED:
            raise CrossSite(NO_PICTURE)
        page_token = None if method in SAFE or form else headers.get(CSRF, "")
        if page_token is None:  # nothing to compare: pages that look for changes ask often
            cached_caller = self.service.door.session_at_hand(token, at)
            if cached_caller is not None:
                return cached_caller
        load_caller = partial(self.service.door.caller_of_session, token, at, csrf=page_token)
        return await aside(load_caller)


def caller(request: Request) -> Caller:
    """Return who asks.

    Raises:
        Unauthenticated: nobody that is known.
    """
    result = request.state.who
    if isinstance(result, Exception):
        raise result
    assert isinstance(result, Caller)  # noqa: S101 - the middleware puts one or the other
    return result


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


class WayIn(Judged):
    """A route that is asked before anybody is known, from no page of another site."""

    def __init__(self) -> None:
        super().__init__(Act.BE)

    async def __call__(self, request: Request) -> Caller:
        """Refuse what a browser sends for another site; anybody else may try."""
        if request.headers.get(FROM.decode(), "none") not in OWN:
            raise CrossSite(ANOTHER)
        return NOBODY_YET


NOBODY_YET = Caller("")
Anybody = Annotated[Caller, Depends(WayIn())]
"""The annotation of the few routes by which people come in."""


def By(act: Act) -> Any:  # noqa: N802 - read as a word of the route's signature
    """Say who may ask a route; it stands in the annotation of the route's `who`."""
    return Depends(Judged(act))
