"""Counted units, records and outcomes of some slots: how many there are, and runs of them.

A run is read by the index of slots, so a large tick costs no more memory than a small one.
"""

from typing import Final

from sqlalchemy import Subquery, Table, func, select

from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import counted_outcomes, counted_records, counted_units

LINE_TABLES: Final = (counted_units, counted_records, counted_outcomes)


def count_lines(
    transaction: Transaction, rollout: Rollout, *, after: int, until: int
) -> tuple[int, ...]:
    """Return the numbers of units, records and outcomes of slots (`after`, `until`]."""
    lines = (select_lines(table, rollout, after, until) for table in LINE_TABLES)
    queries = (select(func.count()).select_from(table_lines) for table_lines in lines)
    return tuple(int(transaction.execute(query).scalar_one()) for query in queries)


def select_lines(
    table: Table, rollout: Rollout, after: int, until: int, positions: range | None = None
) -> Subquery:
    """Select the rows of slots (`after`, `until`], or those at some positions among them.

    Positions count in the order of slots; rows of one slot have the index's order, which costs no
    sorting.
    """
    query = select(table).where(
        table.c.rollout == rollout.number, table.c.slot > after, table.c.slot <= until
    )
    if positions is not None:
        query = query.order_by(table.c.slot).offset(positions.start).limit(len(positions))
    return query.subquery()
