"""Errors of the database, each with what to do next.

    StoreError
    ├── DatabaseBusyError    a lock was held for too long; nothing was done, retry
    ├── CommitUnknownError   the connection broke while committing; retry with the same key
    ├── LedgerFormError      a ledger is still in form 1; the message names the command
    ├── SchemaMismatchError  the tables are not those of this program
    ├── UnreadableRowsError  stored rows have no valid form; run `rollout doctor`
    └── UnsafeDatabaseError  the database could lose or change acknowledged rows

Refusals by the rollout's own rules are `rollout.core.errors.RefusalError`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, OperationalError


class StoreError(Exception):
    """A database failure; `str()` says why and what to do next."""

    code = "database-error"


class DatabaseBusyError(StoreError):
    """A lock that another transaction held for too long; nothing was done."""

    code = "database-busy"


class CommitUnknownError(StoreError):
    """A connection that broke while committing: the commit may have succeeded."""

    code = "outcome-unknown"


class SchemaMismatchError(StoreError):
    """Tables that are missing, or older or newer than this program."""

    code = "schema-mismatch"


class LedgerFormError(StoreError):
    """A ledger in form 1, which is no longer written."""

    code = "ledger-form"


class UnreadableRowsError(StoreError):
    """Stored rows that have no valid form."""

    code = "unreadable-rows"


class UnsafeDatabaseError(StoreError):
    """A database that could lose or change acknowledged rows."""

    code = "unsafe-database"


BUSY_STATES = frozenset({"55P03", "40P01", "40001", "57014", "25P03", "25P04"})
"""PostgreSQL: lock time-out, deadlock, serialization, statement and idle time-outs."""


@contextmanager
def translate_driver_errors() -> Iterator[None]:
    """Raise `DatabaseBusyError` for driver errors under contention; pass other errors on."""
    try:
        yield
    except DBAPIError as error:
        if not _is_busy(error):
            raise
        raise DatabaseBusyError("the database is busy; nothing was done, retry") from error


def _is_busy(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return state in BUSY_STATES or "database is locked" in str(error.orig)


def is_commit_unknown(error: DBAPIError) -> bool:
    """Return whether a commit that failed with this error may have succeeded."""
    state = (
        getattr(error.orig, "sqlstate", None) or "08"
    )  # classes 08: connection, 57: operator intervention
    return isinstance(error, OperationalError) and state[:2] in {"08", "57"} and not _is_busy(error)


UnstorableValueError = DataError
"""A value that a column can't store, such as NUL in a text of PostgreSQL."""
