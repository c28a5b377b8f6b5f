"""The two clocks of a box: one that people set, one that counts since the machine started."""

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks, read at once; `boot` is None where no clock counts through sleep."""

    boot: float | None
    wall: datetime


class Clocks(Protocol):
    """What tells the time on a box."""

    def read(self) -> Reading:
        """Read both clocks."""
        ...


class MachineClocks:
    """The clocks of this machine.

    A lease is counted in seconds since boot, sleep included: `CLOCK_BOOTTIME` on Linux,
    `CLOCK_MONOTONIC` on macOS. Elsewhere no clock is known to do that, so there is no lease.
    """

    def read(self) -> Reading:
        """Read both clocks."""
        return Reading(_boot(), datetime.now(UTC))


def _boot() -> float | None:
    if sys.platform == "darwin":
        return time.clock_gettime(time.CLOCK_MONOTONIC)
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return None if clock is None else time.clock_gettime(clock)
