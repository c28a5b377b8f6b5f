"""Whether this replica may answer `model`, and the comparison of its clocks.

The model may answer only while the replica can write, and guards can see. Four things must hold: a
committed write of its own is at most `MAX_WRITE_AGE` old, no append to the rollout's ledger and no
write of its records has failed since the last one of its kind that succeeded, SQLite's volume has
its reserve, and ticks are not overdue. Otherwise humans decide. This is about new answers and new
snapshots; leases that were given before run out.

Compared are the wall clock, the database's clock and the seconds since this process began. A
forward jump would poison a ledger for as long as it reached, since ledger time never goes back. If
clocks differ by more than a minute, ticks use the earliest one and write only what narrows. If a
replica's clock is seconds off the database's, it answers that humans decide.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from rollout.data.database.append_failures import (
    APPEND,
    NARROWING,
    SMALL_APPEND,
    STOP,
    TICK,
    AppendFailure,
    SchemaMismatchError,
    StoreError,
)
from rollout.data.database.migrations import (
    check_schema_current,
    find_head_revision,
    record_heartbeat,
    settle_upgrade,
)
from rollout.data.database.rollouts import ACCESS_CHAIN, list_rollout_names
from rollout.data.database.session import Database, load_database_time
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.incident_kinds import CLOCK_BEHIND, WRITES_FAILED
from rollout.engine.decide.incidents import MAX_OPEN_INCIDENTS
from rollout.kernel.facts import CLOCKS_APART, Trigger
from rollout.kernel.words import say_cause
from rollout.live.clock import Clock
from rollout.live.rollout_state import execute_command
from rollout.live.stop_latches import StopLatches

MAX_WRITE_AGE: Final = 3.0
"""Seconds after a confirmed write within which the model may decide."""
MEBIBYTE: Final = 2**20
DEFAULT_RESERVE: Final = 64 * MEBIBYTE
NEVER_WRITTEN: Final = float("-inf")
NOT_WRITTEN: Final = "this replica has no confirmed write of the last 3 s: humans decide"
NO_RESERVE: Final = "the database's volume is short of space: humans decide"
APPEND_FAILED: Final = (
    "a write of records or the ledger failed and none of its kind has succeeded since: humans"
    " decide"
)
TICKS_OVERDUE: Final = (
    "no tick has done what has long been due, so guards see nothing: humans decide"
)
DAMAGED: Final = "stored rows can't be read: humans decide until an admin clears the damage"
UNREADABLE_FILE: Final = "a file of a stop or narrowing can't be read: humans decide; see the log"

IF_IT_STAYS: Final = "its log says why it fails"
REPEATED_KINDS: Final = MappingProxyType(
    {
        STOP: f"a stop: this replica repeats it; {IF_IT_STAYS}",
        NARROWING: f"a narrowing: this replica repeats it, or send it again; {IF_IT_STAYS}",
        TICK: f"a tick: this replica repeats it; {IF_IT_STAYS}",
        APPEND: (
            f"a write of at most {SMALL_APPEND} rows: this replica tries one, as an incident"
            f" `{WRITES_FAILED.name}`; if {MAX_OPEN_INCIDENTS} are open, acknowledge one"
        ),
    }
)
"""What gives autonomy back without users, by kind of failed append."""


def describe_append_failures(failures: Mapping[tuple[str, str], AppendFailure]) -> str:
    """Return what each kind of failed append waits for, or "".

    Rollouts are not named: no sign-in is needed to read it. Their incidents name the failure.
    """
    texts = {
        REPEATED_KINDS.get(kind)
        or f"a write of {failure.rows} rows with `{kind}`: when the database has space, repeat at"
        " this replica what failed, or wait for as many rows of its kind"
        f" ({failure.repeated_rows} so far), or restart the replica"
        for (_, kind), failure in failures.items()
    }
    return f"{APPEND_FAILED} ({'; '.join(sorted(texts))})" if texts else ""


def measure_free_space(file: Path) -> int:
    """Return the bytes that are free on a file's volume."""
    return shutil.disk_usage(file.parent).free


