"""API keys: made once and shown once, listed without their secret, revoked at once."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rollout.core.errors import NotAllowed, PersonRefused, UnknownKey
from rollout.core.house import KeyCreated, KeyRevoked
from rollout.core.rights import Act, Caller, require
from rollout.services.house import changing, require_own
from rollout.store.api_keys import ApiKey, ApiKeys
from rollout.store.people import People
from rollout.store.session import Database

__all__ = [
    "CHANCE",
    "LONGEST",
    "MARK",
    "PREFIX",
    "ApiKey",
    "MadeKey",
    "keys_of",
    "make",
    "parts",
    "revoke",
]

CHANCE = 38
"""Bytes of chance in a key: 6 for its prefix, 32 for its secret."""
PREFIX = 6
MARK = "ro"
PERSONS, MACHINES = timedelta(days=90), timedelta(days=365)
LONGEST = timedelta(days=730)


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key's text: this once, and never again."""

    holder: str
    prefix: str
    expires_at: datetime
    text: str = field(repr=False)


def make(
    database: Database,
    caller: Caller,
    holder: str,
    *,
    chance: bytes,
    at: datetime,
    expires_at: datetime | None = None,
) -> MadeKey:
    """Make a key: people for themselves, an admin for anybody.

    Args:
        database: where keys are.
        caller: who asks.
        holder: the person or machine that it is to be of.
        chance: 38 bytes of the system's.
        at: now.
        expires_at: by default 365 days from now for machines, 90 for people; at most 730.

    Raises:
        NotAllowed: the caller may not.
        UnknownPerson: nobody is called as the holder.
        PersonRefused: the holder is disabled, or the span can't be.
    """
    require_own(caller, holder, "make a key")
    if len(chance) != CHANCE:
        raise ValueError(f"a key takes {CHANCE} bytes of chance, not {len(chance)}")
    prefix, secret = chance[:PREFIX].hex(), chance[PREFIX:].hex()
    with changing(database, caller) as change:
        require_own(change.caller, holder, "make a key")
        person, keys = change.person(holder), ApiKeys(change.transaction)
        if person.disabled_at is not None:
            raise PersonRefused(f"{holder} is disabled; enable the account first")
        ends = _end(at, expires_at, machine=person.machine)
        if keys.find(prefix) is not None:
            raise PersonRefused(f"another key has the random prefix {prefix}; try again")
        keys.add(person, prefix=prefix, secret=secret, at=at, expires_at=ends)
        made = KeyCreated(at=at, by=caller.name, user=holder, prefix=prefix, expires_at=ends)
        change.house.append([made])
        return MadeKey(holder, prefix, ends, f"{MARK}_{prefix}_{secret}")


def keys_of(database: Database, caller: Caller, holder: str | None = None) -> tuple[ApiKey, ...]:
    """Return keys, oldest first: of one holder, or everybody's for an admin, else one's own.

    Raises:
        NotAllowed: they are somebody else's, and the caller is no admin.
    """
    require(caller, Act.BE, "")
    if holder is None and not caller.may(Act.ADMINISTER, ""):
        holder = caller.name
    if holder not in {None, caller.name}:
        require(caller, Act.ADMINISTER, "")
    with database.reading() as transaction:
        if holder is None:
            return tuple(ApiKeys(transaction).all())
        person = People(transaction).find(holder)
        return () if person is None else tuple(ApiKeys(transaction).of(person))


def revoke(database: Database, caller: Caller, prefix: str, *, at: datetime) -> None:
    """End a key: one's own, or as an admin anybody's. One that has ended stays ended.

    Raises:
        UnknownKey: there is none of that prefix that the caller may see.
    """
    require(caller, Act.BE, "")
    with changing(database, caller) as change:
        keys = ApiKeys(change.transaction)
        key = keys.find(prefix)
        try:
            require_own(change.caller, "" if key is None else key.holder, "revoke a key")
        except NotAllowed:
            key = None
        if key is None:
            raise UnknownKey(
                f"{caller.name} has access to no key {prefix}; `rollout keys list` lists all"
            )
        if keys.revoke(prefix, at=at):
            ended = KeyRevoked(at=at, by=caller.name, user=key.holder, prefix=prefix)
            change.house.append([ended])


def parts(text: str) -> tuple[str, str]:
    """Return prefix and secret of a key's text; two empty ones of what is none.

    >>> parts("ro_00ff_5ec4e7")
    ('00ff', '5ec4e7')
    """
    mark, _, rest = text.partition("_")
    prefix, _, secret = rest.partition("_")
    return (prefix, secret) if mark == MARK and prefix and secret else ("", "")


def _end(at: datetime, wanted: datetime | None, *, machine: bool) -> datetime:
    if wanted is None:
        return at + (MACHINES if machine else PERSONS)
    if not at < wanted <= at + LONGEST:
        raise PersonRefused(
            f"a key expires in the future and within {LONGEST.days} days: name a time up to "
            f"{at + LONGEST:%Y-%m-%d}"
        )
    return wanted
