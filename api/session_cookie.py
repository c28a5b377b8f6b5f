"""The session cookie: for this host only, and not readable by scripts or other sites.

Over TLS, also behind a proxy that terminates it, the cookie is `__Host-rollout`, which browsers
keep only if it is secure. Without TLS, it is a plain cookie on the local machine only.
"""

from collections.abc import Mapping
from datetime import datetime
from http.cookies import CookieError, SimpleCookie

from fastapi import Request, Response

from rollout.services.access.sign_in import SignIn, StartedSession

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
    hostname = host if host.endswith("]") else host.rsplit(":", 1)[0]
    return hostname in LOCAL_HOSTS


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
