"""The forms of people, rights, keys and sessions."""

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.paging import Page
from rollout.core.scope.permissions import Right
from rollout.services.access.keys import MadeKey
from rollout.services.access.sign_in import SignedIn
from rollout.services.access.users import Amendment, Member

RIGHT: dict[str, Any] = {"role": "operator", "rollout": "bear-alarm", "site": "creek", "group": ""}
NAMED = "1 to 64 letters, digits and . _ @ -"
PERSON: dict[str, Any] = {
    "name": "bo",
    "service_account": False,
    "added_at": "2027-06-01T12:00:00Z",
    "disabled_at": None,
    "email": "bo@example.org",
    "has_password": True,
    "roles": [RIGHT],
}
KEY: dict[str, Any] = {
    "holder": "creek-box",
    "prefix": "5f1c2a9be077",
    "created_at": "2027-06-01T12:00:00Z",
    "expires_at": "2028-05-31T12:00:00Z",
    "revoked_at": None,
    "last_used_at": "2027-06-02T08:15:00Z",
}
SESSION: dict[str, Any] = {"name": "bo", "csrf": "q83v…", "expires_at": "2027-06-02T00:00:00Z"}


class RoleAssignment(BaseModel):
    """A role in one rollout or all ("") and at one site or all (""); an approver has a group."""

    model_config = ConfigDict(
        extra="forbid", from_attributes=True, json_schema_extra={"example": RIGHT}
    )

    role: Literal["viewer", "reviewer", "operator", "approver", "ingest", "admin"]
    rollout: str = Field(default="", max_length=200)
    site: str = Field(default="", max_length=200)
    group: str = Field(default="", max_length=64)

    @property
    def right(self) -> Right:
        """Return it as the core has it."""
        return Right(self.role, self.rollout, self.site, self.group)


class UserRequest(BaseModel):
    """Somebody new, or a machine."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "bo", "roles": [RIGHT]}}
    )

    name: str = Field(max_length=64, description=NAMED)
    service_account: bool = False
    email: str = Field(default="", max_length=320)
    roles: list[RoleAssignment] = Field(default_factory=list, max_length=50)


class UserChangeRequest(BaseModel):
    """What is to change; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"grant_roles": [RIGHT]}}
    )

    disabled: bool | None = None
    email: str | None = Field(default=None, max_length=320)
    grant_roles: list[RoleAssignment] = Field(default_factory=list, max_length=50)
    revoke_roles: list[RoleAssignment] = Field(default_factory=list, max_length=50)

    @property
    def amendment(self) -> Amendment:
        """Return it as the service takes it."""
        return Amendment(
            disabled=self.disabled,
            email=self.email,
            give=tuple(form.right for form in self.grant_roles),
            take=tuple(form.right for form in self.revoke_roles),
        )


class User(BaseModel):
    """Somebody, or a machine, and what they may do."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": PERSON})

    name: str
    service_account: bool = Field(validation_alias="machine")
    added_at: datetime
    disabled_at: datetime | None
    email: str
    has_password: bool
    roles: list[RoleAssignment] = Field(validation_alias="rights")

    @classmethod
    def of(cls, member: Member) -> "User":
        """Return what is shown of somebody."""
        return cls.model_validate(member)


class PasswordLink(BaseModel):
    """A link's token, this once: whoever has it sets the password."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "bo", "token": "9bX0…"}})

    name: str
    token: str


class CurrentAccount(BaseModel):
    """Who asks, with the rights of a revision of the house chain."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"name": "bo", "service_account": False, "roles": [RIGHT], "access_head": 12}
        }
    )

    name: str
    service_account: bool
    roles: list[RoleAssignment]
    access_head: int | None


class PasswordRequest(BaseModel):
    """One's own new password, with the present one where there is one."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"password": "a sentence is fine", "current": "what it was until now"}
        },
    )

    password: str = Field(max_length=1_000)
    current: str = Field(default="", max_length=1_000)


class ApiKeyRequest(BaseModel):
    """A key to be made: of oneself, or as an admin of anybody."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"holder": "creek-box"}}
    )

    holder: str | None = Field(default=None, max_length=64, description="by default oneself")
    expires_at: AwareDatetime | None = Field(
        default=None, description="by default in 365 days for service accounts, in 90 for users"
    )


class CreatedApiKey(BaseModel):
    """A key, this once."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "example": {
                "holder": "creek-box",
                "prefix": "5f1c2a9be077",
                "expires_at": "2028-05-31T12:00:00Z",
                "key": "ro_5f1c2a9be077_…",
            }
        },
    )

    holder: str
    prefix: str
    expires_at: datetime
    key: str

    @classmethod
    def of(cls, made: MadeKey) -> "CreatedApiKey":
        """Return the answer to whoever made it."""
        return cls(
            holder=made.holder, prefix=made.prefix, expires_at=made.expires_at, key=made.text
        )


class ApiKeyMetadata(BaseModel):
    """A key as it may be listed."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": KEY})

    holder: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class SignInRequest(BaseModel):
    """A name and its password."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"name": "bo", "password": "a sentence is fine"}},
    )

    name: str = Field(max_length=64)
    password: str = Field(max_length=1_000)


class LinkSignInRequest(BaseModel):
    """A one-time link, the password to be set, and for the first admin's link a name."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"token": "9bX0…", "password": "a sentence is fine"}},
    )

    token: str = Field(max_length=200)
    password: str = Field(max_length=1_000)
    name: str = Field(default="", max_length=64)


class BrowserSession(BaseModel):
    """A session; what changes something brings `csrf` in the header `X-CSRF-Token`."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": SESSION})

    name: str
    csrf: str
    expires_at: datetime

    @classmethod
    def of(cls, signed_in: SignedIn) -> "BrowserSession":
        """Return what a page is told; the token itself is in the cookie alone."""
        return cls.model_validate(signed_in)


class UserList(Page[User]):
    """Users and service accounts, in the order in which they were created."""


class ApiKeyList(Page[ApiKeyMetadata]):
    """API keys, the oldest first."""
