"""Pages of users, service accounts and reviewers by site, and of API keys.

Pages of users and service accounts (roles, keys and sign-in) are for admins. Key pages have the
visitor's own keys, and for admins everybody's.

The full key is shown only in the response that creates it; no URL, table or other page has it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response

from api.web_kit.page import (
    encode_segment,
    redirect_to,
    render_page,
    say_refusal,
)
from api.web_kit.page_context import HOME, CurrentVisitor, Form, SignedForm, Visitor
from rollout.engine.decide.permissions import REVIEWER, ROLES, SERVICE_ACCOUNT_ROLES, AssignedRole
from rollout.features.access import keys, users
from rollout.features.access.credentials import reset_second_factor
from rollout.features.access.keys import (
    KEY_BYTES,
    PREFIX_BYTES,
    TOKEN_BYTES,
    ApiKey,
    find_link_created_since,
    load_access_revision,
    load_keys,
    write_token,
)
from rollout.features.access.users import AccountUpdate, UserAccount
from rollout.features.cells.overview import load_rollouts
from rollout.features.policies.account_changes import list_missing_approvers
from rollout.kernel.errors import InvalidAccountError, RefusalError, UnknownUserError
from rollout.kernel.policy.policy import Policy

router = APIRouter()
INVALID_DAY_TEXT: Final = "write a day as 2028-01-31, or leave it empty"
ONE_DAY: Final = timedelta(days=1)


FORM_TOKEN_BYTES: Final = 16
"""Random bytes that tell two openings of the same form apart."""
ALREADY_CREATED_TEXT: Final = (
    "this key was already created and shown once; if nobody saved it, revoke {} and create another"
)


@dataclass(frozen=True, slots=True)
class KeyState:
    """A listed key; `state` is valid, revoked or over."""

    key: ApiKey
    state: str


def list_key_states(keys: tuple[ApiKey, ...], at: datetime) -> tuple[KeyState, ...]:
    """Return keys with their state, valid ones first, then newest first."""
    key_states = [KeyState(key, _get_state(key, at)) for key in reversed(keys)]
    return tuple(sorted(key_states, key=lambda key_state: key_state.state != "valid"))


def create_form_token(entropy: Callable[[int], bytes]) -> str:
    """Return a form token, so that resending the form creates no second key."""
    return entropy(FORM_TOKEN_BYTES).hex()


def compute_prefix(form_token: str, holder: str) -> bytes:
    """Return the prefix of the key for a form token, always the same."""
    return sha256(f"{holder}\n{form_token}".encode()).digest()[:PREFIX_BYTES]


def compute_key_entropy(form_token: str, holder: str, entropy: Callable[[int], bytes]) -> bytes:
    """Return a source of entropy: the form's prefix, then a new secret."""
    return compute_prefix(form_token, holder) + entropy(KEY_BYTES - PREFIX_BYTES)


def explain_existing_key(form_token: str, holder: str, keys: tuple[ApiKey, ...]) -> str:
    """Return the error if the form has already created its key, else ""."""
    prefix = compute_prefix(form_token, holder).hex()
    return ALREADY_CREATED_TEXT.format(prefix) if any(key.prefix == prefix for key in keys) else ""