@dataclass(slots=True)
class Autonomy:
    """One replica's knowledge of its own writes.

    Attributes:
        latches: stops and damage obeyed from memory.
        is_write_needed: whether humans decide without a recent heartbeat. A service that takes
            requests needs it; commands and replays write no heartbeats.
        reserve: bytes that SQLite's volume must have free.
        measure_space: returns the free bytes of a file's volume.
        overdue: how long work of ticks has waited, by rollout, where that is too long.
        program: the revision of the tables that this program was written for.
    """

    database: Database
    clock: Clock
    latches: StopLatches = field(default_factory=StopLatches)
    is_write_needed: bool = False
    reserve: int = DEFAULT_RESERVE
    measure_space: Callable[[Path], int] = measure_free_space
    overdue: Mapping[str, timedelta] = field(default_factory=dict)
    program: str = field(default_factory=find_head_revision)
    _written_at: float = NEVER_WRITTEN
    _writes_until: float = NEVER_WRITTEN
    _has_reserve: bool = True

    def require_writes(self, reserve: int = DEFAULT_RESERVE) -> None:
        """Let humans decide until heartbeats confirm writes, and whenever they stop."""
        self.is_write_needed, self.reserve = True, reserve

    def find_doubt(self, rollout_name: str) -> str:
        """Return why humans decide a rollout's cases, or "" if the model may."""
        # every answer asks, so the usual case is one comparison with a ready-made deadline
        if (
            self.is_write_needed
            and not self._written_at <= self.clock.read_boot_clock() <= self._writes_until
            and (doubt := self.find_write_doubt())
        ):
            return doubt
        if self.latches.file_fault:
            return UNREADABLE_FILE
        if rollout_name in self.overdue:
            return TICKS_OVERDUE
        failures, narrowings = self.database.append_failures.failures, self.latches.narrowings
        # another one's success ends the failure, not the narrowings
        if (failures or narrowings) and (
            any(name in {rollout_name, ACCESS_CHAIN.name} for name, _ in failures)
            or any(narrowing.rollout == rollout_name for narrowing in narrowings)
        ):
            return APPEND_FAILED
        if self.database.damage_signs.text or self.latches.is_damaged(rollout_name):
            return DAMAGED
        return ""

    def list_lasting_doubts(self) -> tuple[str, ...]:
        """Return for readiness what lasts until something is repeated or mended."""
        waiting = AppendFailure("a narrowing waits in memory")
        failures = {(row.rollout, NARROWING): waiting for row in self.latches.narrowings}
        doubts = (
            describe_append_failures({**failures, **self.database.append_failures.failures}),
            UNREADABLE_FILE if self.latches.file_fault else "",
            DAMAGED if self.database.damage_signs.text else "",
        )
        return tuple(filter(None, doubts))

    def find_write_doubt(self) -> str:
        """Return why this replica can't rely on its writes, or ""."""
        if not 0 <= self.clock.read_boot_clock() - self._written_at <= MAX_WRITE_AGE:
            return NOT_WRITTEN
        return "" if self._has_reserve else NO_RESERVE

    def measure_write_age(self) -> float | None:
        """Return the seconds since the last confirmed write; None before the first."""
        if self._written_at == NEVER_WRITTEN:
            return None
        return self.clock.read_boot_clock() - self._written_at

    def write_heartbeat(self, owner: str) -> None:
        """Measure the reserve and write a row, which confirms that writing works.

        Raises:
            StoreError: nothing was written.
        """
        started_at = self.clock.read_boot_clock()  # before the write, which is at least as new
        file = self.database.file
        self._has_reserve = file is None or self.measure_space(file) >= self.reserve
        if not self._has_reserve:
            self._writes_until = NEVER_WRITTEN  # holds at once, even if the write fails
        with self._give_up_if_replaced(), self.database.begin_write(is_urgent=True) as transaction:
            settle_upgrade(transaction, self.program, self.clock.now())
            record_heartbeat(transaction, owner, self.program, self.clock.now())
        self._written_at = started_at
        if self._has_reserve:
            self._writes_until = started_at + MAX_WRITE_AGE

    @contextmanager
    def _give_up_if_replaced(self) -> Iterator[None]:
        """Give up autonomy at once where a newer program has finished its upgrade."""
        try:
            yield
        except SchemaMismatchError:
            self._writes_until = self._written_at = NEVER_WRITTEN
            raise


MAX_TICK_SKEW = timedelta(minutes=1)
MAX_REPLICA_SKEW = timedelta(seconds=5)
"""With a greater difference, a lease could end after the stop latency; then humans decide."""


@dataclass(frozen=True, slots=True)
class CheckedTime:
    """The instant to use, and what the clocks show if they disagree."""

    at: datetime
    skew: Trigger | None = None

    @property
    def skew_text(self) -> str:
        """Return how the clocks disagree; "" if they agree."""
        return say_cause("", self.skew)


class ClockCheck:
    """Comparison of one process's clocks since its start."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._started_at, self._boot_seconds = clock.now(), clock.read_boot_clock()

    def now(self) -> CheckedTime:
        """Return the wall time, or the earliest clock if they disagree."""
        checked_time = self._compare_clocks()
        # the live demo's player, or a machine that sleeps, may move the time between two reads
        return self._compare_clocks() if checked_time.skew else checked_time

    def _compare_clocks(self) -> CheckedTime:
        wall_time = self._clock.now()
        monotonic_time = self._started_at + timedelta(
            seconds=self._clock.read_boot_clock() - self._boot_seconds
        )
        times_by_clock = {"wall": wall_time, "boot": monotonic_time}
        with self._database.begin_read() as transaction:
            database_time = load_database_time(transaction)
        if database_time is not None:
            times_by_clock["database"] = database_time
        earliest, latest = min(times_by_clock.values()), max(times_by_clock.values())
        if latest - earliest <= MAX_TICK_SKEW:
            return CheckedTime(wall_time)
        clocks = {name: time.isoformat(timespec="seconds") for name, time in times_by_clock.items()}
        return CheckedTime(earliest, Trigger(CLOCKS_APART, {"clocks": clocks}))


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
    rollout_names = list_rollout_names(database)
    open_incident = OpenIncident(
        at=checked_time.at, kind=CLOCK_BEHIND.name, trigger=checked_time.skew
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
