"""Whether ticks see what is due: a guard that reads nothing can't narrow.

Due are queued cases from the slot that should count them, records that guards use, the end of a
grant, and where a guard waits for signs of life each slot. Nothing due counts as seen: a quiet
night needs no tick.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rollout.core.calendar.instants import EPOCH
from rollout.core.scope.clock_correction import is_clock_behind
from rollout.kernel.measures import Watch
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.store.counting.arrivals import StoredArrivals
from rollout.store.counting.count_queue import CountQueue, DueCase
from rollout.store.database.rollouts import Rollouts
from rollout.store.ledger.tick_slots import TickSlots
from rollout.tally.slots import find_slot_after, to_instant

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
        times = [self._find_slot(at) for at in due_times if at is not None]
        if self.scope.needs_signs and self.last_slot is not None:
            times.append(self.last_slot + self.tick)
        due_since = min(times, default=now)
        # what was due before the last tick came after it, or it would have been done
        return max(now - max(due_since, self.last_slot or due_since), timedelta(0))

    def _find_slot(self, at: datetime) -> datetime:
        return to_instant(find_slot_after(at, self.tick), self.tick)


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
        with self._service.database.begin_read() as transaction:
            rollout_names = [rollout.name for rollout in Rollouts(transaction).list_all()]
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
