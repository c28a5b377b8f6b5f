"""Users and service accounts, API keys, the current account, and browser sessions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, Field

from api import auth
from api.auth import Admin, AnonymousCaller, Anyone, ServiceDependency, WallTime
from api.schema_forms import (
    After,
    AttributeForm,
    Limit,
    Page,
    add_fields_of,
    add_input_of,
    build_page,
    build_responses,
)
from rollout.data.access.tokens import ApiKey
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import credentials, keys, users
from rollout.features.access.keys import TOKEN_BYTES, CreatedKey, write_token
from rollout.features.access.sign_in import StartedSession
from rollout.features.access.users import AccountUpdate
from rollout.features.policies.account_changes import ChangedAccount, change_account

ROLE_ASSIGNMENT: dict[str, Any] = {
    "role": "operator",
    "rollout": "bear-alarm",
    "site": "creek",
    "group": "",
}
NAME_RULE = "1 to 64 letters, digits or any of . _ @ -"
USER: dict[str, Any] = {
    "name": "bo",
    "service_account": False,
    "added_at": "2027-06-01T12:00:00Z",
    "disabled_at": None,
    "email": "bo@example.org",
    "has_password": True,
    "roles": [ROLE_ASSIGNMENT],
    "broad": False,
}
MISSING_APPROVERS = (
    "bear-alarm: no user is in the group safety, so the gate to autonomous never opens"
)
KEY: dict[str, Any] = {
    "holder": "creek-box",
    "prefix": "5f1c2a9be077",
    "created_at": "2027-06-01T12:00:00Z",
    "expires_at": "2028-05-31T12:00:00Z",
    "revoked_at": None,
    "last_used_at": "2027-06-02T08:15:00Z",
}
SESSION: dict[str, Any] = {"name": "bo", "csrf": "q83v…", "expires_at": "2027-06-02T00:00:00Z"}


@add_input_of(AssignedRole, text=Annotated[str, Field(max_length=200)])
class RoleAssignment(AttributeForm, extra="forbid", json_schema_extra={"example": ROLE_ASSIGNMENT}):
    """A role, limited to a rollout and a site; `""` means all of them.

    Approvers also have a group.
    """

    role: Literal[
        "viewer",
        "reviewer",
        "operator",
        "approver",
        "ingest",
        "ingest-predictions",
        "ingest-decisions",
        "ingest-outcomes",
        "admin",
    ]
    group: str = Field(default="", max_length=64)

    @property
    def assigned_role(self) -> AssignedRole:
        """Return the role as the core defines it."""
        return AssignedRole(**self.model_dump())


class UserRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {"name": "bo", "roles": [ROLE_ASSIGNMENT]}},
):
    """A user or service account to create."""

    name: str = Field(max_length=64, description=NAME_RULE)
    service_account: bool = False
    email: str = Field(default="", max_length=320)
    roles: list[RoleAssignment] = Field(default_factory=list, max_length=50)


class UserChangeRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"grant_roles": [ROLE_ASSIGNMENT]}}
):
    """The changes to an account; omitted fields stay as they are."""

    disabled: bool | None = None
    email: str | None = Field(default=None, max_length=320)
    grant_roles: list[RoleAssignment] = Field(default_factory=list, max_length=50)
    revoke_roles: list[RoleAssignment] = Field(default_factory=list, max_length=50)

    @property
    def amendment(self) -> AccountUpdate:
        """Return the changes as the service takes them."""
        return AccountUpdate(
            is_disabled=self.disabled,
            email=self.email,
            roles_to_grant=tuple(form.assigned_role for form in self.grant_roles),
            roles_to_revoke=tuple(form.assigned_role for form in self.revoke_roles),
        )


class AccountForm(AttributeForm):
    """What all answers about an account begin with."""

    name: str
    service_account: bool = Field(validation_alias="is_service_account")


class User(AccountForm, json_schema_extra={"example": USER}):
    """A user or service account with its roles."""

    added_at: datetime
    disabled_at: datetime | None
    email: str
    has_password: bool
    roles: list[RoleAssignment] = Field(validation_alias="rights")
    broad: bool = Field(
        validation_alias="is_broad",
        description="May send predictions, and decisions or outcomes; split it by role.",
    )


class ChangedUser(
    User,
    json_schema_extra={"example": {**USER, "warnings": [MISSING_APPROVERS]}},
):
    """An account after a change."""

    warnings: list[str] = Field(
        default_factory=list,
        description="gates and stops for which users are missing since this change",
    )

    @classmethod
    def of_change(cls, changed: ChangedAccount) -> "ChangedUser":
        """Return the schema of a changed account."""
        user = cls.model_validate(changed.account)
        return user.model_copy(update={"warnings": list(changed.warnings)})


class PasswordLink(BaseModel, json_schema_extra={"example": {"name": "bo", "token": "9bX0…"}}):
    """A one-time token; whoever has it can set the password."""

    name: str
    token: str


class CurrentAccount(
    AccountForm,
    json_schema_extra={
        "example": {
            "name": "bo",
            "service_account": False,
            "roles": [ROLE_ASSIGNMENT],
            "access_head": 12,
        }
    },
):
    """Your account and its roles, at a revision of the access ledger."""

    roles: list[RoleAssignment] = Field(validation_alias="role_assignments")
    access_head: int | None


class PasswordRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={
        "example": {"password": "a sentence is fine", "current": "what it was until now"}
    },
):
    """A new password, and the current one if there is one."""

    password: str = Field(max_length=1_000)
    current: str = Field(default="", max_length=1_000)


class ApiKeyRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"holder": "creek-box"}}
):
    """An API key to create, for yourself or, as an admin, for any account."""

    holder: str | None = Field(default=None, max_length=64, description="default: your own account")
    expires_at: AwareDatetime | None = Field(
        default=None, description="default: in 365 days for service accounts, in 90 days for users"
    )


@add_fields_of(CreatedKey, "text")
class CreatedApiKey(
    AttributeForm,
    json_schema_extra={
        "example": {
            "holder": "creek-box",
            "prefix": "5f1c2a9be077",
            "expires_at": "2028-05-31T12:00:00Z",
            "key": "ro_5f1c2a9be077_…",
        }
    },
):
    """A new API key with its secret, which is shown only once."""

    key: str = Field(validation_alias="text")


@add_fields_of(ApiKey)
class ApiKeyMetadata(AttributeForm, json_schema_extra={"example": KEY}):
    """An API key without its secret."""

    prefix: str


class SignInRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {"name": "bo", "password": "a sentence is fine"}},
):
    """A name, its password and, with a second factor, a code of it."""

    name: str = Field(max_length=64)
    password: str = Field(max_length=1_000)
    code: str = Field(default="", max_length=64)


class LinkSignInRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {"token": "9bX0…", "password": "a sentence is fine"}},
):
    """A one-time token, the new password and, for the first admin, a name."""

    token: str = Field(max_length=200)
    password: str = Field(max_length=1_000)
    name: str = Field(default="", max_length=64)


@add_fields_of(StartedSession, "token")
class BrowserSession(AttributeForm, json_schema_extra={"example": SESSION}):
    """A session. Requests that change something send `csrf` as `X-CSRF-Token`."""


class UserList(Page[User]):
    """Users and service accounts, in the order in which they were created."""


class ApiKeyList(Page[ApiKeyMetadata]):
    """API keys, the oldest first."""


router = APIRouter(prefix="/v1/users", tags=["users"])


@router.get(
    "",
    operation_id="listUsers",
    summary="List users and service accounts",
    response_model=UserList,
    responses=build_responses({"items": [USER], "next": None}),
)
def list_users(
    service: ServiceDependency, caller: Admin, after: After = None, limit: Limit = 100
) -> Page[User]:
    """Return all users and service accounts, oldest first.

    Disabled accounts are included. Requires the admin role.
    """
    accounts = users.load_accounts(service.database, caller)
    return build_page([User.model_validate(user) for user in accounts], after, limit)


@router.post(
    "", operation_id="createUser", summary="Create a user or a service account", status_code=201
)
def create_user(
    body: UserRequest, service: ServiceDependency, caller: Admin, now: WallTime
) -> User:
    """Create a user or a service account.

    A name cannot be reused, even after the account is disabled (409). Service accounts can have the
    roles `ingest` and `viewer`. Requires the admin role.
    """
    account = users.create_account(
        service.database,
        caller,
        body.name,
        at=now,
        is_service_account=body.service_account,
        email=body.email,
        role_assignments=[form.assigned_role for form in body.roles],
    )
    return User.model_validate(account)


@router.patch("/{name}", operation_id="updateUser", summary="Disable a user or change their roles")
def update_user(
    name: str, body: UserChangeRequest, service: ServiceDependency, caller: Admin, now: WallTime
) -> ChangedUser:
    """Disable or enable an account, or change its roles or email.

    All changes are applied, or none. When an account is disabled, its keys, sessions, password and
    roles end immediately. `warnings` names each gate and each stop for which users are missing
    since then. Requires the admin role.
    """
    changed = change_account(
        service.database,
        caller,
        name,
        body.amendment,
        at=now,
        requires_second_factor=service.requires_second_factor,
    )
    return ChangedUser.of_change(changed)


@router.post(
    "/{name}/link",
    operation_id="createPasswordLink",
    summary="Create a one-time link to set a password",
    status_code=201,
)
def create_password_link(
    name: str, service: ServiceDependency, caller: Admin, now: WallTime
) -> PasswordLink:
    """Return a one-time token to set a password.

    The token expires after one day. Send it only to the user. Requires the admin role.
    """
    secret = write_token(service.entropy(TOKEN_BYTES))
    return PasswordLink(
        name=name,
        token=users.create_sign_in_link(service.database, caller, name, at=now, secret=secret),
    )


@router.delete(
    "/{name}/second-factor",
    operation_id="resetSecondFactor",
    summary="Remove a user's second factor",
    status_code=204,
    response_class=Response,
)
def reset_second_factor(
    name: str, service: ServiceDependency, caller: Admin, now: WallTime
) -> None:
    """Remove the second factor of a user who lost it.

    Their sessions end. Their approvals count again after 24 hours, and never together with yours.
    Requires the admin role.
    """
    credentials.reset_second_factor(service.database, caller, name, at=now)


keys_router = APIRouter(prefix="/v1/keys", tags=["keys"])
Holder = Annotated[
    str | None, Query(max_length=64, description="account name; default: your own, for admins all")
]


@keys_router.get(
    "",
    operation_id="listKeys",
    summary="List API keys",
    response_model=ApiKeyList,
    responses=build_responses({"items": [KEY], "next": None}),
)
def list_keys(
    service: ServiceDependency,
    caller: Anyone,
    holder: Holder = None,
    after: After = None,
    limit: Limit = 100,
) -> Page[ApiKeyMetadata]:
    """Return your API keys, oldest first; admins can list all keys.

    Secrets are never included.
    """
    listed_keys = [
        ApiKeyMetadata.model_validate(key)
        for key in keys.load_keys(service.database, caller, holder)
    ]
    return build_page(listed_keys, after, limit)


@keys_router.post("", operation_id="createKey", summary="Create an API key", status_code=201)
def create_key(
    body: ApiKeyRequest, service: ServiceDependency, caller: Anyone, now: WallTime
) -> CreatedApiKey:
    """Return a new API key with its secret.

    The secret is shown only once and cannot be retrieved later. Users create keys for themselves,
    admins for any account.
    """
    created_key = keys.create_key(
        service.database,
        caller,
        body.holder or caller.name,
        random_bytes=service.entropy(keys.KEY_BYTES),
        at=now,
        expires_at=body.expires_at,
    )
    return CreatedApiKey.model_validate(created_key)


@keys_router.delete(
    "/{prefix}",
    operation_id="revokeKey",
    summary="Revoke an API key",
    status_code=204,
    response_class=Response,
)
def revoke_key(prefix: str, service: ServiceDependency, caller: Anyone, now: WallTime) -> None:
    """Revoke an API key.

    Every replica rejects the key within one second. It is safe to retry.
    """
    keys.revoke_key(service.database, caller, prefix, at=now)


me_router = APIRouter(prefix="/v1/me", tags=["users"])


@me_router.get(
    "", operation_id="getCurrentAccount", summary="Get the current account and its roles"
)
def get_current_account(caller: Anyone) -> CurrentAccount:
    """Return your account name and roles.

    `access_head` is the revision of the access ledger that they come from.
    """
    return CurrentAccount.model_validate(caller)


@me_router.put(
    "/password",
    operation_id="setPassword",
    summary="Set my password",
    status_code=204,
    response_class=Response,
)
def set_password(
    body: PasswordRequest, service: ServiceDependency, caller: Anyone, now: WallTime
) -> None:
    """Set your password.

    `current` is required if you have a password. All your sessions end, including this one.
    """
    service.sign_in.set_password(
        caller, caller.name, body.password, at=now, current_password=body.current
    )


sessions_router = APIRouter(prefix="/v1/session", tags=["sessions"])
Everywhere = Annotated[bool, Query(description="end all your sessions")]


@sessions_router.post("", operation_id="signIn", summary="Sign in with a password")
def sign_in(
    body: SignInRequest,
    request: Request,
    response: Response,
    service: ServiceDependency,
    now: WallTime,
    _caller: AnonymousCaller,
) -> BrowserSession:
    """Start a session and set its cookie.

    A session lasts at most 12 hours and ends after 2 idle hours. If the account has a second factor
    and `code` is missing, the request fails with `code-required`: send it again with a code. After
    five failed attempts with a name from an address, or twenty from an address, requests fail with
    429 for up to 30 seconds.
    """
    started_session = service.sign_in.sign_in_with_password(
        body.name, body.password, address=auth.get_client_address(request), at=now, code=body.code
    )
    auth.set_session(request, response, service.sign_in, started_session, now)
    return BrowserSession.model_validate(started_session)


@sessions_router.post("/link", operation_id="signInByLink", summary="Sign in with a one-time link")
def sign_in_by_link(
    body: LinkSignInRequest,
    request: Request,
    response: Response,
    service: ServiceDependency,
    now: WallTime,
    _caller: AnonymousCaller,
) -> BrowserSession:
    """Set a password with a one-time link and start a session.

    `name` is required for the first admin's link.
    """
    started_session = service.sign_in.sign_in_with_link(
        body.token,
        body.password,
        at=now,
        address=auth.get_client_address(request),
        user_name=body.name,
    )
    auth.set_session(request, response, service.sign_in, started_session, now)
    return BrowserSession.model_validate(started_session)


@sessions_router.get("", operation_id="getSession", summary="Get my session")
def get_session(request: Request, service: ServiceDependency, _caller: Anyone) -> BrowserSession:
    """Return your session and its CSRF token.

    Use this after a page reload.
    """
    return BrowserSession.model_validate(
        service.sign_in.load_current_session(auth.get_session_token(request))
    )


@sessions_router.delete(
    "", operation_id="signOut", summary="Sign out", status_code=204, response_class=Response
)
def sign_out(
    request: Request,
    service: ServiceDependency,
    caller: Anyone,
    now: WallTime,
    everywhere: Everywhere = False,
) -> Response:
    """End this session, or all your sessions with `everywhere`.

    Every replica rejects the session within one second.
    """
    if everywhere:
        service.sign_in.sign_out_everywhere(caller, caller.name, at=now)
    service.sign_in.sign_out(auth.get_session_token(request), at=now)
    service.authenticator.refresh()
    response = Response(status_code=204)
    auth.clear_session(request, response)
    return response
