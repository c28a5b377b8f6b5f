"""Do the clocks agree: the wall clock, the database's, and the seconds since this process began?

One forward jump would poison a ledger for as long as it reached, since its time never goes back.
So where clocks are over a minute apart the earliest is believed, and only narrowing is written.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.incidents import CLOCK
from rollout.services.engine.command_handler import carry_out
from rollout.services.support.clock import Clock
from rollout.store.database.database_time import instant_of_database
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database

MOST_APART = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Agreed:
    """The instant to go by; `apart` says how the clocks disagree, "" where they don't."""

    at: datetime
    apart: str = ""


class Agreement:
    """One process' comparison of clocks, from when it began."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """Note the two clocks of this machine as they stand now."""
        self._database, self._clock = database, clock
        self._began, self._boot = clock.now(), clock.boot()

    def now(self) -> Agreed:
        """Return the instant to go by."""
        wall = self._clock.now()
        counted = self._began + timedelta(seconds=self._clock.boot() - self._boot)
        told = {"the wall clock": wall, "the seconds since start": counted}
        with self._database.reading() as transaction:
            theirs = instant_of_database(transaction)
        if theirs is not None:
            told["the database's clock"] = theirs
        earliest, latest = min(told.values()), max(told.values())
        if latest - earliest <= MOST_APART:
            return Agreed(wall)
        said = ", ".join(f"{name} {at:%Y-%m-%d %H:%M:%S}Z" for name, at in told.items())
        return Agreed(earliest, f"clocks disagree: {said}; set them right and restart")


def tell(database: Database, agreed: Agreed) -> None:
    """Open an incident in every rollout, once until it is acknowledged."""
    with database.reading() as transaction:
        names = [known.name for known in Rollouts(transaction).all()]
    opened = OpenIncident(at=agreed.at, kind=CLOCK, reason=agreed.apart)
    for name in names:
        carry_out(database, name, lambda _: opened)
