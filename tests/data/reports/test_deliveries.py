"""Deliveries are queued once, taken by one process and settled by it."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from sqlalchemy import select

from rollout.data.database.rollouts import Rollouts
from rollout.data.reports.reports import (
    FAILED,
    SENT,
    WAITING,
    DeliveryStore,
    NewDelivery,
    Outbox,
    ReportRuns,
)
from rollout.data.tables.tables import report_runs
from tests.factories import DAY, HOUR, MINUTE, NOON

LEASE = 5 * MINUTE
OPS = NewDelivery(12, "ops", "schedule", "morning report")


@pytest.fixture
def rollout(database):
    with database.begin_write() as transaction:
        return Rollouts(transaction).create("bears", salt=bytes(32), at=NOON)


def queue(database, rollout, *letters, at=NOON):
    with database.begin_write() as transaction:
        return [DeliveryStore(transaction, rollout).add(letter, at=at) for letter in letters]


def take(database, at=NOON, but=()):
    with database.begin_write() as transaction:
        return Outbox(transaction).take_next(at=at, lease=LEASE, excluded_channels=but)


def settle(database, how, taken, **more):
    with database.begin_write() as transaction:
        return getattr(Outbox(transaction), how)(taken, **more)


def listed(database, rollout, **more):
    with database.begin_read() as transaction:
        return DeliveryStore(transaction, rollout).list_page(**more)


def letter(channel, report=12):
    return NewDelivery(report, channel, "schedule", "morning report")


def test_a_report_is_queued_once_for_a_channel(database, rollout):
    assert queue(database, rollout, OPS, letter("chat")) == [True, True]
    assert queue(database, rollout, OPS) == [False]
    assert queue(database, rollout, letter("ops", report=13)) == [True]


def test_what_is_taken_is_counted_and_given_to_nobody_else_for_a_lease(database, other, rollout):
    queue(database, rollout, OPS)
    taken = take(database)
    assert (taken.rollout, taken.request, taken.attempts) == ("bears", OPS, 1)
    assert take(other, at=NOON + LEASE - MINUTE) is None
    again = take(other, at=NOON + LEASE)
    assert (again.id, again.attempts) == (taken.id, 2)


def test_who_was_overtaken_settles_nothing(database, other, rollout):
    queue(database, rollout, OPS)
    slow = take(database)
    quick = take(other, at=NOON + LEASE)
    assert not settle(database, "close", slow, state=FAILED, error="late")
    assert settle(other, "record_sent", quick, at=NOON + LEASE)
    assert not settle(database, "record_sent", quick, at=NOON + DAY)
    assert not settle(database, "retry_later", slow, at=NOON + DAY, error="late")
    (one,) = listed(database, rollout)
    assert (one.state, one.sent_at, one.next_at, one.error) == (SENT, NOON + LEASE, None, "")


def test_what_failed_is_due_again_when_it_was_put_off_to(database, rollout):
    queue(database, rollout, OPS)
    settle(database, "retry_later", take(database), at=NOON + HOUR, error="no answer")
    (one,) = listed(database, rollout)
    assert (one.state, one.next_at, one.error) == (WAITING, NOON + HOUR, "no answer")
    assert take(database, at=NOON + HOUR - MINUTE) is None
    assert take(database, at=NOON + HOUR).attempts == 2


def test_what_is_given_up_is_tried_again_only_when_somebody_says_so(database, rollout):
    queue(database, rollout, OPS)
    taken = take(database)
    with database.begin_write() as transaction:
        assert not DeliveryStore(transaction, rollout).retry(taken.id, at=NOON), "it is on its way"
    settle(database, "close", taken, state=FAILED, error="refused")
    assert take(database, at=NOON + 9 * DAY) is None
    with database.begin_write() as transaction:
        own = DeliveryStore(transaction, rollout)
        assert own.count_failed() == 1
        assert own.retry(taken.id, at=NOON + DAY)
        assert own.count_failed() == 0
    assert take(database, at=NOON + DAY).attempts == 1


def test_the_oldest_is_first_and_channels_that_are_silent_are_left_alone(database, rollout):
    queue(database, rollout, letter("late"), at=NOON + MINUTE)
    queue(database, rollout, letter("early"))
    assert take(database, at=NOON + HOUR, but={"early"}).request.channel == "late"
    assert take(database, at=NOON + HOUR).request.channel == "early"


def test_pages_are_the_newest_first_and_of_one_rollout(database, rollout):
    with database.begin_write() as transaction:
        wolves = Rollouts(transaction).create("wolves", salt=bytes(32), at=NOON)
    queue(database, rollout, letter("a"), letter("b"), letter("c"))
    queue(database, wolves, letter("d"))
    first = listed(database, rollout, limit=2)
    rest = listed(database, rollout, before=first[-1].id)
    assert [one.request.channel for one in (*first, *rest)] == ["c", "b", "a"]
    assert [one.rollout for one in listed(database, wolves)] == ["wolves"]
    settle(database, "close", take(database), state=FAILED, error="x")
    assert [one.request.channel for one in listed(database, rollout, state=FAILED)] == ["a"]


def at_once(*jobs):
    """Run jobs in threads that begin together, and return what they returned."""
    begun, found = Barrier(len(jobs)), []

    def run(job):
        begun.wait()
        found.append(job())

    threads = [Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_of_many_who_take_at_once_each_gets_another_one(database, other, rollout):
    queue(database, rollout, *(letter(f"c{n}") for n in range(6)))
    found = at_once(*[lambda d=d: [take(d) for _ in range(2)] for d in (database, other) * 2])
    ids = [one.id for taken in found for one in taken if one is not None]
    assert len(ids) == len(set(ids)) == 6


def claim(database, rollout, mark=7, *, owner="here", at=NOON, what="morning"):
    with database.begin_write() as transaction:
        runs = ReportRuns(transaction, rollout)
        return runs.claim(what, mark, owner=owner, at=at, stale_after=10 * MINUTE)


def done(database, rollout, mark=7, *, owner="here", what="morning"):
    with database.begin_write() as transaction:
        return ReportRuns(transaction, rollout).complete(what, mark, owner=owner, at=NOON)


def done_up_to(database, rollout, what="morning"):
    with database.begin_read() as transaction:
        return ReportRuns(transaction, rollout).load_done_mark(what)


def test_of_many_who_claim_a_report_at_once_one_has_it(database, other, rollout):
    jobs = [
        lambda d=d, n=n: claim(d, rollout, owner=f"o{n}")
        for n, d in enumerate((database, other) * 3)
    ]
    assert sorted(at_once(*jobs)) == [False] * 5 + [True]


def test_a_claim_that_was_left_behind_goes_to_whoever_asks_and_the_slow_one_is_told(
    database, rollout
):
    assert claim(database, rollout)
    assert not claim(database, rollout, owner="there", at=NOON + 9 * MINUTE)
    assert claim(database, rollout, owner="there", at=NOON + timedelta(minutes=10))
    assert not done(database, rollout)
    assert done_up_to(database, rollout) is None
    assert done(database, rollout, owner="there")
    assert not done(database, rollout, owner="there"), "it is done once"
    assert done_up_to(database, rollout) == 7
    assert not claim(database, rollout, at=NOON + DAY)


def test_what_came_before_is_forgotten_and_names_know_nothing_of_each_other(database, rollout):
    for mark in (7, 8, 9):
        claim(database, rollout, mark)
        done(database, rollout, mark)
    assert claim(database, rollout, what="")
    assert done(database, rollout, what="")
    with database.begin_read() as transaction:
        kept = transaction.execute(select(report_runs.c.report_name, report_runs.c.watermark)).all()
    assert sorted(map(tuple, kept)) == [("", 7), ("morning", 9)]


def test_a_name_begins_once(database, rollout):
    with database.begin_write() as transaction:
        ReportRuns(transaction, rollout).start("morning", 5, at=NOON)
        ReportRuns(transaction, rollout).start("morning", 5, at=NOON + DAY)
    assert done_up_to(database, rollout) == 5
