"""The database and its transactions: the only place that commits.

A reading transaction sees one instant of the database and can't write. A writing one is the only
writer on SQLite from its beginning on; on PostgreSQL writers wait for each other row by row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine import Transaction as Begun
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError

from rollout import faults
from rollout.store.database.errors import OutcomeUnknown, UnsafeDatabase, named, undecided
from rollout.store.database.write_lock import Turns

PATIENCE: Final = 5.0
"""Seconds that a writer waits for others of its process; of others, `busy_timeout`."""
SQLITE_PRAGMAS: Final = {
    "busy_timeout": ("5000", 5000),
    "journal_mode": ("wal", "wal"),
    "synchronous": ("full", 2),  # normal loses acknowledged rows when the power fails
    "fullfsync": ("on", 1),  # macOS: down to the disk; elsewhere it changes nothing
    "foreign_keys": ("on", 1),
    "recursive_triggers": ("on", 1),  # so that `insert or replace` meets the delete triggers
}
POSTGRESQL_SETTINGS: Final = {
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "15s",  # a paused replica must not hold up the others
}
WRITES: Final = "rollout_writes"
OF_READING: Final[Mapping[str, Mapping[str, Any]]] = {
    "sqlite": {WRITES: False},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
OF_WRITING: Final[Mapping[str, Mapping[str, Any]]] = {
    "sqlite": {WRITES: True},
    "postgresql": {},  # as `engine_of` makes its connections
}


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is done together or not at all. Repositories work through it and never commit."""

    connection: Connection

    @property
    def engine(self) -> str:
        """Return `sqlite` or `postgresql`."""
        return self.connection.dialect.name

    @property
    def pool(self) -> object:
        """Return what all transactions of one open database have in common, to remember by."""
        return self.connection.engine.pool

    def execute(
        self,
        statement: Executable,
        rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> CursorResult[Any]:
        """Execute a statement, once or for each of `rows`."""
        return self.connection.execute(statement, rows)


class Database:
    """One database, by its URL: an SQLite file, or PostgreSQL."""

    def __init__(self, url: str) -> None:
        """Prepare a pool; nothing is connected before the first transaction.

        Raises:
            UnsafeDatabase: an engine that is not known, or SQLite in memory.
        """
        self.engine = engine_of(url)
        engine_name = self.engine.dialect.name
        self._reading = self.engine.execution_options(**OF_READING[engine_name])
        self._writing = self.engine.execution_options(**OF_WRITING[engine_name])
        self._turns = Turns(PATIENCE) if engine_name == "sqlite" else None

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Open a transaction that sees one instant and can't write."""
        with named(), self._reading.connect() as connection, connection.begin():
            yield Transaction(connection)

    @contextmanager
    def writing(self, *, first: bool = False) -> Iterator[Transaction]:
        """Open a transaction that is committed at the end of the block, or undone by an error.

        Args:
            first: before others of this process that wait to write; for what is short.

        Raises:
            DatabaseBusy: somebody else held a lock for too long; nothing was done.
            OutcomeUnknown: the connection broke while committing.
        """
        lock = nullcontext() if self._turns is None else self._turns.turn(first=first)
        with lock, named(), self._writing.connect() as connection:
            database_transaction = connection.begin()
            yield Transaction(connection)  # an error leaves here, and closing undoes
            faults.point("commit.before")
            _commit(connection, database_transaction)
        faults.point("commit.after")

    def close(self) -> None:
        """Close the pool's connections."""
        self.engine.dispose()


def _commit(connection: Connection, begun: Begun) -> None:
    try:
        begun.commit()
    except DBAPIError as error:
        connection.invalidate()  # SQLite leaves the transaction open: nobody may go on in it
        if not undecided(error):
            raise
        raise OutcomeUnknown(
            "the connection broke while committing; ask again, what was done is not done twice"
        ) from error


def engine_of(url: str) -> Engine:
    """Return the engine of a database, set up so that what it acknowledges is kept.

    Raises:
        UnsafeDatabase: an engine that is not known, or SQLite in memory.
    """
    database_url = _checked(url)
    if database_url.get_backend_name() == "sqlite":
        engine = create_engine(database_url)
        file = Path(database_url.database or "")
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "connect", partial(_note_file, file))  # by then it is there
        event.listen(engine, "checkout", partial(_assert_same_file, file))
        event.listen(engine, "checkout", _assert_full)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(database_url, pool_pre_ping=True, isolation_level="READ COMMITTED")
    event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UnsafeDatabase(f"{url!r} is no database URL; write sqlite:///rollout.db") from error
    match parsed.get_backend_name():
        case "sqlite" if (parsed.database or ":memory:").startswith((":memory:", "file:")):
            raise UnsafeDatabase("SQLite needs a file of its own; write sqlite:///rollout.db")
        case "sqlite":
            return parsed.set(drivername="sqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
    raise UnsafeDatabase(f"{parsed.get_backend_name()} is not known; use SQLite or PostgreSQL")


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    for pragma, (value, expected) in SQLITE_PRAGMAS.items():
        connection.execute(f"pragma {pragma}={value}")
        (actual,) = connection.execute(f"pragma {pragma}").fetchone()
        if actual != expected:
            raise UnsafeDatabase(f"SQLite keeps {pragma} at {actual}; {value} is needed")


def _identity(file: Path) -> tuple[int, int] | None:
    """Return which file stands under a name, None for none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _note_file(file: Path, _connection: object, record: Any) -> None:
    record.info["file"] = _identity(file)


def _assert_same_file(file: Path, _connection: object, record: Any, _proxy: object) -> None:
    """Let go of a connection to a file that another was put in the place of: a restored backup.

    What is written to the old one is lost, and a stop in the new one would not be seen.

    Raises:
        DisconnectionError: the pool connects anew.
    """
    if record.info["file"] != _identity(file):
        raise DisconnectionError(f"{file} was replaced")


def _assert_full(connection: Any, _record: object, _proxy: object) -> None:
    (actual,) = connection.execute("pragma synchronous").fetchone()
    if actual != SQLITE_PRAGMAS["synchronous"][1]:
        raise UnsafeDatabase("somebody changed synchronous on a pooled connection; restart")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, True)
    connection_info = connection.connection.info
    if (
        connection_info.get(WRITES) is not writes
    ):  # said again, SQLite prepares every statement anew
        connection_info.pop(WRITES, None)
        connection.exec_driver_sql(f"pragma query_only={'off' if writes else 'on'}")
        connection_info[WRITES] = writes
    connection.exec_driver_sql("begin immediate" if writes else "begin")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    connection.autocommit = True
    for setting, value in POSTGRESQL_SETTINGS.items():
        connection.execute(f"set {setting} = '{value}'")
    connection.autocommit = False
