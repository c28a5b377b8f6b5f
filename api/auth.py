"""Authentication of requests, by API key or by the console's session cookie, and permission checks.

The middleware only identifies the caller. Each route requires a permission with
`RequirePermission`; the services check permissions on sites.

The session cookie is for this host only, and not readable by scripts or other sites. Over TLS, also
behind a proxy that terminates it, it is `__Host-rollout`, which browsers keep only if it is secure.
Without TLS, it is a plain cookie on the local machine only.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http.cookies import CookieError, SimpleCookie
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from api.limits import KEY_PREFIX, RequestRates, recognize_caller
from api.priority_threads import (
    is_assignment,
    is_latchable,
    is_narrowing,
    look_up_with_priority,
    run_in_time,
)
from rollout.data.database.append_failures import DatabaseUnavailableError, is_storage_failure
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.features.access.authentication import MAX_OUTAGE_AGE
from rollout.features.access.keys import parse_key
from rollout.features.access.sign_in import SignIn, StartedSession
from rollout.kernel.errors import CrossSiteRequestError, UnauthenticatedError
from rollout.live.service import Service

SECURE_NAME, PLAIN_NAME = "__Host-rollout", "rollout"
SIGN_IN_SUFFIX = "-away"
CLEARED_DATA = '"cache", "storage"'
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def read_session_token(scheme: str, headers: Mapping[bytes, str]) -> str:
    """Return the session token of a request, or "".

    Args:
        scheme: `http` or `https`.
        headers: by lower-case name.
    """
    try:
        cookies = SimpleCookie(headers.get(b"cookie", ""))
    except CookieError:
        return ""
    cookie = cookies.get(choose_cookie_name(scheme, headers.get(b"host", "")))
    return "" if cookie is None else cookie.value


def choose_cookie_name(scheme: str, host: str) -> str:
    """Return the cookie's name for a host, with or without its port.

    >>> choose_cookie_name("http", "localhost:8000"), choose_cookie_name("http", "example.org")
    ('rollout', '__Host-rollout')
    """
    return PLAIN_NAME if scheme == "http" and is_local_host(host) else SECURE_NAME


def is_local_host(host: str) -> bool:
    """Return whether a Host header, with or without its port, names this machine.

    >>> is_local_host("127.0.0.1:8000"), is_local_host("[::1]"), is_local_host("localhost.example")
    (True, True, False)
    """
    return (host if host.endswith("]") else host.rsplit(":", 1)[0]) in LOCAL_HOSTS


def set_session(
    request: Request, response: Response, sign_in: SignIn, signed_in: StartedSession, at: datetime
) -> None:
    """Set the cookie of a new session, until it expires; the browser's earlier session ends."""
    if earlier_token := get_session_token(request):
        sign_in.sign_out(earlier_token, at=at)
    max_age = int((signed_in.expires_at - at).total_seconds())
    _set_cookie(response, _get_name(request), signed_in.token, max_age)


def clear_session(request: Request, response: Response) -> None:
    """Delete the session cookie, and what the browser stored of our pages."""
    _set_cookie(response, _get_name(request), "", 0)
    response.headers["Clear-Site-Data"] = CLEARED_DATA


def get_session_token(request: Request) -> str:
    """Return the session token of a request, or ""."""
    return request.cookies.get(_get_name(request), "")


def set_sign_in_seed(request: Request, response: Response, seed: str, max_age: int) -> None:
    """Set the cookie with the seed of a sign-in by OpenID Connect."""
    _set_cookie(response, _get_name(request) + SIGN_IN_SUFFIX, seed, max_age)


def get_sign_in_seed(request: Request) -> str:
    """Return the seed of the sign-in in progress, or ""."""
    return request.cookies.get(_get_name(request) + SIGN_IN_SUFFIX, "")


def _get_name(request: Request) -> str:
    return choose_cookie_name(request.url.scheme, request.headers.get("host", ""))


def _set_cookie(response: Response, name: str, value: str, max_age: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age,
        path="/",
        secure=name.startswith(SECURE_NAME),
        httponly=True,
        samesite="lax",
    )


LOOK_UP_SECONDS: Final = 1.0
"""Seconds that a stop waits for its caller, if it is known from before."""
LOOK_UP_THREADS: Final = ThreadPoolExecutor(8, thread_name_prefix="narrowing-callers")


