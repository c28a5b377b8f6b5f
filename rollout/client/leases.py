"""How long an answer may still be used: a duration, counted from before the question was sent.

The answer was made after the question was sent, so whoever counts from sending stops in time
whatever the network, the wall clock or sleep did. Then every effect under an old scope ends by
the change's commit + the replica's staleness + the lease, without any clocks agreeing.
"""

from datetime import timedelta
from typing import Final

from rollout.client.clocks import Reading

RATE: Final = 1e-3
"""How much faster or slower than true time a boot clock may run."""
BACK: Final = timedelta(seconds=1)
"""How far the wall clock may go back between two readings; further, and somebody set it."""
NOTHING: Final = timedelta(0)


def left(
    lease: timedelta, sent: Reading, now: Reading, takes: timedelta = timedelta(0)
) -> timedelta:
    """Return for how long an act of the model may still be begun; 0 or less: people decide.

    Args:
        lease: as the answer says.
        sent: both clocks, read before the question was sent.
        now: both clocks.
        takes: the longest time from this check to the act's effect.

    >>> from datetime import UTC, datetime
    >>> noon = datetime(2027, 6, 1, 12, tzinfo=UTC)
    >>> sent, later = Reading(5.0, noon), Reading(25.0, noon + timedelta(seconds=20))
    >>> left(timedelta(minutes=1), sent, later).total_seconds()
    39.94
    >>> left(timedelta(minutes=1), sent, Reading(None, noon)).total_seconds()
    0.0
    """
    if sent.boot is None or now.boot is None or now.boot < sent.boot:
        return NOTHING
    if not -BACK <= now.wall - sent.wall <= lease:
        return NOTHING
    return lease * (1 - RATE) - takes - timedelta(seconds=now.boot - sent.boot)
