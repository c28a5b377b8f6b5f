"""PostgreSQL's two roles: one owns the tables and migrates, the other runs the service.

A table's owner can drop its triggers, so the service uses another role: it reads and inserts in
append-only tables, deletes where a purge may, updates where an erasure may, and updates the other
tables.
"""

from collections.abc import Iterator

from sqlalchemy import text

from rollout.store.database.session import Transaction
from rollout.store.tables.append_only import APPEND_ONLY, ERASABLE
from rollout.store.tables.tables import metadata

VERSION_TABLE = "alembic_version"


def grant_privileges(transaction: Transaction, role: str) -> None:
    """Grant `role` what the service needs on the connected role's tables.

    Run it after each upgrade, because new tables need new privileges. The role must exist.
    """
    for statement in list_grants(transaction.connection.dialect.identifier_preparer.quote(role)):
        transaction.execute(text(statement))


def list_grants(role: str) -> Iterator[str]:
    """Yield the grant statements; `role` is quoted already."""
    yield f"grant select on {VERSION_TABLE} to {role}"
    for table in metadata.sorted_tables:
        yield f"grant {_list_privileges(table.name)} on {table.name} to {role}"
        if table.autoincrement_column is not None:
            yield f"grant usage on {table.name}_id_seq to {role}"


def _list_privileges(table: str) -> str:
    if table not in APPEND_ONLY:
        return "select, insert, update, delete"
    delete = ", delete" if APPEND_ONLY[table] else ""
    return f"select, insert{', update' if table in ERASABLE else ''}{delete}"
