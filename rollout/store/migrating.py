"""Create, upgrade and check the schema: Alembic without a file of its own.

The revisions stand in `migrations/` of the source, in `rollout/_migrations` of the wheel.
"""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event

from rollout import faults
from rollout.store.errors import SchemaMismatch, named
from rollout.store.session import Database, Transaction, engine_of
from rollout.store.tables import metadata

PACKAGE = Path(__file__).parents[1]
LOCK_TIMEOUT = "5s"  # a migration that can't have its lock must not queue everybody behind it
STATEMENT_TIMEOUT = "15min"


def folder() -> Path:
    """Return where the revisions stand."""
    packed = PACKAGE / "_migrations"
    return packed if packed.is_dir() else PACKAGE.parent / "migrations"


def config(connection: Connection | None = None) -> Config:
    """Return Alembic's settings, made here; `env.py` takes the connection from them."""
    settings = {"lock_timeout": LOCK_TIMEOUT, "statement_timeout": STATEMENT_TIMEOUT}
    made = Config(attributes={"connection": connection, "settings": settings})
    made.set_main_option("script_location", str(folder()).replace("%", "%%"))
    made.set_main_option(
        "file_template", "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s"
    )
    made.set_main_option("path_separator", "os")
    return made


def upgrade(url: str, to: str = "head") -> None:
    """Bring the schema up to a revision, all of it or nothing; make the tables if there are none.

    Raises:
        DatabaseBusy: a lock was not given within its time; nothing was changed, run it again.
    """
    _migrate(url, command.upgrade, to)


def downgrade(url: str, to: str) -> None:
    """Take the schema back to a revision; `base` drops every table with all that is in it."""
    _migrate(url, command.downgrade, to)


def _migrate(url: str, do: Any, to: str) -> None:
    engine = engine_of(url)
    event.listen(engine, "after_cursor_execute", lambda *_: faults.point("migration.step"))
    try:
        with named(), engine.connect() as connection:
            do(config(connection), to)
    finally:
        engine.dispose()


def head() -> str:
    """Return the revision that this program is written for."""
    found = ScriptDirectory.from_config(config()).get_current_head()
    assert found is not None  # noqa: S101 - there is a first revision
    return found


def current(url: str) -> str | None:
    """Return the revision that a database is at, None where it has no tables."""
    database = Database(url)
    try:
        with database.reading() as transaction:
            return revision_of(transaction)
    finally:
        database.close()


def revision_of(transaction: Transaction) -> str | None:
    """Return the revision of the database that a transaction reads."""
    return MigrationContext.configure(transaction.connection).get_current_revision()


def require_current(database: Database) -> None:
    """Go on only if the tables are those of this program.

    Raises:
        SchemaMismatch: there are none, or they are older or newer; says what to run.
    """
    with database.reading() as transaction:
        found = revision_of(transaction)
    if found == head():
        return
    if found is None:
        raise SchemaMismatch("the database has no tables; run `rollout db upgrade`")
    known = {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
    if found in known:
        raise SchemaMismatch(f"the schema is at {found}, older; run `rollout db upgrade`")
    raise SchemaMismatch(f"the schema is at {found}, newer; run the rollout that knows it")


def drift(url: str) -> list[Any]:
    """Return how the tables of a database differ from those of the program; empty: not at all."""
    engine = engine_of(url)
    try:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))
    finally:
        engine.dispose()
