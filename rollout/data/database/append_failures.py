"""Errors of the database, and what one process knows of its failed appends and of damage.

Each error says what to do next; the tree is below.

A small write may succeed on a full disk where a larger one fails. So a failed append counts until
an append of the same kind succeeds, whatever else was written meanwhile. The kinds:

- `stop`, `narrowing`, `tick`: whole operations, each repeated by the replica until it succeeds.
- `append`: of few rows, or a lock or a connection failed, which shows nothing about larger ones.
  Any append to the ledger ends it.
- the first event's kind, for a larger append. It ends with an append of that kind with at least
  half as many rows: a repetition finds some rows, such as an account's id, already there.
- what a transaction announced, if it failed before its append or has none: `records`, or the kind
  of the event to come. It ends in the same way.

What is written later in parts, by any sender, ends a large failure when it adds up to all of its
rows. A database that grew by as much has had the space, and the sender may have gone elsewhere.

Every writing transaction is watched, so that no caller can forget it.

The errors:

    StoreError
    ├── DatabaseBusyError         a lock was held for too long; nothing was done, retry
    ├── DatabaseUnavailableError  the database does not respond; nothing was done, retry
    ├── CommitUnknownError        the connection broke while committing; retry with the same key
    ├── DatabaseInUseError        other programs have the database open
    ├── BackupRoleError           the role may not read all that a backup holds
    ├── MissingToolError          a program of PostgreSQL is not installed
    ├── SchemaMismatchError       the tables are not those of this program
    ├── UnreadableRowsError       stored rows have no valid form; run `rollout doctor`
    └── UnsafeDatabaseError       the database could lose or change acknowledged rows

Refusals by the rollout's own rules are `rollout.kernel.errors.RefusalError`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock, local
from typing import Any, Final

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeoutError,
)

from rollout.kernel.errors import PolicyRefusedError


class StoreError(Exception):
    """A database failure; `str()` says why and what to do next."""

    code = "database-error"


class DatabaseBusyError(StoreError):
    """A lock that another transaction held for too long; nothing was done."""

    code = "database-busy"


class DatabaseUnavailableError(StoreError):
    """A database that does not respond; nothing was done."""

    code = "database-unavailable"


class CommitUnknownError(StoreError):
    """A connection that broke while committing: the commit may have succeeded."""

    code = "outcome-unknown"


class DatabaseInUseError(StoreError):
    """A database that other programs have open; it can't be replaced."""


class BackupRoleError(StoreError):
    """A role that may not read all that a backup holds."""


class MissingToolError(StoreError):
    """A program of PostgreSQL that is not installed; the text has its command."""


class SchemaMismatchError(StoreError):
    """Tables that are missing, or older or newer than this program."""

    code = "schema-mismatch"


class UnreadableRowsError(StoreError):
    """Stored rows that have no valid form."""

    code = "unreadable-rows"


class UnsafeDatabaseError(StoreError):
    """A database that could lose or change acknowledged rows."""

    code = "unsafe-database"


BUSY_STATES = frozenset({"55P03", "40P01", "40001", "57014", "25P03", "25P04"})
"""PostgreSQL: lock time-out, deadlock, serialization, statement and idle time-outs."""


NO_PRIVILEGE = "42501"
"""PostgreSQL's state where a role lacks a right."""
SQLITE_UNREACHABLE = frozenset({10, 14})
"""SQLite's primary result codes for a file that can't be read or opened: IOERR, CANTOPEN."""
SQLITE_FAILED = frozenset({11, 13, 26})
"""SQLite's primary result codes for CORRUPT, FULL and NOTADB."""
SQLITE_READ_ONLY = 8
UNREACHABLE_CLASSES = frozenset({"08", "57"})
"""PostgreSQL's classes of states: connection exception, operator intervention."""
FAILED_CLASSES = frozenset({"53", "58", "XX"})
"""PostgreSQL's classes: insufficient resources, system error, damaged data."""


