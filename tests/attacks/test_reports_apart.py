"""Two reports that differ by a case tell what the model said of it: nobody judges it after that."""

from datetime import timedelta

import pytest

from rollout.data.access.users import Users
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.reports.reports import DeliveryStore, NewDelivery
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.reviews import (
    DecisionConflictError,
    ReviewReassignedError,
    ReviewStillOpenError,
)
from rollout.features.delivery.delivery import ReportPublisher, deliver_due_reports
from rollout.features.reports.archive import load_report
from rollout.features.reports.builder import ReportOptions, create_report
from rollout.features.reviews.requested_reviews import seed_gold_case
from rollout.features.reviews.reviews import release_review
from rollout.kernel.channels import Channels
from rollout.live.service import build_service
from tests.attacks.test_reports_that_tell import EVE
from tests.features.review_room import ANA, BO, DAN, START, Room

pytestmark = pytest.mark.slow

EVE_BEFORE = Caller("eve", role_assignments=(AssignedRole("viewer", "bears"),))
"""The same person before they were let review."""
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def room(database):
    """Return a rollout with one case that was judged as the model said: no row tells of it."""
    room = Room(database)
    room.arrive("case-1", label="bear").done(ANA, "bear")
    return room.later(25 * HOUR)


def made(room, name="week", since=None, until=None):
    span = ReportOptions(since=since, until=until or room.at)
    return create_report(room.database, "bears", name, span, room.at).number


def read(room, caller, number):
    return load_report(room.database, caller, "bears", number, room.at)


def seeded(room, key="case-1", people=1):
    seed_gold_case(
        room.database, DAN, room.stood, key, {"alarm": "bear"}, reviewer_count=people, at=room.at
    )


def test_a_known_case_is_not_given_to_who_read_a_report_with_it_and_one_without(room):
    """What both say apart is what the model said of it, and no row of either names it."""
    room.arrive("case-2", "case-3", label="fox", occurred_at=START)
    room.done(ANA, "bear")
    room.done(ANA, "bear")
    with_it = made(room)
    seeded(room)
    without_it = made(room)
    judged = [read(room, EVE, number).body["agreements"] for number in (with_it, without_it)]
    assert [one[0]["agreement"]["n"] for one in judged] == [3, 2]
    assert room.take(EVE) is None


def test_what_was_read_before_a_case_was_known_counts_as_well(room):
    """Two spans that part at the case were read while nobody was to judge it again."""
    for name, until in (("early", START), ("late", START + HOUR)):
        read(room, EVE_BEFORE, made(room, name, since=START - HOUR, until=until))
    seeded(room)
    assert room.take(EVE) is None
    assert room.take(BO).case.key == "case-1"


@on_sqlite
def test_evidence_tells_of_cases_before_the_span(room):
    """Gates count from the beginning on: a report of yesterday has a case of last week in it."""
    read(room, EVE, made(room, since=room.at - HOUR))
    seeded(room)
    assert room.take(EVE) is None


@on_sqlite
def test_of_a_case_that_came_after_the_report_its_reader_may_be_asked(room):
    read(room, EVE, made(room))
    room.later(HOUR).arrive("case-2", label="bear").done(ANA, "bear")
    seeded(room, "case-2")
    assert room.take(EVE).case.key == "case-2"


@on_sqlite
def test_new_cases_are_given_to_who_reads_reports(room):
    """They are in no report while somebody may judge them: also those that occurred before it."""
    room.arrive("case-2", label="bear", occurred_at=room.at - HOUR)
    read(room, EVE, made(room))
    task = room.take(EVE)
    assert task.case.key == "case-2"
    room.judge(EVE, task.review, "bear")
    assert exposures(room, "case-2") == {"eve": "blind"}


def exposures(room, key):
    with room.database.begin_read() as transaction:
        numbers = ExternalKeys(transaction, room.stood.rollout).find_ids([key])
        found = NewestRecords(transaction, room.stood.rollout).load_decisions(numbers.values())
        return {name: one.exposure for name, one in found[numbers[key]].items()}


def test_who_holds_a_known_case_while_they_read_can_not_judge_it_any_more(room):
    number = made(room)
    seeded(room)
    task = room.take(EVE)
    read(room, EVE, number)
    with pytest.raises(ReviewReassignedError):
        room.judge(EVE, task.review, "bear")
    release_review(room.database, EVE, room.stood, task.review)
    assert room.take(EVE) is None
    assert room.take(BO).case.key == "case-1"


@on_sqlite
def test_a_verdict_on_a_known_case_of_last_week_stands_once_a_report_is_read(room):
    seeded(room)
    task = room.take(EVE)
    room.judge(EVE, task.review, "fox")
    read(room, EVE, made(room, since=room.at - HOUR))
    with pytest.raises(DecisionConflictError):
        room.judge(EVE, task.review, "bear", supersedes=1)


@on_sqlite
def test_a_verdict_that_comes_after_its_time_and_after_a_report_was_not_blind(room):
    """Nobody was asked any more, so the report counts what the model said of it."""
    room.arrive("case-2", label="bear")
    task = room.take(EVE)
    room.later(25 * HOUR)
    read(room, EVE, made(room))
    room.judge(EVE, task.review, "bear")
    assert exposures(room, "case-2") == {"eve": "revealed"}


# Channels


@pytest.fixture
def send(room, door, clock):
    """Return what sends a report that was just made, to the readers that a channel names."""

    def sent(*readers, named=True):
        channels = Channels(
            {"ops": "json://ops.example.org"}, readers={"ops": readers} if named else {}
        )
        service = build_service(room.database, door, clock, entropy=bytes, channels=channels)
        number = made(room)
        with room.database.begin_write() as transaction:
            Users(transaction).add("eve", at=room.at)
            queue = DeliveryStore(transaction, room.stood.rollout)
            queue.add(NewDelivery(number, "ops", "demand", "week report"), at=room.at)
        clock.advance(room.at - clock.now())
        assert (
            deliver_due_reports(
                service, ReportPublisher(service).render_report, lambda _: ""
            ).sent_count
            == 1
        )

    return sent


@on_sqlite
def test_who_reads_a_channel_is_not_given_what_went_through_it(room, send):
    send("eve")
    seeded(room)
    assert room.take(EVE) is None
    assert room.take(BO).case.key == "case-1"


@on_sqlite
def test_what_went_through_a_channel_that_names_no_readers_is_nobodys_to_judge(room, send):
    send(named=False)
    with pytest.raises(ReviewStillOpenError, match="name the channel"):
        seeded(room)


@on_sqlite
def test_a_case_that_is_known_when_it_goes_out_to_unknown_readers_is_given_to_nobody(room, send):
    seeded(room, people=2)
    task = room.take(EVE)
    send(named=False)
    assert room.take(BO) is None
    with pytest.raises(ReviewReassignedError):
        room.judge(EVE, task.review, "bear")


@on_sqlite
def test_a_reader_whom_nobody_knows_by_that_name_may_be_anybody(room, send):
    send("eve", "evee")
    with pytest.raises(ReviewStillOpenError, match="name the channel"):
        seeded(room)


@on_sqlite
def test_a_channel_that_nobody_reads_who_judges_takes_no_case_from_anybody(room, send):
    send()
    seeded(room)
    assert room.take(EVE).case.key == "case-1"
