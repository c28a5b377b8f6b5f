"""Events of accounts, roles and keys: the kinds of the access ledger's rows.

The access ledger is one for all rollouts. Its rows have the same form as those of a rollout's
ledger, and each row of a rollout cites the revision of it that the roles were judged by. No row
holds a secret, a password or an address.
"""

from dataclasses import dataclass, field
from datetime import datetime

from rollout.core.events import ACCOUNT, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEvent(Event):
    """Something that happened to one person or machine, by name."""

    user: str = field(metadata={ACCOUNT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAdded(UserEvent):
    """A name was given, for ever."""

    service_account: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDisabled(UserEvent):
    """Nothing of theirs is valid: rights, password, keys, sessions and links ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEnabled(UserEvent):
    """They may come in again, without any right; nothing that ended comes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSet(UserEvent):
    """They have a new password; every session that they had ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailSet(UserEvent):
    """The address by which an identity provider's first word is believed is another, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityLinked(UserEvent):
    """An identity provider's subject is this person from now on."""

    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleGranted(UserEvent):
    """They may do what the role may; "" for rollout or site means all of them."""

    role: str
    rollout: str = ""
    site: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRevoked(UserEvent):
    """They may no longer; the fields are those of the right that was given."""

    role: str
    rollout: str = ""
    site: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreated(UserEvent):
    """A key of theirs begins; `prefix` tells it from others."""

    prefix: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(UserEvent):
    """A key of theirs ended before its time."""

    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeLinkCreated(UserEvent):
    """A link by which they set a password, once; of nobody's, by which the first admin comes in."""

    expires_at: datetime


ACCESS_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        UserAdded,
        UserDisabled,
        UserEnabled,
        PasswordSet,
        EmailSet,
        IdentityLinked,
        RoleGranted,
        RoleRevoked,
        KeyCreated,
        KeyRevoked,
        OneTimeLinkCreated,
    )
}
