"""The visitor's own second factor: set up with a QR code, confirm, remove."""

from collections.abc import Callable
from typing import Final

import segno
from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from api import auth
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Form, SignedForm, Visitor
from rollout.engine.words.formatting import capitalize_first
from rollout.kernel.errors import NotAllowedError, RefusalError, UnauthenticatedError

router = APIRouter()
PATH: Final = "/settings/second-factor"
QR_SCALE: Final = 4  # pixels of a module


@router.get(PATH)
def show_second_factor(request: Request, visitor: CurrentVisitor) -> Response:
    """Show whether the visitor has a second factor, or the one that waits for its first code."""
    return _render_factor(request, visitor)


@router.post(PATH)
def submit_second_factor(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Begin, confirm or remove the visitor's second factor."""
    act = ACTIONS.get(form.get_text("do"), _begin_enrolment)
    try:
        return act(request, visitor, form)
    except RefusalError as error:
        text = capitalize_first(str(error))
        return _render_factor(request, visitor, errors={_find_field(error): text})


def _begin_enrolment(request: Request, visitor: Visitor, _form: Form) -> Response:
    del request
    visitor.service.sign_in.codes.begin_enrolment(visitor.caller, at=visitor.wall_time)
    return redirect_to(PATH)


def _confirm_enrolment(request: Request, visitor: Visitor, form: Form) -> Response:
    """Confirm the factor; show the recovery codes once."""
    sign_in = visitor.service.sign_in
    password = form.fields.get("password", [""])[-1]
    sign_in.check_own_password(visitor.caller, password, address=_get_address(request))
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
        address=_get_address(request),
        at=visitor.wall_time,
    )
    response = redirect_to("/sign-in")
    auth.clear_session(request, response)
    return response


ACTIONS: Final[dict[str, Callable[[Request, Visitor, Form], Response]]] = {
    "begin": _begin_enrolment,
    "confirm": _confirm_enrolment,
    "remove": _remove_factor,
}


def _get_address(request: Request) -> str:
    return "" if request.client is None else request.client.host


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
        enrolment, problems[""] = None, capitalize_first(str(error))
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
