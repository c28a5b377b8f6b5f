"""Schemas of accounts, roles, API keys and sessions."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from api.schema_forms import AttributeForm, Page, add_fields_of, add_input_of
from rollout.data.access.tokens import ApiKey
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access.keys import CreatedKey
from rollout.features.access.sign_in import StartedSession
from rollout.features.access.users import AccountUpdate
from rollout.features.policies.account_changes import ChangedAccount

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
