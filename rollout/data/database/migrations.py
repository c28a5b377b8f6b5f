"""Create, upgrade and check the schema; heartbeats of replicas; checks that rows are kept.

Alembic runs without a configuration file. The revisions are in `migrations/` of the source and in
`rollout/_migrations` of the wheel. Alembic is imported only where the schema changes: each start
checks the schema, and without Alembic that takes 12 MiB less.

Which programs work on a database's tables: it says so itself, as none knows those after it. A
program is named by the revision of the tables that it was written for. Each migration stores its
revision with the oldest program that works on its tables. While an older one may, the newest writes
nothing that the older one can't read; the upgrade is finished once the newest is the oldest one.

A heartbeat is the small write by which a replica shows that it can write.

The checks look at triggers, settings and table owners: they tell whether a database keeps what it
acknowledges.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import (
    Connection,
    Engine,
    delete,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError

from rollout import faults
from rollout.data.database.append_failures import (
    DatabaseUnavailableError,
    SchemaMismatchError,
    StoreError,
    describe_failure,
    translate_driver_errors,
)
from rollout.data.database.session import Database, Transaction, create_database_engine
from rollout.data.tables.record_tables import APPEND_ONLY, ERASABLE, TRIGGER_FUNCTION, list_triggers
from rollout.data.tables.tables import (
    compute_schema_hash,
    metadata,
    replica_heartbeats,
    schema_revisions,
)
from rollout.kernel.errors import RefusalError

if TYPE_CHECKING:
    from alembic.config import Config


RETENTION = timedelta(days=1)  # of replicas that have ended


def record_heartbeat(transaction: Transaction, owner: str, program: str, at: datetime) -> None:
    """Store that a replica wrote at an instant; the first time, delete old replicas."""
    statement = update(replica_heartbeats).where(replica_heartbeats.c.owner == owner)
    if transaction.execute(statement.values(written_at=at)).rowcount:
        return
    old = replica_heartbeats.c.written_at < at - RETENTION
    transaction.execute(delete(replica_heartbeats).where(old))
    transaction.execute(
        insert(replica_heartbeats).values(owner=owner, program=program, written_at=at)
    )


def find_predecessors(transaction: Transaction, program: str, since: datetime) -> Sequence[str]:
    """Return the replicas of other programs that wrote since an instant."""
    query = select(replica_heartbeats.c.owner).where(
        replica_heartbeats.c.program != program, replica_heartbeats.c.written_at >= since
    )
    return transaction.execute(query).scalars().all()


PREDECESSORS_GONE_AFTER: Final = timedelta(hours=1)
"""How long no replica of another program has written when an upgrade is finished by itself."""


class UnfinishedUpgradeError(RefusalError):
    """What an older program that may still run could not read."""

    code = "upgrade-unfinished"


class SchemaRevision(NamedTuple):
    """A revision of the tables, and the revision of the oldest program that works on them."""

    revision: str
    oldest_program: str


def list_revisions(connection: Connection) -> Sequence[SchemaRevision]:
    """Return the revisions of the tables, newest last; none of a database without that table."""
    if not inspect(connection).has_table(schema_revisions.name):
        return ()
    return _read_revisions(connection)


def _read_revisions(connection: Connection) -> Sequence[SchemaRevision]:
    columns = (schema_revisions.c.revision, schema_revisions.c.oldest_program)
    query = select(*columns).order_by(schema_revisions.c.id)
    return [SchemaRevision(*row) for row in connection.execute(query)]


def add_revision(connection: Connection, revision: str, oldest_program: str) -> None:
    """Store that a migration was run."""
    values = {"revision": revision, "oldest_program": oldest_program}
    connection.execute(insert(schema_revisions).values(values))


def remove_revision(connection: Connection, revision: str) -> None:
    """Store that a migration was undone."""
    connection.execute(delete(schema_revisions).where(schema_revisions.c.revision == revision))


def is_admitted(revisions: Sequence[SchemaRevision], program: str) -> bool:
    """Return whether a program works on the tables, by what their newest revision says.

    >>> first, second = SchemaRevision("a", "a"), SchemaRevision("b", "a")
    >>> is_admitted([first, second], "a"), is_admitted([first, second], "c")
    (True, False)
    >>> is_admitted([first, SchemaRevision("b", "b")], "a"), is_admitted([], "a")
    (False, False)
    """
    names = [row.revision for row in revisions]
    if program not in names:
        return False
    return names.index(program) >= names.index(revisions[-1].oldest_program)


def is_finished(revisions: Sequence[SchemaRevision]) -> bool:
    """Return whether no older program may work on the tables."""
    return not revisions or revisions[-1].oldest_program == revisions[-1].revision


def require_finished(transaction: Transaction, content: str) -> None:
    """Refuse what the program before could not read, while it may still run.

    Raises:
        UnfinishedUpgradeError: it may; the text says what to do.
    """
    if not is_finished(_read_revisions(transaction.connection)):
        raise UnfinishedUpgradeError(
            f"{content} can't be read by the program before, whose replicas may still run: replace"
            " them, then run `rollout db upgrade --finish`"
        )


def finish_upgrade(transaction: Transaction) -> None:
    """Let no program work on the tables but the newest one; the way back is a restore."""
    newest = _read_revisions(transaction.connection)[-1]
    transaction.execute(
        update(schema_revisions)
        .where(schema_revisions.c.revision == newest.revision)
        .values(oldest_program=newest.revision)
    )


def settle_upgrade(transaction: Transaction, program: str, at: datetime) -> None:
    """Finish an upgrade whose predecessors are gone; refuse a program that has been replaced.

    Raises:
        SchemaMismatchError: a newer program has finished its upgrade.
    """
    revisions = _read_revisions(transaction.connection)
    if not is_admitted(revisions, program):
        raise SchemaMismatchError(describe_newer(revisions[-1].revision))
    is_newest = revisions[-1].revision == program
    since = at - PREDECESSORS_GONE_AFTER
    if (
        is_newest
        and not is_finished(revisions)
        and not find_predecessors(transaction, program, since)
    ):
        finish_upgrade(transaction)


def describe_newer(revision: str) -> str:
    """Return what to do where a newer program has finished its upgrade."""
    return (
        f"the tables are at {revision}, whose upgrade is finished: replace this program by the"
        " newer one"
    )


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
    with closing(Database(url)) as database:
        return find_schema_revision(database)


def find_schema_revision(database: Database) -> str | None:
    """Return the revision of an open database, or None without tables.

    Raises:
        StoreError: the database can't be opened.
    """
    with _translate_open_errors(), database.begin_read() as transaction:
        return _read_revision(transaction.connection)


def _read_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(REVISION_TABLE):
        return None
    return connection.exec_driver_sql(
        f"select version_num from {REVISION_TABLE}"  # noqa: S608 - a constant
    ).scalar()


def list_table_names(url: str) -> list[str]:
    """Return the tables of a database, whosever they are.

    Raises:
        StoreError: the database can't be opened.
    """
    with (
        closing(Database(url)) as database,
        _translate_open_errors(),
        database.begin_read() as transaction,
    ):
        return sorted(inspect(transaction.connection).get_table_names())


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
    return {
        row.name: _normalize_trigger(transaction, row.sql)
        for row in transaction.execute(query)
        if row.prosrc in TRIGGER_FUNCTION
    }