async def find_narrowing_caller(
    look_up: Callable[[], Caller], recall: Callable[[], Caller | None]
) -> Caller:
    """Return who stops or narrows, as last read if the database does not respond.

    Args:
        look_up: reads the database; its refusals hold.
        recall: returns the caller as last read, or None.
    """
    last_read_caller = recall()
    if last_read_caller is None:
        return await look_up_with_priority(look_up)
    run_look_up = partial(copy_context().run, look_up)  # logs name the request
    try:
        async with asyncio.timeout(LOOK_UP_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(LOOK_UP_THREADS, run_look_up)
    except Exception as error:
        if not is_storage_failure(error):  # time-outs are
            raise
        return last_read_caller


CSRF_HEADER = b"x-csrf-token"  # the session's CSRF token
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
FETCH_SITE_HEADER = b"sec-fetch-site"
OWN_SITES = frozenset({"same-origin", "none"})
CROSS_SITE_TEXT = "a page of another site may not do this; open the console itself"
FETCH_DEST_HEADER = b"sec-fetch-dest"
PAGE_DESTINATIONS = frozenset({"document", "empty"})
"""Destinations allowed for sessions: pages, and fetches of our script. A case's picture could have
a URL of this service, and loading it must not count as an action of the user."""
NOT_A_PAGE_TEXT = "a session can open pages only; this address was requested as part of a page"
POLL_HEADER = b"x-live"  # sent by the script of an open page when it fetches the page again
POLL_PATH = "/console/revision"
CONSOLE_PATH = "/console/"  # forms send the token in the body; each route checks it by `Signed`
API_KEY_HEADER = b"x-api-key"  # as OpenFeature clients may send it
TOO_MANY_UNKNOWN = "too many unknown keys came from this address; wait a few seconds"
NO_KEY_TEXT = "send an API key: `Authorization: Bearer ro_…`; `rollout keys create` creates one"


@dataclass(frozen=True, slots=True)
class AuthenticationMiddleware:
    """Middleware that stores the caller, or the error, in the request's state."""

    app: ASGIApp
    service: Service
    rates: RequestRates | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Identify the caller; database reads run on a thread."""
        if scope["type"] == "http":
            caller = await self._identify_caller(scope)
            scope.setdefault("state", {})["caller"] = caller
            if isinstance(caller, Caller):
                recognize_caller(scope)
        await self.app(scope, receive, send)

    async def _identify_caller(self, scope: Scope) -> Caller | Exception:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check_look_up(scope, headers)
            return await self._find_caller(scope, headers)
        except Exception as error:  # noqa: BLE001 - raised again by get_caller
            return error

    def _check_look_up(self, scope: Scope, headers: Mapping[bytes, str]) -> None:
        """Raise before an address that sent too many unknown keys makes us look up another.

        Requests that narrow are never refused here.
        """
        if self.rates is None or is_narrowing(scope) or self.rates.may_look_up(scope):
            return
        secret_text = _read_key(headers) or read_session_token(scope["scheme"], headers)
        if not self.service.authenticator.is_known(secret_text):
            raise UnauthenticatedError(TOO_MANY_UNKNOWN)

    async def _find_caller(self, scope: Scope, headers: Mapping[bytes, str]) -> Caller:
        at, authenticator = self.service.wall_clock.now(), self.service.authenticator
        if text := _read_key(headers):
            state = scope.setdefault("state", {})  # a server without a lifespan gives none
            state[KEY_PREFIX] = parse_key(text)[0]  # each key has its own rate
            cached_caller = authenticator.find_cached_caller(text, at)  # no thread on most requests
            if cached_caller is not None:
                return cached_caller
            return await _look_up(
                scope,
                partial(authenticator.authenticate_key, text, at),
                partial(authenticator.find_cached_caller, text, at, max_age=MAX_OUTAGE_AGE),
            )
        token, method = read_session_token(scope["scheme"], headers), scope["method"]
        if not token:
            raise UnauthenticatedError(NO_KEY_TEXT)
        is_form = str(scope["path"]).startswith(CONSOLE_PATH)
        if (
            method not in SAFE_METHODS
            and headers.get(FETCH_SITE_HEADER, "cross-site") not in OWN_SITES
        ):
            raise CrossSiteRequestError(CROSS_SITE_TEXT)
        if headers.get(FETCH_DEST_HEADER, "document") not in PAGE_DESTINATIONS:
            raise CrossSiteRequestError(NOT_A_PAGE_TEXT)
        page_token = None if method in SAFE_METHODS or is_form else headers.get(CSRF_HEADER, "")
        is_use = str(scope["path"]) != POLL_PATH and POLL_HEADER not in headers
        if page_token is None:  # pages that poll for changes need no thread
            cached_caller = authenticator.find_cached_session_caller(token, at, is_use=is_use)
            if cached_caller is not None:
                return cached_caller
        find_cached = authenticator.find_cached_session_caller
        return await _look_up(
            scope,
            partial(authenticator.authenticate_session, token, at, csrf=page_token, is_use=is_use),
            partial(find_cached, token, at, csrf=page_token, max_age=MAX_OUTAGE_AGE, is_use=is_use),
        )


def _read_key(headers: Mapping[bytes, str]) -> str:
    """Return the API key of a request, or ""."""
    kind, _, key = headers.get(b"authorization", "").partition(" ")
    kind, key = (kind, key) if kind else ("bearer", headers.get(API_KEY_HEADER, ""))
    return key.strip() if kind.lower() == "bearer" else ""


async def _look_up(
    scope: Scope, look_up: Callable[[], Caller], recall: Callable[[], Caller | None]
) -> Caller:
    """Return the caller that `look_up` reads; stops alone may get the one last read."""
    if is_assignment(scope):
        return await run_in_time(scope["state"], look_up)
    if is_latchable(scope):
        return await find_narrowing_caller(look_up, recall)
    run_in_thread = look_up_with_priority if is_narrowing(scope) else run_in_threadpool
    return await run_in_thread(look_up)


def get_caller(request: Request) -> Caller:
    """Return the caller of a request.

    Raises:
        UnauthenticatedError: the caller is unknown.
    """
    result = request.state.caller
    if isinstance(result, Exception):
        raise result
    assert isinstance(result, Caller)  # noqa: S101 - the middleware sets one or the other
    return result


class PermissionCheck:
    """A dependency that requires a permission in the path's rollout."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, request: Request) -> Caller:
        """Return the caller, or raise an error; services check sites."""
        caller = get_caller(request)
        if (
            self.permission is Permission.IDENTIFY
        ):  # any known caller; the route returns only their own data
            return caller
        require_permission(caller, self.permission, str(request.path_params.get("rollout", "")))
        return caller


class OutageTolerantCheck(PermissionCheck):
    """A check that lets a request pass if its caller can't be looked up.

    Such a request may get nothing but "a human decides".
    """

    async def __call__(self, request: Request) -> Caller | None:  # type: ignore[override]
        """Return the caller, or None while the database does not respond."""
        try:
            return await super().__call__(request)
        except DatabaseUnavailableError:
            return None


class SignInAccess(PermissionCheck):
    """A dependency of routes without authentication; it refuses cross-site requests."""

    def __init__(self) -> None:
        super().__init__(Permission.IDENTIFY)

    async def __call__(self, request: Request) -> Caller:
        """Return the anonymous caller, or refuse a cross-site request."""
        if request.headers.get(FETCH_SITE_HEADER.decode(), "none") not in OWN_SITES:
            raise CrossSiteRequestError(CROSS_SITE_TEXT)
        return ANONYMOUS


ANONYMOUS = Caller("")
AnonymousCaller = Annotated[Caller, Depends(SignInAccess())]
"""The caller of routes for signing in."""


def RequirePermission(permission: Permission) -> Any:  # noqa: N802 - used as an annotation
    """Return the dependency that requires a permission for a route."""
    return Depends(PermissionCheck(permission))


Anyone = Annotated[Caller, RequirePermission(Permission.IDENTIFY)]
Reader = Annotated[Caller, RequirePermission(Permission.READ)]
Operator = Annotated[Caller, RequirePermission(Permission.OPERATE)]
Admin = Annotated[Caller, RequirePermission(Permission.ADMINISTER)]


__all__ = [
    "Caller",
    "CurrentTime",
    "Permission",
    "RequirePermission",
    "ServiceDependency",
    "WallTime",
]


def get_client_address(request: Request) -> str:
    """Return the address that a request comes from; "" if it is unknown."""
    return "" if request.client is None else request.client.host


async def _get_service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)  # noqa: S101 - set by create_app
    return service


ServiceDependency = Annotated[Service, Depends(_get_service)]


async def _get_time(service: ServiceDependency) -> datetime:
    return service.clock.now()


CurrentTime = Annotated[datetime, Depends(_get_time)]


async def _get_wall_time(service: ServiceDependency) -> datetime:
    return service.wall_clock.now()


WallTime = Annotated[datetime, Depends(_get_wall_time)]
"""The time of sessions, keys and review claims; another one only in the live demo."""
