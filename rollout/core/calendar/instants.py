"""Instants as whole microseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def micros(at: datetime) -> int:
    """Return an instant as whole microseconds since 1970, UTC."""
    return (at - EPOCH) // MICROSECOND
