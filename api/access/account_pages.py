"""Pages of a visitor's own account: sign-in, settings and second factor.

Users sign in by password or by a one-time link. The settings link to users and policies for
admins. The second factor is set up with a QR code, and confirmed by its first code.
"""

from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import quote

import segno
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup

from api import auth
from api.web_kit.page import (
    OFF,
    YEAR_SECONDS,
    find_timezone,
    redirect_to,
    render_page,
    say_refusal,
    store_single_keys,
)
from api.web_kit.page_context import (
    HOME,
    ZONE_COOKIE,
    CurrentVisitor,
    Form,
    PostedForm,
    SignedForm,
    Visitor,
    find_visitor,
    get_safe_path,
    get_service,
)
from rollout.engine.decide.permissions import Permission, may_upload
from rollout.features.access.keys import load_keys
from rollout.features.access.sign_in import StartedSession
from rollout.features.cells.overview import load_rollouts
from rollout.kernel.errors import (
    CodeRequiredError,
    InvalidAccountError,
    NotAllowedError,
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
            address=auth.get_client_address(request),
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
            address=auth.get_client_address(request),
            at=service.wall_clock.now(),
        )
    except (UnauthenticatedError, TooManyAttemptsError) as error:
        errors = {"code": say_refusal(error)}
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
            address=auth.get_client_address(request),
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
            note=f"Nearly done: {step}",
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
    errors = {field: say_refusal(error)}
    context = {
        "typed": typed,
        "errors": errors,
        "to": get_safe_path(typed["to"]),
        "openid": _has_openid(request),
    }
    return render_page(request, None, template, 422, **context)


def _has_openid(request: Request) -> bool:
    return bool(request.app.state.openid)


PASSWORDS_DIFFER_TEXT: Final = "The two new passwords differ. Type the same one twice"
UNKNOWN_ZONE_TEXT: Final = "Write a zone as Europe/Vienna; there is none called {}"


