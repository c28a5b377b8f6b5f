"""Time left of a lease, counted from before the request was sent.

The service answers after the request was sent, so counting from sending ends in time whatever the
network, the wall clock or sleep do. Every effect under an old scope then ends by the change's
commit + the replica's staleness + the lease, without synchronized clocks.
"""

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple, Protocol


class ClockReading(NamedTuple):
    """Both clocks, read at once.

    `boot` is None without a clock that counts sleep.
    """

    boot: float | None
    wall: datetime


class Clocks(Protocol):
    """Both clocks of a client."""

    def read(self) -> ClockReading:
        """Return a reading of both clocks."""
        ...

    def read_seconds(self) -> tuple[float | None, float]:
        """Return the same reading with the wall clock in Unix seconds, which is faster."""
        ...


class MachineClocks:
    """The clocks of this machine.

    Leases are counted in seconds since boot, including sleep: `CLOCK_BOOTTIME` on Linux,
    `CLOCK_MONOTONIC` on macOS. Other systems have no such clock, so no lease.
    """

    def read(self) -> ClockReading:
        """Return a reading of both clocks."""
        return ClockReading(_read_boot_clock(), datetime.now(UTC))

    def read_seconds(self) -> tuple[float | None, float]:
        """Return the same reading with the wall clock in Unix seconds, which is faster."""
        return _read_boot_clock(), time.time()


def _select_boot_clock() -> Callable[[], float | None]:
    if sys.platform == "darwin":
        return partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return (lambda: None) if clock is None else partial(time.clock_gettime, clock)


_read_boot_clock = _select_boot_clock()


def estimate_service_time(
    issued_at: datetime, answered_at: ClockReading, now: ClockReading
) -> datetime:
    """Return the service's time or slightly earlier, whatever the wall clock says.

    Date actions by it: one that is dated ahead opens an incident.

    Args:
        issued_at: the service's time in an answer.
        answered_at: both clocks after that answer came.
    """
    if answered_at.boot is None or now.boot is None:
        return now.wall
    return issued_at + timedelta(seconds=now.boot - answered_at.boot)


MAX_CLOCK_DRIFT: Final = 1e-3
"""Relative drift of a boot clock from true time."""
MAX_STEP_BACK: Final = timedelta(seconds=1)
"""Tolerated step back of the wall clock; a longer one means that it was set."""
NO_TIME: Final = timedelta(0)


def compute_time_left(
    lease: timedelta,
    requested_at: ClockReading,
    now: ClockReading,
    action_delay: timedelta = timedelta(0),
) -> timedelta:
    """Return how long the model may still start an action.

    0 or less means that a human decides.

    Args:
        requested_at: both clocks before the request was sent.
        action_delay: the longest time from this check to the action's effect.
    """
    if requested_at.boot is None or now.boot is None or now.boot < requested_at.boot:
        return NO_TIME
    if not -MAX_STEP_BACK <= now.wall - requested_at.wall <= lease:
        return NO_TIME
    return (
        lease * (1 - MAX_CLOCK_DRIFT)
        - action_delay
        - timedelta(seconds=now.boot - requested_at.boot)
    )
