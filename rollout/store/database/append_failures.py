"""What one process knows about its failed appends and about damage in its database.

A small write may succeed on a full disk where a larger one fails. So a failed append counts until
an append of the same kind succeeds, whatever else was written meanwhile.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Final

from sqlalchemy.exc import DBAPIError

from rollout.store.database.errors import StoreError

APPEND, STOP, NARROWING, TICK = "append", "stop", "narrowing", "tick"
"""Kinds of appends to a ledger."""
SQLITE_DAMAGE: Final = frozenset({11, 26})
"""SQLite's primary result codes CORRUPT and NOTADB."""
POSTGRESQL_DAMAGE: Final = frozenset({"XX001", "XX002"})
"""PostgreSQL's states data_corrupted and index_corrupted."""


def is_storage_failure(error: BaseException) -> bool:
    """Return whether the database or its disk failed, rather than the request."""
    return isinstance(error, StoreError | DBAPIError | OSError)


def is_damage(error: BaseException) -> bool:
    """Return whether stored rows can't be read, by the driver's code."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, DBAPIError):
        cause = cause.__cause__
    original = None if cause is None else cause.orig
    result_code = getattr(original, "sqlite_errorcode", None)
    return getattr(original, "sqlstate", None) in POSTGRESQL_DAMAGE or (
        result_code is not None and result_code & 0xFF in SQLITE_DAMAGE
    )


@dataclass(slots=True)
class AppendAttempt:
    """An append under way; `is_appended` becomes true when rows were committed."""

    is_appended: bool = False


class AppendFailures:
    """Appends that failed, by rollout and kind, until one of the kind succeeds."""

    def __init__(self) -> None:
        self._failures: Mapping[tuple[str, str], str] = {}
        self._lock = Lock()

    @contextmanager
    def watch(self, rollout_name: str, kind: str) -> Iterator[AppendAttempt]:
        """Record whether the append in this block failed or succeeded.

        A refusal, or a block that appends nothing, changes nothing.
        """
        attempt = AppendAttempt()
        try:
            yield attempt
        except Exception as error:
            if is_storage_failure(error):
                self.record_failure(rollout_name, kind, f"{type(error).__name__}: {error}")
            raise
        if attempt.is_appended:
            self.record_success(rollout_name, kind)

    def record_failure(self, rollout_name: str, kind: str, reason: str) -> None:
        """Record a failed append."""
        first_line = (reason.splitlines() or [""])[0]
        with self._lock:
            self._failures = {**self._failures, (rollout_name, kind): first_line}

    def record_success(self, rollout_name: str, kind: str) -> None:
        """Forget the failure of that kind, if any."""
        if (rollout_name, kind) in self._failures:
            with self._lock:
                self._failures = {
                    key: reason
                    for key, reason in self._failures.items()
                    if key != (rollout_name, kind)
                }

    @property
    def failures(self) -> Mapping[tuple[str, str], str]:
        """Return the reasons of failures, by rollout and kind; never changed later."""
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
