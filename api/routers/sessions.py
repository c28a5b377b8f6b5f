"""Browser sessions: sign in, sign out, and one-time links."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import auth
from api.auth import (
    AnonymousCaller,
    Caller,
    Permission,
    RequirePermission,
    ServiceDependency,
    WallTime,
)
from api.schemas.users import BrowserSession, LinkSignInRequest, SignInRequest

router = APIRouter(prefix="/v1/session", tags=["sessions"])
Anyone = Annotated[Caller, RequirePermission(Permission.IDENTIFY)]
Everywhere = Annotated[bool, Query(description="end all your sessions")]


@router.post("", operation_id="signIn", summary="Sign in with a password")
def sign_in(
    body: SignInRequest,
    request: Request,
    response: Response,
    service: ServiceDependency,
    now: WallTime,
    _caller: AnonymousCaller,
) -> BrowserSession:
    """Start a session and set its cookie.

    A session lasts at most 12 hours and ends after 2 idle hours. If the account has a second factor
    and `code` is missing, the request fails with `code-required`: send it again with a code. After
    five failed attempts with a name from an address, or twenty from an address, requests fail with
    429 for up to 30 seconds.
    """
    started_session = service.sign_in.sign_in_with_password(
        body.name, body.password, address=_get_client_address(request), at=now, code=body.code
    )
    auth.set_session(request, response, service.sign_in, started_session, now)
    return BrowserSession.of(started_session)


@router.post("/link", operation_id="signInByLink", summary="Sign in with a one-time link")
def sign_in_by_link(
    body: LinkSignInRequest,
    request: Request,
    response: Response,
    service: ServiceDependency,
    now: WallTime,
    _caller: AnonymousCaller,
) -> BrowserSession:
    """Set a password with a one-time link and start a session.

    `name` is required for the first admin's link.
    """
    started_session = service.sign_in.sign_in_with_link(
        body.token, body.password, at=now, address=_get_client_address(request), user_name=body.name
    )
    auth.set_session(request, response, service.sign_in, started_session, now)
    return BrowserSession.of(started_session)


@router.get("", operation_id="getSession", summary="Get my session")
def get_session(request: Request, service: ServiceDependency, _caller: Anyone) -> BrowserSession:
    """Return your session and its CSRF token.

    Use this after a page reload.
    """
    return BrowserSession.of(service.sign_in.load_current_session(auth.get_session_token(request)))


@router.delete(
    "", operation_id="signOut", summary="Sign out", status_code=204, response_class=Response
)
def sign_out(
    request: Request,
    service: ServiceDependency,
    caller: Anyone,
    now: WallTime,
    everywhere: Everywhere = False,
) -> Response:
    """End this session, or all your sessions with `everywhere`.

    Every replica rejects the session within one second.
    """
    if everywhere:
        service.sign_in.sign_out_everywhere(caller, caller.name, at=now)
    service.sign_in.sign_out(auth.get_session_token(request), at=now)
    service.authenticator.refresh()
    response = Response(status_code=204)
    auth.clear_session(request, response)
    return response


def _get_client_address(request: Request) -> str:
    return "" if request.client is None else request.client.host
