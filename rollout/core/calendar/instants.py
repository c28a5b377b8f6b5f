"""Instants as whole microseconds since 1970, UTC, and durations."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Return an instant as whole microseconds since 1970, UTC."""
    return (at - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the instant of whole microseconds since 1970."""
    return EPOCH + micros * MICROSECOND


def count_micros(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return duration // MICROSECOND


def format_duration(duration: timedelta) -> str:
    """Return a duration in its largest whole unit, as policy files write it.

    >>> format_duration(timedelta(hours=48)), format_duration(timedelta(minutes=90))
    ('2d', '90m')
    """
    for unit, text in (
        (timedelta(days=1), "d"),
        (timedelta(hours=1), "h"),
        (timedelta(minutes=1), "m"),
    ):
        if duration and duration % unit == timedelta(0):
            return f"{duration // unit}{text}"
    return f"{duration.total_seconds():g}s"
