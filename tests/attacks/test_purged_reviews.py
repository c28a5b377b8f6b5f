"""What people said of a case that has left does not stay behind in their queue."""

from sqlalchemy import func, select

from rollout.data.counting.purge import list_old_cases, purge_records
from rollout.data.tables.tables import count_queue, exposures, reviews
from tests.features.review_room import ANA, BO, DAY, Room, policy_text


def count(room, table):
    with room.database.begin_read() as transaction:
        return transaction.execute(select(func.count()).select_from(table)).scalar_one()


def purged(room, before):
    with room.database.begin_write() as transaction:
        transaction.execute(count_queue.delete())  # all is counted
        old = list_old_cases(transaction, room.stood.rollout, before=before, limit=9)
        return purge_records(
            transaction, room.stood.rollout, before=before, case_ids=old, revision=1
        ).rows


def test_reviews_of_a_purged_case_leave_with_it(database):
    room = Room(database, text=policy_text(verdicts=3)).arrive("old")
    room.done(ANA)
    room.later(40 * DAY).arrive("new")
    was = count(room, exposures)
    gone = purged(room, room.at - 30 * DAY)
    assert (gone["cases"], gone["decisions"], gone["reviews"]) == (1, 1, 3)
    assert count(room, reviews) == 3  # those of the new one
    assert count(room, exposures) == was
    assert room.take(BO).case.key == "new"


def test_what_comes_once_more_of_a_purged_case_opens_no_review(database):
    room = Room(database).arrive("old")
    at = room.at
    room.done(ANA)
    room.later(40 * DAY)
    purged(room, room.at - 30 * DAY)
    room.arrive("old", occurred_at=at)
    assert room.take(BO) is None
