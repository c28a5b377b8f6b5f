"""Keys of people and machines: shown once, kept as a hash, told apart by a prefix.

A key's secret is made by whoever calls, from the operating system's chance. It is long, so a
plain SHA-256 can't be searched; passwords are another matter and are not kept here.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, Select, insert, select, update

from rollout.store.access.users import Person
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import api_keys, users

SHORTEST_SECRET = 32  # letters: 128 bits in hexadecimal


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be listed: never its secret."""

    holder: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeptKey:
    """A key as it is compared: whose it is, by number, and the hash of its secret."""

    person: int
    prefix: str
    hash: bytes = field(repr=False)
    expires_at: datetime | None


class ApiKeys:
    """The keys of everybody."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(
        self,
        person: Person,
        *,
        prefix: str,
        secret: str,
        at: datetime,
        expires_at: datetime | None = None,
    ) -> None:
        """Keep a key's hash.

        Raises:
            ValueError: the secret is short enough to be searched.
            IntegrityError: the prefix is taken; make another.
        """
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(f"a secret has {SHORTEST_SECRET} letters or more")
        row = {
            "user_id": person.number,
            "prefix": prefix,
            "hash": hash_of(secret),
            "created_at": at,
            "expires_at": expires_at,
        }
        self._transaction.execute(insert(api_keys).values(row))

    def open(self, only: Collection[int] | None = None) -> Sequence[KeptKey]:
        """Return the keys that were not revoked and whose holder is not disabled.

        Those that have expired are among them: whoever asks knows what time it is.

        Args:
            only: numbers of people; by default everybody.
        """
        query = (
            select(api_keys.c.user_id, api_keys.c.prefix, api_keys.c.hash, api_keys.c.expires_at)
            .join(users, api_keys.c.user_id == users.c.id)
            .where(api_keys.c.revoked_at.is_(None), users.c.disabled_at.is_(None))
        )
        if only is not None:
            query = query.where(api_keys.c.user_id.in_(only))
        rows = self._transaction.execute(query)
        return [KeptKey(row.user_id, row.prefix, row.hash, row.expires_at) for row in rows]

    def used(self, uses: Mapping[str, datetime]) -> None:
        """Note when keys, by prefix, were used last."""
        for prefix, at in uses.items():
            same_key = update(api_keys).where(api_keys.c.prefix == prefix)
            self._transaction.execute(same_key.values(last_used_at=at))

    def revoke(self, prefix: str, *, at: datetime) -> bool:
        """End a key; say no where it ended before: then it stays ended since then."""
        still_open = (api_keys.c.prefix == prefix, api_keys.c.revoked_at.is_(None))
        result = self._transaction.execute(
            update(api_keys).where(*still_open).values(revoked_at=at)
        )
        return result.rowcount > 0

    def revoke_all(self, person: Person, *, at: datetime) -> None:
        """End whatever keys a person has."""
        still_open = (api_keys.c.user_id == person.number, api_keys.c.revoked_at.is_(None))
        self._transaction.execute(update(api_keys).where(*still_open).values(revoked_at=at))

    def find(self, prefix: str) -> ApiKey | None:
        """Return the key of that prefix, None where there is none."""
        row = self._transaction.execute(_listed().where(api_keys.c.prefix == prefix)).one_or_none()
        return None if row is None else _key(row)

    def all(self) -> Sequence[ApiKey]:
        """Return everybody's keys, oldest first."""
        return [_key(row) for row in self._transaction.execute(_listed().order_by(api_keys.c.id))]

    def of(self, person: Person) -> Sequence[ApiKey]:
        """Return a person's keys, oldest first."""
        query = _listed().where(api_keys.c.user_id == person.number).order_by(api_keys.c.id)
        return [_key(row) for row in self._transaction.execute(query)]


def hash_of(secret: str) -> bytes:
    """Return what is kept of a secret."""
    return sha256(secret.encode()).digest()


def _listed() -> Select[Any]:
    return select(api_keys, users.c.name.label("holder")).join(
        users, users.c.id == api_keys.c.user_id
    )


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        holder=row.holder,
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
