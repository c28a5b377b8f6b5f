"""The cookie of a session: for this host alone, out of reach of scripts and of other sites.

Over TLS, and behind a proxy that ends it, the cookie is `__Host-rollout`, which browsers keep only
if it is secure. Without TLS there is a plain one, on one's own machine and nowhere else.
"""

from collections.abc import Mapping
from datetime import datetime
from http.cookies import CookieError, SimpleCookie

from fastapi import Request, Response

from rollout.services.access.sign_in import SignedIn

SECURE, PLAIN = "__Host-rollout", "rollout"
AWAY = "-away"
OWN_MACHINE = frozenset({"localhost", "127.0.0.1", "[::1]"})


def token_of(scheme: str, headers: Mapping[bytes, str]) -> str:
    """Return the token that a request brings, "" where it brings none.

    Args:
        scheme: `http` or `https`.
        headers: by name in small letters.
    """
    try:
        cookies = SimpleCookie(headers.get(b"cookie", ""))
    except CookieError:
        return ""
    cookie = cookies.get(name_for(scheme, headers.get(b"host", "")))
    return "" if cookie is None else cookie.value


def name_for(scheme: str, host: str) -> str:
    """Return the cookie's name for a host, with or without its port.

    >>> name_for("http", "localhost:8000"), name_for("http", "example.org")
    ('rollout', '__Host-rollout')
    """
    hostname = host if host.endswith("]") else host.rsplit(":", 1)[0]
    return PLAIN if scheme == "http" and hostname in OWN_MACHINE else SECURE


def give(request: Request, response: Response, signed_in: SignedIn, at: datetime) -> None:
    """Put a session's token into the answer, for as long as the session may last."""
    max_age = int((signed_in.expires_at - at).total_seconds())
    _set(response, _name(request), signed_in.token, max_age)


def take_back(request: Request, response: Response) -> None:
    """Make the browser forget the cookie."""
    _set(response, _name(request), "", 0)


def of(request: Request) -> str:
    """Return the token that a request brings, "" where it brings none."""
    return request.cookies.get(_name(request), "")


def lay(request: Request, response: Response, seed: str, left: int) -> None:
    """Give a browser that leaves for its identity provider what it needs to come back."""
    _set(response, _name(request) + AWAY, seed, left)


def laid(request: Request) -> str:
    """Return what a browser was given when it left, "" where it was given nothing."""
    return request.cookies.get(_name(request) + AWAY, "")


def _name(request: Request) -> str:
    return name_for(request.url.scheme, request.headers.get("host", ""))


def _set(response: Response, name: str, value: str, left: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=left,
        path="/",
        secure=name.startswith(SECURE),
        httponly=True,
        samesite="lax",
    )
