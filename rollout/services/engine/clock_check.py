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
        wall_time = self._clock.now()
        monotonic_time = self._began + timedelta(seconds=self._clock.boot() - self._boot)
        times_by_clock = {"the wall clock": wall_time, "the seconds since start": monotonic_time}
        with self._database.reading() as transaction:
            database_time = instant_of_database(transaction)
        if database_time is not None:
            times_by_clock["the database's clock"] = database_time
        earliest, latest = min(times_by_clock.values()), max(times_by_clock.values())
        if latest - earliest <= MOST_APART:
            return Agreed(wall_time)
        clock_texts = ", ".join(
            f"{clock_name} {time:%Y-%m-%d %H:%M:%S}Z" for clock_name, time in times_by_clock.items()
        )
        return Agreed(earliest, f"clocks disagree: {clock_texts}; set them right and restart")


def tell(database: Database, agreed: Agreed) -> None:
    """Open an incident in every rollout, once until it is acknowledged."""
    with database.reading() as transaction:
        rollout_names = [rollout.name for rollout in Rollouts(transaction).all()]
    open_incident = OpenIncident(at=agreed.at, kind=CLOCK, reason=agreed.apart)
    for rollout_name in rollout_names:
        carry_out(database, rollout_name, lambda _: open_incident)