@contextmanager
def translate_driver_errors(*, writes: bool = False) -> Iterator[None]:
    """Raise a `StoreError` where the database failed; pass errors of statements on.

    A database that can't be written has failed if the transaction `writes`; otherwise the program
    made a mistake.

    Raises:
        DatabaseBusyError: a lock was held for too long, or all connections are in use.
        DatabaseUnavailableError: the database does not respond.
        StoreError: the database can't store or read, for example because the disk is full.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseBusyError(
            "all connections to the database are in use; nothing was done, retry"
        ) from error
    except DBAPIError as error:
        translated = _translate_error(error, writes=writes)
        if translated is None:
            raise
        raise translated from error


def _translate_error(error: DBAPIError, *, writes: bool) -> StoreError | None:
    if _is_busy(error):
        return DatabaseBusyError("the database is busy; nothing was done, retry")
    if _is_unreachable(error):
        return DatabaseUnavailableError("the database does not respond; nothing was done, retry")
    if _is_failed(error) or (writes and _read_result_code(error) == SQLITE_READ_ONLY):
        return StoreError(
            f"the database failed ({_read_first_line(error)}); nothing was done, retry when the"
            " database works again"
        )
    if getattr(error.orig, "sqlstate", None) == NO_PRIVILEGE:
        return StoreError(
            f"the role of this URL lacks a right ({_read_first_line(error)}); the owner of the"
            " tables gives it by `rollout db grant`, also after a restore"
        )
    return None


def describe_failure(error: BaseException | None) -> str:
    """Return the driver's reason in one line, for the log."""
    return _read_first_line(error) if isinstance(error, DBAPIError) else str(error)


def _read_first_line(error: DBAPIError) -> str:
    return (str(error.orig).splitlines() or [type(error.orig).__name__])[0]


