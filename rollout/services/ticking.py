"""The tick: claim a slot, count what is due, decide on what is known, append.

Counting, moving evidence and appending are transactions of their own. A pass that breaks off
loses nothing: its entries are still queued, and its claim goes to whoever asks after a tick.
"""

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import polars as pl

from rollout.core.commands import Tick
from rollout.core.definition import definition
from rollout.core.draws import draws
from rollout.core.events import Event
from rollout.core.evolve import evolve
from rollout.core.places import Cell
from rollout.core.policy import Guard, Policy
from rollout.core.scope import CellState, Scope, acting
from rollout.replay.engine import Key, Shown
from rollout.replay.feeds import Answers, HistoryFeeds
from rollout.services.commanding import carry_out
from rollout.services.ingesting import stored_history, units_of
from rollout.services.standing import Standing, standing
from rollout.store import counting
from rollout.store.counted import Counted
from rollout.store.due import DueQueue
from rollout.store.evidence import Evidence
from rollout.store.ledger import Ledger
from rollout.store.session import Database, Transaction
from rollout.store.slots import Slots
from rollout.tally.placing import place
from rollout.tally.rows import Ints, Rows, Units, gather
from rollout.tally.sight import Sight
from rollout.tally.slots import instant, slot_before
from rollout.tally.timeline import Timeline, bands, shares_of

BATCH = 500  # queue entries in one transaction: a stop waits for no more than one
GOES_ON = 2**60  # a slot after all others: what is live has no end after which silence is none
OF_A_CELL = ("site", "window", "version")


class Ticker:
    """One process' ticker of one rollout. It keeps between slots what it has read.

    Records that guards look at beside verdicts (answers, harm, when a site was heard) are read
    when it is made: make a new one after records came in by another way.
    """

    def __init__(self, database: Database, name: str, owner: str) -> None:
        """Read nothing yet; the first tick does."""
        self._database, self._name, self._owner = database, name, owner
        self._policy = ""
        self._through = -1
        self._begin()

    def _begin(self) -> None:
        self._frames: dict[Key, pl.DataFrame] = {}
        self._units: dict[Key, Units] = {}
        self._sights: dict[Key, Sight] = {}
        self._feeds: StoredFeeds | None = None
        self._stages = Stages()
        self._through = -1

    def tick(self, at: datetime) -> tuple[Event, ...] | None:
        """Do the slot that `at` lies in; slots missed before it are folded into this pass.

        Returns:
            The events written; None where the slot, or a later one, is done or somebody else's.

        Raises:
            NoSuchRolloutError: there is no such rollout.
        """
        stood = self._standing()
        slot = slot_before(at, stood.policy.tick)
        if not self._claimed(stood, slot, at):
            return None
        self._count(stood, slot)
        self._move(stood, slot)
        events = carry_out(self._database, self._name, lambda now: self._asked(now, slot))
        with self._database.writing() as transaction:
            Slots(transaction, stood.rollout).done(slot, at=at)
        return events

    def _standing(self) -> Standing:
        with self._database.reading() as transaction:
            return standing(transaction, self._name)

    def _claimed(self, stood: Standing, slot: int, at: datetime) -> bool:
        with self._database.writing() as transaction:
            slots = Slots(transaction, stood.rollout)
            last = slots.last_done()
            if last is not None and last >= slot:
                return False
            return slots.claim(slot, owner=self._owner, at=at, outlived=stood.policy.tick)

    def _count(self, stood: Standing, slot: int) -> None:
        """Count what is due by the slot, in short transactions."""
        while True:
            with self._database.writing() as transaction:
                queue = DueQueue(transaction, stood.rollout)
                batch = queue.take(until=instant(slot, stood.policy.tick), limit=BATCH)
                if not batch:
                    return
                units = units_of(transaction, stood, {entry.case_id for entry in batch})
                ripe = _marked(units.filter(pl.col("slot") <= slot), stood)
                by_episode = stood.policy.evidence.unit == "episode"
                counting.count(transaction, stood.rollout, ripe, by_episode=by_episode)
                queue.done(batch)

    def _move(self, stood: Standing, slot: int) -> None:
        """Make the slots up to this one evidence; one that is evidence already stays."""
        with self._database.writing() as transaction:
            evidence = Evidence(transaction, stood.rollout)
            through = evidence.through(hold=True)
            if through < slot:
                evidence.move(after=through, to=slot)

    def _asked(self, stood: Standing, slot: int) -> Tick:
        if stood.scope.policy_hash != self._policy:
            self._begin()
            self._policy = stood.scope.policy_hash
        with self._database.reading() as transaction:
            self._read(transaction, stood, slot)
            self._stages.mark(transaction, stood, slot - 1)
            if self._feeds is None:
                self._feeds = StoredFeeds(transaction, stood)
        at = instant(slot, stood.policy.tick)
        known = [key for key in sorted(self._frames) if self._counts(key, stood)]
        sights = {key: self._sight(key, stood) for key in known}
        return Tick(at=at, evidence=Shown(sights, slot), pending=stood.pending)

    def _counts(self, key: Key, stood: Standing) -> bool:
        return key[0] in stood.policy.known and key[1] in stood.scope.versions

    def _read(self, transaction: Transaction, stood: Standing, slot: int) -> None:
        """Add the units of the slots since the last one read; no earlier slot ever grows."""
        if self._through >= slot:
            return
        counted = Counted(transaction, stood.rollout)
        frame = counted.frame(after=self._through, until=slot)
        self._through = slot
        for key, new in _by_key(frame, stood.policy):
            before = self._frames.get(key)
            self._frames[key] = new if before is None else pl.concat([before, new])
            self._units[key] = gather(self._frames[key], stood.policy)
            self._sights.pop(key, None)

    def _sight(self, key: Key, stood: Standing) -> Sight:
        (cell, version), units = key, self._units[key]
        state, timeline = stood.scope.state(cell, version), self._stages.of(cell)
        sight = self._sights.get(key)
        if sight is None or sight.timeline is not timeline or _basis(sight.state) != _basis(state):
            shares = shares_of(stood.policy)

            def band_of(rows: Rows) -> Ints:
                drawn = draws(stood.rollout.salt, "stage", units.unit_keys)
                found: Ints = bands(shares, drawn)[rows.unit]
                return found

            assert self._feeds is not None  # noqa: S101 - read with the evidence
            sight = self._sights[key] = Sight(
                cell=cell,
                version=version,
                rows=units.cells[key],
                kinds=units.kinds,
                policy=stood.policy,
                state=state,
                first_seen=stood.scope.versions[version].first_seen,
                timeline=timeline,
                shares=shares,
                band_of=band_of,
                feeds=self._feeds,
            )
        return sight


