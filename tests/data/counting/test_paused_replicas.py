"""Replicas count each unit once, wherever each is paused between its transactions."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import polars as pl
import pytest

from rollout.data.counting import counter
from rollout.data.counting.count_queue import CountQueue, DueCase
from rollout.data.database.append_failures import DatabaseBusyError
from rollout.data.database.session import Database
from rollout.data.ledger.scopes import EvidenceStore
from tests.data.counted_units import advance_in, marks, unit, wrong
from tests.data.new_rollouts import rollout
from tests.factories import MINUTE, NOON

__all__ = ["rollout"]

SLOTS = range(1, 6)


class Counter:
    """A replica that reads what is due, is paused, and counts it; it may die in between."""

    def __init__(self, database, rollout, slot_of):
        self.database, self.rollout, self.slot_of = database, rollout, slot_of

    def steps(self, slot):
        batch = self.listed(slot)
        yield  # paused: others may read the same, count it, and move evidence on
        with self.database.begin_write() as transaction:
            units = [unit(str(d.case_id), slot=self.slot_of[d.case_id]) for d in batch]
            frame = pl.DataFrame(units)
            counter.count_units(transaction, self.rollout, frame, by_episode=False)
            CountQueue(transaction, self.rollout).delete(batch)

    def listed(self, slot):
        with self.database.begin_read() as transaction:
            until = NOON + slot * MINUTE
            return CountQueue(transaction, self.rollout).list_due(until=until, limit=7)


class Mover:
    """A replica that is paused before it moves evidence on; it notes what that added."""

    def __init__(self, database, rollout, added):
        self.database, self.rollout, self.added = database, rollout, added

    def steps(self, slot):
        yield  # paused: another may move it past the slot
        with self.database.begin_write() as transaction:
            through = EvidenceStore(transaction, self.rollout).get_last_slot(lock=True)
            self.added.append(advance_in(transaction, self.rollout, through, slot))
            moved = EvidenceStore(transaction, self.rollout).get_last_slot()
        assert moved == max(through, slot)


def run(chance, replicas):
    """Run one pass of each replica a slot, in an order that chance decides."""
    waiting = []
    for slot in SLOTS:
        waiting += [replica.steps(slot) for replica in replicas]
        for _ in range(len(waiting)):
            step(chance, waiting)
    while waiting:
        step(chance, waiting)


def step(chance, waiting):
    one = chance.choice(waiting)
    if next(one, "ended") == "ended":
        waiting.remove(one)


def queued(database, rollout, chance, n=30):
    """Queue units whose slots lie anywhere; each is due in its slot or becomes visible later."""
    slot_of = {number: chance.choice(SLOTS) for number in range(1, n + 1)}
    entries = [
        DueCase(NOON + (slot + chance.choice([0, 0, 0, 1, 2])) * MINUTE, number, "gate")
        for number, slot in slot_of.items()
    ]
    with database.begin_write() as transaction:
        CountQueue(transaction, rollout).add(entries)
    return slot_of


def each_counted_once(database, rollout, slot_of, added):
    """Let what is left be counted and moved: then every unit is in evidence, once."""
    last = Counter(database, rollout, slot_of)
    while last.listed(100):
        list(last.steps(100))
    list(Mover(database, rollout, added).steps(100))
    assert len(marks(database, rollout)) == len(slot_of)
    assert sum(added) == len(slot_of)
    assert wrong(database, rollout) == {}


@pytest.mark.parametrize("seed", range(12))
def test_paused_replicas_count_each_unit_once_and_lose_none(database, rollout, seed):
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
    slot_of = queued(database, rollout, chance)
    replicas = [Counter(database, rollout, slot_of) for _ in range(3)]
    added = []
    run(chance, [*replicas, *(Mover(database, rollout, added) for _ in range(2))])
    each_counted_once(database, rollout, slot_of, added)


@pytest.mark.slow
def test_replicas_at_once_count_each_unit_once_and_lose_none(url, database, rollout):
    chance = random.Random(1)  # noqa: S311 - a schedule, no secret
    slot_of, added = queued(database, rollout, chance, n=60), []

    def replica(kind):
        own = Database(url)
        one = Mover(own, rollout, added) if kind else Counter(own, rollout, slot_of)
        for slot in [*SLOTS, 7, 8, 9] * 2:
            with suppress(DatabaseBusyError):
                list(one.steps(slot))
        own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(replica, [False, False, True, True]))
    each_counted_once(database, rollout, slot_of, added)
