"""Second factors of users, with their recovery codes; secrets come encrypted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, func, insert, select, update

from rollout.store.access.users import StoredUser
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import recovery_codes, second_factors


@dataclass(frozen=True, slots=True)
class StoredFactor:
    """A second factor; without `confirmed_at` its user never gave a code of it."""

    secret: bytes = field(repr=False)
    created_at: datetime
    confirmed_at: datetime | None
    last_step: int


class SecondFactors:
    """The second factors of all users, at most one each."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def has_any(self) -> bool:
        """Return whether any user has a second factor, confirmed or not."""
        query = select(second_factors.c.user_id).limit(1)
        return self._transaction.execute(query).first() is not None

    def list_confirmed(self) -> Sequence[int]:
        """Return the numbers of the users with a confirmed second factor."""
        query = select(second_factors.c.user_id).where(second_factors.c.confirmed_at.is_not(None))
        return self._transaction.execute(query).scalars().all()

    def find(self, user: StoredUser) -> StoredFactor | None:
        """Return a user's second factor, or None."""
        query = select(second_factors).where(second_factors.c.user_id == user.number)
        row = self._transaction.execute(query).one_or_none()
        if row is None:
            return None
        return StoredFactor(row.secret, row.created_at, row.confirmed_at, row.last_step)

    def add(self, user: StoredUser, secret: bytes, *, at: datetime) -> None:
        """Store an unconfirmed second factor in the place of any other."""
        self.remove(user)
        row = {"user_id": user.number, "secret": secret, "created_at": at, "last_step": 0}
        self._transaction.execute(insert(second_factors).values(row))

    def confirm(self, user: StoredUser, *, at: datetime, code_hashes: Iterable[bytes]) -> None:
        """Mark the second factor as confirmed and store its recovery codes."""
        is_own = second_factors.c.user_id == user.number
        self._transaction.execute(update(second_factors).where(is_own).values(confirmed_at=at))
        rows = [{"user_id": user.number, "hash": code_hash} for code_hash in code_hashes]
        self._transaction.execute(insert(recovery_codes), rows)

    def use_step(self, user: StoredUser, step: int) -> bool:
        """Mark the code of a time step as used; return False if it or a later one was."""
        statement = update(second_factors).where(
            second_factors.c.user_id == user.number, second_factors.c.last_step < step
        )
        return self._transaction.execute(statement.values(last_step=step)).rowcount > 0

    def use_recovery_code(self, user: StoredUser, code_hash: bytes, *, at: datetime) -> bool:
        """Mark a recovery code as used; return False if there is no such unused one."""
        statement = update(recovery_codes).where(
            recovery_codes.c.user_id == user.number,
            recovery_codes.c.hash == code_hash,
            recovery_codes.c.used_at.is_(None),
        )
        return self._transaction.execute(statement.values(used_at=at)).rowcount > 0

    def count_recovery_codes(self, user: StoredUser) -> int:
        """Return how many recovery codes of a user are unused."""
        query = select(func.count()).where(
            recovery_codes.c.user_id == user.number, recovery_codes.c.used_at.is_(None)
        )
        count: int = self._transaction.execute(query).scalar_one()
        return count

    def remove(self, user: StoredUser) -> bool:
        """Remove factor and recovery codes; return whether a confirmed one was removed."""
        factor = self.find(user)
        self._transaction.execute(
            delete(recovery_codes).where(recovery_codes.c.user_id == user.number)
        )
        self._transaction.execute(
            delete(second_factors).where(second_factors.c.user_id == user.number)
        )
        return factor is not None and factor.confirmed_at is not None
