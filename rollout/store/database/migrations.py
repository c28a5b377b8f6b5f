"""Create, upgrade and check the schema, by Alembic without a configuration file.

The revisions are in `migrations/` of the source and in `rollout/_migrations` of the wheel. Alembic
is imported only where the schema changes: each start checks the schema, and without Alembic that
takes 12 MiB less.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, event, inspect, text
from sqlalchemy.exc import OperationalError

from rollout import faults
from rollout.store.database.compatibility import (
    describe_newer,
    is_admitted,
    list_revisions,
)
from rollout.store.database.errors import (
    DatabaseUnavailableError,
    SchemaMismatchError,
    StoreError,
    describe_failure,
    translate_driver_errors,
)
from rollout.store.database.session import Database, Transaction, create_database_engine
from rollout.store.tables.append_only import APPEND_ONLY, ERASABLE
from rollout.store.tables.schema_hash import compute_schema_hash
from rollout.store.tables.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config


def grant_backup(transaction: Transaction, role: str) -> None:
    """Grant `role` what a backup needs: it reads all tables, and writes nothing."""
    quoted = transaction.connection.dialect.identifier_preparer.quote(role)
    transaction.execute(text(f"grant pg_read_all_data to {quoted}"))


def grant_privileges(transaction: Transaction, role: str) -> None:
    """Grant `role` what the service needs on the connected role's tables.

    Run it after each upgrade, because new tables need new privileges. The role must exist.
    """
    for statement in list_grants(transaction.connection.dialect.identifier_preparer.quote(role)):
        transaction.execute(text(statement))


def list_grants(role: str) -> Iterator[str]:
    """Yield the grant statements; `role` is quoted already."""
    yield f"grant select on {REVISION_TABLE} to {role}"
    for table in metadata.sorted_tables:
        yield f"grant {_list_privileges(table.name)} on {table.name} to {role}"
        if table.autoincrement_column is not None:
            yield f"grant usage on {table.name}_id_seq to {role}"


def _list_privileges(table: str) -> str:
    if table not in APPEND_ONLY:
        return "select, insert, update, delete"
    delete = ", delete" if APPEND_ONLY[table] else ""
    return f"select, insert{', update' if table in ERASABLE else ''}{delete}"


PACKAGE = Path(__file__).parents[2]
LOCK_TIMEOUT = "5s"  # a waiting migration would block all later queries
STATEMENT_TIMEOUT = "15min"
REVISION_TABLE: Final = "alembic_version"
CHANGE_REFUSAL: Final = "refuse_change"  # of the append-only tables, on PostgreSQL
REVISION_PATTERN: Final = re.compile(r'^revision = "(.+)"', re.MULTILINE)
PREVIOUS_PATTERN: Final = re.compile(r'^down_revision = "(.+)"', re.MULTILINE)


def find_migrations_folder() -> Path:
    """Return the folder of the revisions."""
    packaged = PACKAGE / "_migrations"
    return packaged if packaged.is_dir() else PACKAGE.parent / "migrations"


def build_config(connection: Connection | None = None) -> "Config":
    """Return Alembic's settings; `env.py` takes the connection from them."""
    from alembic.config import Config  # noqa: PLC0415 - see module docstring

    settings = {"lock_timeout": LOCK_TIMEOUT, "statement_timeout": STATEMENT_TIMEOUT}
    configuration = Config(attributes={"connection": connection, "settings": settings})
    configuration.set_main_option(
        "script_location", str(find_migrations_folder()).replace("%", "%%")
    )
    configuration.set_main_option(
        "file_template", "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s"
    )
    configuration.set_main_option("path_separator", "os")
    return configuration


def upgrade(url: str) -> None:
    """Upgrade the schema to this program's in one transaction; create missing tables.

    Newer tables that admit this program stay.

    Raises:
        DatabaseBusyError: a lock was not free in time; nothing was changed, run it again.
        SchemaMismatchError: another commit made the tables; nothing was changed.
    """
    from alembic.command import upgrade as upgrade_by_alembic  # noqa: PLC0415 - see module docstring

    engine = create_database_engine(url)
    event.listen(engine, "after_cursor_execute", lambda *_: faults.reach_point("migration.step"))
    try:
        with _connect(engine) as connection, translate_driver_errors():
            revision = _read_revision(connection)
            if _is_newer(connection, revision):
                return
            _check_revision(revision)
            connection.rollback()
            upgrade_by_alembic(build_config(connection), "head")
    finally:
        engine.dispose()


def drop_tables(url: str) -> None:
    """Drop all tables of this program in one transaction, with everything in them."""
    engine = create_database_engine(url)
    try:
        with _connect(engine) as connection, translate_driver_errors(), connection.begin():
            metadata.drop_all(connection)
            connection.exec_driver_sql(f"drop table if exists {REVISION_TABLE}")
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"drop function if exists {CHANGE_REFUSAL}()")
    finally:
        engine.dispose()


