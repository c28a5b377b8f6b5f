"""Pages of a visitor's own account: sign-in, settings, notifications and second factor.

Users sign in by password or by a one-time link. The settings link to users and policies for
admins. Notifications: channels, what for, and quiet hours. The second factor is set up with a QR
code, and confirmed by its first code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from rollout.features.notifications import settings
from rollout.features.notifications.kinds import KINDS
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


PATH: Final = "/settings/notifications"
STATES: Final = {
    "waiting": "The last message waits, or is tried again",
    "sent": "The last message was sent",
    "failed": "The last message failed at every try",
    "dropped": "The last message was not sent: it no longer applied",
}
"""States of the newest message, in words."""


@dataclass(frozen=True, slots=True)
class ChannelForm:
    """The forms of one channel; `field` ends the names of its fields.

    `state` is new, unconfirmed, confirmed or unavailable.
    """

    name: str
    field: str
    state: str
    address: str
    kinds: tuple[str, ...]
    last_text: str


@router.get(PATH)
def show_notifications(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the visitor's channels and quiet hours."""
    return _render_notifications(request, visitor)


@router.post(PATH)
def submit_notifications(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Save a channel or the quiet hours, confirm or delete a channel, or send a code."""
    act = ACTIONS.get(form.get_text("do"), _save_times)
    try:
        act(visitor, form)
    except RefusalError as error:
        field = form.get_text("field")
        return _render_notifications(
            request, visitor, {field: say_refusal(error)}, _list_typed(form)
        )
    return redirect_to(PATH)


def _save_times(visitor: Visitor, form: Form) -> None:
    typed_zone = form.get_text("timezone")
    times = settings.NotificationTimes(
        find_timezone(typed_zone) or typed_zone,
        form.get_text("quiet_from"),
        form.get_text("quiet_until"),
    )
    settings.save_notification_times(visitor.service, visitor.caller, times)


def _save_channel(visitor: Visitor, form: Form) -> None:
    settings.save_notification_channel(
        visitor.service,
        visitor.caller,
        form.get_text("channel"),
        form.get_text(form.get_text("field")),
        form.get_values("kinds"),
    )


def _send_code(visitor: Visitor, form: Form) -> None:
    settings.resend_code(visitor.service, visitor.caller, form.get_text("channel"))


def _confirm_channel(visitor: Visitor, form: Form) -> None:
    settings.confirm_notification_channel(
        visitor.service,
        visitor.caller,
        form.get_text("channel"),
        form.get_text(form.get_text("field")),
    )


def _delete_channel(visitor: Visitor, form: Form) -> None:
    settings.delete_notification_channel(visitor.service, visitor.caller, form.get_text("channel"))


ACTIONS: Final[Mapping[str, Callable[[Visitor, Form], None]]] = {
    "times": _save_times,
    "save": _save_channel,
    "code": _send_code,
    "confirm": _confirm_channel,
    "delete": _delete_channel,
}


def _list_typed(form: Form) -> dict[str, str]:
    """Return what was typed, by field."""
    field = form.get_text("field")
    names = ("timezone", "quiet_from", "quiet_until", field)
    return {name: form.get_text(name) for name in names if form.has_field(name)}


def _render_notifications(
    request: Request,
    visitor: Visitor,
    errors: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    stored = settings.load_notification_settings(visitor.service, visitor.caller)
    times = {
        "timezone": stored.times.timezone,
        "quiet_from": stored.times.quiet_from,
        "quiet_until": stored.times.quiet_until,
    }
    forms = _list_channel_forms(stored)
    addresses = {f"address-{form.field}": form.address for form in forms}
    return render_page(
        request,
        visitor,
        "notifications",
        422 if errors else 200,
        channels=forms,
        choices={name: kind.description for name, kind in KINDS.items()},
        errors=errors or {},
        typed={**times, **addresses, **(typed or {})},
    )


def _list_channel_forms(stored: settings.NotificationSettings) -> list[ChannelForm]:
    """Return the visitor's channels and those that can be chosen, by name."""
    by_name = {status.channel.channel: status for status in stored.channels}
    names = sorted(by_name.keys() | set(stored.available))
    return [
        _build_channel_form(name, str(number), by_name.get(name))
        for number, name in enumerate(names)
    ]


def _build_channel_form(
    name: str, field: str, status: settings.NotificationChannelStatus | None
) -> ChannelForm:
    if status is None:
        return ChannelForm(name, field, "new", "", (), "")
    channel, last = status.channel, status.last
    state = "unconfirmed" if channel.confirmed_at is None else "confirmed"
    last_text = "" if last is None else f"{STATES[last.state]}."
    if last is not None and last.error and last.state in {"waiting", "failed"}:
        last_text = f"{STATES[last.state]}: {last.error}."
    return ChannelForm(
        name,
        field,
        state if status.is_configured else "unavailable",
        channel.address,
        tuple(channel.kinds),
        last_text,
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
