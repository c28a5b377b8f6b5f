"""One of many callers claims a slot, until it is done or stale."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

from rollout.data.database.migrations import record_heartbeat
from rollout.data.database.session import Database
from rollout.data.ledger.scopes import TickSlots
from tests.data.new_rollouts import created, rollout
from tests.factories import MINUTE, NOON

__all__ = ["rollout"]


def claim(database, rollout, owner, slot=7, at=NOON):
    with database.begin_write() as transaction:
        slots = TickSlots(transaction, rollout)
        return slots.claim(slot, owner=owner, at=at, stale_after=5 * MINUTE)


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


def test_only_the_claim_of_a_dead_replica_is_free_before_its_time(database, rollout):
    with database.begin_write() as transaction:
        for owner, written_at in (("dead", NOON - timedelta(hours=1)), ("ana", NOON)):
            record_heartbeat(transaction, owner, "p", written_at)
    assert claim(database, rollout, "ana", slot=7)
    assert claim(database, rollout, "dead", slot=8)
    assert not claim(database, rollout, "bo", slot=7)
    assert claim(database, rollout, "bo", slot=8)


def test_who_broke_off_may_take_up_their_own_slot_at_once(database, rollout):
    assert claim(database, rollout, "ana")
    assert claim(database, rollout, "ana")
    assert not claim(database, rollout, "bo")


def test_a_slot_that_is_done_is_nobodys_again(database, rollout):
    claim(database, rollout, "ana")
    with database.begin_write() as transaction:
        slots = TickSlots(transaction, rollout)
        assert slots.load_last_done() is None
        slots.complete(7, at=NOON)
        assert slots.load_last_done() == 7
    assert not claim(database, rollout, "bo", at=NOON + timedelta(days=9))


def test_slots_of_another_rollout_are_none_of_this_one(database, rollout):
    other = created(database)
    assert claim(database, other, "ana", slot=9)
    with database.begin_write() as transaction:
        slots = TickSlots(transaction, rollout)
        slots.complete(9, at=NOON)
        assert TickSlots(transaction, other).load_last_done() is None
        TickSlots(transaction, other).complete(9, at=NOON)
        assert slots.load_slots_and_stops() == (None, None, False)
        assert (
            slots.load_last_done() is slots.load_last_done_at() is slots.load_last_claim() is None
        )
    assert claim(database, rollout, "ana", slot=7)
    assert claim(database, rollout, "ana", slot=9)
    with database.begin_write() as transaction:
        TickSlots(transaction, rollout).delete_from(8)
        assert TickSlots(transaction, rollout).load_last_claim() == (7, NOON)
        assert TickSlots(transaction, other).load_last_claim() == (9, NOON)


def test_no_slot_before_one_that_is_done_is_claimed(database, rollout):
    assert claim(database, rollout, "ana", slot=6)
    assert claim(database, rollout, "bo", slot=8)
    with database.begin_write() as transaction:
        slots = TickSlots(transaction, rollout)
        assert slots.load_slots_and_stops() == (None, 8, False)
        slots.complete(8, at=NOON)
        assert slots.load_slots_and_stops() == (8, 8, False)
    assert not claim(database, rollout, "cy", slot=7)
    assert not claim(database, rollout, "ana", slot=6), "its own claim, too"
    assert claim(database, rollout, "cy", slot=9)
