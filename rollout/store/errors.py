"""What can be wrong with the database, and what to do next.

    StoreError
    ├── DatabaseBusy       a lock was held for too long; nothing was done, ask again
    ├── OutcomeUnknown     the connection broke while committing; asking again is safe by its key
    ├── LedgerFormError    a ledger is still in form 1; says what to run
    ├── SchemaMismatch     the tables are not those of this program
    └── UnsafeDatabase     it would lose or change what it acknowledged

What the rollout's own rules refuse is a `rollout.core.errors.Refusal`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, OperationalError


class StoreError(Exception):
    """The database can't do it. `str()` says why and what to do next."""

    code = "database-error"


class DatabaseBusy(StoreError):  # noqa: N818 - named for what is so, as all refusals are
    """Somebody else held a lock for too long. Nothing was done."""

    code = "database-busy"


class OutcomeUnknown(StoreError):  # noqa: N818
    """The connection broke while committing: it may or may not have been done."""

    code = "outcome-unknown"


class SchemaMismatch(StoreError):  # noqa: N818
    """The tables are older or newer than this program, or there are none."""

    code = "schema-mismatch"


class LedgerFormError(StoreError):
    """A ledger is still in form 1, in which nothing is written any more."""

    code = "ledger-form"


class UnsafeDatabase(StoreError):  # noqa: N818
    """The database would lose or change what it has acknowledged."""

    code = "unsafe-database"


BUSY_STATES = frozenset({"55P03", "40P01", "40001", "57014", "25P03", "25P04"})
"""PostgreSQL: lock time-out, deadlock, serialization, statement and idle time-outs."""


@contextmanager
def named() -> Iterator[None]:
    """Turn what drivers raise under contention into `DatabaseBusy`; all else goes through."""
    try:
        yield
    except DBAPIError as error:
        if not _busy(error):
            raise
        raise DatabaseBusy("the database is busy; nothing was done, ask again") from error


def _busy(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None)
    return state in BUSY_STATES or "database is locked" in str(error.orig)


def undecided(error: DBAPIError) -> bool:
    """Say whether a commit that failed so may have been done: no server said that it was not."""
    state = getattr(error.orig, "sqlstate", None) or "08"  # 08: connection, 57P: shut down
    return isinstance(error, OperationalError) and state[:2] in {"08", "57"} and not _busy(error)


UNKEPT = DataError
"""A value that a column can not hold, as NUL in a text of PostgreSQL."""
