"""The database, its connections and its transactions. Only this module commits.

A reading transaction sees one instant of the database and can't write. A writing transaction is
the only writer on SQLite from its start; on PostgreSQL writers wait for each other row by row.

Idle connections are tested before use where that may matter, and outages are noticed.
"""

import logging
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib import import_module
from math import inf
from pathlib import Path
from threading import Event, Lock
from time import monotonic
from typing import Any, Final, TypeVar

from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Executable,
    Row,
    Select,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine import Transaction as DatabaseTransaction
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import QueuePool

from rollout import faults
from rollout.data.database.append_failures import (
    AppendFailures,
    CommitUnknownError,
    DamageSigns,
    DatabaseBusyError,
    DatabaseUnavailableError,
    UnsafeDatabaseError,
    WriteTally,
    describe_failure,
    is_commit_unknown,
    translate_driver_errors,
)

ValueT = TypeVar("ValueT")
IDLE_BEFORE_PING: Final = 5.0
"""Seconds without use after which a connection is tested; each test is a round trip."""
RETURNED_AT: Final = "returned_at"


def replace_closed_connections(engine: Engine) -> None:
    """Test connections of a PostgreSQL pool before use where that may matter."""
    event.listen(engine, "checkin", _record_return)
    event.listen(engine, "checkout", partial(_test_connection, engine))


def _record_return(_connection: object, record: Any) -> None:
    record.info[RETURNED_AT] = monotonic()


def _test_connection(engine: Engine, connection: Any, record: Any, _proxy: object) -> None:
    """Test a connection that is idle or has something to read.

    Raises:
        InvalidatePoolError: it does not respond; the pool replaces it and older ones.
    """
    returned_at = record.info.get(RETURNED_AT)
    if returned_at is None:  # it is new
        return
    is_idle = monotonic() - returned_at >= IDLE_BEFORE_PING
    if not is_idle and not connection.closed and not _has_input(connection):
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError("the server closed the connection") from error


def _has_input(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))


RETRY_INTERVAL: Final = 0.5
"""Seconds after a failed attempt to connect until the next one."""
MAX_ATTEMPT_TIME: Final = 5.0
"""Seconds after which an attempt that has not ended no longer keeps others from trying."""
OUTAGE_TEXT: Final = "the database does not respond; retry, the service reconnects by itself"
log = logging.getLogger("rollout.database")


class OutageMonitor:
    """Whether one database responds, as seen by this process."""

    def __init__(self, read_clock: Callable[[], float] = time.monotonic) -> None:
        self._read_clock = read_clock
        self._lock = Lock()
        self._began_at: float | None = None
        self._next_attempt_at = 0.0
        self._refused = 0

    @property
    def is_open(self) -> bool:
        """Return whether an outage lasts."""
        return self._began_at is not None

    def begin_attempt(self) -> None:
        """Return if the caller may connect now; only one may at a time during an outage.

        Raises:
            DatabaseUnavailableError: another attempt is going on, or has just failed.
        """
        if not self.is_open:  # without the lock: no outage is the usual case
            return
        with self._lock:
            now = self._read_clock()
            if now < self._next_attempt_at:
                raise DatabaseUnavailableError(OUTAGE_TEXT)
            self._next_attempt_at = now + MAX_ATTEMPT_TIME

    def record_refusal(self) -> None:
        """Count a transaction that `begin_attempt` refused."""
        with self._lock:
            self._refused += 1

    def record_failure(self, reason: str) -> None:
        """Count a transaction that failed; the first one begins the outage.

        The next attempt comes later than the end of this one: requests that waited for it must not
        wait for attempts of their own, one after the other.
        """
        with self._lock:
            now = self._read_clock()
            self._refused += 1
            self._next_attempt_at = now + RETRY_INTERVAL
            is_first = self._began_at is None
            if is_first:
                self._began_at = now
        if is_first:
            log.error(
                "database outage began (%s): requests get 503, assignments go to humans", reason
            )

    def record_success(self) -> None:
        """End the outage, if one lasts."""
        if not self.is_open:
            return
        with self._lock:
            began_at, refused = self._began_at, self._refused
            self._began_at, self._refused = None, 0
        if began_at is not None:  # another thread may have ended it
            seconds = self._read_clock() - began_at
            log.warning(
                "database outage ended after %.1f s: %d transactions refused", seconds, refused
            )


