"""Events of accounts, roles and keys: the kinds of the access ledger's rows.

The access ledger is one for all rollouts. Its rows have the same form as those of a rollout's
ledger, and each row of a rollout cites the revision of it that the roles were judged by. No row
holds a secret, a password or an address.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from rollout.core.scope.events import ACCOUNT, Event
from rollout.core.scope.permissions import Right


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


@dataclass(frozen=True, slots=True)
class Household:
    """Everybody by name, those who are disabled, and what each has: rights, keys not revoked."""

    people: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    rights: frozenset[tuple[str, Right]] = frozenset()
    keys: frozenset[tuple[str, str]] = frozenset()

    def differences(self, other: "Household") -> tuple[str, ...]:
        """Say what the `other` has more or less, a sentence each; () for nothing."""
        sentences = []
        for part in ("people", "machines", "disabled", "rights", "keys"):
            own_entries, other_entries = getattr(self, part), getattr(other, part)
            sentences += [
                f"{_said(entry)} is not in the chain: {part}"
                for entry in other_entries - own_entries
            ]
            sentences += [
                f"{_said(entry)} is in the chain alone: {part}"
                for entry in own_entries - other_entries
            ]
        return tuple(sorted(sentences))


def household(events: Iterable[Event]) -> Household:
    """Return what a whole house chain comes to.

    >>> household([]).people
    frozenset()
    """
    users, service_accounts, disabled = set[str](), set[str](), set[str]()
    assignments_by_user, keys_by_user = (
        defaultdict[str, set[Right]](set),
        defaultdict[str, set[str]](set),
    )
    for event in events:
        match event:
            case UserAdded(user=name):
                users.add(name)
                service_accounts |= {name} if event.service_account else set()
            case UserDisabled(user=name):
                disabled.add(name)
                assignments_by_user[name].clear()
                keys_by_user[name].clear()
            case UserEnabled(user=name):
                disabled.discard(name)
            case RoleGranted(user=name):
                assignments_by_user[name].add(_right(event))
            case RoleRevoked(user=name):
                assignments_by_user[name].discard(_right(event))
            case KeyCreated(user=name, prefix=prefix):
                keys_by_user[name].add(prefix)
            case KeyRevoked(user=name, prefix=prefix):
                keys_by_user[name].discard(prefix)
    return Household(
        people=frozenset(users),
        machines=frozenset(service_accounts),
        disabled=frozenset(disabled),
        rights=frozenset(
            (name, assignment)
            for name, entries in assignments_by_user.items()
            for assignment in entries
        ),
        keys=frozenset(
            (name, prefix) for name, entries in keys_by_user.items() for prefix in entries
        ),
    )


def _right(event: RoleGranted | RoleRevoked) -> Right:
    return Right(event.role, event.rollout, event.site, event.group)


def _said(one: object) -> str:
    return ": ".join(map(str, one)) if isinstance(one, tuple) else str(one)
