"""What one process knows about its failed appends and about damage in its database.

A small write may succeed on a full disk where a larger one fails. So a failed append counts until
an append of the same kind succeeds, whatever else was written meanwhile. The kinds:

- `stop`, `narrowing`, `tick`: whole operations, each repeated by the replica until it succeeds.
- `append`: of few rows, or a lock or a connection failed, which shows nothing about larger ones.
  Any append to the ledger ends it.
- the first event's kind, for a larger append. It ends with an append of that kind with at least
  half as many rows: a repetition finds some rows, such as an account's id, already there.

Every writing transaction is watched, so that no caller can forget it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock, local
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from rollout.store.database.errors import (
    CommitUnknownError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    StoreError,
    UnstorableValueError,
)

APPEND, STOP, NARROWING, TICK = "append", "stop", "narrowing", "tick"
"""Kinds of appends to a ledger, beside those of large ones."""
SMALL_APPEND: Final = 20
"""Rows that a transaction of kind `append` writes at most: a few pages, as an incident does."""
CHARACTERS_PER_ROW: Final = 500
"""Length of a text that counts as a further row: about a row of a ledger."""
SQLITE_DAMAGE: Final = frozenset({11, 26})
"""SQLite's primary result codes CORRUPT and NOTADB."""
POSTGRESQL_DAMAGE: Final = frozenset({"XX001", "XX002"})
"""PostgreSQL's states data_corrupted and index_corrupted."""


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


def _find_driver_error(error: BaseException) -> BaseException | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        cause = cause.__cause__
    return None if cause is None else cause.orig


@dataclass(slots=True)
class WriteTally:
    """What one transaction has written: rows, and appends as kinds of first events by rollout."""

    rows: int = 0
    appends: dict[str, str] = field(default_factory=dict)

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
    """Why an append failed, and the rows that it had written by then."""

    reason: str
    rows: int = 0


class AppendFailures:
    """Appends that failed, by rollout and kind, until one of the kind succeeds."""

    def __init__(self) -> None:
        self._failures: Mapping[tuple[str, str], AppendFailure] = {}
        self._lock, self._thread = Lock(), local()

    @contextmanager
    def watch(self, rollout_name: str, kind: str) -> Iterator[AppendAttempt]:
        """Record whether the append in this block failed or succeeded.

        A refusal, or a block that appends nothing, changes nothing.
        """
        attempt = AppendAttempt()
        self._thread.is_operation = kind != APPEND
        try:
            yield attempt
        except Exception as error:
            if is_storage_failure(error):
                self.record_failure(rollout_name, kind, f"{type(error).__name__}: {error}")
            raise
        finally:
            self._thread.is_operation = False
        if attempt.is_appended:
            self.record_success(rollout_name, kind)

    @contextmanager
    def watch_transaction(self) -> Iterator[WriteTally]:
        """Record whether the appends of a writing transaction failed or succeeded.

        Within `watch` a failure of an operation is of that operation's kind alone.
        """
        tally = WriteTally()
        try:
            yield tally
        except Exception as error:
            # a value that can't be stored is the request's fault
            if is_storage_failure(error) and not isinstance(error, UnstorableValueError):
                self._record_failed_appends(tally, error)
            raise
        for rollout_name, kind in tally.appends.items():
            self.record_success(rollout_name, APPEND)
            self.record_success(rollout_name, kind, tally.rows)

    def _record_failed_appends(self, tally: WriteTally, error: Exception) -> None:
        if getattr(self._thread, "is_operation", False):
            return
        reason = f"{type(error).__name__}: {error}"
        is_small = tally.rows <= SMALL_APPEND or not is_failure_of_size(error)
        for rollout_name, kind in tally.appends.items():
            self.record_failure(rollout_name, APPEND if is_small else kind, reason, tally.rows)

    def record_failure(self, rollout_name: str, kind: str, reason: str, rows: int = 0) -> None:
        """Record a failed append."""
        key = (rollout_name, kind)
        with self._lock:
            earlier = self._failures.get(key, AppendFailure(""))
            failure = AppendFailure((reason.splitlines() or [""])[0], max(earlier.rows, rows))
            self._failures = {**self._failures, key: failure}

    def record_success(self, rollout_name: str, kind: str, rows: int | None = None) -> None:
        """Forget the failure of that kind, if any, unless it had over twice as many rows."""
        key = (rollout_name, kind)
        if key not in self._failures:
            return
        with self._lock:
            failure = self._failures.get(key)
            if failure is not None and (rows is None or failure.rows <= 2 * rows):
                self._failures = {k: v for k, v in self._failures.items() if k != key}

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
