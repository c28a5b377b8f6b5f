"""Key pages: own keys, and for admins everybody's.

The full key is shown only in the response that creates it; no URL, table or other page has it.
"""

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response

from api.console.page.form import Form, SignedForm
from api.console.page.own_settings import (
    compute_key_entropy,
    create_form_token,
    explain_existing_key,
    list_key_states,
)
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.text import encode_segment
from rollout.core.errors import InvalidAccountError, RefusalError
from rollout.reports.text.formatting import capitalize_first
from rollout.services.access import keys

router = APIRouter()
INVALID_DAY_TEXT: Final = "Write a day as 2028-01-31, or leave it empty"
ONE_DAY: Final = timedelta(days=1)


@router.get("/settings/keys")
def show_own_keys(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the visitor's keys."""
    return _render_own_keys(request, visitor)


@router.post("/settings/keys")
def submit_own_key(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Create a key of the visitor and show it once."""
    try:
        created_key = create_key(visitor, visitor.name, form)
    except RefusalError as error:
        return _render_own_keys(
            request, visitor, describe_key_errors(error), {"ends": form.get_text("ends")}
        )
    return render_created_key(request, visitor, created_key, "/settings/keys")


@router.post("/settings/keys/{prefix}/revoke")
def revoke_key(visitor: CurrentVisitor, prefix: str, form: SignedForm) -> Response:
    """Revoke a key: the visitor's, or for admins anybody's."""
    keys.revoke_key(visitor.service.database, visitor.caller, prefix, at=visitor.wall_time)
    holder = form.get_text("holder")
    return redirect_to(f"/settings/users/{encode_segment(holder)}" if holder else "/settings/keys")


def create_key(visitor: Visitor, holder: str, form: Form) -> keys.CreatedKey:
    """Create the key of a form; resending the form creates none.

    Raises:
        InvalidAccountError: it exists already, or its end is invalid.
        NotAllowedError: the visitor may not.
        UnknownUserError: no such user.
    """
    service, caller = visitor.service, visitor.caller
    form_token = form.get_text("once")
    expires_at = _parse_expiry(form.get_text("ends"), visitor.zone)
    if existing_key_text := explain_existing_key(
        form_token, holder, keys.load_keys(service.database, caller, holder)
    ):
        raise InvalidAccountError(existing_key_text)
    entropy = compute_key_entropy(form_token, holder, service.entropy)
    return keys.create_key(
        service.database,
        caller,
        holder,
        random_bytes=entropy,
        at=visitor.wall_time,
        expires_at=expires_at,
    )


def render_created_key(
    request: Request, visitor: Visitor, created_key: keys.CreatedKey, return_path: str
) -> Response:
    """Show a created key."""
    return render_page(
        request,
        visitor,
        "key_made",
        made=created_key,
        back=return_path,
        own=created_key.holder == visitor.name,
    )


def describe_key_errors(error: RefusalError) -> dict[str, str]:
    """Return the errors of a key form by field."""
    return {"ends" if error.field else "": capitalize_first(str(error))}


def _render_own_keys(
    request: Request,
    visitor: Visitor,
    errors: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    api_keys = keys.load_keys(visitor.service.database, visitor.caller, visitor.name)
    return render_page(
        request,
        visitor,
        "keys",
        422 if errors else 200,
        keys=list_key_states(api_keys, visitor.wall_time),
        once=create_form_token(visitor.service.entropy),
        errors=errors or {},
        typed=typed or {},
    )


def _parse_expiry(typed: str, timezone: str) -> datetime | None:
    """Return the end of a typed day; None for the default."""
    if not typed:
        return None
    try:
        day = datetime.strptime(typed, "%Y-%m-%d").replace(tzinfo=ZoneInfo(timezone))
        return day + ONE_DAY
    except (ValueError, OverflowError):
        raise InvalidAccountError(INVALID_DAY_TEXT, field="expires_at") from None
