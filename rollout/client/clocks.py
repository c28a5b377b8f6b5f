"""The wall clock and the boot clock of a client's machine."""

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
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


class MachineClocks:
    """The clocks of this machine.

    Leases are counted in seconds since boot, including sleep: `CLOCK_BOOTTIME` on Linux,
    `CLOCK_MONOTONIC` on macOS. Other systems have no such clock, so no lease.
    """

    def read(self) -> ClockReading:
        """Return a reading of both clocks."""
        return ClockReading(_read_boot_clock(), datetime.now(UTC))


def _read_boot_clock() -> float | None:
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else time.clock_gettime(clock)
