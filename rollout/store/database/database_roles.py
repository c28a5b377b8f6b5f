"""PostgreSQL's two roles: one owns the tables and migrates, the other runs the service.

Whoever owns a table can drop its triggers, so the service must not: it reads and inserts in
append-only tables, deletes where a purge may, and changes only what is meant to change.
"""

from collections.abc import Iterator

from sqlalchemy import text

from rollout.store.database.session import Transaction
from rollout.store.tables.append_only import APPEND_ONLY
from rollout.store.tables.tables import metadata

VERSION_TABLE = "alembic_version"


def grant(transaction: Transaction, role: str) -> None:
    """Let `role` run the service on the tables that the connected role owns.

    Run it after each upgrade: new tables have new rights. The role itself is made by whoever
    administers the server.
    """
    for statement in grants(transaction.connection.dialect.identifier_preparer.quote(role)):
        transaction.execute(text(statement))


def grants(role: str) -> Iterator[str]:
    """Yield what is granted; `role` is quoted already."""
    yield f"grant select on {VERSION_TABLE} to {role}"
    for table in metadata.sorted_tables:
        yield f"grant {_rights(table.name)} on {table.name} to {role}"
        if table.autoincrement_column is not None:
            yield f"grant usage on {table.name}_id_seq to {role}"


def _rights(table: str) -> str:
    if table not in APPEND_ONLY:
        return "select, insert, update, delete"
    return "select, insert, delete" if APPEND_ONLY[table] else "select, insert"
