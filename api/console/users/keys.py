"""Keys: one's own, and for admins anybody's. Each is shown on the answer that made it, this once.

The answer to the form carries the key itself: no address, no store and no second page has it.
"""

from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response

from api.console.page.form import Form, Signed
from api.console.page.own_settings import chance_of, made_before, once, states
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.text import first_large, segment
from rollout.core.errors import PersonRefused, Refusal
from rollout.services.access import keys

router = APIRouter()
NO_DAY: Final = "Write a day as 2028-01-31, or leave it empty"
DAY: Final = timedelta(days=1)


@router.get("/settings/keys")
def own(request: Request, visitor: Visiting) -> Response:
    """Show one's own keys."""
    return _own(request, visitor)


@router.post("/settings/keys")
def make_own(request: Request, visitor: Visiting, form: Signed) -> Response:
    """Make a key of one's own and show it, this once."""
    try:
        created_key = make(visitor, visitor.name, form)
    except Refusal as error:
        return _own(request, visitor, refused_of(error), {"ends": form.one("ends")})
    return shown(request, visitor, created_key, "/settings/keys")


@router.post("/settings/keys/{prefix}/revoke")
def revoke(visitor: Visiting, prefix: str, form: Signed) -> Response:
    """End a key: one's own, or as an admin anybody's."""
    keys.revoke(visitor.service.database, visitor.caller, prefix, at=visitor.at)
    holder = form.one("holder")
    return to(f"/settings/people/{segment(holder)}" if holder else "/settings/keys")


def make(visitor: Visitor, holder: str, form: Form) -> keys.MadeKey:
    """Make the key that a form asks for; sent again, the form makes none.

    Raises:
        PersonRefused: it was made already, or its end can't be.
        NotAllowed: the visitor may not.
        UnknownPerson: nobody is called so.
    """
    service, caller = visitor.service, visitor.caller
    form_token, expires_at = form.one("once"), _end(form.one("ends"), visitor.zone)
    if existing_key_text := made_before(
        form_token, holder, keys.keys_of(service.database, caller, holder)
    ):
        raise PersonRefused(existing_key_text)
    entropy = chance_of(form_token, holder, service.entropy)
    return keys.make(
        service.database, caller, holder, chance=entropy, at=visitor.at, expires_at=expires_at
    )


def shown(request: Request, visitor: Visitor, made: keys.MadeKey, back: str) -> Response:
    """Show a key on the answer to its form."""
    return page(request, visitor, "key_made", made=made, back=back, own=made.holder == visitor.name)


def refused_of(refused: Refusal) -> dict[str, str]:
    """Return what is wrong with a form for a key, by field."""
    text = str(refused)
    field = "ends" if text == NO_DAY or text.startswith("a key ends") else ""
    return {field: first_large(text)}


def _own(
    request: Request,
    visitor: Visitor,
    errors: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    api_keys = keys.keys_of(visitor.service.database, visitor.caller, visitor.name)
    return page(
        request,
        visitor,
        "keys",
        422 if errors else 200,
        keys=states(api_keys, visitor.at),
        once=once(visitor.service.entropy),
        errors=errors or {},
        typed=typed or {},
    )


def _end(typed: str, zone: str) -> datetime | None:
    """Return the instant at which a typed day is over; None for the usual end."""
    if not typed:
        return None
    try:
        day = datetime.strptime(typed, "%Y-%m-%d").replace(tzinfo=ZoneInfo(zone))
        return day + DAY
    except (ValueError, OverflowError):
        raise PersonRefused(NO_DAY) from None
