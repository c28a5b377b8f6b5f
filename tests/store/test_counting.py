"""Every unit is counted once and in evidence once, whoever counts, pauses, or comes late."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import count

import polars as pl
import pytest
from sqlalchemy import text

from rollout.core.errors import StaleRevision
from rollout.store import counting
from rollout.store.counted import Counted
from rollout.store.due import Due, DueQueue
from rollout.store.errors import DatabaseBusy
from rollout.store.evidence import Evidence, Reading
from rollout.store.matrices import Matrices
from rollout.store.rollouts import Rollouts
from rollout.store.session import Database
from rollout.store.slots import Slots
from rollout.store.tallies import Tallies
from tests.factories import MINUTE, NOON
from tests.store.databases import on_postgresql

NAMES = (f"rollout-{number}" for number in count(1))
SLOTS = range(1, 6)


@pytest.fixture
def rollout(database):
    return created(database)


def created(database):
    with database.writing() as transaction:
        return Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON)


def unit(name, slot=1, **changes):
    """Return a row as `resolve` gives it."""
    row = {
        "track": "gate",
        "site": "creek",
        "window": "day",
        "version": "v1",
        "unit": name,
        "case_key": name,
        "slot": slot,
        "occurred": slot - 1,
        "lever": "alarm",
        "predicted": "bear",
        "decided": "bear",
        "second": "",
        "level": 0,
        "reviewer": "ana",
        "day": 20_000,
        "excluded": None,
        "definition": "d" * 64,
        "attempt": 1,
        "band": 0,
    }
    return row | changes


def counts(database, rollout, *units, by_episode=False):
    frame = pl.DataFrame(list(units), infer_schema_length=None)
    with database.writing() as transaction:
        return counting.count(transaction, rollout, frame, by_episode=by_episode)


def advance(database, rollout, after, to):
    with database.writing() as transaction:
        return counting.advance(transaction, rollout, after=after, to=to)["n"].sum()


def marks(database, rollout):
    with database.reading() as transaction:
        return list(Counted(transaction, rollout).all())


def wrong(database, rollout):
    """Return the tallies and the matrices that are not what the marks add up to."""
    with database.reading() as transaction:
        right = counting.marked(transaction, rollout)
        sums = counting.differences(transaction, rollout)
        return {**sums, **counting.matrix_differences(transaction, rollout, right)}


# Once


def test_a_unit_is_counted_once_on_a_track_for_a_version(database, rollout):
    again = [unit("a"), unit("a", track="guard"), unit("a", version="v2"), unit("b")]
    assert counts(database, rollout, unit("a")) == 1
    assert counts(database, rollout, *again) == 3
    assert counts(database, rollout, *again) == 0
    assert advance(database, rollout, 0, 1) == 4


def test_a_unit_that_is_counted_again_elsewhere_stays_where_it_was(database, rollout):
    counts(database, rollout, unit("a", slot=3))
    counts(database, rollout, unit("a", slot=4, decided="none", site="lake"))
    assert [mark.slot for mark in marks(database, rollout)] == [3]
    assert wrong(database, rollout) == {}


def test_units_of_one_kind_in_one_slot_are_one_tally(database, rollout):
    counts(database, rollout, unit("a"), unit("b"), unit("c", decided="none"))
    counts(database, rollout, unit("d"))
    with database.reading() as transaction:
        frame = Tallies(transaction, rollout).frame(after=0, until=1)
    assert sorted(frame["n"]) == [1, 3]


def matrix(database, rollout, *, track="gate", version="v1"):
    with database.reading() as transaction:
        found = Matrices(transaction, rollout).frame(track=track, version=version)
        return sorted(found.select("site", "human", "model", "n").rows())


def test_a_matrix_sums_units_over_slots_and_bands(database, rollout):
    counts(database, rollout, unit("a"), unit("b", slot=2, band=1), unit("c", decided="none"))
    counts(database, rollout, unit("a"), unit("d", slot=3, site="lake", decided=""))
    assert matrix(database, rollout) == [
        ("creek", "bear", "bear", 2),
        ("creek", "none", "bear", 1),
        ("lake", "", "bear", 1),
    ]
    assert wrong(database, rollout) == {}


def test_a_matrix_is_of_one_version_and_track_and_of_evidence_alone(database, rollout):
    others = [unit("a", track="guard"), unit("a", version="v2"), unit("b", excluded="trained on")]
    counts(database, rollout, unit("a"), *others)
    assert matrix(database, rollout) == [("creek", "bear", "bear", 1)]
    assert matrix(database, rollout, version="v3") == []


def test_a_matrix_is_of_one_rollout(database, rollout):
    other = created(database)
    counts(database, rollout, unit("a"))
    assert matrix(database, other) == []


def test_a_unit_with_several_levers_is_one_mark_and_a_tally_each(database, rollout):
    levers = [unit("a", lever="alarm"), unit("a", lever="siren"), unit("a", lever="*")]
    assert counts(database, rollout, *levers) == 1
    assert advance(database, rollout, 0, 1) == 3


def test_what_is_no_evidence_is_marked_and_not_tallied(database, rollout):
    assert counts(database, rollout, unit("a", excluded="trained on")) == 1
    assert counts(database, rollout, unit("a")) == 0
    assert advance(database, rollout, 0, 1) == 0
    assert wrong(database, rollout) == {}


def test_an_episode_and_a_case_of_the_same_name_are_two_units(database, rollout):
    counts(database, rollout, unit("a"))
    assert counts(database, rollout, unit("a"), by_episode=True) == 1


def test_nothing_to_count_counts_nothing(database, rollout):
    with database.writing() as transaction:
        assert counting.count(transaction, rollout, pl.DataFrame(), by_episode=False) == 0


# Through


def test_what_shows_up_late_goes_into_the_slot_after_evidence(database, rollout):
    assert advance(database, rollout, 0, 4) == 0
    counts(database, rollout, unit("late", slot=2), unit("early", slot=9))
    assert {mark.slot for mark in marks(database, rollout)} == {5, 9}
    assert advance(database, rollout, 4, 5) == 1
    assert advance(database, rollout, 5, 9) == 1


def test_evidence_that_moved_on_is_not_moved_again(database, rollout):
    counts(database, rollout, unit("a"))
    assert advance(database, rollout, 0, 1) == 1
    with pytest.raises(StaleRevision, match="moved on from slot 0"):
        advance(database, rollout, 0, 1)
    with pytest.raises(ValueError, match="forward"):
        advance(database, rollout, 1, 1)


def test_evidence_waits_for_whoever_is_counting(database, other, rollout):
    """Paused after marking, it holds `through`; who moves evidence then sees what it added."""
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as transaction:
            counting.count(transaction, rollout, pl.DataFrame([unit("a")]), by_episode=False)
            moving = pool.submit(advance, other, rollout, 0, 1)
            with pytest.raises(TimeoutError):
                moving.result(timeout=0.3)
        assert moving.result(timeout=10) == 1


def test_whoever_counts_waits_for_evidence_to_move(database, other, rollout):
    with ThreadPoolExecutor(1) as pool:
        with database.writing() as transaction:
            counting.advance(transaction, rollout, after=0, to=7)
            late = pool.submit(counts, other, rollout, unit("a", slot=3))
            with pytest.raises(TimeoutError):
                late.result(timeout=0.3)
        assert late.result(timeout=10) == 1
    assert [mark.slot for mark in marks(database, rollout)] == [8]


def test_an_error_while_counting_undoes_marks_and_tallies_alike(database, rollout, monkeypatch):
    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(Tallies, "add", broken)
    with pytest.raises(RuntimeError):
        counts(database, rollout, unit("a"))
    monkeypatch.undo()
    assert marks(database, rollout) == []
    assert counts(database, rollout, unit("a")) == 1


def test_a_tally_that_is_not_the_sum_of_its_marks_is_found(database, rollout):
    counts(database, rollout, unit("a"), unit("b", slot=2))
    with database.writing() as transaction:
        transaction.execute(text("update tallies set n = 3 where slot = 2"))
    assert [n for _, n in wrong(database, rollout).items()] == [(3, 1)]


def test_readings_of_the_same_measure_replace_each_other(database, rollout):
    first = Reading("v1", "creek", "day", "agreement", "d", 1, {"counts": [3, 1]}, through=4)
    second = Reading("v1", "creek", "day", "agreement", "d", 1, {"counts": [4, 1]}, through=5)
    other = Reading("v1", "creek", "day", "recall/bear", "d", 1, {"counts": [1, 1]}, through=5)
    for readings in ([first], [second, other], []):
        with database.writing() as transaction:
            Evidence(transaction, rollout).keep(readings)
    with database.reading() as transaction:
        assert sorted(Evidence(transaction, rollout).all(), key=str) == [second, other]


# Several replicas, each paused anywhere between its transactions


class Counter:
    """A replica that takes what is due, is paused, and counts it; it may die in between."""

    def __init__(self, database, rollout, slot_of):
        self.database, self.rollout, self.slot_of = database, rollout, slot_of

    def steps(self, slot):
        batch = self.taken(slot)
        yield  # paused: others may take the same, count it, and move evidence on
        with self.database.writing() as transaction:
            units = [unit(str(d.case_id), slot=self.slot_of[d.case_id]) for d in batch]
            frame = pl.DataFrame(units)
            counting.count(transaction, self.rollout, frame, by_episode=False)
            DueQueue(transaction, self.rollout).done(batch)

    def taken(self, slot):
        with self.database.writing() as transaction:
            until = NOON + slot * MINUTE
            return DueQueue(transaction, self.rollout).take(until=until, limit=7)


class Mover:
    """A replica that reads evidence, is paused, and moves it on with what it read."""

    def __init__(self, database, rollout):
        self.database, self.rollout = database, rollout

    def steps(self, slot):
        with self.database.reading() as transaction:
            evidence = Evidence(transaction, self.rollout)
            through, before = evidence.through(), known(evidence)
        yield  # paused: another may move it
        if slot <= through:
            return
        with suppress(StaleRevision), self.database.writing() as transaction:
            sums = counting.advance(transaction, self.rollout, after=through, to=slot)
            reading = Reading("v1", "creek", "day", "all", "d", 1, before + sums["n"].sum(), slot)
            Evidence(transaction, self.rollout).keep([reading])


def known(evidence):
    return sum(reading.body for reading in evidence.all())


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
        Due(NOON + (slot + chance.choice([0, 0, 0, 1, 2])) * MINUTE, number, "gate")
        for number, slot in slot_of.items()
    ]
    with database.writing() as transaction:
        DueQueue(transaction, rollout).add(entries)
    return slot_of


def in_evidence(database, rollout):
    """Let everything that is left be counted, and return what evidence then amounts to."""
    with database.reading() as transaction:
        return known(Evidence(transaction, rollout))


@pytest.mark.parametrize("seed", range(12))
def test_paused_replicas_count_each_unit_once_and_lose_none(database, rollout, seed):
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret
    slot_of = queued(database, rollout, chance)
    replicas = [Counter(database, rollout, slot_of) for _ in range(3)]
    run(chance, [*replicas, Mover(database, rollout), Mover(database, rollout)])
    last = Counter(database, rollout, slot_of)
    while last.taken(100):
        list(last.steps(100))
    list(Mover(database, rollout).steps(100))
    assert len(marks(database, rollout)) == len(slot_of)
    assert in_evidence(database, rollout) == len(slot_of)
    assert wrong(database, rollout) == {}


def test_replicas_at_once_count_each_unit_once_and_lose_none(url, database, rollout):
    chance = random.Random(1)  # noqa: S311 - a schedule, no secret
    slot_of = queued(database, rollout, chance, n=60)

    def replica(kind):
        own = Database(url)
        one = Mover(own, rollout) if kind else Counter(own, rollout, slot_of)
        for slot in [*SLOTS, 7, 8, 9] * 2:
            with suppress(DatabaseBusy):
                list(one.steps(slot))
        own.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(replica, [False, False, True, True]))
    last = Counter(database, rollout, slot_of)
    while last.taken(100):
        list(last.steps(100))
    list(Mover(database, rollout).steps(100))
    assert len(marks(database, rollout)) == len(slot_of)
    assert in_evidence(database, rollout) == len(slot_of)
    assert wrong(database, rollout) == {}


# The queue and the slots


def entry(minute, case=1):
    return Due(NOON + minute * MINUTE, case, "gate")


def test_what_is_due_comes_oldest_first_and_stays_until_it_is_done(database, rollout):
    with database.writing() as transaction:
        queue = DueQueue(transaction, rollout)
        queue.add([entry(3), entry(1), entry(2, 7), entry(2, 6), entry(1)])
        assert queue.waiting() == 4
    for _ in range(2):
        with database.writing() as transaction:
            queue = DueQueue(transaction, rollout)
            taken = queue.take(until=NOON + 2 * MINUTE, limit=2)
            assert taken == [entry(1), entry(2, 6)]
    with database.writing() as transaction:
        DueQueue(transaction, rollout).done(taken)
    with database.writing() as transaction:
        rest = DueQueue(transaction, rollout).take(until=NOON + 9 * MINUTE)
    assert rest == [entry(2, 7), entry(3)]


@on_postgresql
def test_two_who_take_at_once_are_given_different_entries(database, other, rollout):
    with database.writing() as transaction:
        DueQueue(transaction, rollout).add([entry(1), entry(2), entry(3)])
    with database.writing() as one, other.writing() as two:
        first = DueQueue(one, rollout).take(until=NOON + 9 * MINUTE, limit=2)
        second = DueQueue(two, rollout).take(until=NOON + 9 * MINUTE, limit=2)
    assert (first, second) == ([entry(1), entry(2)], [entry(3)])


def claim(database, rollout, owner, slot=7, at=NOON):
    with database.writing() as transaction:
        slots = Slots(transaction, rollout)
        return slots.claim(slot, owner=owner, at=at, outlived=5 * MINUTE)


def test_of_many_who_claim_a_slot_one_is_given_it(url, rollout):
    databases = [Database(url) for _ in range(4)]
    owners = ["ana", "bo", "cy", "di"]
    with ThreadPoolExecutor(4) as pool:
        for slot in range(10):
            asked = partial(claim, slot=slot)
            told = list(pool.map(asked, databases, [rollout] * 4, owners))
            assert sorted(told) == [False, False, False, True]
    for database in databases:
        database.close()


def test_a_claim_that_outlived_its_time_goes_to_one_other(database, rollout):
    later = NOON + timedelta(minutes=5)
    assert claim(database, rollout, "dead")
    assert not claim(database, rollout, "bo", at=later - timedelta(microseconds=1))
    assert claim(database, rollout, "bo", at=later)
    assert not claim(database, rollout, "cy", at=later)


def test_who_broke_off_may_take_up_their_own_slot_at_once(database, rollout):
    assert claim(database, rollout, "ana")
    assert claim(database, rollout, "ana")
    assert not claim(database, rollout, "bo")


def test_what_came_in_is_told_for_a_while_and_never_taken(database, rollout):
    with database.writing() as transaction:
        queue = DueQueue(transaction, rollout)
        queue.note_arrived([5, 6], NOON)
        queue.note_arrived([5], NOON + MINUTE)
        assert queue.waiting() == 0
        assert queue.take(until=NOON + 9 * MINUTE) == []
        assert queue.arrived(since=NOON) == {(NOON, 5), (NOON, 6), (NOON + MINUTE, 5)}
        queue.forget_arrived(before=NOON + MINUTE)
        assert queue.arrived(since=NOON) == {(NOON + MINUTE, 5)}


def test_a_slot_that_is_done_is_nobodys_again(database, rollout):
    claim(database, rollout, "ana")
    with database.writing() as transaction:
        slots = Slots(transaction, rollout)
        assert slots.last_done() is None
        slots.done(7, at=NOON)
        assert slots.last_done() == 7
    assert not claim(database, rollout, "bo", at=NOON + timedelta(days=9))
