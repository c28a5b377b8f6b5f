"""Rates of requests, with the counts of one process.

A caller that is unknown costs a read of the database. So an address that sent too many of these
gets no further look-ups; keys and sessions that this process knows still work from there.
"""

from dataclasses import dataclass, field

from starlette.types import Scope

from rollout.core.scope.permissions import Caller
from rollout.services.access.login_throttle import find_network
from rollout.services.support.clock import Clock

CALLER_RATE, CALLER_BURST = 500.0, 2_000.0  # requests a second of one caller
ANONYMOUS_RATE, ANONYMOUS_BURST = 5.0, 50.0  # of unknown callers, by address
MAX_BUCKETS = 10_000


@dataclass(slots=True)
class RateBucket:
    """A token bucket: requests that are still allowed at once."""

    remaining: float
    at: float

    def count_remaining(self, now: float, rate: float, burst: float) -> float:
        """Return how many tokens there are now."""
        return min(burst, self.remaining + max(0.0, now - self.at) * rate)

    def take(self, now: float, rate: float, burst: float) -> bool:
        """Take one token; return False if there is none."""
        self.remaining = self.count_remaining(now, rate, burst)
        self.at = now
        if self.remaining < 1:
            return False
        self.remaining -= 1
        return True


@dataclass(slots=True)
class RequestRates:
    """The buckets of callers and of addresses."""

    clock: Clock
    buckets: dict[str, RateBucket] = field(default_factory=dict)

    def take_for_caller(self, caller: Caller) -> bool:
        """Count a request of a caller; return False if there were too many."""
        return self._take(f"caller {caller.name}", CALLER_RATE, CALLER_BURST)

    def take_for_address(self, scope: Scope) -> bool:
        """Count a request of an unknown caller; return False if there were too many."""
        return self._take(_name_address(scope), ANONYMOUS_RATE, ANONYMOUS_BURST)

    def take_for_unidentified(self, scope: Scope) -> bool:
        """Count a request whose caller the database could not identify, as a caller's."""
        return self._take(f"unidentified {_name_address(scope)}", CALLER_RATE, CALLER_BURST)

    def may_look_up(self, scope: Scope) -> bool:
        """Return whether an address may make the service look up another key or session."""
        bucket = self.buckets.get(_name_address(scope))
        if bucket is None:
            return True
        now = self.clock.read_boot_clock()
        return bucket.count_remaining(now, ANONYMOUS_RATE, ANONYMOUS_BURST) >= 1

    def _take(self, name: str, rate: float, burst: float) -> bool:
        now = self.clock.read_boot_clock()
        bucket = self.buckets.pop(name, None) or RateBucket(burst, now)
        self.buckets[name] = bucket  # the last used one comes last
        if len(self.buckets) > MAX_BUCKETS:  # whoever floods from many addresses resets no other
            del self.buckets[next(iter(self.buckets))]
        return bucket.take(now, rate, burst)


def _name_address(scope: Scope) -> str:
    client = scope.get("client")
    return f"from {find_network(client[0]) if client else 'nowhere'}"
