"""Whether a replica may answer: its database is there and current, and their clocks agree."""

from datetime import timedelta

from rollout.services.support.clock import Clock
from rollout.store.database.database_time import instant_of_database
from rollout.store.database.errors import StoreError
from rollout.store.database.migrations import require_current
from rollout.store.database.session import Database

MOST_ASKEW = timedelta(seconds=5)
"""With a clock further off, a lease could end later than a stop's reach says: people decide."""


def faults_of(database: Database, clock: Clock) -> tuple[str, ...]:
    """Return why this replica must not be trusted now; nothing if it may."""
    try:
        require_current(database)
        clock_skew = askew(database, clock)
    except StoreError as error:
        return (str(error),)
    if clock_skew > MOST_ASKEW:
        seconds = clock_skew.total_seconds()
        return (f"the clock is {seconds:.0f} s off the database's; people decide until it agrees",)
    return ()


def askew(database: Database, clock: Clock) -> timedelta:
    """Return how far the wall clock is off the database's; none on SQLite, which has no clock."""
    with database.reading() as transaction:
        database_time = instant_of_database(transaction)
    return timedelta(0) if database_time is None else abs(clock.now() - database_time)
