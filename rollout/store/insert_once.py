"""Insert what is not there yet: how races over one key end with one winner."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from rollout.store.session import Transaction

Insert = postgresql.Insert | sqlite.Insert


def inserting(engine: str, table: Table) -> Insert:
    """Return the engine's own insert, which knows `on conflict`."""
    if engine == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def insert_once(transaction: Transaction, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its key is there; say whether it was inserted.

    Of several who try at once exactly one is told yes, and only once it is sure.
    """
    statement = inserting(transaction.engine, table).values(row).on_conflict_do_nothing()
    returned = statement.returning(*table.primary_key)  # PostgreSQL's row count is no answer here
    return transaction.execute(returned).first() is not None
