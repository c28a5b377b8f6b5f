"""What has happened to people, rights and keys: the kinds of the house chain's rows.

The house chain is one for all rollouts. Its rows have the same form as those of a rollout's
ledger, and each row of a rollout cites the revision of it that the rights were judged by. No row
holds a secret, a password or an address.
"""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class OfPerson(Event):
    """Something that happened to one person or machine, by name."""

    person: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAdded(OfPerson):
    """A name was given, for ever."""

    machine: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonDisabled(OfPerson):
    """Nothing of theirs is valid: rights, password, keys, sessions and links ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonEnabled(OfPerson):
    """They may come in again, without any right; nothing that ended comes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSet(OfPerson):
    """They have a new password; every session that they had ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailSet(OfPerson):
    """The address by which an identity provider's first word is believed is another, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityLinked(OfPerson):
    """An identity provider's subject is this person from now on."""

    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RightGiven(OfPerson):
    """They may do what the role may; "" for rollout or site means all of them."""

    role: str
    rollout: str = ""
    site: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RightTaken(OfPerson):
    """They may no longer; the fields are those of the right that was given."""

    role: str
    rollout: str = ""
    site: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMade(OfPerson):
    """A key of theirs begins; `prefix` tells it from others."""

    prefix: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(OfPerson):
    """A key of theirs ended before its time."""

    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkMade(OfPerson):
    """A link by which they set a password, once; of nobody's, by which the first admin comes in."""

    expires_at: datetime


HOUSE_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        PersonAdded,
        PersonDisabled,
        PersonEnabled,
        PasswordSet,
        EmailSet,
        IdentityLinked,
        RightGiven,
        RightTaken,
        KeyMade,
        KeyRevoked,
        LinkMade,
    )
}
