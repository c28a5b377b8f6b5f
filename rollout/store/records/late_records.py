"""Records that came on a later day than their own, which change what was known of that day."""

from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, Row, Table, select, type_coerce, union

from rollout.core.calendar.instants import count_micros
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.history import RowFilter
from rollout.store.tables.tables import cases, decisions


def list_late_receipts(transaction: Transaction, rollout: Rollout) -> list[int]:
    """Return when decisions and cases of an earlier UTC day came in, in microseconds, ascending."""
    day, queries = count_micros(timedelta(days=1)), []
    for table, own_time in ((decisions, decisions.c.submitted_at), (cases, cases.c.occurred_at)):
        received = type_coerce(table.c.received_at, BigInteger)
        is_late = received // day > type_coerce(own_time, BigInteger) // day
        query = select(received.label("received")).where(table.c.rollout == rollout.number, is_late)
        queries.append(query)
    return sorted(transaction.execute(union(*queries)).scalars())


def select_received_before(receipt: int) -> RowFilter:
    """Return a filter of the records that came in before an instant in microseconds."""

    def is_known(_table: Table, row: Row[Any]) -> bool:
        return bool(row.received_at < receipt)

    return is_known
