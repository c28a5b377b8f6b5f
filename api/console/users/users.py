"""People and machines: who is here, what they may do where, and how they come in. For admins."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from api.console.page.form import Form, Signed
from api.console.page.own_settings import once, states
from api.console.page.page import page, to
from api.console.page.page_context import HOME, Visiting, Visitor
from api.console.page.text import first_large, segment
from api.console.reviews import review_sites
from api.console.users import keys as key_pages
from rollout.core.errors import PersonRefused, Refusal, UnknownPerson
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import OF_MACHINES, ROLES, Right
from rollout.services.access import users
from rollout.services.access.keys import SIZE, house_revision, keys_of, link_made_since, write_token
from rollout.services.access.users import Amendment
from rollout.services.cells.overview import rollouts_of

router = APIRouter()
LONGEST: Final = 320  # letters of a field
MOST_HOUSE: Final = 15  # digits of a revision
MADE: Final = (
    "A link for {} was made since this page was opened, and shown once. If nobody kept it, make "
    "another: the one before ends"
)
FIELDS: Final = ("name", "email", "role", "rollout", "site", "group", "kind")


@dataclass(frozen=True, slots=True)
class Held:
    """A right as it is listed; `unknown` says that its site is in no policy in force."""

    right: Right
    unknown: bool


@router.get("/settings/people")
def everybody(request: Request, visitor: Visiting) -> Response:
    """Show everybody who ever had a name here."""
    return _everybody(request, visitor)


@router.post("/settings/people")
def add(request: Request, visitor: Visiting, form: Signed) -> Response:
    """Give a name to somebody, or to a machine, with a first right or none."""
    try:
        assignments = (_right(form),) if form.one("role") else ()
        user = users.add(
            visitor.service.database,
            visitor.caller,
            form.one("name"),
            at=visitor.at,
            machine=form.one("kind") == "machine",
            email=form.one("email")[:LONGEST],
            rights=assignments,
        )
    except Refusal as error:
        return _everybody(request, visitor, error, form)
    return to(_at(user.name))


@router.get("/settings/people/{name}")
def one(request: Request, visitor: Visiting, name: str) -> Response:
    """Show somebody: their rights, their keys, the ways in."""
    return _one(request, visitor, name)


@router.post("/settings/people/{name}")
def change(request: Request, visitor: Visiting, name: str, form: Signed) -> Response:
    """Change what the pressed button says."""
    run_action = DOES.get(form.one("do"))
    try:
        if run_action is None:
            raise PersonRefused("press one of the buttons of this page; nothing was changed")
        run_action(visitor, name, form)
    except Refusal as error:
        return _one(request, visitor, name, error, form)
    return to(_at(name))


@router.get("/settings/people/{name}/link")
@router.get("/settings/people/{name}/keys")
def shown_once(visitor: Visiting, name: str) -> Response:
    """Lead back whoever asks again for what was shown once."""
    del visitor  # the page that they are led to judges them
    return to(_at(name))


@router.post("/settings/people/{name}/link")
def link(request: Request, visitor: Visiting, name: str, form: Signed) -> Response:
    """Make a one-time link and show it, this once."""
    service, caller = visitor.service, visitor.caller
    try:
        if link_made_since(service.database, caller, name, _revision(form)) is not None:
            raise PersonRefused(MADE.format(name))
        token = write_token(service.entropy(SIZE))
        users.link(service.database, caller, name, at=visitor.at, secret=token)
    except Refusal as error:
        return _one(request, visitor, name, error, form)
    base = service.channels.public_url or str(request.base_url).removesuffix(f"{HOME}/")
    link_url = f"{base.rstrip('/')}{HOME}/come-in?token={token}"
    return page(request, visitor, "link_made", name=name, address=link_url, back=_at(name))


@router.post("/settings/people/{name}/keys")
def make_key(request: Request, visitor: Visiting, name: str, form: Signed) -> Response:
    """Make a key of somebody, mostly of a machine, and show it, this once."""
    try:
        created_key = key_pages.make(visitor, name, form)
    except Refusal as error:
        return _one(request, visitor, name, error, form, key_pages.refused_of(error))
    return key_pages.shown(request, visitor, created_key, _at(name))


@router.get("/settings/reviewers")
def reviewers(request: Request, visitor: Visiting) -> Response:
    """Show who reviews where, and where nobody does."""
    found = users.everybody(visitor.service.database, visitor.caller)
    policies = _policies(visitor)
    return page(
        request,
        visitor,
        "reviewers",
        rollouts=[
            review_sites.where(found, rollout_name, policy)
            for rollout_name, policy in policies.items()
        ],
    )


def _give(visitor: Visitor, name: str, form: Form) -> None:
    _amend(visitor, name, Amendment(give=(_right(form),)))


def _take(visitor: Visitor, name: str, form: Form) -> None:
    _amend(visitor, name, Amendment(take=(_right(form),)))


def _disable(visitor: Visitor, name: str, _form: Form) -> None:
    _amend(visitor, name, Amendment(disabled=True))


def _enable(visitor: Visitor, name: str, _form: Form) -> None:
    _amend(visitor, name, Amendment(disabled=False))


def _set_email(visitor: Visitor, name: str, form: Form) -> None:
    _amend(visitor, name, Amendment(email=form.one("email")[:LONGEST]))


def _sign_out(visitor: Visitor, name: str, _form: Form) -> None:
    visitor.service.signing.sign_out_everywhere(visitor.caller, name, at=visitor.at)


DOES: Final[dict[str, Callable[[Visitor, str, Form], None]]] = {
    "give": _give,
    "take": _take,
    "disable": _disable,
    "enable": _enable,
    "email": _set_email,
    "sign-out": _sign_out,
}


def _amend(visitor: Visitor, name: str, amendment: Amendment) -> None:
    users.amend(visitor.service.database, visitor.caller, name, amendment, at=visitor.at)


def _right(form: Form) -> Right:
    """Return the right that a form names, as it was typed: whether it can be the service says."""
    fields = ("role", "rollout", "site", "group")
    return Right(*(form.one(field_name)[:LONGEST] for field_name in fields))


def _revision(form: Form) -> int:
    text = form.one("house")
    is_valid = text.isascii() and text.isdigit() and len(text) <= MOST_HOUSE
    return int(text) if is_valid else 0


def _everybody(
    request: Request, visitor: Visitor, refused: Refusal | None = None, form: Form | None = None
) -> Response:
    found = users.everybody(visitor.service.database, visitor.caller)
    return page(
        request,
        visitor,
        "people",
        422 if refused else 200,
        people=[user for user in found if not user.machine],
        machines=[user for user in found if user.machine],
        errors=_errors(refused),
        typed=_typed(form),
        **_choices(visitor, machine=None),
    )


def _one(
    request: Request,
    visitor: Visitor,
    name: str,
    refused: Refusal | None = None,
    form: Form | None = None,
    errors: dict[str, str] | None = None,
) -> Response:
    service = visitor.service
    found = users.everybody(service.database, visitor.caller)
    user = next((user_item for user_item in found if user_item.name == name), None)
    if user is None:
        raise UnknownPerson(f"nobody is called {name}; the list of people has everybody")
    policies = _policies(visitor)
    api_keys = keys_of(service.database, visitor.caller, name)
    return page(
        request,
        visitor,
        "person",
        422 if refused else 200,
        one=user,
        rights=[Held(assignment, _unknown(assignment, policies)) for assignment in user.rights],
        keys=states(api_keys, visitor.at),
        once=once(service.entropy),
        house=house_revision(service.database),
        errors=errors or _errors(refused),
        typed={"email": user.email, **_typed(form)},
        **_choices(visitor, machine=user.machine),
    )


def _typed(form: Form | None) -> dict[str, str]:
    if form is None:
        return {}
    return {
        field_name: form.one(field_name) for field_name in (*FIELDS, "ends") if form.has(field_name)
    }


def _errors(refused: Refusal | None) -> dict[str, str]:
    if refused is None:
        return {}
    return {"": first_large(str(refused))}


def _choices(visitor: Visitor, *, machine: bool | None) -> dict[str, object]:
    database, caller = visitor.service.database, visitor.caller
    roles = [role for role in ROLES if machine is not True or role in OF_MACHINES]
    return {
        "roles": roles,
        "rollouts": [rollout_item.name for rollout_item in rollouts_of(database, caller)],
    }


def _policies(visitor: Visitor) -> dict[str, Policy]:
    names = [
        rollout_item.name for rollout_item in rollouts_of(visitor.service.database, visitor.caller)
    ]
    return {
        rollout_name: visitor.service.watch.rollout(rollout_name).standing.policy
        for rollout_name in names
    }


def _unknown(right: Right, policies: dict[str, Policy]) -> bool:
    policy = policies.get(right.rollout)
    return bool(right.site) and policy is not None and right.site not in policy.site


def _at(name: str) -> str:
    return f"/settings/people/{segment(name)}"
