"""The clocks of one process, passed to everything that needs the time.

`now` is the wall clock, which users and other machines set. The boot clock counts seconds since the
machine started, sleep included, and never goes back; it measures time spans.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now(self) -> datetime:
        """Return the wall clock's time in UTC."""

    def read_boot_clock(self) -> float:
        """Return seconds since the machine started."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock's time in UTC."""
        return datetime.now(UTC)

    def read_boot_clock(self) -> float:
        """Return seconds since the machine started, sleep included if possible."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(slots=True)
class ManualClock:
    """A clock for tests and the live demo, moved by hand.

    Server, clients and leases share it.
    """

    at: datetime
    since_boot: float = 0.0

    def now(self) -> datetime:
        """Return the time that was set."""
        return self.at

    def read_boot_clock(self) -> float:
        """Return seconds since its creation, as moved."""
        return self.since_boot

    def advance(self, span: timedelta) -> None:
        """Move the clock forward."""
        self.at += span
        self.since_boot += span.total_seconds()
