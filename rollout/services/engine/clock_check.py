"""Compare the wall clock, the database's clock and the seconds since this process began.

A forward jump would poison a ledger for as long as it reached, since ledger time never goes back.
If clocks differ by more than a minute, ticks use the earliest one and write only what narrows. If
a replica's clock is seconds off the database's, it answers that humans decide.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.incident_kinds import CLOCK_BEHIND
from rollout.services.engine.autonomy import Autonomy
from rollout.services.engine.command_handler import execute_command
from rollout.services.support.clock import Clock
from rollout.store.database.errors import StoreError
from rollout.store.database.migrations import check_schema_current
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database, load_database_time

MAX_TICK_SKEW = timedelta(minutes=1)
MAX_REPLICA_SKEW = timedelta(seconds=5)
"""With a greater difference, a lease could end after the stop latency; then humans decide."""

REMEDY = (
    "set them right and restart; if one was over 12 h behind, run "
    "`rollout doctor --rebuild --repair` before"
)
"""Guards find records that a clock stamped late by less."""


@dataclass(frozen=True, slots=True)
class CheckedTime:
    """The instant to use; `skew_text` describes disagreeing clocks, else empty."""

    at: datetime
    skew_text: str = ""


class ClockCheck:
    """Comparison of one process's clocks since its start."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._started_at, self._boot_seconds = clock.now(), clock.read_boot_clock()

    def now(self) -> CheckedTime:
        """Return the wall time, or the earliest clock if they disagree."""
        checked_time = self._compare_clocks()
        # the live demo's player, or a machine that sleeps, may move the time between two reads
        return self._compare_clocks() if checked_time.skew_text else checked_time

    def _compare_clocks(self) -> CheckedTime:
        wall_time = self._clock.now()
        monotonic_time = self._started_at + timedelta(
            seconds=self._clock.read_boot_clock() - self._boot_seconds
        )
        times_by_clock = {"the wall clock": wall_time, "the seconds since start": monotonic_time}
        with self._database.begin_read() as transaction:
            database_time = load_database_time(transaction)
        if database_time is not None:
            times_by_clock["the database's clock"] = database_time
        earliest, latest = min(times_by_clock.values()), max(times_by_clock.values())
        if latest - earliest <= MAX_TICK_SKEW:
            return CheckedTime(wall_time)
        clock_texts = ", ".join(
            f"{clock_name} {time:%Y-%m-%d %H:%M:%S}Z" for clock_name, time in times_by_clock.items()
        )
        return CheckedTime(earliest, f"clocks disagree: {clock_texts}; {REMEDY}")


class CheckedClock:
    """A clock for what goes on while clocks disagree: then its time is the earliest of them."""

    def __init__(self, clock_check: ClockCheck, clock: Clock) -> None:
        """Store the comparison, and the clock that it compares."""
        self._clock_check, self._clock = clock_check, clock

    def now(self) -> datetime:
        """Return the wall time, or the earliest clock if they disagree."""
        return self._clock_check.now().at

    def read_boot_clock(self) -> float:
        """Return seconds since the machine started."""
        return self._clock.read_boot_clock()


def report_clock_skew(database: Database, checked_time: CheckedTime) -> None:
    """Open an incident in every rollout, unless one is open."""
    with database.begin_read() as transaction:
        rollout_names = [rollout.name for rollout in Rollouts(transaction).list_all()]
    open_incident = OpenIncident(
        at=checked_time.at, kind=CLOCK_BEHIND.name, reason=checked_time.skew_text
    )
    for rollout_name in rollout_names:
        execute_command(database, rollout_name, lambda _: open_incident)


def check_readiness(database: Database, clock: Clock) -> tuple[str, ...]:
    """Return why this replica may not answer now; () if it may."""
    try:
        check_schema_current(database)
        clock_skew = measure_clock_skew(database, clock)
    except StoreError as error:
        return (str(error),)
    if clock_skew > MAX_REPLICA_SKEW:
        seconds = clock_skew.total_seconds()
        return (f"the clock is {seconds:.0f} s off the database's; humans decide until it agrees",)
    return ()


def list_readiness_faults(database: Database, clock: Clock, autonomy: Autonomy) -> tuple[str, ...]:
    """Return why this replica may not answer now, its own writes included; () if it may.

    Nothing is written; the age of the last confirmed write is what the heartbeats know.
    """
    write_doubt = autonomy.find_write_doubt() if autonomy.is_write_needed else ""
    write_doubts = (write_doubt,) if write_doubt else ()
    return (*check_readiness(database, clock), *write_doubts, *autonomy.list_lasting_doubts())


def measure_clock_skew(database: Database, clock: Clock) -> timedelta:
    """Return the wall clock's distance from the database's.

    It is zero on SQLite, which has no clock of its own.
    """
    with database.begin_read() as transaction:
        database_time = load_database_time(transaction)
    return timedelta(0) if database_time is None else abs(clock.now() - database_time)
