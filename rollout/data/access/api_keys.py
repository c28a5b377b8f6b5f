"""API keys of users and service accounts: shown once, stored as a hash, named by a prefix.

The caller makes the secret from the operating system's random source. It is long, so a plain
SHA-256 can't be searched. Passwords are hashed with argon2 instead.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, insert, select, update

from rollout.data.access.users import StoredUser
from rollout.data.database.session import Transaction
from rollout.data.tables.tables import api_keys, users

MIN_SECRET_LENGTH = 32  # letters: 128 bits in hexadecimal


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as lists show it, without its secret."""

    holder: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as authentication compares it, with its secret's hash."""

    user_id: int
    prefix: str
    hash: bytes = field(repr=False)
    expires_at: datetime | None
    second_factor: str = ""


class ApiKeys:
    """The API keys of all accounts."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(
        self,
        user: StoredUser,
        *,
        prefix: str,
        secret: str,
        at: datetime,
        expires_at: datetime | None = None,
        second_factor: str = "",
    ) -> None:
        """Store the hash of a new key.

        `second_factor` is the kind that its own user gave in the session that creates it.

        Raises:
            ValueError: the secret is too short.
            IntegrityError: the prefix exists already; make another.
        """
        if len(secret) < MIN_SECRET_LENGTH:
            raise ValueError(f"a secret needs {MIN_SECRET_LENGTH} letters or more")
        row = {
            "user_id": user.number,
            "prefix": prefix,
            "hash": hash_secret(secret),
            "created_at": at,
            "expires_at": expires_at,
            "second_factor": second_factor or None,
        }
        self._transaction.execute(insert(api_keys).values(row))

    def list_open(self, user_ids: Collection[int] | None = None) -> Sequence[StoredKey]:
        """Return the unrevoked keys of enabled accounts.

        Expired keys are included: the caller compares the time.
        """
        query = (
            select(api_keys)
            .join(users, api_keys.c.user_id == users.c.id)
            .where(api_keys.c.revoked_at.is_(None), users.c.disabled_at.is_(None))
        )
        if user_ids is not None:
            query = query.where(api_keys.c.user_id.in_(user_ids))
        rows = self._transaction.execute(query)
        return [
            StoredKey(row.user_id, row.prefix, row.hash, row.expires_at, row.second_factor or "")
            for row in rows
        ]

    def find_next_end(self) -> datetime | None:
        """Return when the first service account is without a valid key.

        That of an enabled account whose last unrevoked key ended counts, too; None if no key of
        one ends.
        """
        last_end = func.max(api_keys.c.expires_at)
        query = (
            select(last_end)
            .join(users, api_keys.c.user_id == users.c.id)
            .where(
                api_keys.c.revoked_at.is_(None),
                users.c.disabled_at.is_(None),
                users.c.service_account.is_(True),
            )
            .group_by(api_keys.c.user_id)
            .having(func.count() == func.count(api_keys.c.expires_at))  # none without an end
            .order_by(last_end)
            .limit(1)
        )
        end: datetime | None = self._transaction.execute(query).scalar()
        return end

    def record_uses(self, uses: Mapping[str, datetime]) -> None:
        """Store when each key, by prefix, was last used."""
        for prefix, at in uses.items():
            statement = update(api_keys).where(api_keys.c.prefix == prefix)
            self._transaction.execute(statement.values(last_used_at=at))

    def revoke(self, prefix: str, *, at: datetime) -> bool:
        """Revoke a key; return False if it was revoked before."""
        return self._revoke(api_keys.c.prefix == prefix, at) > 0

    def revoke_all(self, user: StoredUser, *, at: datetime) -> None:
        """Revoke all keys of a user."""
        self._revoke(api_keys.c.user_id == user.number, at)

    def _revoke(self, condition: ColumnElement[bool], at: datetime) -> int:
        statement = update(api_keys).where(condition, api_keys.c.revoked_at.is_(None))
        return self._transaction.execute(statement.values(revoked_at=at)).rowcount

    def find(self, prefix: str) -> ApiKey | None:
        """Return the key with this prefix, or None."""
        query = _select_keys().where(api_keys.c.prefix == prefix)
        return next(iter(self._load_keys(query)), None)

    def list_all(self) -> Sequence[ApiKey]:
        """Return the keys of all accounts, oldest first."""
        return self._load_keys(_select_keys())

    def list_for_user(self, user: StoredUser) -> Sequence[ApiKey]:
        """Return the keys of a user, oldest first."""
        return self._load_keys(_select_keys().where(api_keys.c.user_id == user.number))

    def _load_keys(self, query: Select[Any]) -> list[ApiKey]:
        rows = self._transaction.execute(query.order_by(api_keys.c.id))
        return [_build_key(row) for row in rows]


def hash_secret(secret: str) -> bytes:
    """Return the hash under which a secret is stored."""
    return sha256(secret.encode()).digest()


def _select_keys() -> Select[Any]:
    return select(api_keys, users.c.name.label("holder")).join(
        users, users.c.id == api_keys.c.user_id
    )


def _build_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        holder=row.holder,
        prefix=row.prefix,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )
