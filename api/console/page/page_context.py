"""The visitor of a page: caller, page token and timezone."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import quote, urlsplit
from zoneinfo import available_timezones

from fastapi import Depends, Request

from api import session_cookie
from api.auth import get_caller
from api.console.page.page_token import mask_token
from rollout.core.errors import UnauthenticatedError
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import Caller, Permission
from rollout.services.engine.service import Service

HOME: Final = "/console"
ZONE_COOKIE: Final = "rollout-zone"
UTC: Final = "UTC"


class SignInRequiredError(UnauthenticatedError):
    """Nobody is signed in.

    Attributes:
        return_path: the requested path with its query.
    """

    def __init__(self, return_path: str) -> None:
        super().__init__("sign in first")
        self.return_path = return_path


@dataclass(frozen=True, slots=True)
class Visitor:
    """A signed-in user with a page open.

    Attributes:
        caller: the user with current permissions.
        page_token: sent back by forms, against cross-site requests.
        zone: IANA name of their timezone; `UTC` by default.
        service: the replica's service.
        at: time of the request.
    """

    caller: Caller
    page_token: str = field(repr=False)
    zone: str
    service: Service
    at: datetime

    @property
    def name(self) -> str:
        """Name of the user."""
        return self.caller.name

    @property
    def wall_time(self) -> datetime:
        """Wall time of the request: of sessions, keys and review claims."""
        return self.service.find_wall_time(self.at)

    @property
    def roles(self) -> str:
        """Roles in words, for the page header."""
        return ", ".join(
            dict.fromkeys(assignment.role for assignment in self.caller.role_assignments)
        )

    @property
    def can_operate(self) -> bool:
        """Return whether they may stop anything anywhere."""
        return self.has_permission_somewhere(Permission.OPERATE)

    def has_permission(self, permission: Permission, rollout: str = "", site: str = "") -> bool:
        """Return whether they have a permission at a site; without rollout, everywhere."""
        return self.caller.has_permission(permission, rollout, site)

    def list_permitted_sites(
        self, permission: Permission, rollout: str, policy: Policy
    ) -> tuple[str, ...]:
        """Return the sites of a policy at which they have a permission."""
        return tuple(
            site for site in policy.sites_by_id if self.has_permission(permission, rollout, site)
        )

    def has_permission_somewhere(self, permission: Permission) -> bool:
        """Return whether they have a permission anywhere."""
        return any(
            self.caller.has_permission_somewhere(permission, assignment.rollout)
            for assignment in self.caller.role_assignments
        )


async def _get_visitor(request: Request) -> Visitor:
    """Return the visitor without asking the database; the session was just checked.

    Raises:
        SignInRequiredError: no user is signed in, or the caller used a key.
    """
    try:
        return _build_visitor(request)
    except UnauthenticatedError as error:
        raise SignInRequiredError(get_return_path(request)) from error


def find_visitor(request: Request) -> Visitor | None:
    """Return the visitor, or None if nobody is signed in or authentication fails."""
    try:
        return _build_visitor(request)
    except Exception:  # noqa: BLE001 - the error page needs no visitor
        return None


def _build_visitor(request: Request) -> Visitor:
    service = get_service(request)
    caller = get_caller(request)
    token = service.authenticator.build_page_token(session_cookie.get_session_token(request))
    page_token = mask_token(token, service.entropy)
    return Visitor(caller, page_token, get_timezone(request), service, service.clock.now())


def get_service(request: Request) -> Service:
    """Return the service of the replica."""
    service = request.app.state.service
    assert isinstance(service, Service)  # noqa: S101 - `create_console` puts it there
    return service


def build_sign_in_path(path: str) -> str:
    """Return the URL of the sign-in page that leads back to `path`."""
    return f"{HOME}/sign-in" + (f"?to={quote(path, safe='/')}" if path else "")


def get_safe_path(path: str) -> str:
    """Return a path of this console from a link, or the overview.

    >>> get_safe_path("/console/ledger?kind=Stopped"), get_safe_path("//elsewhere.example/console/")
    ('/console/ledger?kind=Stopped', '/console/')
    """
    is_safe = path.startswith(f"{HOME}/") and path.isprintable() and "\\" not in path
    return path if is_safe else f"{HOME}/"


def get_return_path(request: Request) -> str:
    """Return the requested path; for a form, the path of its page."""
    if request.method not in {"GET", "HEAD"}:  # browsers name the page within our own site
        address = urlsplit(request.headers.get("referer", ""))
        return get_safe_path(address.path + (f"?{address.query}" if address.query else ""))
    query = f"?{request.url.query}" if request.url.query else ""
    return quote(request.url.path, safe="/") + query


def get_timezone(request: Request) -> str:
    """Return the timezone from the browser's cookie, or `UTC`."""
    timezone = request.cookies.get(ZONE_COOKIE, "").replace("%2F", "/")
    return timezone if timezone in available_timezones() else UTC


CurrentVisitor = Annotated[Visitor, Depends(_get_visitor)]
"""Annotation of the signed-in visitor."""
