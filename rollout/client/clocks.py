"""The wall clock and the boot clock of a client's machine."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ClockReading:
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
