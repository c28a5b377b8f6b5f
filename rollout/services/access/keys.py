"""API keys: made once and shown once, listed without their secret, revoked at once."""

import base64
import binascii
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rollout.core.access.access_events import KeyCreated, KeyRevoked, OneTimeLinkCreated
from rollout.core.errors import NotAllowed, PersonRefused, UnknownKey
from rollout.core.ledger.ledger import event_of
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.access.access_state import changing, require_own
from rollout.store.access.access_ledger import house_head
from rollout.store.access.api_keys import ApiKey, ApiKeys
from rollout.store.access.users import People
from rollout.store.database.rollouts import HOUSE_CHAIN
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger


def house_revision(database: Database) -> int:
    """Return where the house chain is; 0 before anything was written to it."""
    with database.reading() as transaction:
        return house_head(transaction).revision or 0


def link_made_since(
    database: Database, caller: Caller, name: str, revision: int
) -> datetime | None:
    """Return when a link was made for somebody after a revision of the house chain, None if never.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
    """
    require(caller, Act.ADMINISTER, "")
    with database.reading() as transaction:
        if house_head(transaction).revision is None:
            return None
        ledger = Ledger(transaction, HOUSE_CHAIN)
        rows = ledger.rows(after=revision, kinds=(OneTimeLinkCreated.__name__,))
        link_events = [event_of(row) for row in rows if row.fields["user"] == name]
    return link_events[-1].at if link_events else None


SIZE = 32
"""Bytes: as many as nobody guesses."""


def write_token(token: bytes) -> str:
    """Return a token as text without padding.

    >>> write_token(b"ABC")
    'QUJD'
    """
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def read_token(text: str) -> bytes:
    """Return a token's bytes; none of what is no token.

    >>> read_token("QUJD"), read_token("ä"), read_token("")
    (b'ABC', b'', b'')
    """
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (UnicodeError, binascii.Error):
        return b""


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
        user, keys = change.person(holder), ApiKeys(change.transaction)
        if user.disabled_at is not None:
            raise PersonRefused(f"{holder} is disabled; enable the account first")
        end = _end(at, expires_at, machine=user.machine)
        if keys.find(prefix) is not None:
            raise PersonRefused(f"another key has the random prefix {prefix}; try again")
        keys.add(user, prefix=prefix, secret=secret, at=at, expires_at=end)
        event = KeyCreated(at=at, by=caller.name, user=holder, prefix=prefix, expires_at=end)
        change.house.append([event])
        return MadeKey(holder, prefix, end, f"{MARK}_{prefix}_{secret}")


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
        user = People(transaction).find(holder)
        return () if user is None else tuple(ApiKeys(transaction).of(user))


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
            event = KeyRevoked(at=at, by=caller.name, user=key.holder, prefix=prefix)
            change.house.append([event])


def parts(text: str) -> tuple[str, str]:
    """Return prefix and secret of a key's text; two empty ones of what is none.

    >>> parts("ro_00ff_5ec4e7")
    ('00ff', '5ec4e7')
    """
    key_mark, _, rest = text.partition("_")
    prefix, _, secret = rest.partition("_")
    return (prefix, secret) if key_mark == MARK and prefix and secret else ("", "")


def _end(at: datetime, wanted: datetime | None, *, machine: bool) -> datetime:
    if wanted is None:
        return at + (MACHINES if machine else PERSONS)
    if not at < wanted <= at + LONGEST:
        raise PersonRefused(
            f"a key expires in the future and within {LONGEST.days} days: name a time up to "
            f"{at + LONGEST:%Y-%m-%d}"
        )
    return wanted
