"""Checks that a database keeps what it acknowledges: triggers, settings and table owners."""

from sqlalchemy import text

from rollout.data.database.session import Transaction
from rollout.data.tables.columns import APPEND_ONLY, TRIGGER_FUNCTION, list_triggers

DURABILITY_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")


def find_missing_triggers(transaction: Transaction) -> tuple[str, ...]:
    """Return the append-only triggers that are absent, disabled or changed.

    On SQLite a migration that copies a table loses its triggers and must make them again.
    """
    existing = (
        _load_sqlite_triggers(transaction)
        if transaction.engine == "sqlite"
        else _load_postgresql_triggers(transaction)
    )
    expected = {
        name: _normalize_trigger(transaction, statement)
        for name, statement in list_triggers(transaction.engine).items()
    }
    return tuple(
        sorted(name for name, text_form in expected.items() if existing.get(name) != text_form)
    )


def find_unsafe_settings(transaction: Transaction) -> tuple[str, ...]:
    """Return the server settings that may lose acknowledged rows."""
    if transaction.engine == "sqlite":
        return ()  # `session` checks its settings on each connection
    values = {
        name: transaction.execute(text(f"show {name}")).scalar() for name in DURABILITY_SETTINGS
    }
    return tuple(name for name, value in values.items() if value == "off")


def list_owned_tables(transaction: Transaction) -> tuple[str, ...]:
    """Return the append-only tables whose triggers the connected role could drop."""
    if transaction.engine == "sqlite":
        return ()  # SQLite has no roles
    query = text(
        "select tablename from pg_tables where schemaname = current_schema()"
        " and pg_has_role(current_user, tableowner, 'member') order by tablename"
    )
    return tuple(name for name in transaction.execute(query).scalars() if name in APPEND_ONLY)


def _normalize_trigger(transaction: Transaction, statement: str) -> str:
    """Return a trigger's text without the parts that PostgreSQL rewrites."""
    statement = statement.casefold()
    if transaction.engine == "sqlite":
        return statement
    head, body = statement.split(" on ", maxsplit=1)
    events = sorted(head.split(" before ")[1].split(" or "))
    return f"{events} on {body}"


def _load_sqlite_triggers(transaction: Transaction) -> dict[str, str]:
    query = text("select name, sql from sqlite_master where type = 'trigger'")
    return {
        row.name: _normalize_trigger(transaction, row.sql) for row in transaction.execute(query)
    }


def _load_postgresql_triggers(transaction: Transaction) -> dict[str, str]:
    """Return the enabled triggers that call the unchanged trigger function."""
    query = text(
        "select t.tgname as name, pg_get_triggerdef(t.oid, true) as sql, p.prosrc from pg_trigger t"
        " join pg_class c on c.oid = t.tgrelid join pg_proc p on p.oid = t.tgfoid"
        " join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = current_schema() and t.tgenabled = 'O' and not t.tgisinternal"
    )
    rows = transaction.execute(query)
    return {
        row.name: _normalize_trigger(transaction, row.sql)
        for row in rows
        if row.prosrc in TRIGGER_FUNCTION
    }
