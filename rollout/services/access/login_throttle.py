"""Waiting times after failed sign-ins, counted in memory.

Each replica counts for itself. A wait is at most half a minute, so that nobody can lock out a user
by trying their name.
"""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from rollout.core.errors import TooManyAttemptsError

MAX_WAIT = 30.0  # seconds
RESET_AFTER = 900.0  # seconds without a failure
MAX_KEYS = 10_000  # names and addresses in memory


@dataclass(frozen=True, slots=True)
class LoginFailures:
    """Number of failures, and the last one in seconds since boot."""

    count: int
    last_at: float

    def compute_wait(self, free_attempts: int, now: float) -> float:
        """Return the seconds until the next attempt; at most 0 means now.

        >>> (
        ...     LoginFailures(count=5, last_at=0.0).compute_wait(5, 0.25),
        ...     LoginFailures(count=9, last_at=0.0).compute_wait(5, 0.0),
        ... )
        (0.75, 16.0)
        """
        if self.count < free_attempts:
            return 0.0
        return float(self.last_at + min(MAX_WAIT, 2.0 ** min(self.count - free_attempts, 10)) - now)


class LoginThrottle:
    """Recent failures by name or address; `free_attempts` may fail without wait."""

    def __init__(self, free_attempts: int) -> None:
        self._free_attempts = free_attempts
        self._failures: OrderedDict[str, LoginFailures] = OrderedDict()
        self._lock = Lock()

    def check_allowed(self, key: str, *, now: float) -> None:
        """Raise if this name or address must wait.

        Raises:
            TooManyAttemptsError: says how long to wait.
        """
        with self._lock:
            wait = (
                self._failures[key].compute_wait(self._free_attempts, now)
                if key in self._failures
                else 0.0
            )
        if wait > 0:
            raise TooManyAttemptsError(
                f"too many failed attempts; wait {int(wait) + 1} s and try again"
            )

    def record_failure(self, key: str, *, now: float) -> None:
        """Count a failure."""
        with self._lock:
            failures = self._failures.pop(key, LoginFailures(0, now))
            count = 0 if now - failures.last_at > RESET_AFTER else failures.count
            self._failures[key] = LoginFailures(count + 1, now)
            if len(self._failures) > MAX_KEYS:
                self._failures.popitem(last=False)

    def reset(self, key: str) -> None:
        """Forget the failures after a success."""
        with self._lock:
            self._failures.pop(key, None)
