"""Rows of an outbox that are due: each is taken by one process at a time.

A table has the columns `id`, `state`, `channel`, `attempts`, `next_attempt_at`, `sent_at` and
`error`. Taking a row counts an attempt and moves the next one past a lease, so after a crash it is
tried again.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, select, update

from rollout.data.database.session import Transaction

WAITING = "waiting"
SENT, FAILED = "sent", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """What is on its way: waiting, sent or failed; `attempts` includes the current one.

    `error` is that of the last attempt, without secrets; "" for none.
    """

    id: int
    state: str
    attempts: int
    sent_at: datetime | None
    error: str


class DueRows:
    """The rows of an outbox; with conditions, only those that fulfil them are due."""

    def __init__(
        self, transaction: Transaction, table: Table, *conditions: ColumnElement[bool]
    ) -> None:
        self._transaction, self._table, self._conditions = transaction, table, conditions

    def has_due(self, *, at: datetime, excluded_channels: Collection[str] = ()) -> bool:
        """Return whether `take_next` would return a row, without locking."""
        query = select(self._table.c.id).where(*self._match_due(at, excluded_channels)).limit(1)
        return self._transaction.execute(query).first() is not None

    def record_sent(self, row: OutboxRow, *, at: datetime) -> bool:
        """Record that it was sent; False if another process took it."""
        return self._update(row, state=SENT, sent_at=at, next_attempt_at=None, error="")

    def retry_later(self, row: OutboxRow, *, at: datetime, error: str) -> bool:
        """Move the next attempt to `at`; False if another process took it."""
        return self._update(row, next_attempt_at=at, error=error)

    def _take_due(
        self, at: datetime, lease: timedelta, excluded_channels: Collection[str]
    ) -> int | None:
        """Take the row that is due longest and return its id, or None.

        It becomes due again after `lease`, unless its result is recorded.
        """
        table = self._table
        query = (
            select(table.c.id)
            .where(*self._match_due(at, excluded_channels))
            .order_by(table.c.next_attempt_at, table.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        number: int | None = self._transaction.execute(query).scalar()
        if number is not None:
            values = {"attempts": table.c.attempts + 1, "next_attempt_at": at + lease}
            self._transaction.execute(update(table).where(table.c.id == number).values(**values))
        return number

    def _match_due(
        self, at: datetime, excluded_channels: Collection[str]
    ) -> tuple[ColumnElement[bool], ...]:
        return (
            self._table.c.state == WAITING,
            self._table.c.next_attempt_at <= at,
            self._table.c.channel.not_in(excluded_channels),
            *self._conditions,
        )

    def _update(self, row: OutboxRow, **values: Any) -> bool:
        columns = self._table.c
        statement = update(self._table).where(
            columns.id == row.id, columns.attempts == row.attempts, columns.state == WAITING
        )
        return self._transaction.execute(statement.values(**values)).rowcount == 1
