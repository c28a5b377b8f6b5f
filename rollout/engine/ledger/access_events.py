"""Events of the access ledger (accounts, roles and keys), and account ids in the place of names.

One access ledger serves all rollouts. Its rows have the form of a rollout's ledger; each row of a
rollout cites the revision whose roles were checked. Rows hold no secret, password or address.

Rows of ledgers hold opaque account ids instead of names. A separate table maps them to names; an
erasure deletes its rows, and an id without a name is shown as it is.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.decide.scope_builder import ScopeBuilder
from rollout.engine.events import (
    ACCOUNT,
    ENGINE,
    FREE_TEXT,
    OMITTED_WHEN_EMPTY,
    LedgerEvent,
    build_registry,
)


class AccessEvent(LedgerEvent):
    """An event of the access ledger."""

    __slots__ = ()

    @property
    def account(self) -> str | None:
        """Return the name of the account that it is about, or None."""
        return None

    def apply(self, builder: ScopeBuilder) -> None:
        """Leave the scope: no rollout has this event."""

    def add_credentials(self, digest: str) -> "AccessEvent":
        """Return the event, one about an account with the digest of its credentials."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEvent(AccessEvent):
    """An event about one account, by name.

    Attributes:
        credentials: digest of all that the account signs in with afterwards; "" if the next event
            of its transaction has it, or it is erased.
    """

    user: str = field(metadata={ACCOUNT: True})
    credentials: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def account(self) -> str:
        """Return its user."""
        return self.user

    def add_credentials(self, digest: str) -> "UserEvent":
        """Return the event with the digest."""
        return replace(self, credentials=digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserAdded(UserEvent):
    """An account was created; its name is never reused."""

    service_account: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDisabled(UserEvent):
    """An account was disabled: its roles, password, keys, sessions and links ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserErased(UserEvent):
    """A user's name and address were erased; only the id is left."""

    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class UserEnabled(UserEvent):
    """An account was enabled again, without any role, key or password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSet(UserEvent):
    """A new password was set; all sessions of the user ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordRehashed(UserEvent):
    """The same password was hashed anew at a sign-in, as the hash's cost changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFactorAdded(UserEvent):
    """The user confirmed a second factor; their other sessions ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFactorRemoved(UserEvent):
    """The user removed their second factor, by a code of it; their sessions ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryCodeUsed(UserEvent):
    """A recovery code was used in the place of a code of the app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsReset(UserEvent):
    """Another user replaced a way to sign in: approvals pause for a day.

    `credential` is `password`, `second factor`, `e-mail address` or `key`.
    """

    credential: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailSet(UserEvent):
    """The e-mail address for the first sign-in by identity provider changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityLinked(UserEvent):
    """An identity provider's subject was linked to the user."""

    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleEvent(UserEvent):
    """An event about one role."""

    role: str
    rollout: str = ""
    site: str = ""
    group: str = ""

    @property
    def assigned_role(self) -> AssignedRole:
        """Return the role."""
        return AssignedRole(self.role, self.rollout, self.site, self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleGranted(RoleEvent):
    """A role was granted; "" for rollout or site means all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRevoked(RoleEvent):
    """A role was revoked; "" for rollout or site means all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyCreated(UserEvent):
    """An API key was created; `prefix` identifies it."""

    prefix: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevoked(UserEvent):
    """An API key was revoked before its end."""

    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeLinkCreated(UserEvent):
    """A one-time link to set a password was created.

    `user` is "" for the link of the first admin. `link` is a digest of the link and its end.
    """

    expires_at: datetime
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointKeyUsed(AccessEvent):
    """A service began to sign heads of ledgers; `public_key` is in hex."""

    public_key: str


ACCESS_KINDS: dict[str, type[AccessEvent]] = build_registry(
    UserAdded,
    UserDisabled,
    UserErased,
    UserEnabled,
    PasswordSet,
    PasswordRehashed,
    SecondFactorAdded,
    SecondFactorRemoved,
    RecoveryCodeUsed,
    CredentialsReset,
    EmailSet,
    IdentityLinked,
    RoleGranted,
    RoleRevoked,
    KeyCreated,
    KeyRevoked,
    OneTimeLinkCreated,
    CheckpointKeyUsed,
)


PARTS = ("people", "machines", "disabled", "rights", "keys", "factors", "resets")


@dataclass(frozen=True, slots=True)
class AccessState:
    """Accounts, disabled accounts, roles, valid keys, second factors and resets, by name.

    Attributes:
        credentials: digests of all that each account signs in with.
        links: digests of open one-time links; those in the database may be fewer.
    """

    people: frozenset[str] = frozenset()
    machines: frozenset[str] = frozenset()
    disabled: frozenset[str] = frozenset()
    rights: frozenset[tuple[str, AssignedRole]] = frozenset()
    keys: frozenset[tuple[str, str]] = frozenset()
    factors: frozenset[str] = frozenset()
    resets: frozenset[tuple[str, str, str, datetime]] = frozenset()
    credentials: frozenset[tuple[str, str]] = frozenset()
    links: frozenset[tuple[str, str]] = frozenset()

    def describe_differences(self, other: "AccessState") -> tuple[str, ...]:
        """Return a sentence for each entry that only one state has."""
        sentences = []
        for part in PARTS:
            entries, other_entries = getattr(self, part), getattr(other, part)
            sentences += [
                f"{_format_entry(entry)} is not in the chain: {part}"
                for entry in other_entries - entries
            ]
            sentences += [
                f"{_format_entry(entry)} is in the chain alone: {part}"
                for entry in entries - other_entries
            ]
        sentences += [
            f"{name}: password, e-mail address, keys, second factor or identity are not those of"
            " the chain"
            for name in {name for name, _ in self.credentials ^ other.credentials}
            if name in self.people & other.people
        ]
        sentences += [
            f"a one-time link{f' of {name}' if name else ''} is not in the chain"
            for name, _ in other.links - self.links
        ]
        return tuple(sorted(sentences))


def build_access_state(events: Iterable[LedgerEvent]) -> AccessState:
    """Return the state after all events of an access ledger.

    >>> build_access_state([]).people
    frozenset()
    """
    users, service_accounts, disabled = set[str](), set[str](), set[str]()
    roles, keys = set[tuple[str, AssignedRole]](), set[tuple[str, str]]()
    all_events = tuple(events)
    for event in all_events:
        match event:
            case UserAdded(user=name):
                users.add(name)
                service_accounts |= {name} if event.service_account else set()
            case UserDisabled(user=name):
                disabled.add(name)
                roles = {entry for entry in roles if entry[0] != name}
                keys = {entry for entry in keys if entry[0] != name}
            case UserEnabled(user=name):
                disabled.discard(name)
            case RoleGranted(user=name):
                roles.add((name, event.assigned_role))
            case RoleRevoked(user=name):
                roles.discard((name, event.assigned_role))
            case KeyCreated(user=name, prefix=prefix):
                keys.add((name, prefix))
            case KeyRevoked(user=name, prefix=prefix):
                keys.discard((name, prefix))
    return AccessState(
        people=frozenset(users),
        machines=frozenset(service_accounts),
        disabled=frozenset(disabled),
        rights=frozenset(roles),
        keys=frozenset(keys),
        factors=_list_factors(all_events),
        resets=frozenset(
            (event.user, event.credential, event.by if event.by in users else "", event.at)
            for event in all_events
            if isinstance(event, CredentialsReset)
        ),
        credentials=_find_digests(all_events),
        links=_list_links(all_events),
    )


def _list_links(events: Iterable[LedgerEvent]) -> frozenset[tuple[str, str]]:
    """Return the links that nothing has ended; time has ended more of them."""
    links = dict[str, set[str]]()
    for event in events:
        match event:
            case OneTimeLinkCreated(user=name) if name:
                links[name] = {event.link}
            case OneTimeLinkCreated():
                links.setdefault("", set()).add(event.link)
            case UserAdded():
                links.pop("", None)
            case PasswordSet(user=name) | UserDisabled(user=name):
                links.pop(name, None)
    return frozenset((name, link) for name in links for link in links[name])


def _find_digests(events: Iterable[LedgerEvent]) -> frozenset[tuple[str, str]]:
    """Return the newest digest of each account that has one."""
    digests = {event.user: event.credentials for event in events if isinstance(event, UserEvent)}
    return frozenset((name, digest) for name, digest in digests.items() if digest)


def _list_factors(events: Iterable[LedgerEvent]) -> frozenset[str]:
    """Return the users with a confirmed second factor."""
    factors = set[str]()
    for event in events:
        match event:
            case SecondFactorAdded(user=name):
                factors.add(name)
            case (
                SecondFactorRemoved(user=name)
                | UserDisabled(user=name)
                | CredentialsReset(user=name, credential="second factor")
            ):
                factors.discard(name)
    return frozenset(factors)


def _format_entry(entry: object) -> str:
    return ": ".join(map(str, entry)) if isinstance(entry, tuple) else str(entry)


REPLAY: Final = "replay"
"""Actor that applies the policy in a replay."""
SIMULATED: Final = "simulated-"
"""Prefix of the names of a replay's approvers."""
NOT_ACCOUNTS: Final = frozenset({"", ENGINE, REPLAY})
"""Actors without an account; the ledger holds their names, as those of simulated approvers."""
ACCOUNT_ID: Final = re.compile(r"u-[a-z2-7]{16}")


@dataclass(frozen=True, slots=True)
class AccountNames:
    """Names of some accounts by id, and ids by name.

    >>> AccountNames.from_ids({"ana": "u-aaaaaaaaaaaaaaaa"}).find_name("u-aaaaaaaaaaaaaaaa")
    'ana'
    """

    names: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_ids(cls, ids: Mapping[str, str]) -> "AccountNames":
        """Build both directions from ids by name."""
        return cls({account: name for name, account in ids.items()}, ids)

    def find_id(self, name: str) -> str:
        """Return the id of a name, or the name itself if unknown."""
        return self.ids.get(name, name)

    def find_name(self, account: str) -> str:
        """Return the name of an id, or the id itself if unknown."""
        return self.names.get(account, account)


NO_NAMES: Final = AccountNames()
"""No names, for replays and for files read without the service."""


def is_account_name(name: str) -> bool:
    """Return whether an actor's name can be an account's; an id is none.

    >>> is_account_name("ana"), is_account_name("policy"), is_account_name("simulated-1")
    (True, False, False)
    """
    return name not in NOT_ACCOUNTS and not name.startswith(SIMULATED) and not is_account_id(name)


def is_account_id(text: str) -> bool:
    """Return whether a text has the form of an account id."""
    return ACCOUNT_ID.fullmatch(text) is not None
