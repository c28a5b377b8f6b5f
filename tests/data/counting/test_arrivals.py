"""What came in is told for a while, each arrival by an instant of its own."""

from datetime import timedelta

from rollout.data.counting.count_queue import StoredArrivals
from tests.data.new_rollouts import rollout
from tests.factories import MINUTE, NOON

__all__ = ["rollout"]
NEXT = NOON + timedelta(microseconds=1)


def test_what_came_in_is_told_for_a_while(database, rollout):
    with database.begin_write() as transaction:
        stored = StoredArrivals(transaction, rollout)
        stored.add([(NOON, 5), (NOON, 6)])
        stored.add([(NOON + MINUTE, 5)])
        assert stored.list_since(NOON) == {(NOON, 5), (NOON, 6), (NOON + MINUTE, 5)}
        assert stored.list_since(NOON, before=NOON + MINUTE) == {(NOON, 5), (NOON, 6)}
        assert list(stored.sum_since(NOON).values()) == [(3, 16)]
        stored.delete_before(NOON + MINUTE)
        assert stored.list_since(NOON) == {(NOON + MINUTE, 5)}


def test_another_record_of_the_same_case_and_instant_is_another_arrival(database, rollout):
    with database.begin_write() as transaction:
        stored = StoredArrivals(transaction, rollout)
        stored.add([(NOON, 5)])
        stored.add([(NOON, 5)])
        assert stored.list_since(NOON) == {(NOON, 5), (NEXT, 5)}
