"""Outages of the database: when one begins and ends, how many requests it refused.

While an outage lasts, one connection at a time is tried; all other attempts fail at once, so that
no thread waits for a server that doesn't respond. The log gets one line when an outage begins and
one when it ends.
"""

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from rollout.store.database.errors import DatabaseUnavailableError

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
