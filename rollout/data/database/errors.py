"""Errors of the database, each with what to do next.

    StoreError
    ├── DatabaseBusyError         a lock was held for too long; nothing was done, retry
    ├── DatabaseUnavailableError  the database does not respond; nothing was done, retry
    ├── CommitUnknownError        the connection broke while committing; retry with the same key
    ├── DatabaseInUseError        other programs have the database open
    ├── MissingToolError          a program of PostgreSQL is not installed
    ├── SchemaMismatchError       the tables are not those of this program
    ├── UnreadableRowsError       stored rows have no valid form; run `rollout doctor`
    └── UnsafeDatabaseError       the database could lose or change acknowledged rows

Refusals by the rollout's own rules are `rollout.kernel.errors.RefusalError`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

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
