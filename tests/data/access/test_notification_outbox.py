"""Notifications are queued once, taken by one process, and found by an index."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest

from rollout.data.access.notification_outbox import (
    DROPPED,
    NewNotification,
    Notice,
    NotificationOutbox,
)
from rollout.data.access.users import Users
from rollout.data.reports.reports import FAILED
from tests.data.databases import on_sqlite
from tests.data.plans import steps
from tests.factories import DAY, MINUTE, NOON

LEASE = 5 * MINUTE
NOTICE = Notice("bears", "proposal", "P-1")


@pytest.fixture
def user_id(database):
    with database.begin_write() as transaction:
        return Users(transaction).add("ana", at=NOON).number


def queue(database, user_id, notice=NOTICE, send_at=NOON):
    with database.begin_write() as transaction:
        new_notification = NewNotification(user_id, "mail", notice, send_at)
        return NotificationOutbox(transaction).add(new_notification, at=NOON)


def take(database, at=NOON, excluded=()):
    with database.begin_write() as transaction:
        return NotificationOutbox(transaction, grouped_kinds={"incident"}).take_next(
            at=at, lease=LEASE, excluded_channels=excluded
        )


def settle(database, method, notification, *values, **options):
    with database.begin_write() as transaction:
        return getattr(NotificationOutbox(transaction), method)(notification, *values, **options)


def test_a_notification_is_queued_and_taken_once(database, user_id):
    assert [queue(database, user_id) for _ in range(2)] == [True, False]
    assert take(database, excluded=["mail"]) is None
    assert take(database).notice == NOTICE
    assert take(database) is None
    assert take(database, NOON + LEASE).attempts == 2


def test_two_threads_queue_it_once_and_one_takes_it(database, other, user_id):
    barrier, queued, taken = Barrier(2), [], []

    def run(base):
        barrier.wait()
        queued.append(queue(base, user_id))
        barrier.wait()
        taken.append(take(base))

    threads = [Thread(target=run, args=(base,)) for base in (database, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(queued) == [False, True]
    assert sum(notification is not None for notification in taken) == 1


def test_an_incident_brings_the_others_unless_another_process_may_send_them(database, user_id):
    queue(database, user_id)
    for n in range(5):
        late = NOON + DAY if n == 3 else NOON
        queue(database, user_id, Notice("bears", "incident", f"I-{n}"), late)
    queue(database, user_id, Notice("wolves", "incident", "I-0"))
    assert take(database).others == (), "a proposal"
    first = take(database)
    assert (first.notice.about, first.attempts) == ("I-0", 1)
    assert [(o.notice.about, o.attempts) for o in first.others] == [
        (f"I-{n}", 1) for n in (1, 2, 3, 4)
    ]
    settle(database, "record_sent", first, at=NOON)
    settle(database, "record_sent", first.others[0], at=NOON)
    assert take(database).notice.rollout == "wolves"
    assert take(database) is None, "the others are leased"
    for other in first.others[2:]:
        assert settle(database, "postpone", other, at=other.due_at)
    again = take(database)
    assert (again.notice.about, again.attempts) == ("I-4", 1)
    assert [(o.notice.about, o.due_at) for o in again.others] == [("I-3", NOON + DAY)]


def test_what_was_sent_stays_sent_and_what_was_dropped_comes_back(database, user_id):
    queue(database, user_id)
    assert settle(database, "close", take(database), DROPPED, error="gone")
    assert queue(database, user_id)
    notification = take(database)
    assert (notification.attempts, notification.error) == (1, "")
    assert settle(database, "record_sent", notification, at=NOON)
    assert not queue(database, user_id)
    assert not settle(database, "close", notification, FAILED, error="late")


def test_who_took_it_first_can_no_longer_settle_it(database, user_id):
    queue(database, user_id)
    first, second = take(database), take(database, NOON + LEASE)
    assert not settle(database, "record_sent", first, at=NOON + LEASE)
    assert settle(database, "postpone", second, at=NOON + DAY)
    assert take(database, NOON + DAY).attempts == 2


def test_old_notifications_are_deleted(database, user_id):
    queue(database, user_id)
    for days, is_new in ((0, False), (1, True)):
        with database.begin_write() as transaction:
            NotificationOutbox(transaction).delete_old(before=NOON + timedelta(days=days))
        assert queue(database, user_id) == is_new


@on_sqlite
def test_due_and_old_notifications_are_found_by_an_index(database):
    with database.begin_write() as transaction:
        outbox = NotificationOutbox(transaction)
        due = steps(transaction, lambda: outbox.has_due(at=NOON))
        old = steps(transaction, lambda: outbox.delete_old(before=NOON))
    assert "ix_notifications_next_attempt_at (next_attempt_at<?)" in due[0]
    assert "ix_notifications_queued_at" in old[0]
