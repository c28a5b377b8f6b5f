"""Rows of an outbox that are due: each is taken by one process at a time.

A table has the columns `id`, `state`, `channel`, `attempts` and `next_attempt_at`. Taking a row
counts an attempt and moves the next one past a lease, so after a crash it is tried again.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, select, update

from rollout.data.database.session import Transaction

WAITING = "waiting"


def has_due_row(
    transaction: Transaction,
    table: Table,
    *,
    at: datetime,
    excluded_channels: Collection[str],
    conditions: Sequence[ColumnElement[bool]] = (),
) -> bool:
    """Return whether `take_due_row` would take a row, without locking."""
    due_conditions = _build_due_conditions(table, at, excluded_channels)
    query = select(table.c.id).where(*due_conditions, *conditions).limit(1)
    return transaction.execute(query).first() is not None


def take_due_row(
    transaction: Transaction,
    table: Table,
    *,
    at: datetime,
    lease: timedelta,
    excluded_channels: Collection[str],
    conditions: Sequence[ColumnElement[bool]] = (),
) -> int | None:
    """Take the row that is due longest and return its id, or None.

    It becomes due again after `lease`, unless its result is recorded.

    Args:
        conditions: what else a row must fulfil.
    """
    query = (
        select(table.c.id)
        .where(*_build_due_conditions(table, at, excluded_channels), *conditions)
        .order_by(table.c.next_attempt_at, table.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    number: int | None = transaction.execute(query).scalar()
    if number is not None:
        values = {"attempts": table.c.attempts + 1, "next_attempt_at": at + lease}
        transaction.execute(update(table).where(table.c.id == number).values(**values))
    return number


def _build_due_conditions(
    table: Table, at: datetime, excluded_channels: Collection[str]
) -> tuple[ColumnElement[bool], ...]:
    return (
        table.c.state == WAITING,
        table.c.next_attempt_at <= at,
        table.c.channel.not_in(excluded_channels),
    )
