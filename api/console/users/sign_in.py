"""The ways in and out: sign in by password, come in by a one-time link, sign out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from api import session_cookie
from api.console.page.form import Form, Posted, Signed
from api.console.page.page import page
from api.console.page.page_context import HOME, known, own_path, served
from api.console.page.text import first_large
from rollout.core.errors import PersonRefused, Refusal, TooManyTries, Unauthenticated
from rollout.services.access.sign_in import SignedIn

router = APIRouter()
To = Annotated[str, Query(max_length=2_000)]
Token = Annotated[str, Query(max_length=200)]


@router.get("/sign-in")
def ask(request: Request, to: To = "") -> Response:
    """Ask who it is; who is known already goes on."""
    if known(request) is not None:
        return RedirectResponse(own_path(to), 303)
    return page(request, None, "sign_in", to=own_path(to), openid=_openid(request))


@router.post("/sign-in")
def sign_in(request: Request, form: Posted) -> Response:
    """Begin a session and go on to the page that was wanted."""
    service = served(request)
    now, name = service.clock.now(), form.one("name")
    try:
        started_session = service.signing.by_password(
            name, form.fields.get("password", [""])[-1], address=_address(request), at=now
        )
    except (Unauthenticated, TooManyTries) as error:
        return _again(request, "sign_in", form, "password", error)
    return _in(request, started_session, own_path(form.one("to")))


@router.get("/come-in")
def ask_password(request: Request, token: Token = "") -> Response:
    """Ask whoever has a one-time link for the password that they will use."""
    return page(request, None, "come_in", typed={"token": token})


@router.post("/come-in")
def come_in(request: Request, form: Posted) -> Response:
    """Use a link up: set the password, begin a session."""
    service = served(request)
    password = form.fields.get("password", [""])[-1]
    if password != form.fields.get("again", [""])[-1]:
        mismatch_error = PersonRefused("the two passwords differ; type the same one twice")
        return _again(request, "come_in", form, "again", mismatch_error)
    try:
        started_session = service.signing.by_link(
            form.one("token"),
            password,
            at=service.clock.now(),
            address=_address(request),
            name=form.one("name"),
        )
    except Refusal as error:
        field = "token" if isinstance(error, Unauthenticated) else "password"
        return _again(request, "come_in", form, field, error)
    return _in(request, started_session, f"{HOME}/")


@router.post("/sign-out")
def sign_out(request: Request, form: Signed) -> Response:
    """End this session, or every one of the person's."""
    service = served(request)
    now = service.clock.now()
    visitor = known(request)
    if form.has("everywhere") and visitor is not None:
        service.signing.sign_out_everywhere(visitor.caller, visitor.name, at=now)
    service.signing.sign_out(session_cookie.of(request), at=now)
    response = RedirectResponse(f"{HOME}/sign-in", 303)
    session_cookie.take_back(request, response)
    return response


def _in(request: Request, begun: SignedIn, path: str) -> Response:
    response = RedirectResponse(path, 303)
    session_cookie.give(request, response, begun, served(request).clock.now())
    return response


def _again(request: Request, template: str, form: Form, field: str, refused: Exception) -> Response:
    """Show the form again with what was typed, save passwords."""
    typed = {name: form.one(name) for name in ("name", "to", "token")}
    errors = {field: first_large(str(refused))}
    context = {
        "typed": typed,
        "errors": errors,
        "to": own_path(typed["to"]),
        "openid": _openid(request),
    }
    return page(request, None, template, 422, **context)


def _openid(request: Request) -> bool:
    return bool(request.app.state.openid)


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host
