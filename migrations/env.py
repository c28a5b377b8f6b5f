"""Runs revisions on the connection that `rollout.data.database.migrations` hands over.

One transaction holds a whole upgrade, on SQLite too: it is done, or nothing is.
"""

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

from rollout.data.database.append_failures import UnsafeDatabaseError
from rollout.data.database.migrations import add_revision, remove_revision
from rollout.data.tables.record_tables import InstantType, JsonType, complete_partial_indexes
from rollout.data.tables.tables import metadata


def plain_type(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write a type of ours as what the database has: a revision must not change with the code."""
    if kind == "type" and isinstance(item, InstantType):
        return "sa.BigInteger()"
    if kind == "type" and isinstance(item, JsonType):
        return "sa.Text()"
    return False


def store_revision(*, ctx: Any, step: Any, **_: Any) -> None:
    """Store which programs work on the tables of a revision, as its file says."""
    revision = step.up_revision.revision
    if step.is_upgrade:
        add_revision(ctx.connection, revision, step.up_revision.module.oldest_program)
    else:
        remove_revision(ctx.connection, revision)


def migrate(connection: Connection) -> None:
    """Run the revisions asked for, within one transaction."""
    sqlite = connection.dialect.name == "sqlite"
    if (
        sqlite
    ):  # a table is changed by copying it, and dropping its old self must break no reference
        _driver(connection).execute("pragma foreign_keys=off")
    complete_partial_indexes()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=True,
        render_item=plain_type,
        on_version_apply=store_revision,
    )
    with context.begin_transaction():
        if not sqlite:
            for name, value in context.config.attributes["settings"].items():
                connection.exec_driver_sql(f"set local {name} = '{value}'")
        context.run_migrations()
    if sqlite:
        broken = connection.exec_driver_sql("pragma foreign_key_check").all()
        if broken:
            raise UnsafeDatabaseError(f"rows refer to rows that are not there: {broken[:5]}")


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


migrate(context.config.attributes["connection"])