def _basis(state: CellState) -> tuple[object, ...]:
    """Return what of a state makes a difference to what is shown: proposals make none."""
    return (state.grants, state.attempt, state.attempt_since, state.changed_at, state.alarms)


def _marked(units: pl.DataFrame, stood: Standing) -> pl.DataFrame:
    """Add to units what the store notes of each: definition, attempt, and band of the draw."""
    policy, keys = stood.policy, units["unit"].to_list()
    shares = shares_of(policy)
    cells = list(units.select(OF_A_CELL).iter_rows())
    named = {cell: definition(policy, cell) for cell in policy.cells}
    drawn = draws(stood.rollout.salt, "stage", keys) if keys else np.empty(0)
    return units.with_columns(
        definition=pl.Series([named.get(Cell(s, w), "") for s, w, _ in cells], dtype=pl.String),
        attempt=pl.Series([_attempt(stood.scope, *row) for row in cells], dtype=pl.Int64),
        band=pl.Series(bands(shares, drawn), dtype=pl.Int64),
    )


def _attempt(scope: Scope, site: str, window: str, version: str) -> int:
    state = scope.cells.get((Cell(site, window), version))
    return 1 if state is None else state.attempt


def _by_key(frame: pl.DataFrame, policy: Policy) -> Iterator[tuple[Key, pl.DataFrame]]:
    """Yield the units of each cell and version, of those that mean what the policy means."""
    parts = frame.partition_by(OF_A_CELL, as_dict=True, maintain_order=True)
    for (site, window, version), part in parts.items():
        cell = Cell(str(site), str(window))
        if cell in policy.known:
            same = part.filter(pl.col("definition") == definition(policy, cell))
            if same.height:
                yield (cell, str(version)), same


class Stages:
    """The stage of each cell's acting version, slot by slot, as the ledger tells it."""

    def __init__(self) -> None:
        self._scope = Scope()
        self._waiting: list[Event] = []
        self._read_to = 0
        self._slot: int | None = None
        self._timelines: dict[Cell, Timeline] = {}

    def of(self, cell: Cell) -> Timeline:
        """Return one cell's stages."""
        return self._timelines.setdefault(cell, Timeline())

    def mark(self, transaction: Transaction, stood: Standing, until: int) -> None:
        """Note the stages up to and with a slot; what was decided in a slot holds in it."""
        new = list(Ledger(transaction, stood.rollout).events(after=self._read_to))
        self._read_to += len(new)
        self._waiting += new
        if self._slot is None:
            self._slot = slot_before(self._waiting[0].at, stood.policy.tick) - 1
        for slot in range(self._slot + 1, until + 1):
            self._mark(slot, stood.policy)
        self._slot = max(self._slot, until)

    def _mark(self, slot: int, policy: Policy) -> None:
        at = instant(slot, policy.tick)
        while self._waiting and self._waiting[0].at <= at:
            self._scope = evolve(self._scope, self._waiting.pop(0))
        for cell in policy.cells:
            if self._scope.holder(cell) is not None or self.of(cell).slots:
                here = acting(self._scope, policy, cell, at)
                self._timelines[cell] = self.of(cell).after(slot, 0 if here is None else here[1])


class StoredFeeds:
    """What the store holds for guards beside verdicts, read when the first guard asks."""

    until = GOES_ON

    def __init__(self, transaction: Transaction, stood: Standing) -> None:
        records = stored_history(transaction, stood).records()
        history = place(records, stood.policy, stood.rollout.salt, stood.trained_until)
        self._feeds = HistoryFeeds(records, history, stood.policy)

    def answers(self, cell: Cell, version: str, guard: Guard) -> Answers:
        """Return (slot, occurred, bad) of each answer, or harm, that the guard looks at."""
        return self._feeds.answers(cell, version, guard)

    def heard(self, site: str) -> Ints:
        """Return the slots in which anything came from the site."""
        return self._feeds.heard(site)
