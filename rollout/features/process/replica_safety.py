"""What a replica's heartbeat thread does in each pass, and its watch over ticks.

The watch sees whether ticks see what is due: a guard that reads nothing can't narrow. Due are
queued cases from the slot that should count them, records that guards use, the end of a grant, and
where a guard waits for signs of life each slot. Nothing due counts as seen: a quiet night needs no
tick.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from rollout.data.counting.count_queue import CountQueue, DueCase, StoredArrivals
from rollout.data.database.append_failures import (
    APPEND,
    NARROWING,
    STOP,
    TICK,
    AppendFailure,
    DatabaseUnavailableError,
)
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts, list_rollout_names
from rollout.data.ledger.scopes import (
    Damage,
    PendingStop,
    TickSlots,
    load_safety_rows,
    store_damage,
)
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.incident_kinds import WRITES_FAILED
from rollout.engine.decide.incidents import is_clock_behind
from rollout.features.process.health_checks import find_damaged_rollouts, is_cleared
from rollout.features.stops.stop_options import name_cells
from rollout.features.stops.stops import (
    append_pending_narrowing,
    append_pending_stop,
    store_for_replicas,
)
from rollout.kernel.calendar.instants import EPOCH, find_slot_after, to_instant
from rollout.kernel.errors import RefusalError
from rollout.kernel.facts import FAILED_BATCH, FAILED_WRITE, Trigger
from rollout.kernel.measures import Watch
from rollout.live.rollout_state import RolloutState, execute_command
from rollout.live.service import Service
from rollout.live.stop_latches import PendingNarrowing, PendingOrder

MAX_WAIT: Final = timedelta(minutes=10)
MIN_WAIT: Final = timedelta(seconds=10)
SLOTS_OF_WAIT: Final = 3
UNKNOWN_WAIT: Final = timedelta.max
"""Of a rollout that can't be read."""


@dataclass(frozen=True, slots=True)
class WatchedScope:
    """What ticks have to do for the grants of a rollout, as of a revision of its ledger.

    Attributes:
        first_end: when the first grant ends; None without grants, so that no model decides.
        needs_signs: whether a guard of a cell with grants waits for signs of life.
    """

    revision: int
    first_end: datetime | None
    needs_signs: bool


@dataclass(frozen=True, slots=True)
class TickWork:
    """What ticks have done and have to do; None is nothing.

    Attributes:
        tick: length of a slot.
        last_slot: the newest slot that is done.
        queued_at: time of the oldest entry of the queue.
        arrived_at: when the first record that guards use arrived after the last slot.
    """

    tick: timedelta
    last_slot: datetime | None
    queued_at: datetime | None
    arrived_at: datetime | None
    scope: WatchedScope

    def measure_wait(self, now: datetime) -> timedelta:
        """Return how long work has been due; zero if none is, negative if a done slot is ahead."""
        if self.last_slot is not None and is_clock_behind(self.last_slot, now):
            return now - self.last_slot
        due_times = (self.queued_at, self.arrived_at, self.scope.first_end)
        due_slots = [find_slot_after(at, self.tick) for at in due_times if at is not None]
        times = [to_instant(slot, self.tick) for slot in due_slots]
        if self.scope.needs_signs and self.last_slot is not None:
            times.append(self.last_slot + self.tick)
        due_since = min(times, default=now)
        # what was due before the last tick came after it, or it would have been done
        return max(now - max(due_since, self.last_slot or due_since), timedelta(0))


def is_overdue(wait: timedelta, tick: timedelta) -> bool:
    """Return whether work has waited for too long; a slot that is ahead is a doubt, too."""
    return wait < timedelta(0) or wait > max(min(SLOTS_OF_WAIT * tick, MAX_WAIT), MIN_WAIT)


