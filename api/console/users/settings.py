"""Settings: one's own, and for admins where people, rights and policies are kept."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from api import session_cookie
from api.console.page.form import Form, Signed
from api.console.page.own_settings import OFF, YEAR, keep_keys, keeps_keys, zone_named
from api.console.page.page import page, to
from api.console.page.page_context import ZONE_COOKIE, Visiting, Visitor
from api.console.page.text import first_large
from rollout.core.errors import NotAllowed, Refusal
from rollout.core.scope.permissions import Act
from rollout.services.access.keys import keys_of
from rollout.services.cells.overview import rollouts_of

router = APIRouter()
DIFFER: Final = "The two new passwords differ. Type the same one twice"
NO_ZONE: Final = "Write a zone as Europe/Vienna; there is none called {}"


@dataclass(frozen=True, slots=True)
class Governed:
    """A rollout with the policy that it has."""

    name: str
    policy: int


@router.get("/settings")
def settings(request: Request, visitor: Visiting) -> Response:
    """Show what can be set, and by whom what can't."""
    return _shown(request, visitor)


@router.post("/settings")
def set_password(request: Request, visitor: Visiting, form: Signed) -> Response:
    """Set one's own password; every session ends, this one too. Nothing typed is kept."""
    new_password = _typed(form, "password")
    if new_password != _typed(form, "again"):
        return _shown(request, visitor, errors={"again": DIFFER})
    try:
        visitor.service.signing.set_password(
            visitor.caller,
            visitor.name,
            new_password,
            at=visitor.at,
            current=_typed(form, "current"),
        )
    except Refusal as error:
        field = "current" if isinstance(error, NotAllowed) else "password"
        return _shown(request, visitor, errors={field: first_large(str(error))})
    response = page(request, None, "password_set")
    session_cookie.take_back(request, response)
    return response


@router.post("/settings/single-keys")
def single_keys(visitor: Visiting, form: Signed) -> Response:
    """Keep in this browser whether the review page listens to single keys."""
    del visitor
    response = to("/settings#single-keys")
    keep_keys(response, form.one("keys") or OFF)
    return response


@router.post("/settings/clock")
def clock(request: Request, visitor: Visiting, form: Signed) -> Response:
    """Keep in this browser whose clock times are shown on beside the site's."""
    typed = form.one("zone")
    timezone = zone_named(typed)
    if not timezone:
        errors = {"zone": NO_ZONE.format(typed or "“”")}
        return _shown(request, visitor, errors=errors, typed={"zone": typed})
    response = to("/settings#clock")
    response.set_cookie(
        ZONE_COOKIE, quote(timezone, safe=""), max_age=YEAR, path="/", samesite="lax"
    )
    return response


def _typed(form: Form, name: str) -> str:
    """Return a password as it was typed, with its spaces."""
    return form.fields.get(name, [""])[-1]


def _shown(
    request: Request,
    visitor: Visitor,
    *,
    errors: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    api_keys = keys_of(visitor.service.database, visitor.caller, visitor.name)
    valid_keys = [
        key
        for key in api_keys
        if key.revoked_at is None and (key.expires_at or visitor.at) >= visitor.at
    ]
    return page(
        request,
        visitor,
        "settings",
        422 if errors else 200,
        keys=len(valid_keys),
        listens=keeps_keys(request),
        reviews=visitor.may_somewhere(Act.REVIEW),
        administers=visitor.may(Act.ADMINISTER),
        governed=_governed(visitor),
        rights=[str(right) for right in visitor.caller.rights],
        zone_told=ZONE_COOKIE in request.cookies,
        errors=errors or {},
        typed={"zone": visitor.zone, **(typed or {})},
    )


def _governed(visitor: Visitor) -> list[Governed]:
    return [
        Governed(rollout_item.name, rollout_item.policy)
        for rollout_item in rollouts_of(visitor.service.database, visitor.caller)
    ]
