"""Connections: idle ones, and outages of the database."""

import logging
import select
import time
from collections.abc import Callable
from functools import partial
from threading import Lock
from time import monotonic
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

from rollout.store.database.errors import DatabaseUnavailableError

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