WRITE_LOCK_TIMEOUT: Final = 5.0
"""Seconds that a writer waits for others of its process; `busy_timeout` is for other processes."""
MIN_LOCK_SECONDS: Final = 0.05
_lock_deadline: ContextVar[float] = ContextVar("lock_deadline", default=inf)
SIGN_SECONDS: Final = 0.002
POLL_SECONDS: Final = 0.05
POOL_TIMEOUT: Final = 5.0
"""Seconds that a transaction waits for a free connection of its process."""
SQLITE_PRAGMAS: Final = {
    "busy_timeout": ("5000", 5000),
    "journal_mode": ("wal", "wal"),
    "synchronous": ("full", 2),  # `normal` loses acknowledged rows in a power failure
    "fullfsync": ("on", 1),  # only affects macOS: flushes the disk's cache
    "foreign_keys": ("on", 1),
    "recursive_triggers": ("on", 1),  # `insert or replace` then fires delete triggers
}
UNFLUSHED: Final = {"synchronous": ("off", 0)}
"""For a file that is thrown away unless it is finished: a power failure may damage it."""
POSTGRESQL_SETTINGS: Final = {
    "lock_timeout": "5s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "15s",  # a paused replica must not block the others
}
MAX_STATEMENT_SILENCE: Final = 65.0
"""Seconds without a byte from PostgreSQL, more than `statement_timeout`; none in migrations."""
READ_ONLY: Final = {"query_only": ("on", 1)}
"""Set last, and once: setting it for each transaction would discard prepared statements."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """A database transaction; repositories use it and never commit."""

    connection: Connection
    pool: object
    """The pool of the database's writing connections: a cache key."""
    tally: WriteTally = field(default_factory=WriteTally, compare=False)

    @property
    def engine(self) -> str:
        """Return `sqlite` or `postgresql`."""
        return self.connection.dialect.name

    def execute(
        self,
        statement: Executable,
        rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> CursorResult[Any]:
        """Execute a statement, once or for each of `rows`."""
        if not statement.is_dml:
            return self.connection.execute(statement, rows)
        self.tally.count_rows(rows)  # before, so that a statement that fails counts
        result = self.connection.execute(statement, rows)
        if rows is None:  # perhaps of a set of rows; a negative number is unknown
            self.tally.rows += max(result.rowcount - 1, 0)
        return result

    def find(self, query: Select[Any], build: Callable[[Row[Any]], ValueT]) -> ValueT | None:
        """Return what is built of a query's only row, None without one."""
        row = self.execute(query).one_or_none()
        return None if row is None else build(row)

    @contextmanager
    def rehearse(self) -> Iterator[None]:
        """Undo the block at its end; it raises its errors and appends nothing."""
        writes, appends = dict(self.tally.writes), dict(self.tally.appends)
        try:
            with self.connection.begin_nested() as savepoint:
                yield
                savepoint.rollback()
        finally:
            self.tally.writes, self.tally.appends = writes, appends


class Repository:
    """Reads and writes tables in one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction


@contextmanager
def limit_lock_waits(seconds: float) -> Iterator[None]:
    """Let this thread's transactions in the block wait for locks no longer than this, together.

    Each still waits for `MIN_LOCK_SECONDS`, so that one that was held up leaves the next a chance.
    """
    token = _lock_deadline.set(min(_lock_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _lock_deadline.reset(token)


def _count_lock_seconds() -> float:
    """Return how long a transaction that begins now may wait for locks; `inf` without a limit."""
    deadline = _lock_deadline.get()
    return inf if deadline == inf else max(MIN_LOCK_SECONDS, deadline - time.monotonic())


class UrgencySign:
    """Tells the processes that share a folder that an urgent writer waits or writes.

    It is a lock of the folder itself: urgent writers share it, others see whether it is free.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def raise_sign(self) -> Iterator[None]:
        """Hold others back until the end of the block; where that can't be, they go on."""
        with ExitStack() as stack:
            with suppress(OSError, ImportError):
                import fcntl  # noqa: PLC0415 - not on Windows

                fcntl.flock(stack.enter_context(self._open()), fcntl.LOCK_SH)
            yield

    def wait_for_none(self, seconds: float) -> None:
        """Wait until no urgent writer is there, at most for so long."""
        ends_at = time.monotonic() + seconds
        with suppress(OSError, ImportError), self._open() as folder:
            import fcntl  # noqa: PLC0415

            while time.monotonic() < ends_at:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(SIGN_SECONDS)
                else:
                    return

    @contextmanager
    def _open(self) -> Iterator[int]:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class WriteLock:
    """A lock of one process, granted in order of arrival, to urgent writers first.

    SQLite lets one transaction write and has the others poll, so a frequent writer overtakes the
    rest: a stop could wait for as long as records arrive, or behind a queue of large batches.
    Users' commands are short and therefore go first. PostgreSQL queues writers itself, row by row.
    """

    def __init__(self, timeout: float, folder: Path, *, gives_way: bool = False) -> None:
        """Create a free lock.

        Args:
            timeout: in seconds.
            folder: that of the database.
            gives_way: to urgent writers of other processes, too; for one that writes in one thread.
        """
        self._timeout, self._sign, self._gives_way = timeout, UrgencySign(folder), gives_way
        self._mutex = Lock()
        self._urgent_queue: deque[Event] = deque()
        self._normal_queue: deque[Event] = deque()
        self._is_taken = False

    @contextmanager
    def hold(self, *, is_urgent: bool = False) -> Iterator[None]:
        """Acquire the lock until the end of the block.

        Raises:
            DatabaseBusyError: the lock was not free in time; nothing was done.
        """
        if self._gives_way and not is_urgent:
            self._sign.wait_for_none(self._timeout)
        with self._sign.raise_sign() if is_urgent else nullcontext():
            self._acquire(self._urgent_queue if is_urgent else self._normal_queue)
            try:
                yield
            finally:
                self._release()

    def _acquire(self, queue: deque[Event]) -> None:
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return
            turn = Event()
            queue.append(turn)
        if not turn.wait(min(self._timeout, _count_lock_seconds())):
            self._cancel_wait(turn, queue)

    def _cancel_wait(self, turn: Event, queue: deque[Event]) -> None:
        with self._mutex:
            if turn.is_set():  # granted after the time-out
                return
            queue.remove(turn)
        raise DatabaseBusyError("the database is busy with other writers; nothing was done, retry")

    def _release(self) -> None:
        with self._mutex:
            queue = self._urgent_queue or self._normal_queue
            if queue:
                queue.popleft().set()
            else:
                self._is_taken = False


class Database:
    """A database by its URL: an SQLite file, or PostgreSQL."""

    def __init__(self, url: str, *, is_draft: bool = False, gives_way: bool = False) -> None:
        """Prepare a pool; the first transaction connects.

        Args:
            url: of the database.
            is_draft: SQLite doesn't wait for the disk; whoever finishes the file flushes it.
            gives_way: on SQLite urgent writers of other processes go first, too.

        Raises:
            UnsafeDatabaseError: the engine is unknown, or SQLite in memory.
        """
        self.append_failures, self.damage_signs = AppendFailures(), DamageSigns()
        self.outages = OutageMonitor()
        self.engine = create_database_engine(url, self.outages, is_draft=is_draft)
        if self.file is None:
            self.engines: tuple[Engine, ...] = (self.engine,)
            self._read_engine: Engine = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        else:
            self._read_engine = create_database_engine(url, is_draft=is_draft, writes=False)
            self.engines = (self.engine, self._read_engine)
        self._write_lock = (
            None
            if self.file is None
            else WriteLock(WRITE_LOCK_TIMEOUT, self.file.absolute().parent, gives_way=gives_way)
        )

    @contextmanager
    def begin_read(self) -> Iterator[Transaction]:
        """Open a transaction that sees one instant and can't write.

        Raises:
            DatabaseUnavailableError: the database does not respond; nothing was done.
        """
        with (
            self.damage_signs.watch(),
            self._watch_outages(),
            self._read_engine.connect() as connection,
            _begin_transaction(connection) as database_transaction,
            database_transaction,
        ):
            yield Transaction(connection, self.engine.pool)

    @contextmanager
    def begin_write(self, *, is_urgent: bool = False) -> Iterator[Transaction]:
        """Open a transaction that commits after the block.

        An error in the block rolls it back.

        Args:
            is_urgent: goes before other writers of this process; for short transactions.

        Raises:
            DatabaseBusyError: another transaction held a lock for too long; nothing was done.
            DatabaseUnavailableError: the database does not respond; nothing was done.
            CommitUnknownError: the connection broke while committing.
        """
        lock = (
            nullcontext()
            if self._write_lock is None
            else self._write_lock.hold(is_urgent=is_urgent)
        )
        with (
            self.damage_signs.watch(),
            self.append_failures.watch_transaction() as tally,
            lock,
            self._watch_outages(writes=True),
            self.engine.connect() as connection,
            _begin_transaction(connection) as database_transaction,
        ):
            # an error is raised here; closing rolls back
            yield Transaction(connection, self.engine.pool, tally)
            faults.reach_point("commit.before")
            _commit(connection, database_transaction)
        faults.reach_point("commit.after")

    @property
    def file(self) -> Path | None:
        """Return SQLite's file; None on PostgreSQL."""
        name = self.engine.url.database
        return Path(name) if self.engine.dialect.name == "sqlite" and name else None

    @contextmanager
    def _watch_outages(self, *, writes: bool = False) -> Iterator[None]:
        """Raise a `StoreError` where the database failed, and record whether it responds."""
        try:
            with translate_driver_errors(writes=writes):
                yield
        except DatabaseUnavailableError as error:
            if error.__cause__ is None:  # not a failure of the driver
                self.outages.record_refusal()
            else:
                self.outages.record_failure(describe_failure(error.__cause__))
            raise
        else:
            self.outages.record_success()

    def count_connections(self) -> Mapping[str, int]:
        """Return the numbers of connections by state: `used` and `idle`."""
        queues = [e.pool for e in self.engines if isinstance(e.pool, QueuePool)]  # all: the default
        used, idle = (pool.checkedout() for pool in queues), (pool.checkedin() for pool in queues)
        return {"used": sum(used), "idle": sum(idle)}

    def wait_until_unused(self, seconds: float) -> bool:
        """Wait for other threads' transactions; return whether none is left.

        A connection in use outlives `close`, and with it the WAL of SQLite.
        """
        last_look = time.monotonic() + seconds
        while self.count_connections()["used"]:
            if time.monotonic() >= last_look:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def close(self) -> None:
        """Close the connections of all pools."""
        for engine in self.engines:
            engine.dispose()


def load_database_time(transaction: Transaction) -> datetime | None:
    """Return the server's current time; None on SQLite."""
    if transaction.engine == "sqlite":
        return None
    at = transaction.execute(text("select clock_timestamp()")).scalar_one()
    assert isinstance(at, datetime)  # noqa: S101 - PostgreSQL's timestamptz
    return at


@contextmanager
def _begin_transaction(connection: Connection) -> Iterator[DatabaseTransaction]:
    """Begin a transaction that waits for locks as long as `limit_lock_waits` says."""
    seconds = _count_lock_seconds()
    if seconds == inf:
        yield connection.begin()
    elif connection.dialect.name == "postgresql":
        database_transaction = connection.begin()
        connection.exec_driver_sql(f"set local lock_timeout = '{seconds * 1_000:.0f}ms'")
        yield database_transaction
    else:
        driver: Any = connection.connection.driver_connection  # SQLAlchemy's would begin
        (usual,) = driver.execute("pragma busy_timeout").fetchone()
        driver.execute(f"pragma busy_timeout={min(usual, int(seconds * 1_000))}")
        try:
            yield connection.begin()
        finally:
            if not connection.invalidated:
                driver.execute(f"pragma busy_timeout={usual}")


def _commit(connection: Connection, database_transaction: DatabaseTransaction) -> None:
    try:
        database_transaction.commit()
    except DBAPIError as error:
        connection.invalidate()  # SQLite leaves the transaction open; it must not be reused
        if not is_commit_unknown(error):
            raise
        raise CommitUnknownError(
            "the connection broke while committing; retry, a completed request is not repeated"
        ) from error


def create_database_engine(
    url: str,
    outages: OutageMonitor | None = None,
    *,
    is_draft: bool = False,
    writes: bool = True,
) -> Engine:
    """Return the engine of a database, set up for durability.

    During an outage recorded in `outages`, PostgreSQL is connected to now and then only. Without
    `writes`, connections to SQLite can only read.

    Raises:
        UnsafeDatabaseError: the engine is unknown, or SQLite in memory.
    """
    database_url = _parse_url(url)
    if database_url.get_backend_name() == "sqlite":
        engine = create_engine(
            database_url, pool_timeout=POOL_TIMEOUT, hide_parameters=True, pool_use_lifo=True
        )
        file = Path(database_url.database or "")
        pragmas = SQLITE_PRAGMAS | (UNFLUSHED if is_draft else {}) | ({} if writes else READ_ONLY)
        event.listen(engine, "connect", partial(_set_up_sqlite, pragmas))
        event.listen(engine, "connect", partial(_record_file, file))  # after the file was created
        event.listen(engine, "checkout", partial(_check_same_file, file))
        if writes:
            event.listen(engine, "checkout", partial(_check_synchronous, pragmas["synchronous"][1]))
        event.listen(engine, "begin", partial(_begin_sqlite, writes))
        return engine
    engine = create_engine(
        database_url,
        pool_timeout=POOL_TIMEOUT,
        isolation_level="READ COMMITTED",
        hide_parameters=True,  # values of records are nothing for a log
    )
    event.listen(engine, "do_connect", partial(_connect_postgresql, outages))
    event.listen(engine, "connect", _set_up_postgresql)
    replace_closed_connections(engine)
    return engine


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UnsafeDatabaseError(
            f"{url!r} is not a database URL; write sqlite:///rollout.db"
        ) from error
    match parsed.get_backend_name():
        case "sqlite" if (parsed.database or ":memory:").startswith((":memory:", "file:")):
            raise UnsafeDatabaseError("SQLite needs a file of its own; write sqlite:///rollout.db")
        case "sqlite":
            return parsed.set(drivername="sqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
    raise UnsafeDatabaseError(f"{parsed.get_backend_name()} is not known; use SQLite or PostgreSQL")


def _set_up_sqlite(
    pragmas: Mapping[str, tuple[str, object]], connection: Any, _record: object
) -> None:
    connection.isolation_level = None  # the driver starts no transaction by itself
    for pragma, (value, expected) in pragmas.items():
        connection.execute(f"pragma {pragma}={value}")
        (actual,) = connection.execute(f"pragma {pragma}").fetchone()
        if actual != expected:
            raise UnsafeDatabaseError(f"SQLite keeps {pragma} at {actual}; {value} is needed")


def _identify_file(file: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, or None."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _record_file(file: Path, _connection: object, record: Any) -> None:
    record.info["file"] = _identify_file(file)


def _check_same_file(file: Path, _connection: object, record: Any, _proxy: object) -> None:
    """Refuse a connection to a file that was replaced.

    After a restored backup, writes to the old file would be lost, and a stop in the new one would
    not be seen.

    Raises:
        DisconnectionError: the pool connects anew.
    """
    if record.info["file"] != _identify_file(file):
        raise DisconnectionError(f"{file} was replaced")


def _check_synchronous(expected: object, connection: Any, _record: object, _proxy: object) -> None:
    (actual,) = connection.execute("pragma synchronous").fetchone()
    if actual != expected:
        raise UnsafeDatabaseError("`synchronous` was changed on a pooled connection; restart")


def _begin_sqlite(writes: bool, connection: Connection) -> None:
    connection.exec_driver_sql("begin immediate" if writes else "begin")


def _connect_postgresql(
    outages: OutageMonitor | None,
    _dialect: object,
    _record: object,
    arguments: Sequence[Any],
    parameters: Mapping[str, Any],
) -> Any:
    assert not arguments  # noqa: S101 - SQLAlchemy names all parameters of this driver
    if outages is not None:
        outages.begin_attempt()
    max_silence = inf if outages is None else MAX_STATEMENT_SILENCE
    # the driver belongs to the extra `pg`, so it is imported where it is used
    connections = import_module("rollout.data.database.postgresql_connections")
    return connections.connect_limited(max_silence, parameters)


def _set_up_postgresql(connection: Any, _record: object) -> None:
    connection.autocommit = True
    for setting, value in POSTGRESQL_SETTINGS.items():
        connection.execute(f"set {setting} = '{value}'")
    connection.autocommit = False
