"""Time left of a lease, counted from before the request was sent.

The service answers after the request was sent, so counting from sending ends in time whatever the
network, the wall clock or sleep do. Every effect under an old scope then ends by the change's
commit + the replica's staleness + the lease, without synchronized clocks.
"""

from datetime import timedelta
from typing import Final

from rollout.client.clocks import ClockReading

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

    >>> from datetime import UTC, datetime
    >>> noon = datetime(2027, 6, 1, 12, tzinfo=UTC)
    >>> requested_at, later = (
    ...     ClockReading(5.0, noon),
    ...     ClockReading(25.0, noon + timedelta(seconds=20)),
    ... )
    >>> compute_time_left(timedelta(minutes=1), requested_at, later).total_seconds()
    39.94
    >>> compute_time_left(
    ...     timedelta(minutes=1), requested_at, ClockReading(None, noon)
    ... ).total_seconds()
    0.0
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
