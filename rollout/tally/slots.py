"""The fixed grid of ticks: slot n is the instant n ticks after 1970, UTC."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def micros(span: timedelta) -> int:
    """Return a span in whole microseconds."""
    return span // MICROSECOND


def instant(slot: int, tick: timedelta) -> datetime:
    """Return the instant of a slot."""
    return EPOCH + slot * tick


def slot_before(at: datetime, tick: timedelta) -> int:
    """Return the last slot at or before an instant: where what occurs then is looked up."""
    return (at - EPOCH) // tick


def slot_after(at: datetime, tick: timedelta) -> int:
    """Return the first slot at or after an instant: where what happens then is seen."""
    return -((EPOCH - at) // tick)
