"""The database's own clock."""

from datetime import datetime

from sqlalchemy import text

from rollout.store.database.session import Transaction


def instant_of_database(transaction: Transaction) -> datetime | None:
    """Return the instant by the server's clock; None on SQLite, which runs in this process."""
    if transaction.engine == "sqlite":
        return None
    at = transaction.execute(text("select clock_timestamp()")).scalar_one()
    assert isinstance(at, datetime)  # noqa: S101 - PostgreSQL's timestamptz
    return at
