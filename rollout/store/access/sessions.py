"""Sessions of people who signed in: a random token that only they have, kept as a hash."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from sqlalchemy import delete, insert, or_, select, update

from rollout.store.access.users import Person
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import sessions


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was not ended; whether it has expired is for whoever knows the time."""

    person: int
    csrf: bytes = field(repr=False)
    expires_at: datetime
    seen_at: datetime


class Sessions:
    """The sessions of everybody, by the hash of their token."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def start(
        self, person: Person, token: bytes, csrf: bytes, *, at: datetime, expires_at: datetime
    ) -> None:
        """Begin a session; what is kept of the token is a hash. Old ones are cleared away."""
        is_over = or_(sessions.c.expires_at <= at, sessions.c.ended_at.is_not(None))
        self._transaction.execute(
            delete(sessions).where(sessions.c.user_id == person.number, is_over)
        )
        row = {
            "user_id": person.number,
            "hash": session_hash(token),
            "csrf": csrf,
            "created_at": at,
            "expires_at": expires_at,
            "last_used_at": at,
        }
        self._transaction.execute(insert(sessions).values(row))

    def find(self, hashed: bytes) -> Session | None:
        """Return the session whose token has that hash, None where there is none or it ended."""
        query = select(sessions).where(sessions.c.hash == hashed, sessions.c.ended_at.is_(None))
        row = self._transaction.execute(query).one_or_none()
        if row is None:
            return None
        return Session(row.user_id, row.csrf, row.expires_at, row.last_used_at or row.created_at)

    def seen(self, uses: Mapping[bytes, datetime]) -> None:
        """Note when sessions, by the hash of their token, were used last."""
        for hashed, at in uses.items():
            statement = update(sessions).where(sessions.c.hash == hashed)
            self._transaction.execute(statement.values(last_used_at=at))

    def end(self, hashed: bytes, *, at: datetime) -> None:
        """End one session; one that has ended stays ended."""
        still_open = (sessions.c.hash == hashed, sessions.c.ended_at.is_(None))
        self._transaction.execute(update(sessions).where(*still_open).values(ended_at=at))

    def end_all(self, person: Person, *, at: datetime) -> None:
        """End whatever sessions a person has."""
        still_open = (sessions.c.user_id == person.number, sessions.c.ended_at.is_(None))
        self._transaction.execute(update(sessions).where(*still_open).values(ended_at=at))


def session_hash(token: bytes) -> bytes:
    """Return what is kept of a token: it is random and long, so a plain hash can't be searched."""
    return sha256(token).digest()
