"""The clocks of one process. They are read here, at the edge, and passed in below.

`now` is the wall clock, which people and other machines set; `boot` counts seconds since the
machine started, sleep included, and never goes back: spans are measured by it.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> datetime:
        """Return the wall clock's instant, UTC."""
        ...

    def boot(self) -> float:
        """Return seconds since the machine started."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the wall clock's instant, UTC."""
        return datetime.now(UTC)

    def boot(self) -> float:
        """Return seconds since the machine started; where it stands still in sleep, without."""
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(slots=True)
class SetClock:
    """A clock that somebody moves by hand: tests, and the live demo, whose traffic moves it.

    Server, clients and leases share it, so that a lease of a minute is a minute of the story.
    """

    at: datetime
    since_boot: float = 0.0

    def now(self) -> datetime:
        """Return the instant that was set."""
        return self.at

    def boot(self) -> float:
        """Return seconds since it was made, as it was moved."""
        return self.since_boot

    def move(self, span: timedelta) -> None:
        """Let time pass."""
        self.at += span
        self.since_boot += span.total_seconds()