@router.get("/settings")
def show_settings(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the settings."""
    return _render_settings(request, visitor)


@router.post("/settings")
def submit_password(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Set the visitor's password and end all their sessions."""
    new_password = _get_password(form, "password")
    if new_password != _get_password(form, "again"):
        return _render_settings(request, visitor, errors={"again": PASSWORDS_DIFFER_TEXT})
    try:
        visitor.service.sign_in.set_password(
            visitor.caller,
            visitor.name,
            new_password,
            at=visitor.wall_time,
            current_password=_get_password(form, "current"),
        )
    except RefusalError as error:
        field = "current" if isinstance(error, NotAllowedError) else "password"
        return _render_settings(request, visitor, errors={field: say_refusal(error)})
    response = render_page(request, None, "password_set")
    auth.clear_session(request, response)
    return response


@router.post("/settings/single-keys")
def save_single_keys(visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Store in this browser whether the review page uses single keys."""
    del visitor
    response = redirect_to("/settings#single-keys")
    store_single_keys(response, form.get_text("keys") or OFF)
    return response


@router.post("/settings/clock")
def save_timezone(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Store in this browser the visitor's timezone."""
    typed = form.get_text("zone")
    timezone = find_timezone(typed)
    if not timezone:
        errors = {"zone": UNKNOWN_ZONE_TEXT.format(typed or "“”")}
        return _render_settings(request, visitor, errors=errors, typed={"zone": typed})
    response = redirect_to("/settings#clock")
    response.set_cookie(
        ZONE_COOKIE, quote(timezone, safe=""), max_age=YEAR_SECONDS, path="/", samesite="lax"
    )
    return response


def _get_password(form: Form, name: str) -> str:
    """Return a password as typed, with its spaces."""
    return form.fields.get(name, [""])[-1]


def _render_settings(
    request: Request,
    visitor: Visitor,
    *,
    errors: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    api_keys = load_keys(visitor.service.database, visitor.caller, visitor.name)
    valid_keys = [
        key
        for key in api_keys
        if key.revoked_at is None and (key.expires_at or visitor.wall_time) >= visitor.wall_time
    ]
    return render_page(
        request,
        visitor,
        "settings",
        422 if errors else 200,
        keys=len(valid_keys),
        uploads=may_upload(visitor.caller),
        administers=visitor.has_permission(Permission.ADMINISTER),
        governed=load_rollouts(visitor.service.database, visitor.caller),
        rights=[str(right) for right in visitor.caller.role_assignments],
        zone_told=ZONE_COOKIE in request.cookies,
        errors=errors or {},
        typed={"zone": visitor.zone, **(typed or {})},
    )


SECOND_FACTOR_PATH: Final = "/settings/second-factor"
QR_SCALE: Final = 4  # pixels of a module


@router.get(SECOND_FACTOR_PATH)
def show_second_factor(request: Request, visitor: CurrentVisitor) -> Response:
    """Show whether the visitor has a second factor, or the one that waits for its first code."""
    return _render_factor(request, visitor)


@router.post(SECOND_FACTOR_PATH)
def submit_second_factor(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Begin, confirm or remove the visitor's second factor."""
    act = SECOND_FACTOR_ACTIONS.get(form.get_text("do"), _begin_enrolment)
    try:
        return act(request, visitor, form)
    except RefusalError as error:
        text = say_refusal(error)
        return _render_factor(request, visitor, errors={_find_field(error): text})


def _begin_enrolment(request: Request, visitor: Visitor, _form: Form) -> Response:
    del request
    visitor.service.sign_in.codes.begin_enrolment(visitor.caller, at=visitor.wall_time)
    return redirect_to(SECOND_FACTOR_PATH)


def _confirm_enrolment(request: Request, visitor: Visitor, form: Form) -> Response:
    """Confirm the factor; show the recovery codes once."""
    sign_in = visitor.service.sign_in
    password = form.fields.get("password", [""])[-1]
    sign_in.check_own_password(visitor.caller, password, address=auth.get_client_address(request))
    recovery_codes = sign_in.codes.confirm_enrolment(
        visitor.caller,
        form.get_text("code"),
        session_token=auth.get_session_token(request),
        at=visitor.wall_time,
    )
    return render_page(request, visitor, "recovery_codes", codes=recovery_codes)


def _remove_factor(request: Request, visitor: Visitor, form: Form) -> Response:
    visitor.service.sign_in.remove_second_factor(
        visitor.caller,
        form.get_text("code"),
        address=auth.get_client_address(request),
        at=visitor.wall_time,
    )
    response = redirect_to("/sign-in")
    auth.clear_session(request, response)
    return response


SECOND_FACTOR_ACTIONS: Final[dict[str, Callable[[Request, Visitor, Form], Response]]] = {
    "begin": _begin_enrolment,
    "confirm": _confirm_enrolment,
    "remove": _remove_factor,
}


def _find_field(error: RefusalError) -> str:
    """Return the field of the form that an error concerns."""
    if isinstance(error, NotAllowedError):
        return "password"
    return "code" if isinstance(error, UnauthenticatedError) else ""


def _render_factor(
    request: Request, visitor: Visitor, *, errors: dict[str, str] | None = None
) -> Response:
    codes, problems = visitor.service.sign_in.codes, dict(errors or {})
    try:
        enrolment = codes.load_enrolment(visitor.caller)
    except RefusalError as error:  # the key file is not usable; the text says what to do
        enrolment, problems[""] = None, say_refusal(error)
    return render_page(
        request,
        visitor,
        "second_factor",
        422 if problems else 200,
        factor=codes.load_summary(visitor.name),
        enrolment=enrolment,
        qr_code="" if enrolment is None else _draw_qr_code(enrolment.uri),
        errors=problems,
    )


def _draw_qr_code(uri: str) -> Markup:
    """Return a QR code as SVG; black on white in every theme, as cameras expect."""
    svg = segno.make(uri, error="m", micro=False).svg_inline(
        scale=QR_SCALE,
        border=4,
        dark="#000",
        light="#fff",
        title="QR code of the secret",
    )
    return Markup(svg.replace("<svg ", '<svg role="img" ', 1))  # noqa: S704 - drawn by the library
