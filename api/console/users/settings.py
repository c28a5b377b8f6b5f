"""Settings of the visitor, with links to users and policies for admins."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from api import session_cookie
from api.console.page.form import Form, SignedForm
from api.console.page.own_settings import (
    OFF,
    YEAR_SECONDS,
    find_timezone,
    store_single_keys,
)
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import ZONE_COOKIE, CurrentVisitor, Visitor
from rollout.core.errors import NotAllowedError, RefusalError
from rollout.core.scope.permissions import Permission, may_upload
from rollout.reports.text.formatting import capitalize_first
from rollout.services.access.keys import load_keys
from rollout.services.cells.overview import load_rollouts

router = APIRouter()
PASSWORDS_DIFFER_TEXT: Final = "The two new passwords differ. Type the same one twice"
UNKNOWN_ZONE_TEXT: Final = "Write a zone as Europe/Vienna; there is none called {}"


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """A rollout and its policy number."""

    name: str
    policy: int


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
        return _render_settings(request, visitor, errors={field: capitalize_first(str(error))})
    response = render_page(request, None, "password_set")
    session_cookie.clear_session(request, response)
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
        governed=_list_rollout_policies(visitor),
        rights=[str(right) for right in visitor.caller.role_assignments],
        zone_told=ZONE_COOKIE in request.cookies,
        errors=errors or {},
        typed={"zone": visitor.zone, **(typed or {})},
    )


def _list_rollout_policies(visitor: Visitor) -> list[RolloutPolicy]:
    return [
        RolloutPolicy(rollout_item.name, rollout_item.policy)
        for rollout_item in load_rollouts(visitor.service.database, visitor.caller)
    ]
