"""Waiting times after failed sign-ins, counted in memory.

Each replica counts for itself. A wait is at most half a minute. Failures from elsewhere never slow
a user at an address from which they signed in before, so that nobody can lock them out.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock

from rollout.core.errors import (
    CodeRequiredError,
    NotAllowedError,
    TooManyAttemptsError,
    UnauthenticatedError,
)
from rollout.services.support.clock import Clock

MAX_WAIT = 30.0  # seconds
RESET_AFTER = 900.0  # seconds without a failure
MAX_KEYS = 10_000  # names and addresses in memory
IPV6_NETWORK_BITS = 64  # one customer has all addresses of such a network


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


class SignInLimits:
    """Limits per account and address, per address, and per account over all addresses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pairs = LoginThrottle(free_attempts=5)
        self._addresses = LoginThrottle(free_attempts=20)
        self._accounts = LoginThrottle(free_attempts=10)

    @contextmanager
    def count_attempt(
        self, user_name: str, address: str, *, is_known_address: bool
    ) -> Iterator[None]:
        """Raise if the attempt must wait; count it if it fails.

        Args:
            user_name: the account, "" if the attempt names none.
            address: where the attempt comes from, "" for a command on this machine.
            is_known_address: whether the account signed in from there before.

        Raises:
            TooManyAttemptsError: says how long to wait.
        """
        now, network = self._clock.read_boot_clock(), find_network(address)
        pair = f"{user_name} {network}"
        checks = [(self._pairs, pair)] if user_name else []
        checks += [(self._addresses, network)] if network else []
        checks += [] if is_known_address or not user_name else [(self._accounts, user_name)]
        for throttle, key in checks:
            throttle.check_allowed(key, now=now)
        try:
            yield
        except CodeRequiredError:
            raise  # neither a failure nor a success: guessed codes stay counted
        except (UnauthenticatedError, NotAllowedError):
            for throttle, key in checks:
                throttle.record_failure(key, now=now)
            raise
        self._pairs.reset(pair)


@lru_cache(maxsize=1_024)  # each request asks
def find_network(address: str) -> str:
    """Return what one attacker has of addresses: an IPv4 address, or an IPv6 network.

    >>> find_network("10.0.0.1"), find_network("2001:db8::7"), find_network("testclient")
    ('10.0.0.1', '2001:db8::/64', 'testclient')
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), IPV6_NETWORK_BITS), strict=False))
