"""Links that work once: by them people set their first password, and the first admin comes in."""

from datetime import datetime
from hashlib import sha256

from sqlalchemy import insert, or_, select, update

from rollout.store.access.users import People, Person
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import one_time_links


class OneTimeLinks:
    """The links that were made, by the hash of their secret."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(
        self, person: Person | None, secret: str, *, at: datetime, expires_at: datetime
    ) -> None:
        """Keep a link's hash; without a person it is the first admin's."""
        row = {
            "user_id": None if person is None else person.number,
            "hash": _hash(secret),
            "created_at": at,
            "expires_at": expires_at,
        }
        self._transaction.execute(insert(one_time_links).values(row))

    def use(self, secret: str, *, at: datetime) -> tuple[bool, Person | None]:
        """Use a link up: say whether it was valid, and whose it is, None for the first admin's.

        Of several who use it at once exactly one is told yes.
        """
        conditions = (
            one_time_links.c.hash == _hash(secret),
            one_time_links.c.used_at.is_(None),
            one_time_links.c.expires_at > at,
        )
        result = self._transaction.execute(
            update(one_time_links).where(*conditions).values(used_at=at)
        )
        if not result.rowcount:
            return False, None
        query = select(one_time_links.c.user_id).where(one_time_links.c.hash == _hash(secret))
        user_id: int | None = self._transaction.execute(query).scalar()
        return True, None if user_id is None else People(self._transaction).numbered(user_id)

    def end(self, person: Person, *, at: datetime) -> None:
        """End whatever links are open for a person, and those of first admins: one is there."""
        owner_condition = or_(
            one_time_links.c.user_id == person.number, one_time_links.c.user_id.is_(None)
        )
        is_unused = one_time_links.c.used_at.is_(None)
        self._transaction.execute(
            update(one_time_links).where(owner_condition, is_unused).values(used_at=at)
        )


def _hash(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
