"""Freeing the space of deleted rows, so that files no longer hold what was erased."""

from contextlib import closing
from typing import Any

from rollout.store.database.errors import translate_driver_errors
from rollout.store.database.session import Database

SQLITE_STATEMENTS = ("pragma query_only=off", "vacuum", "pragma wal_checkpoint(truncate)")
POSTGRESQL_STATEMENTS = ("set statement_timeout = 0", "vacuum")


def compact_database(database: Database) -> None:
    """Rewrite the file of SQLite, or vacuum the tables of PostgreSQL.

    On SQLite nobody else may write meanwhile, and as much space again must be free. PostgreSQL
    overwrites the space when it needs it.
    """
    is_sqlite = database.engine.dialect.name == "sqlite"
    with translate_driver_errors(), closing(database.engine.raw_connection()) as connection:
        driver_connection: Any = connection.driver_connection
        if not is_sqlite:
            driver_connection.autocommit = True
        for statement in SQLITE_STATEMENTS if is_sqlite else POSTGRESQL_STATEMENTS:
            driver_connection.execute(statement)
        connection.invalidate()  # its settings were changed
