"""Due entries are listed oldest first, locked by one transaction, and stay until deleted."""

from rollout.data.counting import count_queue
from rollout.data.counting.count_queue import CountQueue, DueCase
from rollout.data.tables.record_tables import RECORD_UNSEALED
from tests.data.databases import on_postgresql
from tests.data.new_rollouts import rollout
from tests.factories import MINUTE, NOON

__all__ = ["rollout"]


def entry(minute, case=1):
    return DueCase(NOON + minute * MINUTE, case, "gate")


def test_what_is_due_comes_oldest_first_and_stays_until_it_is_done(database, rollout):
    with database.begin_write() as transaction:
        queue = CountQueue(transaction, rollout)
        queue.add([entry(3), entry(1), entry(2, 7), entry(2, 6), entry(1)])
        assert queue.count_waiting() == 4
    for _ in range(2):
        with database.begin_write() as transaction:
            queue = CountQueue(transaction, rollout)
            taken = queue.list_due(until=NOON + 2 * MINUTE, limit=2)
            assert taken == [entry(1), entry(2, 6)]
    with database.begin_write() as transaction:
        CountQueue(transaction, rollout).delete(taken)
    with database.begin_write() as transaction:
        rest = CountQueue(transaction, rollout).list_due(until=NOON + 9 * MINUTE)
    assert rest == [entry(2, 7), entry(3)]


def test_records_whose_hash_is_not_taken_yet_are_no_waiting_units(database, rollout):
    with database.begin_write() as transaction:
        queue = CountQueue(transaction, rollout)
        queue.add([entry(1), DueCase(NOON, 2, RECORD_UNSEALED)])
        assert queue.count_waiting() == 1


def test_the_other_due_entries_of_the_same_cases_are_taken_at_once(database, rollout):
    """A tick counts all tracks of a case together; a batch of its own would read it again."""
    guard = DueCase(NOON, 1, "guard")
    with database.begin_write() as transaction:
        queue = CountQueue(transaction, rollout)
        queue.add([guard, entry(1, 2), entry(2, 1), entry(9, 1)])
        assert queue.list_due(until=NOON + 5 * MINUTE, limit=1) == [guard, entry(2, 1)]


def test_a_long_queue_is_not_searched_to_its_end(database, rollout, monkeypatch):
    monkeypatch.setattr(count_queue, "ENTRIES_SEARCHED", 2)
    with database.begin_write() as transaction:
        queue = CountQueue(transaction, rollout)
        queue.add([entry(0, 1), entry(1, 2), entry(2, 1), entry(3, 1)])
        assert queue.list_due(until=NOON + 5 * MINUTE, limit=1) == [entry(0, 1), entry(2, 1)]


def test_a_page_begins_after_the_last_entry_of_the_one_before(database, rollout):
    """Entries that a tick leaves in the queue don't come again in the same pass."""
    guard = DueCase(NOON + MINUTE, 1, "guard")
    entries = [entry(1), guard, entry(1, 2), entry(2, 1), entry(2, 2)]
    with database.begin_write() as transaction:
        queue, pages, after = CountQueue(transaction, rollout), [], None
        queue.add(entries)
        while page := queue.list_due(until=NOON + 5 * MINUTE, limit=1, after=after):
            after = page[0]
            pages.append(page)
    assert [page[0] for page in pages] == entries
    assert [entry for entry in pages[2] if entry.case_id == 1] == []  # none of before the page


def test_only_entries_that_still_exist_are_locked(database, rollout):
    with database.begin_write() as transaction:
        queue = CountQueue(transaction, rollout)
        queue.add([entry(1), entry(2, 2), entry(3, 3)])
        queue.delete([entry(2, 2)])
        wanted = [entry(1), entry(2, 2), DueCase(NOON + MINUTE, 1, "guard")]
        assert queue.lock(wanted) == {entry(1)}
        assert queue.lock([]) == set()


@on_postgresql
def test_two_who_lock_at_once_are_given_different_entries(database, other, rollout):
    entries = [entry(1), entry(2, 2), entry(3, 3), entry(4)]
    with database.begin_write() as transaction:
        CountQueue(transaction, rollout).add(entries)
    with database.begin_write() as one, other.begin_write() as two:
        first = CountQueue(one, rollout).lock([entry(1), entry(2, 2), entry(4)])
        second = CountQueue(two, rollout).lock(entries)
    assert (first, second) == ({entry(1), entry(2, 2), entry(4)}, {entry(3, 3)})