def _is_unreachable(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or str(state)[:2] in UNREACHABLE_CLASSES:
        return True
    if _read_result_code(error) in SQLITE_UNREACHABLE:
        return True
    is_postgresql = type(error.orig).__module__.startswith("psycopg")
    return isinstance(error, OperationalError) and is_postgresql and state is None


def _is_failed(error: DBAPIError) -> bool:
    state = str(getattr(error.orig, "sqlstate", None))
    return state[:2] in FAILED_CLASSES or _read_result_code(error) in SQLITE_FAILED


def _read_result_code(error: DBAPIError) -> int | None:
    """Return SQLite's primary result code, None for other errors."""
    extended_code = getattr(error.orig, "sqlite_errorcode", None)
    return None if extended_code is None else int(extended_code) & 0xFF


def _is_busy(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return state in BUSY_STATES or "database is locked" in str(error.orig)


def is_commit_unknown(error: DBAPIError) -> bool:
    """Return whether a commit that failed with this error may have succeeded."""
    state = (
        getattr(error.orig, "sqlstate", None) or "08"
    )  # classes 08: connection, 57: operator intervention
    return isinstance(error, OperationalError) and state[:2] in {"08", "57"} and not _is_busy(error)


DriverError = DBAPIError
"""Any other error of a driver, for example about a damaged file."""

UnstorableValueError = DataError
"""A value that a column can't store, such as NUL in a text of PostgreSQL."""

UNREADABLE_ERRORS: Final = (
    *(SQLAlchemyError, StoreError, PolicyRefusedError),
    *(ValueError, TypeError, LookupError),
)
"""Errors of a read that meets a damaged page, a missing row, or content that can't be parsed."""


def describe_unreadable(error: Exception) -> str:
    """Return a sentence for one of `UNREADABLE_ERRORS`."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"can't be read ({cause}); restore the database from a backup"


APPEND, STOP, NARROWING, TICK = "append", "stop", "narrowing", "tick"
"""Kinds of appends to a ledger, beside those of large ones."""
RECORDS, ACCESS = "records", "access"
"""Kinds of large writes that may come before an append, or without one."""
SMALL_APPEND: Final = 20
"""Rows that a transaction of kind `append` writes at most: a few pages, as an incident does."""
CHARACTERS_PER_ROW: Final = 500
"""Length of a text that counts as a further row: about a row of a ledger."""
SQLITE_DAMAGE: Final = frozenset({11, 26})
"""SQLite's primary result codes CORRUPT and NOTADB."""
POSTGRESQL_DAMAGE: Final = frozenset({"XX001", "XX002"})
"""PostgreSQL's states data_corrupted and index_corrupted."""
POSTGRESQL_TIME_OUTS: Final = frozenset({"57014", "25P03", "25P04"})
"""PostgreSQL's time-outs of statements, idle transactions and whole transactions."""


def is_storage_failure(error: BaseException) -> bool:
    """Return whether the database or its disk failed, rather than the request."""
    return isinstance(error, StoreError | DBAPIError | OSError)


def is_damage(error: BaseException) -> bool:
    """Return whether stored rows can't be read, by the driver's code."""
    original = _find_driver_error(error)
    result_code = getattr(original, "sqlite_errorcode", None)
    return getattr(original, "sqlstate", None) in POSTGRESQL_DAMAGE or (
        result_code is not None and result_code & 0xFF in SQLITE_DAMAGE
    )


def is_failure_of_size(error: BaseException) -> bool:
    """Return whether a smaller transaction might have succeeded.

    SQLite has no connection to lose: what looks like it may be a full disk.
    """
    if isinstance(error, DatabaseBusyError):
        return False
    is_lost = isinstance(error, DatabaseUnavailableError | CommitUnknownError)
    return not is_lost or hasattr(_find_driver_error(error), "sqlite_errorcode")


def is_contention(error: BaseException) -> bool:
    """Return whether other transactions were in the way of a working database."""
    state = getattr(_find_driver_error(error), "sqlstate", None)
    return isinstance(error, DatabaseBusyError) and state not in POSTGRESQL_TIME_OUTS


def _find_driver_error(error: BaseException) -> BaseException | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        cause = cause.__cause__
    return None if cause is None else cause.orig


@dataclass(slots=True)
class WriteTally:
    """What one transaction has written.

    Attributes:
        rows: of all tables.
        writes: kinds of what was announced, by rollout.
        appends: kinds of the first events, by rollout.
    """

    rows: int = 0
    writes: dict[str, str] = field(default_factory=dict)
    appends: dict[str, str] = field(default_factory=dict)

    def announce(self, rollout_name: str, kind: str) -> None:
        """Let a failure before the append, or without one, count as one of this kind."""
        self.writes.setdefault(rollout_name, kind)

    def count_rows(self, rows: Mapping[str, Any] | Sequence[Any] | None) -> None:
        """Count the rows of a statement; a single row's long texts count as more."""
        if isinstance(rows, Mapping):
            lengths = (len(value) for value in rows.values() if isinstance(value, str))
            self.rows += 1 + sum(length // CHARACTERS_PER_ROW for length in lengths)
        else:
            self.rows += 1 if rows is None else len(rows)


@dataclass(slots=True)
class AppendAttempt:
    """An append under way; `is_appended` becomes true when rows were committed."""

    is_appended: bool = False


@dataclass(frozen=True, slots=True)
class AppendFailure:
    """Why an append failed, the rows that it had written by then, and those of later parts."""

    reason: str
    rows: int = 0
    repeated_rows: int = 0

    def repeat(self, rows: int) -> "AppendFailure | None":
        """Return what is left of it after a success of its kind, None if nothing."""
        repeated_rows = self.repeated_rows + rows
        if self.rows <= max(2 * rows, repeated_rows):
            return None
        return replace(self, repeated_rows=repeated_rows)

    def repeat_failure(self, reason: str, rows: int) -> "AppendFailure":
        """Return it after another failure of its kind; a failure of all begins anew."""
        most = max(self.rows, rows)
        return AppendFailure(reason, most, min(self.repeated_rows, most - rows))


class AppendFailures:
    """Appends that failed, by rollout and kind, until one of the kind succeeds."""

    def __init__(self) -> None:
        self._failures: Mapping[tuple[str, str], AppendFailure] = {}
        self._lock, self._thread = Lock(), local()

    @contextmanager
    def watch(self, rollout_name: str, kind: str) -> Iterator[AppendAttempt]:
        """Record whether the append in this block failed or succeeded.

        A refusal, or a block that appends nothing, changes nothing. Within an operation all is
        part of it, also after another block.
        """
        attempt = AppendAttempt()
        is_within_operation = self._is_operation
        self._thread.is_operation = is_within_operation or kind != APPEND
        try:
            yield attempt
        except Exception as error:
            if is_storage_failure(error):
                self.record_failure(rollout_name, kind, f"{type(error).__name__}: {error}")
            raise
        finally:
            self._thread.is_operation = is_within_operation
        if attempt.is_appended:
            self.record_success(rollout_name, kind)

    @contextmanager
    def watch_transaction(self) -> Iterator[WriteTally]:
        """Record whether what a transaction writes for rollouts failed or succeeded.

        Within `watch` a failure of an operation is of that operation's kind alone.
        """
        tally = WriteTally()
        try:
            yield tally
        except Exception as error:
            # a value that can't be stored, or is there already, is the request's fault
            is_refusal = isinstance(error, UnstorableValueError | IntegrityError)
            if is_storage_failure(error) and not is_refusal:
                self._record_failed_writes(tally, error)
            raise
        for rollout_name in tally.appends:
            self.record_success(rollout_name, APPEND)
        for rollout_name, kind in {*tally.writes.items(), *tally.appends.items()}:
            if kind == RECORDS or rollout_name in tally.appends:  # other kinds need their append
                self.record_success(rollout_name, kind, tally.rows)

    @property
    def _is_operation(self) -> bool:
        return getattr(self._thread, "is_operation", False)

    def _record_failed_writes(self, tally: WriteTally, error: Exception) -> None:
        if self._is_operation:
            return
        reason = f"{type(error).__name__}: {error}"
        is_small = tally.rows <= SMALL_APPEND or not is_failure_of_size(error)
        # users wait for an append; a sender who only met another one repeats
        writes = {} if is_contention(error) else tally.writes
        for rollout_name, kind in {**writes, **tally.appends}.items():
            self.record_failure(rollout_name, APPEND if is_small else kind, reason, tally.rows)

    def record_failure(self, rollout_name: str, kind: str, reason: str, rows: int = 0) -> None:
        """Record a failed append."""
        key = (rollout_name, kind)
        with self._lock:
            earlier = self._failures.get(key, AppendFailure(""))
            failure = earlier.repeat_failure((reason.splitlines() or [""])[0], rows)
            self._failures = {**self._failures, key: failure}

    def record_success(self, rollout_name: str, kind: str, rows: int | None = None) -> None:
        """Forget the failure of that kind, if any; after a part of it count the rows."""
        key = (rollout_name, kind)
        if key not in self._failures:
            return
        with self._lock:
            failures = dict(self._failures)
            failure = failures.pop(key, None)
            left_over = None if failure is None or rows is None else failure.repeat(rows)
            self._failures = failures if left_over is None else {**failures, key: left_over}

    @property
    def failures(self) -> Mapping[tuple[str, str], AppendFailure]:
        """Return the failures by rollout and kind; never changed later."""
        return self._failures


class DamageSigns:
    """Signs of damage that transactions of one process met, until they are taken."""

    def __init__(self) -> None:
        self.text = ""

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Keep the text of an error that shows damage, and raise it on."""
        try:
            yield
        except Exception as error:
            if is_damage(error):
                self.text = str(error).splitlines()[0]
            raise
