"""Create, upgrade and check the schema: Alembic without a file of its own.

The revisions stand in `migrations/` of the source, in `rollout/_migrations` of the wheel. Alembic
is imported where a schema is changed: to check one, which every start does, takes 12 MiB less
without it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, event, inspect
from sqlalchemy.exc import OperationalError

from rollout import faults
from rollout.store.database.errors import SchemaMismatch, StoreError, named
from rollout.store.database.session import Database, Transaction, engine_of
from rollout.store.tables.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

PACKAGE = Path(__file__).parents[2]
LOCK_TIMEOUT = "5s"  # a migration that can't have its lock must not queue everybody behind it
STATEMENT_TIMEOUT = "15min"
OWN: Final = re.compile(r'^revision = "(.+)"', re.MULTILINE)
BEFORE: Final = re.compile(r'^down_revision = "(.+)"', re.MULTILINE)


def folder() -> Path:
    """Return where the revisions stand."""
    packaged = PACKAGE / "_migrations"
    return packaged if packaged.is_dir() else PACKAGE.parent / "migrations"


def config(connection: Connection | None = None) -> "Config":
    """Return Alembic's settings, made here; `env.py` takes the connection from them."""
    from alembic.config import Config  # noqa: PLC0415 - see above

    settings = {"lock_timeout": LOCK_TIMEOUT, "statement_timeout": STATEMENT_TIMEOUT}
    configuration = Config(attributes={"connection": connection, "settings": settings})
    configuration.set_main_option("script_location", str(folder()).replace("%", "%%"))
    configuration.set_main_option(
        "file_template", "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s"
    )
    configuration.set_main_option("path_separator", "os")
    return configuration


def upgrade(url: str, to: str = "head") -> None:
    """Bring the schema up to a revision, all of it or nothing; make the tables if there are none.

    Raises:
        DatabaseBusy: a lock was not given within its time; nothing was changed, run it again.
    """
    from alembic.command import upgrade as up  # noqa: PLC0415 - see above

    _migrate(url, up, to)


def downgrade(url: str, to: str) -> None:
    """Take the schema back to a revision; `base` drops every table with all that is in it."""
    from alembic.command import downgrade as down  # noqa: PLC0415 - see above

    _migrate(url, down, to)


def _migrate(url: str, do: Any, to: str) -> None:
    engine = engine_of(url)
    event.listen(engine, "after_cursor_execute", lambda *_: faults.point("migration.step"))
    try:
        with _connected(engine) as connection, named():
            do(config(connection), to)
    finally:
        engine.dispose()


def _connected(engine: Engine) -> Connection:
    with _opened(), named():
        return engine.connect()


@contextmanager
def _opened() -> Iterator[None]:
    """Say of a database that can't be opened where to look; why is a note: it may name hosts."""
    try:
        yield
    except OperationalError as error:
        store_error = StoreError("the database can't be opened; look at ROLLOUT_DATABASE_URL")
        store_error.add_note(" ".join(str(error.orig).split()))
        raise store_error from error


def head() -> str:
    """Return the revision that this program is written for."""
    previous_by_revision = _revisions()
    (head_revision,) = previous_by_revision.keys() - previous_by_revision.values()
    return head_revision


def _revisions() -> dict[str, str]:
    """Return each revision with the one before it, "" before the first, as their files say."""
    previous_by_revision = {}
    for file in (folder() / "versions").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        for revision in OWN.findall(text):
            previous_by_revision[revision] = "".join(BEFORE.findall(text))
    return previous_by_revision


def current(url: str) -> str | None:
    """Return the revision that a database is at, None where it has no tables.

    Raises:
        StoreError: it can't be opened.
    """
    database = Database(url)
    try:
        return found_in(database)
    finally:
        database.close()


def found_in(database: Database) -> str | None:
    """Return the revision of an open database, None where it has no tables.

    Raises:
        StoreError: it can't be opened after all.
    """
    with _opened(), database.reading() as transaction:
        return revision_of(transaction)


def revision_of(transaction: Transaction) -> str | None:
    """Return the revision of the database that a transaction reads."""
    if not inspect(transaction.connection).has_table("alembic_version"):
        return None
    query = "select version_num from alembic_version"
    return transaction.connection.exec_driver_sql(query).scalar()


def require_current(database: Database) -> None:
    """Go on only if the tables are those of this program.

    Raises:
        SchemaMismatch: there are none, or they are older or newer; says what to run.
        StoreError: it can't be opened.
    """
    revision = found_in(database)
    if revision == head():
        return
    if revision is None:
        raise SchemaMismatch("the database has no tables; run `rollout db upgrade`")
    if revision in _revisions():
        raise SchemaMismatch(f"the schema is at {revision}, older; run `rollout db upgrade`")
    raise SchemaMismatch(f"the schema is at {revision}, newer; run the rollout that knows it")


def drift(url: str) -> list[Any]:
    """Return how the tables of a database differ from those of the program; empty: not at all."""
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - see above
    from alembic.migration import MigrationContext  # noqa: PLC0415 - see above

    engine = engine_of(url)
    try:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))
    finally:
        engine.dispose()