def _get_state(key: ApiKey, at: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "over" if key.expires_at is not None and key.expires_at <= at else "valid"


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
    return {"ends" if error.field else "": say_refusal(error)}


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


@dataclass(frozen=True, slots=True)
class ReviewerSites:
    """A reviewer's sites; `everywhere` means all sites of the policy."""

    name: str
    everywhere: bool
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReviewCoverage:
    """Reviewers of a rollout, and the sites without or with one reviewer.

    One reviewer is too few where two reviewers decide each case.
    """

    rollout: str
    sites: int
    reviewers: tuple[ReviewerSites, ...]
    unreviewed_sites: tuple[str, ...]
    single_reviewer_sites: tuple[str, ...]


def compute_review_coverage(
    users: Iterable[UserAccount], rollout: str, policy: Policy
) -> ReviewCoverage:
    """Return the review coverage of a rollout."""
    candidates = [
        _build_reviewer_sites(user_item, rollout, policy)
        for user_item in users
        if user_item.disabled_at is None
    ]
    reviewers = tuple(user_item for user_item in candidates if user_item.sites)
    counts = {
        site: sum(site in user_item.sites for user_item in reviewers) for site in policy.sites_by_id
    }
    return ReviewCoverage(
        rollout=rollout,
        sites=len(policy.sites_by_id),
        reviewers=reviewers,
        unreviewed_sites=tuple(site for site, count in counts.items() if count == 0),
        single_reviewer_sites=tuple(site for site, count in counts.items() if count == 1),
    )


def _build_reviewer_sites(user: UserAccount, rollout: str, policy: Policy) -> ReviewerSites:
    reviewer_roles = [assignment for assignment in user.rights if assignment.role == REVIEWER]
    sites = tuple(
        site
        for site in policy.sites_by_id
        if any(assignment.covers(rollout, site) for assignment in reviewer_roles)
    )
    return ReviewerSites(user.name, len(sites) == len(policy.sites_by_id), sites)


MAX_FIELD_LENGTH: Final = 320  # maximum characters of a field
MAX_REVISION_DIGITS: Final = 15  # maximum digits of a revision
LINK_ALREADY_CREATED_TEXT: Final = (
    "a link for {} was created since this page was opened, and shown once; if nobody saved it, "
    "create another, which ends the earlier one"
)
FIELDS: Final = ("name", "email", "role", "rollout", "site", "group", "kind")


@dataclass(frozen=True, slots=True)
class ListedRoleAssignment:
    """A listed role; `unknown` if its site is in no policy in force."""

    role_assignment: AssignedRole
    unknown: bool


@router.get("/settings/users")
def show_users(request: Request, visitor: CurrentVisitor) -> Response:
    """Show all accounts."""
    return _render_users(request, visitor)


@router.post("/settings/users")
def submit_user(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Create a user or service account, optionally with a first role."""
    try:
        assignments = (_parse_role_assignment(form),) if form.get_text("role") else ()
        user = users.create_account(
            visitor.service.database,
            visitor.caller,
            form.get_text("name"),
            at=visitor.wall_time,
            is_service_account=form.get_text("kind") == "machine",
            email=form.get_text("email")[:MAX_FIELD_LENGTH],
            role_assignments=assignments,
        )
    except RefusalError as error:
        return _render_users(request, visitor, error, form)
    return redirect_to(_build_user_path(user.name))


@router.get("/settings/users/{name}")
def show_user(request: Request, visitor: CurrentVisitor, name: str) -> Response:
    """Show an account: roles, keys and sign-in."""
    return _render_user(request, visitor, name)


@router.post("/settings/users/{name}")
def submit_change(
    request: Request, visitor: CurrentVisitor, name: str, form: SignedForm
) -> Response:
    """Carry out the action of the pressed button."""
    run_action = ACTIONS.get(form.get_text("do"))
    try:
        if run_action is None:
            raise InvalidAccountError("press one of the buttons of this page; nothing was changed")
        run_action(visitor, name, form)
    except RefusalError as error:
        return _render_user(request, visitor, name, error, form)
    return redirect_to(_build_user_path(name))


@router.get("/settings/users/{name}/link")
@router.get("/settings/users/{name}/keys")
def redirect_to_user(visitor: CurrentVisitor, name: str) -> Response:
    """Redirect from pages that are shown only once."""
    del visitor  # the page redirected to checks permissions
    return redirect_to(_build_user_path(name))


@router.post("/settings/users/{name}/link")
def create_link(request: Request, visitor: CurrentVisitor, name: str, form: SignedForm) -> Response:
    """Create a one-time link and show it once."""
    service, caller = visitor.service, visitor.caller
    try:
        if (
            find_link_created_since(service.database, caller, name, _parse_revision(form))
            is not None
        ):
            raise InvalidAccountError(LINK_ALREADY_CREATED_TEXT.format(name))
        token = write_token(service.entropy(TOKEN_BYTES))
        users.create_sign_in_link(
            service.database, caller, name, at=visitor.wall_time, secret=token
        )
    except RefusalError as error:
        return _render_user(request, visitor, name, error, form)
    link_url = f"{service.channels.public_url.rstrip('/')}{HOME}/set-password?token={token}"
    return render_page(
        request, visitor, "link_made", name=name, address=link_url, back=_build_user_path(name)
    )


@router.post("/settings/users/{name}/keys")
def create_user_key(
    request: Request, visitor: CurrentVisitor, name: str, form: SignedForm
) -> Response:
    """Create a key of an account and show it once."""
    try:
        created_key = create_key(visitor, name, form)
    except RefusalError as error:
        return _render_user(request, visitor, name, error, form, describe_key_errors(error))
    return render_created_key(request, visitor, created_key, _build_user_path(name))


@router.get("/settings/reviewers")
def show_reviewers(request: Request, visitor: CurrentVisitor) -> Response:
    """Show reviewers by site, and sites without reviewers."""
    accounts = users.load_accounts(visitor.service.database, visitor.caller)
    policies = _load_policies(visitor)
    return render_page(
        request,
        visitor,
        "reviewers",
        rollouts=[
            compute_review_coverage(accounts, rollout_name, policy)
            for rollout_name, policy in policies.items()
        ],
    )


def _sign_out_user(visitor: Visitor, name: str, _form: Form) -> None:
    visitor.service.sign_in.sign_out_everywhere(visitor.caller, name, at=visitor.wall_time)
    visitor.service.authenticator.refresh()


def _reset_factor(visitor: Visitor, name: str, _form: Form) -> None:
    reset_second_factor(visitor.service.database, visitor.caller, name, at=visitor.wall_time)


def _update_user(
    build_update: Callable[[Form], AccountUpdate], visitor: Visitor, name: str, form: Form
) -> None:
    update = build_update(form)
    users.update_account(
        visitor.service.database, visitor.caller, name, update, at=visitor.wall_time
    )


UPDATES: Final[dict[str, Callable[[Form], AccountUpdate]]] = {
    "give": lambda form: AccountUpdate(roles_to_grant=(_parse_role_assignment(form),)),
    "take": lambda form: AccountUpdate(roles_to_revoke=(_parse_role_assignment(form),)),
    "disable": lambda _: AccountUpdate(is_disabled=True),
    "enable": lambda _: AccountUpdate(is_disabled=False),
    "email": lambda form: AccountUpdate(email=form.get_text("email")[:MAX_FIELD_LENGTH]),
}
ACTIONS: Final[dict[str, Callable[[Visitor, str, Form], None]]] = {
    **{name: partial(_update_user, build_update) for name, build_update in UPDATES.items()},
    "sign-out": _sign_out_user,
    "reset-factor": _reset_factor,
}


def _parse_role_assignment(form: Form) -> AssignedRole:
    """Return the role of a form as typed; the service validates it."""
    fields = ("role", "rollout", "site", "group")
    return AssignedRole(*(form.get_text(field_name)[:MAX_FIELD_LENGTH] for field_name in fields))


def _parse_revision(form: Form) -> int:
    text = form.get_text("access_revision")
    is_valid = text.isascii() and text.isdigit() and len(text) <= MAX_REVISION_DIGITS
    return int(text) if is_valid else 0


def _render_users(
    request: Request, visitor: Visitor, error: RefusalError | None = None, form: Form | None = None
) -> Response:
    accounts = users.load_accounts(visitor.service.database, visitor.caller)
    return render_page(
        request,
        visitor,
        "users",
        422 if error else 200,
        users=[user for user in accounts if not user.is_service_account],
        machines=[user for user in accounts if user.is_service_account],
        missing_approvers=_list_missing_approvers(visitor),
        errors=_list_errors(error),
        typed=_get_typed_fields(form),
        **_build_choices(visitor, is_service_account=None),
    )


def _render_user(
    request: Request,
    visitor: Visitor,
    name: str,
    error: RefusalError | None = None,
    form: Form | None = None,
    errors: dict[str, str] | None = None,
) -> Response:
    service = visitor.service
    accounts = users.load_accounts(service.database, visitor.caller)
    user = next((user_item for user_item in accounts if user_item.name == name), None)
    if user is None:
        raise UnknownUserError(f"there is no account {name}; see the list of users")
    policies = _load_policies(visitor)
    api_keys = load_keys(service.database, visitor.caller, name)
    return render_page(
        request,
        visitor,
        "user",
        422 if error else 200,
        account=user,
        missing_approvers=_list_missing_approvers(visitor),
        rights=[
            ListedRoleAssignment(assignment, _is_unknown_site(assignment, policies))
            for assignment in user.rights
        ],
        keys=list_key_states(api_keys, visitor.wall_time),
        once=create_form_token(service.entropy),
        access_revision=load_access_revision(service.database),
        factor=service.sign_in.codes.load_summary(name),
        errors=errors or _list_errors(error),
        typed={"email": user.email, **_get_typed_fields(form)},
        **_build_choices(visitor, is_service_account=user.is_service_account),
    )


def _get_typed_fields(form: Form | None) -> dict[str, str]:
    if form is None:
        return {}
    return {
        field_name: form.get_text(field_name)
        for field_name in (*FIELDS, "ends")
        if form.has_field(field_name)
    }


def _list_errors(error: RefusalError | None) -> dict[str, str]:
    if error is None:
        return {}
    return {"": say_refusal(error)}


def _build_choices(visitor: Visitor, *, is_service_account: bool | None) -> dict[str, object]:
    database, caller = visitor.service.database, visitor.caller
    roles = [
        role for role in ROLES if is_service_account is not True or role in SERVICE_ACCOUNT_ROLES
    ]
    return {
        "roles": roles,
        "rollouts": [rollout_item.name for rollout_item in load_rollouts(database, caller)],
    }


def _load_policies(visitor: Visitor) -> dict[str, Policy]:
    names = [
        rollout_item.name
        for rollout_item in load_rollouts(visitor.service.database, visitor.caller)
    ]
    return {
        rollout_name: visitor.service.state_cache.load_rollout(rollout_name).state.policy
        for rollout_name in names
    }


def _is_unknown_site(assignment: AssignedRole, policies: dict[str, Policy]) -> bool:
    policy = policies.get(assignment.rollout)
    return (
        bool(assignment.site) and policy is not None and assignment.site not in policy.sites_by_id
    )


def _build_user_path(name: str) -> str:
    return f"/settings/users/{encode_segment(name)}"


def _list_missing_approvers(visitor: Visitor) -> tuple[str, ...]:
    return list_missing_approvers(
        visitor.service.database,
        at=visitor.wall_time,
        requires_second_factor=visitor.service.requires_second_factor,
    )
