"""Keys of people and machines: shown once, kept as a hash, told apart by a prefix.

A key's secret is made by whoever calls, from the operating system's chance. It is long, so a
plain SHA-256 can't be searched; passwords are another matter and are not kept here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest

from sqlalchemy import Row, insert, select, update

from rollout.store.people import Person, person_of
from rollout.store.session import Transaction
from rollout.store.tables import keys, people

SHORTEST_SECRET = 32  # letters: 128 bits in hexadecimal


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it may be listed: never its secret."""

    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


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
            "person": person.number,
            "prefix": prefix,
            "hash": _hash(secret),
            "created_at": at,
            "expires_at": expires_at,
        }
        self._transaction.execute(insert(keys).values(row))

    def holder(self, prefix: str, secret: str, *, at: datetime) -> Person | None:
        """Return whose valid key this is at an instant; None in every other case."""
        query = (
            select(people, keys.c.hash, keys.c.expires_at, keys.c.revoked_at)
            .join(keys, keys.c.person == people.c.id)
            .where(keys.c.prefix == prefix, people.c.disabled_at.is_(None))
        )
        row = self._transaction.execute(query).one_or_none()
        if row is None or not compare_digest(row.hash, _hash(secret)):
            return None
        ended = row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= at)
        return None if ended else person_of(row)

    def used(self, prefix: str, *, at: datetime) -> None:
        """Note when a key was used last."""
        self._transaction.execute(
            update(keys).where(keys.c.prefix == prefix).values(last_used_at=at)
        )

    def revoke(self, prefix: str, *, at: datetime) -> None:
        """End a key; one that has ended stays ended since then."""
        still_open = (keys.c.prefix == prefix, keys.c.revoked_at.is_(None))
        self._transaction.execute(update(keys).where(*still_open).values(revoked_at=at))

    def of(self, person: Person) -> Sequence[ApiKey]:
        """Return a person's keys, oldest first."""
        query = select(keys).where(keys.c.person == person.number).order_by(keys.c.id)
        return [_key(row) for row in self._transaction.execute(query)]


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()


def _key(row: Row[tuple[object, ...]]) -> ApiKey:
    return ApiKey(row.prefix, row.created_at, row.expires_at, row.revoked_at, row.last_used_at)
