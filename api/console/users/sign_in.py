"""Sign in by password or one-time link, and sign out."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from api import auth
from api.console.page.page import render_page
from api.console.page.page_context import (
    HOME,
    Form,
    PostedForm,
    SignedForm,
    find_visitor,
    get_safe_path,
    get_service,
)
from rollout.engine.words.formatting import capitalize_first
from rollout.features.access.sign_in import StartedSession
from rollout.kernel.errors import (
    CodeRequiredError,
    InvalidAccountError,
    RefusalError,
    TooManyAttemptsError,
    UnauthenticatedError,
)

router = APIRouter()
ReturnPath = Annotated[str, Query(max_length=2_000)]
LinkToken = Annotated[str, Query(max_length=200)]


@router.get("/sign-in")
def show_sign_in(request: Request, to: ReturnPath = "") -> Response:
    """Show the sign-in form; signed-in users continue."""
    if find_visitor(request) is not None:
        return RedirectResponse(get_safe_path(to), 303)
    return render_page(request, None, "sign_in", to=get_safe_path(to), openid=_has_openid(request))


@router.post("/sign-in")
def submit_sign_in(request: Request, form: PostedForm) -> Response:
    """Start a session and continue to the requested page."""
    service = get_service(request)
    now, name = service.wall_clock.now(), form.get_text("name")
    try:
        started_session = service.sign_in.sign_in_with_password(
            name,
            form.fields.get("password", [""])[-1],
            address=_get_client_address(request),
            at=now,
        )
    except CodeRequiredError as step:
        to = get_safe_path(form.get_text("to"))
        return render_page(request, None, "sign_in_code", to=to, challenge=step.challenge)
    except (UnauthenticatedError, TooManyAttemptsError) as error:
        return _render_form_again(request, "sign_in", form, "password", error)
    return _begin_session(request, started_session, get_safe_path(form.get_text("to")))


@router.post("/sign-in/code")
def submit_code(request: Request, form: PostedForm) -> Response:
    """Finish a sign-in by the code of the second factor."""
    service = get_service(request)
    challenge, to = form.get_text("challenge"), get_safe_path(form.get_text("to"))
    try:
        started_session = service.sign_in.sign_in_with_challenge(
            challenge,
            form.get_text("code"),
            address=_get_client_address(request),
            at=service.wall_clock.now(),
        )
    except (UnauthenticatedError, TooManyAttemptsError) as error:
        errors = {"code": capitalize_first(str(error))}
        context = {"to": to, "challenge": challenge, "errors": errors}
        return render_page(request, None, "sign_in_code", 422, **context)
    return _begin_session(request, started_session, to)


@router.get("/set-password")
def show_password_form(request: Request, token: LinkToken = "") -> Response:
    """Show the form in which a one-time link sets a password."""
    return render_page(request, None, "set_password", typed={"token": token})


@router.post("/set-password")
def submit_link(request: Request, form: PostedForm) -> Response:
    """Use the link: set the password and start a session."""
    service = get_service(request)
    password = form.fields.get("password", [""])[-1]
    if password != form.fields.get("again", [""])[-1]:
        mismatch_error = InvalidAccountError("the two passwords differ; type the same one twice")
        return _render_form_again(request, "set_password", form, "again", mismatch_error)
    try:
        started_session = service.sign_in.sign_in_with_link(
            form.get_text("token"),
            password,
            at=service.wall_clock.now(),
            address=_get_client_address(request),
            user_name=form.get_text("name"),
        )
    except CodeRequiredError as step:  # the password is set
        to = f"{HOME}/"
        return render_page(
            request,
            None,
            "sign_in",
            to=to,
            openid=_has_openid(request),
            note=capitalize_first(str(step)),
        )
    except RefusalError as error:
        field = "token" if isinstance(error, UnauthenticatedError) else "password"
        return _render_form_again(request, "set_password", form, field, error)
    return _begin_session(request, started_session, f"{HOME}/")


@router.post("/sign-out")
def submit_sign_out(request: Request, form: SignedForm) -> Response:
    """End this session, or all sessions of the user."""
    service = get_service(request)
    now = service.wall_clock.now()
    visitor = find_visitor(request)
    if form.has_field("everywhere") and visitor is not None:
        service.sign_in.sign_out_everywhere(visitor.caller, visitor.name, at=now)
    service.sign_in.sign_out(auth.get_session_token(request), at=now)
    service.authenticator.refresh()
    response = RedirectResponse(f"{HOME}/sign-in", 303)
    auth.clear_session(request, response)
    return response


def _begin_session(request: Request, started_session: StartedSession, path: str) -> Response:
    """Redirect to a page with the session's cookie."""
    service = get_service(request)
    response = RedirectResponse(path, 303)
    now = service.wall_clock.now()
    auth.set_session(request, response, service.sign_in, started_session, now)
    return response


def _render_form_again(
    request: Request, template: str, form: Form, field: str, error: Exception
) -> Response:
    """Show the form again with typed values, without passwords."""
    typed = {name: form.get_text(name) for name in ("name", "to", "token")}
    errors = {field: capitalize_first(str(error))}
    context = {
        "typed": typed,
        "errors": errors,
        "to": get_safe_path(typed["to"]),
        "openid": _has_openid(request),
    }
    return render_page(request, None, template, 422, **context)


def _has_openid(request: Request) -> bool:
    return bool(request.app.state.openid)


def _get_client_address(request: Request) -> str:
    return "" if request.client is None else request.client.host
