"""The secret addresses under which calendar programs read schedules, one a user."""

from datetime import datetime

from sqlalchemy import delete, select

from rollout.store.access.api_keys import hash_secret
from rollout.store.access.users import StoredUser, Users
from rollout.store.database.bulk import build_insert
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import calendar_feeds


class CalendarFeeds:
    """The calendar addresses, stored by the hash of their token."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def store(self, user_id: int, token: str, *, at: datetime) -> None:
        """Store a user's address, in place of the one before."""
        values = {"user_id": user_id, "hash": hash_secret(token), "created_at": at}
        statement = build_insert(self._transaction.engine, calendar_feeds).values(values)
        changes = {name: statement.excluded[name] for name in ("hash", "created_at")}
        self._transaction.execute(
            statement.on_conflict_do_update(index_elements=["user_id"], set_=changes)
        )

    def find_creation(self, user_id: int) -> datetime | None:
        """Return when a user's address was created, or None without one."""
        query = select(calendar_feeds.c.created_at).where(calendar_feeds.c.user_id == user_id)
        return self._transaction.execute(query).scalar()

    def find_user(self, token: str) -> StoredUser | None:
        """Return the user of an address, or None."""
        query = select(calendar_feeds.c.user_id).where(calendar_feeds.c.hash == hash_secret(token))
        user_id = self._transaction.execute(query).scalar()
        return None if user_id is None else Users(self._transaction).get_by_id(user_id)

    def delete(self, user_id: int) -> None:
        """Delete a user's address, if there is one."""
        self._transaction.execute(delete(calendar_feeds).where(calendar_feeds.c.user_id == user_id))

    def delete_all(self) -> None:
        """Delete every address."""
        self._transaction.execute(delete(calendar_feeds))
