"""Sessions of browsers: sign in, sign out, and the one-time links by which people first come in."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import session_cookie
from api.auth import Anybody
from api.deps import Act, By, Caller, Now, Served
from api.schemas.users import BrowserSession, LinkSignInRequest, SignInRequest

router = APIRouter(prefix="/v1/session", tags=["sessions"])
Anyone = Annotated[Caller, By(Act.BE)]
Everywhere = Annotated[bool, Query(description="end every session of mine")]


@router.post("", operation_id="signIn", summary="Sign in with a password")
def sign_in(
    asked: SignInRequest,
    request: Request,
    response: Response,
    service: Served,
    now: Now,
    _who: Anybody,
) -> BrowserSession:
    """Begin a session of at most 12 hours, over after 2 idle ones; its cookie is set.

    A name that failed five times, or an address that failed twenty, waits up to half a minute.
    """
    started_session = service.signing.by_password(
        asked.name, asked.password, address=_address(request), at=now
    )
    session_cookie.give(request, response, started_session, now)
    return BrowserSession.of(started_session)


@router.post("/link", operation_id="signInByLink", summary="Sign in with a one-time link")
def sign_in_by_link(
    asked: LinkSignInRequest,
    request: Request,
    response: Response,
    service: Served,
    now: Now,
    _who: Anybody,
) -> BrowserSession:
    """Set a password by a link, once, and begin a session. The first admin's link asks a name."""
    started_session = service.signing.by_link(
        asked.token, asked.password, at=now, address=_address(request), name=asked.name
    )
    session_cookie.give(request, response, started_session, now)
    return BrowserSession.of(started_session)


@router.get("", operation_id="getSession", summary="Get my session")
def get_session(request: Request, service: Served, _who: Anyone) -> BrowserSession:
    """Return the session with its page's token, for a page that was loaded again."""
    return BrowserSession.of(service.signing.current(session_cookie.of(request)))


@router.delete(
    "", operation_id="signOut", summary="Sign out", status_code=204, response_class=Response
)
def sign_out(
    request: Request, service: Served, who: Anyone, now: Now, everywhere: Everywhere = False
) -> Response:
    """End this session, or every one of mine; within a second they open nothing anywhere."""
    if everywhere:
        service.signing.sign_out_everywhere(who, who.name, at=now)
    service.signing.sign_out(session_cookie.of(request), at=now)
    response = Response(status_code=204)
    session_cookie.take_back(request, response)
    return response


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host
