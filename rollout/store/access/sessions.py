"""Sessions of users: a random token that only the browser has, stored as a hash."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from sqlalchemy import ColumnElement, delete, insert, or_, select, update

from rollout.store.access.users import StoredUser
from rollout.store.database.bulk import insert_once
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import sessions, sign_in_addresses

MAX_ADDRESSES_PER_USER = 50


class SignInAddresses:
    """The addresses of all users, the newest of each."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def has(self, user: StoredUser, address: str) -> bool:
        """Return whether the user signed in from an address before."""
        query = select(sign_in_addresses.c.used_at).where(
            sign_in_addresses.c.user_id == user.number,
            sign_in_addresses.c.hash == _hash_address(user, address),
        )
        return self._transaction.execute(query).first() is not None

    def add(self, user: StoredUser, address: str, *, at: datetime) -> None:
        """Store an address, and delete the user's oldest ones above the limit."""
        row = {"user_id": user.number, "hash": _hash_address(user, address), "used_at": at}
        is_new = insert_once(self._transaction, sign_in_addresses, row)
        if not is_new:
            return
        is_own = sign_in_addresses.c.user_id == user.number
        query = select(sign_in_addresses.c.hash).where(is_own)
        newest_first = query.order_by(sign_in_addresses.c.used_at.desc())
        hashes = self._transaction.execute(newest_first.offset(MAX_ADDRESSES_PER_USER)).scalars()
        old = sign_in_addresses.c.hash.in_(list(hashes))
        self._transaction.execute(delete(sign_in_addresses).where(is_own, old))


def _hash_address(user: StoredUser, address: str) -> bytes:
    """Return the hash of an address, unlike that of another user's same address."""
    return sha256(f"{user.number} {address}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was not ended; the caller compares its expiry."""

    user_id: int
    csrf: bytes = field(repr=False)
    expires_at: datetime
    seen_at: datetime
    second_factor: str = ""


class Sessions:
    """The sessions of all users, by the hash of their token."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def start(
        self,
        user: StoredUser,
        token: bytes,
        csrf: bytes,
        *,
        at: datetime,
        expires_at: datetime,
        second_factor: str = "",
    ) -> None:
        """Store a new session and delete the user's old ones.

        `second_factor` is the kind that was given, "" for none.
        """
        is_over = or_(sessions.c.expires_at <= at, sessions.c.ended_at.is_not(None))
        self._transaction.execute(
            delete(sessions).where(sessions.c.user_id == user.number, is_over)
        )
        row = {
            "user_id": user.number,
            "hash": hash_session_token(token),
            "csrf": csrf,
            "created_at": at,
            "expires_at": expires_at,
            "last_used_at": at,
            "second_factor": second_factor or None,
        }
        self._transaction.execute(insert(sessions).values(row))

    def find(self, hashed: bytes) -> Session | None:
        """Return the session with this token hash, unless ended."""
        query = select(sessions).where(sessions.c.hash == hashed, sessions.c.ended_at.is_(None))
        row = self._transaction.execute(query).one_or_none()
        if row is None:
            return None
        return Session(
            row.user_id,
            row.csrf,
            row.expires_at,
            row.last_used_at or row.created_at,
            row.second_factor or "",
        )

    def list_open(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Return those of some token hashes whose sessions were not ended."""
        query = select(sessions.c.hash).where(
            sessions.c.hash.in_(list(hashes)), sessions.c.ended_at.is_(None)
        )
        return set(self._transaction.execute(query).scalars())

    def set_second_factor(self, hashed: bytes, kind: str) -> None:
        """Store the kind of second factor that was given during a session."""
        statement = update(sessions).where(sessions.c.hash == hashed)
        self._transaction.execute(statement.values(second_factor=kind))

    def record_uses(self, uses: Mapping[bytes, datetime]) -> None:
        """Store when each session, by token hash, was last used."""
        for hashed, at in uses.items():
            statement = update(sessions).where(sessions.c.hash == hashed)
            self._transaction.execute(statement.values(last_used_at=at))

    def end(self, hashed: bytes, *, at: datetime) -> None:
        """End a session; an ended one keeps its first end time."""
        self._end(sessions.c.hash == hashed, at)

    def end_all(self, user: StoredUser, *, at: datetime) -> None:
        """End all sessions of a user."""
        self._end(sessions.c.user_id == user.number, at)

    def end_others(self, user: StoredUser, hashed: bytes, *, at: datetime) -> None:
        """End all sessions of a user but the one with this token hash."""
        self._end((sessions.c.user_id == user.number) & (sessions.c.hash != hashed), at)

    def _end(self, condition: ColumnElement[bool], at: datetime) -> None:
        statement = update(sessions).where(condition, sessions.c.ended_at.is_(None))
        self._transaction.execute(statement.values(ended_at=at))


def hash_session_token(token: bytes) -> bytes:
    """Return the hash under which a token is stored.

    The token is random and long, so a plain hash can't be searched.
    """
    return sha256(token).digest()
