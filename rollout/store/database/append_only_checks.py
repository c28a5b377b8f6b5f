"""Whether a database keeps what it acknowledges: its triggers, its settings, and who owns it."""

from sqlalchemy import text

from rollout.store.database.session import Transaction
from rollout.store.tables.append_only import APPEND_ONLY, FUNCTION, triggers

FORGETFUL = ("fsync", "synchronous_commit", "full_page_writes")


def missing_triggers(transaction: Transaction) -> tuple[str, ...]:
    """Return the triggers of append-only tables that are absent, switched off or other than ours.

    On SQLite a migration that copies a table loses them and has to make them again.
    """
    existing = _sqlite(transaction) if transaction.engine == "sqlite" else _postgresql(transaction)
    expected = {
        name: _form(transaction, statement)
        for table, purgeable in APPEND_ONLY.items()
        for name, statement in triggers(transaction.engine, table, purgeable=purgeable).items()
    }
    return tuple(
        sorted(name for name, text_form in expected.items() if existing.get(name) != text_form)
    )


def forgetful_settings(transaction: Transaction) -> tuple[str, ...]:
    """Return the settings of the server with which acknowledged rows may be lost."""
    if transaction.engine == "sqlite":
        return ()  # every connection asserts its own
    values = {name: transaction.execute(text(f"show {name}")).scalar() for name in FORGETFUL}
    return tuple(name for name, value in values.items() if value == "off")


def owned_tables(transaction: Transaction) -> tuple[str, ...]:
    """Return the append-only tables that the connected role could strip of their triggers."""
    if transaction.engine == "sqlite":
        return ()  # whoever writes the file owns it
    query = text(
        "select tablename from pg_tables where schemaname = current_schema()"
        " and pg_has_role(current_user, tableowner, 'member') order by tablename"
    )
    return tuple(name for name in transaction.execute(query).scalars() if name in APPEND_ONLY)


def _form(transaction: Transaction, made: str) -> str:
    """Return a trigger's text; of PostgreSQL's the part that it does not write its own way."""
    made = made.casefold()
    if transaction.engine == "sqlite":
        return made
    head, body = made.split(" on ", maxsplit=1)
    events = sorted(head.split(" before ")[1].split(" or "))
    return f"{events} on {body}"


def _sqlite(transaction: Transaction) -> dict[str, str]:
    query = text("select name, sql from sqlite_master where type = 'trigger'")
    return {row.name: _form(transaction, row.sql) for row in transaction.execute(query)}


def _postgresql(transaction: Transaction) -> dict[str, str]:
    """Return the enabled triggers that call our function, as it was made."""
    query = text(
        "select t.tgname as name, pg_get_triggerdef(t.oid, true) as sql, p.prosrc from pg_trigger t"
        " join pg_class c on c.oid = t.tgrelid join pg_proc p on p.oid = t.tgfoid"
        " join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = current_schema() and t.tgenabled = 'O' and not t.tgisinternal"
    )
    rows = transaction.execute(query)
    return {row.name: _form(transaction, row.sql) for row in rows if row.prosrc in FUNCTION}
