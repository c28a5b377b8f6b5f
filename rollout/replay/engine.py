"""Replay: decide, slot by slot, over a history that is known whole, giving away nothing early."""

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import count

from rollout.core.access.accounts import REPLAY, SIMULATED
from rollout.core.calendar.sites import Cell
from rollout.core.errors import ProposalClosed
from rollout.core.policy.cell_evidence import Known
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import Approve, Command, Person, See, Tick
from rollout.core.scope.decider import decide
from rollout.core.scope.events import (
    Event,
    PolicyApplied,
    ProposalRaised,
    RolloutCreated,
    VersionFirstUsed,
)
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import ENGINE, CellState, Scope, acting
from rollout.core.statistics.sampling import draws
from rollout.replay.agenda import Agenda
from rollout.replay.fast_forward import Interest, interest
from rollout.tally.evidence_view import Feeds, Sight
from rollout.tally.slots import instant, slot_after
from rollout.tally.stage_history import Timeline, bands, shares_of
from rollout.tally.unit_arrays import Ints, Rows, Units

Key = tuple[Cell, str]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Course:
    """How a replay is run.

    Attributes:
        salt: what draws are made with; the same salt gives the same replay.
        approve_after: how long simulated people take; None: nobody ever approves.
        skip: leave out the slots in which nothing can happen. The ledger is the same either way.
    """

    salt: bytes = bytes(32)
    approve_after: timedelta | None = timedelta(hours=4)
    skip: bool = True


@dataclass(frozen=True)
class Replayed:
    """What a replay came to.

    Attributes:
        policy: the policy that was replayed.
        events: the whole ledger, in order.
        scope: the scope after the last of them.
        timelines: per cell the stages it stood on, for whichever version acted.
        units: what was counted.
        sights: per version and cell what the engine was shown at the end.
        first_slot, last_slot: the span that was ticked through.
        ticks: how many slots were decided.
    """

    policy: Policy
    events: tuple[Event, ...]
    scope: Scope
    timelines: Mapping[Cell, Timeline]
    units: Units
    sights: Mapping[Key, Sight]
    first_slot: int
    last_slot: int
    ticks: int