def _connect(engine: Engine) -> Connection:
    with _translate_open_errors(), translate_driver_errors():
        return engine.connect()


@contextmanager
def _translate_open_errors() -> Iterator[None]:
    """Raise an error with a remedy if the database can't be opened.

    The cause is a note of the error, because it may name hosts.
    """
    try:
        yield
    except (OperationalError, DatabaseUnavailableError) as error:
        cause = error.__cause__ if isinstance(error, DatabaseUnavailableError) else error
        store_error = StoreError("the database can't be opened; check ROLLOUT_DATABASE_URL")
        store_error.add_note(describe_failure(cause))
        raise store_error from error


def find_head_revision() -> str:
    """Return the revision that this program needs."""
    previous_by_revision = _load_revisions()
    (head_revision,) = previous_by_revision.keys() - previous_by_revision.values()
    return head_revision


def _load_revisions() -> dict[str, str]:
    """Return each revision with its predecessor, "" for the first one, the hash of the tables."""
    previous_by_revision = {compute_schema_hash(): ""}
    for file in (find_migrations_folder() / "versions").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        for revision in REVISION_PATTERN.findall(text):
            previous_by_revision[revision] = "".join(PREVIOUS_PATTERN.findall(text))
    return previous_by_revision


def load_current_revision(url: str) -> str | None:
    """Return the revision of a database, or None without tables.

    Raises:
        StoreError: the database can't be opened.
    """
    database = Database(url)
    try:
        return find_schema_revision(database)
    finally:
        database.close()


def find_schema_revision(database: Database) -> str | None:
    """Return the revision of an open database, or None without tables.

    Raises:
        StoreError: the database can't be opened.
    """
    with _translate_open_errors(), database.begin_read() as transaction:
        return read_revision(transaction)


def read_revision(transaction: Transaction) -> str | None:
    """Return the revision that a transaction reads, or None without tables."""
    return _read_revision(transaction.connection)


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(REVISION_TABLE):
        return None
    query = f"select version_num from {REVISION_TABLE}"  # noqa: S608 - a constant
    return connection.exec_driver_sql(query).scalar()


def list_table_names(url: str) -> list[str]:
    """Return the tables of a database, whosever they are.

    Raises:
        StoreError: the database can't be opened.
    """
    database = Database(url)
    try:
        with _translate_open_errors(), database.begin_read() as transaction:
            return sorted(inspect(transaction.connection).get_table_names())
    finally:
        database.close()


def check_schema_current(database: Database) -> None:
    """Raise unless this program works on the tables.

    It does if they are its own, or newer ones that admit it.

    Raises:
        SchemaMismatchError: tables are missing, older or another commit's; it says what to do.
        StoreError: the database can't be opened.
    """
    revision = find_schema_revision(database)
    if revision == find_head_revision():
        return
    if revision is None:
        raise SchemaMismatchError("the database has no tables; run `rollout db upgrade`")
    with database.begin_read() as transaction:
        if _is_newer(transaction.connection, revision):
            return
    _check_revision(revision)
    raise SchemaMismatchError(f"the tables are at {revision}, older; run `rollout db upgrade`")


def _is_newer(connection: Connection, revision: str | None) -> bool:
    """Return whether the tables are newer than this program, and admit it.

    Raises:
        SchemaMismatchError: they are newer, and don't.
    """
    program = find_head_revision()
    revisions = list_revisions(connection)
    names = [row.revision for row in revisions]
    if revision == program or program not in names or names[-1] != revision:
        return False
    if not is_admitted(revisions, program):
        raise SchemaMismatchError(describe_newer(revisions[-1].revision))
    return True


def check_newest(database: Database) -> None:
    """Raise unless the tables are this program's: rows that it can't read are then damaged.

    Raises:
        SchemaMismatchError: a newer program may have written what this one can't read.
    """
    revision = find_schema_revision(database)
    if revision != find_head_revision():
        raise SchemaMismatchError(
            f"the tables are at {revision}, and a newer program may have written what this one"
            " can't read: replace it by the newer one"
        )


def check_revision_known(database: Database) -> None:
    """Raise unless this program can upgrade the tables.

    Raises:
        SchemaMismatchError: there are no tables, or those of another commit.
    """
    revision = find_schema_revision(database)
    if revision is None:
        raise SchemaMismatchError(
            "it holds no tables of rollout; name a file of `rollout db backup`"
        )
    with database.begin_read() as transaction:
        is_known = _is_known(revision) or _is_newer(transaction.connection, revision)
    if not is_known:
        raise SchemaMismatchError(
            f"its tables are at revision {revision}, made by another commit: restore it with that"
            " commit's program"
        )


def _is_known(revision: str | None) -> bool:
    return revision is None or revision in _load_revisions()


def _check_revision(revision: str | None) -> None:
    if not _is_known(revision):
        raise SchemaMismatchError(
            f"the tables are at revision {revision}, made by an earlier commit: make the database"
            " anew (an empty one, then `rollout db upgrade`)"
        )