def summarize_scope(state: RolloutState) -> WatchedScope:
    """Return what ticks have to do for the grants of a rollout."""
    grants_by_key = {key: cell.grants for key, cell in state.scope.cells.items() if cell.grants}
    ends = (grant.until for grants in grants_by_key.values() for grant in grants)
    needs_signs = any(
        guard.condition.measure.watch is Watch.SIGNS
        for cell, _ in grants_by_key
        if cell in state.policy.cell_set
        for guard in state.policy.list_guards(cell)
    )
    return WatchedScope(state.scope.revision, min(ends, default=None), needs_signs)


class TickWatch:
    """One process's watch over the ticks of all rollouts, whoever runs them."""

    def __init__(self, service: Service) -> None:
        """Build a watch; it measures by the clock that doesn't step from now on."""
        self._service = service
        self._scopes: dict[str, WatchedScope] = {}
        self._oldest: dict[str, tuple[DueCase, float]] = {}
        self._overdue_since: dict[str, float] = {}
        self._started_at = service.clock.now()
        self._boot_seconds = service.clock.read_boot_clock()

    def find_overdue(self) -> Mapping[str, timedelta]:
        """Return how long work has waited, by rollout, where that is too long.

        A rollout that can't be read is among them.
        """
        rollout_names = list_rollout_names(self._service.database)
        waits: dict[str, timedelta] = {}
        for rollout_name in rollout_names:
            try:
                wait, tick = self._measure_wait(rollout_name)
            except Exception:  # noqa: BLE001 - nobody can see what its guards see
                wait, tick = UNKNOWN_WAIT, MIN_WAIT
            if is_overdue(wait, tick) and self._lasts(rollout_name):
                waits[rollout_name] = wait
            elif not is_overdue(wait, tick):
                self._overdue_since.pop(rollout_name, None)
        return waits

    def _lasts(self, rollout_name: str) -> bool:
        """Return whether it lasts: a live demo's hours may pass while a tick takes a second."""
        clock = self._service.wall_clock
        if clock is self._service.clock:
            return True
        since = self._overdue_since.setdefault(rollout_name, clock.read_boot_clock())
        return clock.read_boot_clock() - since >= MIN_WAIT.total_seconds()

    def _measure_wait(self, rollout_name: str) -> tuple[timedelta, timedelta]:
        state = self._service.state_cache.load_rollout(rollout_name).ledger_state
        scope, tick = self._scopes.get(rollout_name), state.policy.tick
        if scope is None or scope.revision != state.scope.revision:
            self._scopes[rollout_name] = scope = summarize_scope(state)
        if scope.first_end is None:
            return timedelta(0), tick
        with self._service.database.begin_read() as transaction:
            slot = TickSlots(transaction, state.rollout).load_last_done()
            oldest = CountQueue(transaction, state.rollout).find_oldest()
            last_slot = None if slot is None else to_instant(slot, tick)
            arrivals = StoredArrivals(transaction, state.rollout)
            arrived_at = arrivals.find_first_after(EPOCH if last_slot is None else last_slot)
        now, queued_at = self._read_time(), None if oldest is None else oldest.at
        work = TickWork(tick, last_slot, queued_at, arrived_at, scope)
        wait, stuck = work.measure_wait(now), self._watch_oldest(rollout_name, oldest, now - tick)
        return (wait if wait < timedelta(0) else max(wait, stuck)), tick

    def _watch_oldest(
        self, rollout_name: str, oldest: DueCase | None, until: datetime
    ) -> timedelta:
        """Return how long this process has seen the same due entry, whatever ticks were done."""
        boot_seconds = self._service.clock.read_boot_clock()
        if oldest is None or oldest.at > until:
            self._oldest.pop(rollout_name, None)
            return timedelta(0)
        entry, since = self._oldest.get(rollout_name, (oldest, boot_seconds))
        if entry != oldest:
            since = boot_seconds
        self._oldest[rollout_name] = oldest, since
        return timedelta(seconds=boot_seconds - since)

    def _read_time(self) -> datetime:
        """Return the later of the wall clock and the seconds since the start: none is hidden."""
        elapsed = self._service.clock.read_boot_clock() - self._boot_seconds
        return max(self._service.clock.now(), self._started_at + timedelta(seconds=elapsed))


