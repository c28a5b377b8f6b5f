"""The fixed grid of ticks: slot n is n ticks after 1970, UTC."""

from datetime import datetime, timedelta

from rollout.kernel.calendar.instants import EPOCH

FIRST_SLOT, LAST_SLOT = -(2**62), 2**62  # before and after all slots
NEVER = LAST_SLOT
"""Receipt of a prediction that nobody has sent, in microseconds."""


def to_instant(slot: int, tick: timedelta) -> datetime:
    """Return the instant of a slot."""
    return EPOCH + slot * tick


def find_slot_before(at: datetime, tick: timedelta) -> int:
    """Return the last slot at or before an instant."""
    return (at - EPOCH) // tick


def find_slot_after(at: datetime, tick: timedelta) -> int:
    """Return the first slot at or after an instant."""
    return -((EPOCH - at) // tick)
