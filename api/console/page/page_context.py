"""Who looks at a page: the caller, their page's token, the zone of their clock."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import quote
from zoneinfo import available_timezones

from fastapi import Depends, Request

from api import session_cookie
from api.auth import caller
from api.console.page.page_token import masked
from rollout.core.errors import Unauthenticated
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import Act, Caller
from rollout.services.engine.service import Service

HOME: Final = "/console"
ZONE_COOKIE: Final = "rollout-zone"
UTC: Final = "UTC"


class SignInFirst(Unauthenticated):
    """Nobody is signed in: the page is behind the door, and comes after it.

    Attributes:
        wanted: the path that was asked for, with its query.
    """

    def __init__(self, wanted: str) -> None:
        super().__init__("sign in first")
        self.wanted = wanted


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person with a page open.

    Attributes:
        caller: who, with the rights of now.
        page_token: what their forms bring back, so that no other site can write them.
        zone: of their own clock, an IANA name; `UTC` where they never said.
        service: the replica that they look at.
        at: when they asked.
    """

    caller: Caller
    page_token: str = field(repr=False)
    zone: str
    service: Service
    at: datetime

    @property
    def name(self) -> str:
        """Their name."""
        return self.caller.name

    @property
    def roles(self) -> str:
        """Their roles in words, as in the header of each page."""
        return ", ".join(dict.fromkeys(assignment.role for assignment in self.caller.rights))

    @property
    def operates(self) -> bool:
        """Say whether they may stop anything anywhere."""
        return self.may_somewhere(Act.OPERATE)

    def may(self, act: Act, rollout: str = "", site: str = "") -> bool:
        """Say whether they may do it at a site; without a rollout: in all of them."""
        return self.caller.may(act, rollout, site)

    def sites(self, act: Act, rollout: str, policy: Policy) -> tuple[str, ...]:
        """Return the sites of a rollout's policy at which they may do it, in its order."""
        return tuple(site for site in policy.site if self.may(act, rollout, site))

    def may_somewhere(self, act: Act) -> bool:
        """Say whether they may do it anywhere at all."""
        return any(
            self.caller.may_somewhere(act, assignment.rollout) for assignment in self.caller.rights
        )


async def _visitor(request: Request) -> Visitor:
    """Return who looks; asks no database: the door has just seen the session.

    Raises:
        SignInFirst: nobody who is known, or a key: pages are for people.
    """
    try:
        return _looking(request)
    except Unauthenticated as error:
        raise SignInFirst(wanted(request)) from error


def known(request: Request) -> Visitor | None:
    """Return who looks, None where nobody is signed in or the door can't tell."""
    try:
        return _looking(request)
    except Exception:  # noqa: BLE001 - a page that says what is wrong needs nobody
        return None


def _looking(request: Request) -> Visitor:
    service = served(request)
    who, token = caller(request), service.door.page_token(session_cookie.of(request))
    page_token = masked(token, service.entropy)
    return Visitor(who, page_token, zone_of(request), service, service.clock.now())


def served(request: Request) -> Service:
    """Return the replica that a page is asked of."""
    service = request.app.state.service
    assert isinstance(service, Service)  # noqa: S101 - `create_console` puts it there
    return service


def sign_in_for(path: str) -> str:
    """Return where to sign in, to come back to `path` afterwards."""
    return f"{HOME}/sign-in" + (f"?to={quote(path, safe='/')}" if path else "")


def own_path(said: str) -> str:
    """Return a path of this console that a link named, the overview for anything else.

    >>> own_path("/console/ledger?kind=Stopped"), own_path("//elsewhere.example/console/")
    ('/console/ledger?kind=Stopped', '/console/')
    """
    is_safe = said.startswith(f"{HOME}/") and said.isprintable() and "\\" not in said
    return said if is_safe else f"{HOME}/"


def wanted(request: Request) -> str:
    """Return the path that was asked for; of a form, the page that it stood on."""
    if request.method not in {"GET", "HEAD"}:
        return HOME + "/"
    query = f"?{request.url.query}" if request.url.query else ""
    return quote(request.url.path, safe="/") + query


def zone_of(request: Request) -> str:
    """Return the zone that the browser told of, `UTC` where it told of none that exists."""
    timezone = request.cookies.get(ZONE_COOKIE, "").replace("%2F", "/")
    return timezone if timezone in available_timezones() else UTC


Visiting = Annotated[Visitor, Depends(_visitor)]
"""The annotation of whoever looks at a page."""