class Shown(Mapping[Key, Known]):
    """Evidence at one slot, each cell's read off when the decision asks for it."""

    def __init__(self, sights: Mapping[Key, Sight], slot: int) -> None:
        self._sights, self._slot = sights, slot
        self._read: dict[Key, Known] = {}

    def __getitem__(self, key: Key) -> Known:
        """Return what is known of one version in one cell."""
        if key not in self._read:
            self._read[key] = self._sights[key].known(self._slot)
        return self._read[key]

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the cells and versions, in their order."""
        return iter(self._sights)

    def __len__(self) -> int:
        """Return the number of cells and versions."""
        return len(self._sights)


class Replay:
    """One run. It holds what changes from slot to slot; everything else is a value."""

    def __init__(
        self,
        units: Units,
        policy: Policy,
        feeds: Feeds,
        seen: Mapping[str, datetime],
        course: Course,
    ) -> None:
        self._units, self._policy, self._feeds, self._course = units, policy, feeds, course
        self._shares = shares_of(policy)
        self._bands: Ints | None = None
        self._timelines = {cell: Timeline() for cell in policy.cells}
        self._sights: dict[Key, Sight] = {}
        self._queue: list[tuple[datetime, int, Command]] = []
        self._turn = count()
        self._keys = sorted(key for key in units.cells if key[0] in policy.known)
        self._agenda = Agenda(policy, self._interest)
        self._begin(seen)

    def _begin(self, seen: Mapping[str, datetime]) -> None:
        start = instant(self._units.first_slot, self._policy.tick)
        salt_hash = sha256(self._course.salt).hexdigest()
        self._events: list[Event] = [
            RolloutCreated(at=start, by=ENGINE, salt_hash=salt_hash),
            PolicyApplied(at=start, by=REPLAY, number=1, policy_hash=self._policy.hash),
        ]
        self._scope = fold(self._events)
        for version, at in sorted(seen.items(), key=lambda item: (item[1], item[0])):
            self._ask(See(at=max(at, start), version=version))

    def _ask(self, command: Command) -> None:
        heapq.heappush(self._queue, (command.at, next(self._turn), command))

    def run(self, progress: Progress | None = None) -> Replayed:
        """Tick from the first slot to the last in which anything is counted."""
        first, last, ticks = self._units.first_slot, self._units.last_slot, 0
        slot, slot_count = first, last - first + 1
        while (slot := self._next(slot)) <= last:
            self._take_until(instant(slot, self._policy.tick))
            if self._course.skip and self._next(slot) > slot:
                continue  # what people did meanwhile moved the next slot of interest
            self._tick(slot)
            ticks, slot = ticks + 1, slot + 1
            _tell(progress, slot - first, slot_count)
        _tell(progress, slot_count, slot_count)
        return self._replayed(ticks)

    def _take_until(self, at: datetime) -> None:
        """Carry out the commands that are due by `at`."""
        while self._queue and self._queue[0][0] <= at:
            command = heapq.heappop(self._queue)[2]
            with suppress(ProposalClosed):  # it was voided before the simulated person came
                self._add(decide(command, self._scope, self._policy))

    def _tick(self, slot: int) -> None:
        due_cells = self._agenda.due(self._scope, slot) if self._course.skip else self._policy.known
        changed_cells = self._add(self._decided(slot, due_cells))
        for cell in changed_cells.union(due_cells):
            self._mark(cell, slot)

    def _decided(self, slot: int, cells: Collection[Cell]) -> tuple[Event, ...]:
        """Decide on what is known of `cells`, and of those that what follows there stirs."""
        views = {key: self._sight(key) for key in self._known_keys() if key[0] in cells}
        at = instant(slot, self._policy.tick)
        tick = Tick(at=at, evidence=Shown(views, slot), slot=at)
        events = decide(tick, self._scope, self._policy)
        if not events or not self._course.skip:
            return events
        affected_cells = self._agenda.stirred(events, fold(events, self._scope), slot)
        return (
            events
            if affected_cells.issubset(cells)
            else self._decided(slot, affected_cells.union(cells))
        )

    def _mark(self, cell: Cell, slot: int) -> None:
        """Note the stage on which the cell stands from this slot on."""
        if self._scope.holder(cell) is None and not self._timelines[cell].slots:
            return
        acting_stage = acting(self._scope, self._policy, cell, instant(slot, self._policy.tick))
        new_history = self._timelines[cell].after(
            slot, 0 if acting_stage is None else acting_stage[1]
        )
        if new_history is not self._timelines[cell]:
            self._timelines[cell] = new_history
            self._agenda.forget(cell)  # a trial may end without an event: more is shown from now on

    def _add(self, events: tuple[Event, ...]) -> set[Cell]:
        """Append events; return the cells that they are about."""
        self._events.extend(events)
        self._scope = fold(events, self._scope)
        for event in events:
            if isinstance(event, ProposalRaised):
                self._approve_later(event)
            if isinstance(event, VersionFirstUsed):
                self._agenda.add(key for key in self._keys if key[1] == event.version)
        return self._agenda.touch(events)

    def _approve_later(self, raised: ProposalRaised) -> None:
        """Let simulated people say yes, one for each group that is asked."""
        if self._course.approve_after is None:
            return
        for number, group in enumerate(raised.needs, start=1):
            actor = Person(f"{SIMULATED}{number}", (group,))
            at = raised.at + self._course.approve_after
            self._ask(
                Approve(at=at, by=actor, proposal=raised.proposal, evidence=raised.evidence_hash)
            )

    def _known_keys(self) -> list[Key]:
        return [key for key in self._keys if key[1] in self._scope.versions]

    def _next(self, slot: int) -> int:
        """Return the first slot from `slot` on that has to be decided."""
        if not self._course.skip:
            return slot
        next_slot = self._agenda.next(self._scope, slot)
        if self._queue:
            command_slot = slot_after(self._queue[0][0], self._policy.tick)
            next_slot = min(next_slot, max(slot, command_slot))
        return next_slot

    def _interest(self, key: Key, scope: Scope, slot: int) -> Interest:
        return interest(self._sight(key), scope, slot)

    def _sight(self, key: Key) -> Sight:
        """Return what the engine is shown of a cell, made anew when its state has moved."""
        cell, version = key
        state, stage_history = self._scope.state(cell, version), self._timelines[cell]
        view = self._sights.get(key)
        if view is None or not shows_the_same(view, state, stage_history):
            view = self._sights[key] = Sight(
                cell=cell,
                version=version,
                rows=self._units.cells[key],
                kinds=self._units.kinds,
                policy=self._policy,
                state=state,
                first_seen=self._scope.versions[version].first_seen,
                timeline=stage_history,
                shares=self._shares,
                band_of=self._band_of,
                feeds=self._feeds,
            )
        return view

    def _band_of(self, rows: Rows) -> Ints:
        """Return the band of each row's draw; draws are made when a first cell leaves shadow."""
        if self._bands is None:
            sampling_values = draws(self._course.salt, "stage", self._units.unit_keys)
            self._bands = bands(self._shares, sampling_values)
        buckets: Ints = self._bands[rows.unit]
        return buckets

    def _replayed(self, ticks: int) -> Replayed:
        return Replayed(
            policy=self._policy,
            events=tuple(self._events),
            scope=self._scope,
            timelines=self._timelines,
            units=self._units,
            sights={key: self._sight(key) for key in self._known_keys()},
            first_slot=self._units.first_slot,
            last_slot=self._units.last_slot,
            ticks=ticks,
        )


def _tell(progress: Progress | None, done: int, of: int) -> None:
    if progress is not None:
        progress(done, of)


def shows_the_same(sight: Sight, state: CellState, timeline: Timeline) -> bool:
    """Say whether a sight still shows what the engine would be shown: proposals change nothing."""
    return sight.timeline is timeline and _basis(sight.state) == _basis(state)


def _basis(state: CellState) -> tuple[object, ...]:
    return (state.grants, state.attempt, state.attempt_since, state.changed_at, state.alarms)
