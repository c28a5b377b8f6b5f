"""Failed tries to come in, counted in memory: the more there were, the longer the next waits.

Each replica counts for itself. A wait ends by itself and is never longer than half a minute, so
that nobody locks somebody else out for good by trying their name.
"""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from rollout.core.errors import TooManyTries

LONGEST = 30.0  # seconds
FORGOTTEN = 900.0  # seconds without a failure
MOST = 10_000  # names and addresses that are remembered


@dataclass(frozen=True, slots=True)
class Failures:
    """How often it failed, and when last, in seconds since boot."""

    count: int
    last: float

    def wait(self, free: int, now: float) -> float:
        """Return how long the next try has to wait after `free` failures; below 0 it need not.

        >>> Failures(count=5, last=0.0).wait(5, 0.25), Failures(count=9, last=0.0).wait(5, 0.0)
        (0.75, 16.0)
        """
        if self.count < free:
            return 0.0
        return float(self.last + min(LONGEST, 2.0 ** min(self.count - free, 10)) - now)


class Tries:
    """The failures of names, or of addresses, that were seen lately."""

    def __init__(self, free: int) -> None:
        """Begin without any; so many may fail before the first wait."""
        self._free = free
        self._failures: OrderedDict[str, Failures] = OrderedDict()
        self._lock = Lock()

    def require(self, key: str, *, now: float) -> None:
        """Go on only if this name or address need not wait.

        Raises:
            TooManyTries: says for how long.
        """
        with self._lock:
            wait = self._failures[key].wait(self._free, now) if key in self._failures else 0.0
        if wait > 0:
            raise TooManyTries(f"too many tries failed; wait {int(wait) + 1} s and try again")

    def failed(self, key: str, *, now: float) -> None:
        """Count a failure."""
        with self._lock:
            failures = self._failures.pop(key, Failures(0, now))
            count = 0 if now - failures.last > FORGOTTEN else failures.count
            self._failures[key] = Failures(count + 1, now)
            if len(self._failures) > MOST:
                self._failures.popitem(last=False)

    def passed(self, key: str) -> None:
        """Forget the failures: it was them after all."""
        with self._lock:
            self._failures.pop(key, None)