Item = TypeVar("Item")
log = logging.getLogger("rollout.stops")
OTHERS_TURN: Final = timedelta(seconds=3)
"""Age from which a replica appends a stop that another one stored."""


class ReplicaSafety:
    """One replica's heartbeats, watch over ticks, retries of stops, and search for damage."""

    def __init__(self, service: Service, owner: str) -> None:
        self._service, self._owner = service, owner
        self._database, self._latches = service.database, service.autonomy.latches
        self._tick_watch = TickWatch(service)
        self._reported: set[tuple[str, str]] = set()
        self._failing_since: dict[tuple[str, str], datetime] = {}

    def run_pass(self) -> tuple[Exception, ...]:
        """Run every step, whatever fails before it; return the errors."""
        steps = (
            self._obey_files,
            self._latches.save_all,
            self._watch_ticks,
            lambda: self._service.autonomy.write_heartbeat(self._owner),
            lambda: run_each(self._append_latched_stop, self._latches.stops),
            self._append_stored_stops,
            lambda: run_each(self._repeat_narrowing, self._latches.narrowings),
            self._append_incidents,
            self._find_damage,
            self._settle_damages,
        )
        errors: list[Exception] = []
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - returned to the thread, which logs it
                errors.append(error)
        return tuple(errors)

    def _obey_files(self) -> None:
        """Obey what commands on this machine left, as the database could not take it."""
        for narrowing in self._latches.obey_files():
            self._database.append_failures.record_failure(
                narrowing.rollout, NARROWING, "a narrowing is in a file and not in the ledger"
            )

    def _watch_ticks(self) -> None:
        self._service.autonomy.overdue = self._tick_watch.find_overdue()

    def _append_latched_stop(self, stop: PendingStop) -> None:
        if self._latches.is_in_progress(stop) or self._leaves(stop, STOP):
            return
        try:
            self._append_stop(name_cells(self._service, stop))
        except RefusalError:  # nothing is left to stop
            self._database.append_failures.record_success(stop.rollout, STOP)
        self._latches.remove(stop)

    def _leaves(self, order: PendingOrder, kind: str) -> bool:
        """Leave an order of a rollout that this database lacks; return whether it does.

        Another service may share the folder, or this one was started with the wrong database.
        """
        with self._database.begin_read() as transaction:
            if Rollouts(transaction).find(order.rollout) is not None:
                return False
        self._database.append_failures.record_success(order.rollout, kind)
        self._latches.leave(order)
        log.warning(
            "no rollout %s is here to stop or narrow; its file, if there is one, stays: see whether"
            " ROLLOUT_DATABASE_URL is right and no other service uses ROLLOUT_LATCH_FOLDER",
            order.rollout,
        )
        return True

    def _append_stored_stops(self) -> None:
        """Append the stops that a replica stored and left behind."""
        latched_ids = {stop.id for stop in self._latches.stops}
        now = self._service.clock.now()
        with self._database.begin_read() as transaction:
            stops = load_safety_rows(transaction).stops
        run_each(
            self._append_stop,
            [s for s in stops if s.id not in latched_ids and now - s.at >= OTHERS_TURN],
        )

    def _append_stop(self, stop: PendingStop) -> None:
        store_for_replicas(self._database, stop)
        try:
            append_pending_stop(self._database, stop)
        except RefusalError:  # the rollout is gone, so nothing is left to stop
            self._database.append_failures.record_success(stop.rollout, STOP)

    def _repeat_narrowing(self, narrowing: PendingNarrowing) -> None:
        if self._leaves(narrowing, NARROWING):
            return
        try:
            append_pending_narrowing(self._database, name_cells(self._service, narrowing))
        except RefusalError:  # nothing is left to narrow
            self._database.append_failures.record_success(narrowing.rollout, NARROWING)
        self._latches.remove(narrowing)

    def _append_incidents(self) -> None:
        """Open an incident where an append failed, so that users learn of the gap.

        It is a small append: only its success gives autonomy back after a small one failed. For a
        larger one it is opened once.
        """
        failures = self._database.append_failures.failures
        now = self._service.clock.now()
        self._failing_since = {key: self._failing_since.get(key, now) for key in failures}
        self._reported &= failures.keys()
        unreported = [
            key
            for key in failures
            if key[1] not in {STOP, NARROWING, TICK} and key not in self._reported
        ]
        run_each(lambda key: self._append_incident(key, failures[key], now), unreported)

    def _append_incident(self, key: tuple[str, str], failure: AppendFailure, now: datetime) -> None:
        rollout_name, kind = key
        is_access = rollout_name == ACCESS_CHAIN.name
        values: dict[str, str | int] = {"at": now.isoformat(timespec="seconds")}
        if is_access:
            values["ledger"] = "access"
        if kind != APPEND:
            values |= {"rows": failure.rows, "holds": kind}
        open_incident = OpenIncident(
            at=now,
            kind=WRITES_FAILED.name,
            trigger=Trigger(FAILED_WRITE if kind == APPEND else FAILED_BATCH, values),
            reason=failure.reason,
        )
        if is_access:
            self._append_everywhere(open_incident)
        else:
            repeat_key = f"{kind} {self._failing_since[key].isoformat()}"
            try:
                self._service.incident_opener.open_or_count(rollout_name, open_incident, repeat_key)
            except RefusalError:  # there is no such rollout
                self._database.append_failures.record_success(rollout_name, kind)
        if kind != APPEND:
            self._reported.add(key)

    def _append_everywhere(self, open_incident: OpenIncident) -> None:
        """Open an incident in all rollouts: without access ledger humans decide in all.

        That ledger has no incidents; a small append to another one in the same tables stands for
        its own.
        """
        rollout_names = list_rollout_names(self._database)
        appended: list[str] = []

        def append(rollout_name: str) -> None:
            if execute_command(self._database, rollout_name, lambda _: open_incident):
                appended.append(rollout_name)

        try:
            run_each(append, rollout_names)
        finally:
            if appended or not rollout_names:
                self._database.append_failures.record_success(ACCESS_CHAIN.name, APPEND)

    def _find_damage(self) -> None:
        """Find the rollouts of signs of damage; until then all are with humans."""
        text = self._database.damage_signs.text
        if not text:
            return
        found_at = self._service.clock.now()
        for rollout_name in find_damaged_rollouts(self._database):
            self._latches.add_damage(Damage(rollout_name, text, found_at))
        self._database.damage_signs.text = ""
        self._latches.save_all()

    def _settle_damages(self) -> None:
        """Store damage for all replicas; forget what an admin has cleared."""
        if not self._latches.damages:
            return
        with self._database.begin_read() as transaction:
            stored = {damage.rollout for damage in load_safety_rows(transaction).damages}
        for damage in self._latches.damages:
            if damage.rollout in stored:
                continue
            if self._is_cleared(damage):
                self._latches.remove_damage(damage)
                continue
            with self._database.begin_write(is_urgent=True) as transaction:
                store_damage(transaction, damage)

    def _is_cleared(self, damage: Damage) -> bool:
        try:
            with self._database.begin_read() as transaction:
                return is_cleared(transaction, damage)
        except Exception:  # noqa: BLE001 - rows that can't be read clear nothing
            return False


def run_each(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Do the work for each item; raise the first error after all of them.

    One rollout whose rows can't be read must not hold up the others. A database that does not
    respond ends the loop: each item would wait for it again.
    """
    first_error: Exception | None = None
    for item in items:
        try:
            work(item)
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - raised below
            first_error = first_error or error
    if first_error is not None:
        raise first_error
