"""Reports tell a possible reviewer of a case nothing of it, in no form and in no comparison."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier, Event
from time import sleep

import pytest

from rollout.data.reports.reports import ReportRequests
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.reviews import DecisionConflictError
from rollout.features.reports import archive
from rollout.features.reports.archive import (
    ALIVE_FOR,
    MAX_REPORTS_PER_HOUR,
    TooManyReportsError,
    format_report,
    load_report,
    request_report,
)
from rollout.features.reports.builder import (
    NO_CALLBACKS,
    NothingToReportError,
    ReportCallbacks,
    ReportOptions,
    create_report,
)
from rollout.features.reviews.requested_reviews import seed_gold_case
from tests.features.review_room import ANA, DAN, START, Room

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
EVE = Caller(
    "eve", role_assignments=(AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears"))
)
VIEWER = Caller("vi", role_assignments=(AssignedRole("viewer", "bears"),))
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def room(database):
    return Room(database)


def made(room):
    span = ReportOptions(until=room.at)
    return create_report(room.database, "bears", "week", span, room.at)


def seeded(room, key, label="bear"):
    seed_gold_case(
        room.database, DAN, room.stood, key, {"alarm": label}, reviewer_count=1, at=room.at
    )


def read(room, caller, number):
    return load_report(room.database, caller, "bears", number, room.at)


@pytest.fixture
def twice(room):
    """Return what makes a report of two cases again; at first one of them was judged."""
    span = ReportOptions(until=room.at + HOUR)
    room.arrive("case-1", "case-2", label="fox").done(ANA, "bear")
    room.later(2 * HOUR)
    create_report(room.database, "bears", "week", span, room.at)
    room.done(ANA, "bear")
    room.later(25 * HOUR)
    return lambda: create_report(room.database, "bears", "week", span, room.at)


@on_sqlite
def test_the_list_of_changes_names_no_case_that_its_reader_judges_now(room, twice):
    """What changed was named by case and answer: a known case stood among it."""
    second = twice()
    assert second.report.version == 2
    seeded(room, "case-1")
    seeded(room, "case-2")
    hers = read(room, EVE, second.number)
    assert hers.withheld_cases == 2
    for form in archive.REPORT_FORMATS:
        assert "case-" not in format_report(hers, form).decode()


@on_sqlite
def test_a_case_that_left_a_report_to_be_judged_is_not_named_as_its_change(room, twice):
    twice()
    seeded(room, "case-1")
    seeded(room, "case-2")
    third = twice()
    assert third.report.version == 3
    for form in archive.REPORT_FORMATS:
        assert "case-" not in format_report(read(room, EVE, third.number), form).decode()


def test_who_was_unsure_can_not_answer_after_a_report_that_counts_the_case(room):
    """Of one case more it tells what the model says of it, though no row is of it."""
    room.arrive("case-1", label="fox")
    task = room.take(EVE)
    room.judge(EVE, task.review, None)
    room.later(HOUR)
    shown = read(room, EVE, made(room).number)
    assert "case-1" not in format_report(shown, "json").decode()
    with pytest.raises(DecisionConflictError):
        room.judge(EVE, task.review, "fox", supersedes=1)


def test_who_reads_how_many_known_cases_they_got_right_changes_no_verdict_on_one(room):
    room.arrive("case-1", label="bear")
    room.done(ANA, "bear")
    room.later(25 * HOUR)
    seeded(room, "case-1")
    task = room.take(EVE)
    room.judge(EVE, task.review, "none")
    read(room, EVE, made(room).number)
    with pytest.raises(DecisionConflictError):
        room.judge(EVE, task.review, "bear", supersedes=1)


def requested(room, who, name="week", callbacks=NO_CALLBACKS):
    return request_report(
        room.database, who, "bears", name, ReportOptions(), room.at, callbacks=callbacks
    ).is_new


@pytest.fixture
def ready(room):
    return room.arrive("case-1", label="fox").later(HOUR)


def test_an_account_has_six_reports_an_hour_made_changed_or_not(ready):
    """Each takes up to 20 s of a replica; under ever other names all of them stay for ever."""
    room = ready
    start = room.at
    assert requested(room, VIEWER)
    assert not requested(room, VIEWER)
    room.later(HOUR / 2)
    assert all(requested(room, VIEWER, name) for name in "abcd")
    with pytest.raises(TooManyReportsError, match=f"again from {start + HOUR:%H:%M:%S} UTC"):
        requested(room, VIEWER, "e")
    assert requested(room, EVE, "e")
    room.later(HOUR / 2)
    assert all(requested(room, VIEWER, name) for name in "fg")
    with pytest.raises(TooManyReportsError):
        requested(room, VIEWER, "h")


def test_a_period_without_anything_to_report_costs_none_of_them(ready):
    wrong = ReportOptions(since=ready.at + HOUR, until=ready.at + 2 * HOUR)
    for _ in range(MAX_REPORTS_PER_HOUR + 1):
        with pytest.raises(NothingToReportError):
            request_report(ready.database, VIEWER, "bears", "week", wrong, ready.at)
    assert requested(ready, VIEWER)


def test_an_account_has_one_report_made_at_a_time_on_whatever_replica(ready):
    room, begun, may_end = ready, Event(), Event()

    def hold(name, number, _total):
        if not number:
            begun.set()
            assert may_end.wait(60)

    with ThreadPoolExecutor() as replica:
        first = replica.submit(requested, room, VIEWER, "a", ReportCallbacks(on_step=hold))
        assert begun.wait(60)
        with pytest.raises(TooManyReportsError, match="wait until it is done"):
            requested(room, VIEWER, "b")
        assert requested(room, EVE, "c")
        create_report(room.database, "bears", "weekly", ReportOptions(), room.at)
        may_end.set()
        assert first.result()
    assert requested(room, VIEWER, "b")


def test_of_requests_at_the_same_time_one_is_made(ready):
    room, barrier = ready, Barrier(4)

    def hold(name, number, _total):
        if not number:
            barrier.wait(60)

    def ask(name):
        try:
            return requested(room, VIEWER, name, ReportCallbacks(on_step=hold))
        except TooManyReportsError:
            barrier.wait(60)
            return False

    with ThreadPoolExecutor() as replicas:
        assert sorted(replicas.map(ask, "abcd")) == [False, False, False, True]


@pytest.mark.parametrize("ahead", [timedelta(), ALIVE_FOR / 2, ALIVE_FOR, 2 * HOUR], ids=str)
def test_a_process_that_died_does_not_block_its_account(ready, ahead):
    """A mark of a clock that was further ahead blocks nobody."""
    with ready.database.begin_write() as transaction:
        ReportRequests(transaction, VIEWER.name).start(at=ready.at + ahead)
    if ahead < ALIVE_FOR:
        with pytest.raises(TooManyReportsError, match="should its process have died"):
            requested(ready, VIEWER)
        ready.later(ahead + ALIVE_FOR)
    assert requested(ready, VIEWER)


def test_a_report_that_takes_long_still_runs(ready, monkeypatch):
    monkeypatch.setattr(archive, "RENEWAL_SECONDS", 0.01)
    room, long_after = ready, ready.at + 2 * ALIVE_FOR
    clock = iter([0.0])
    monkeypatch.setattr(archive, "monotonic", lambda: next(clock, 2 * ALIVE_FOR.seconds))

    def ask_again(name, number, _total):
        if number:
            return
        room.at = long_after
        for _ in range(200):
            with room.database.begin_read() as transaction:
                (request,) = ReportRequests(transaction, VIEWER.name).list_since(START)
            if request.renewed_at == long_after:
                break
            sleep(0.05)
        with pytest.raises(TooManyReportsError):
            requested(room, VIEWER, "b")

    assert requested(room, VIEWER, callbacks=ReportCallbacks(on_step=ask_again))


def test_a_report_that_failed_no_longer_runs(ready):
    def fail(*_):
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        requested(ready, VIEWER, callbacks=ReportCallbacks(on_step=fail))
    assert requested(ready, VIEWER)


@on_sqlite
def test_a_verdict_may_still_be_corrected_after_a_report_of_other_days(room):
    early = room.at
    room.later(3 * HOUR)
    room.arrive("case-1", label="fox")
    task = room.take(EVE)
    room.judge(EVE, task.review, None)
    span = ReportOptions(since=early, until=early + HOUR)
    number = create_report(room.database, "bears", "week", span, room.at).number
    read(room, EVE, number)
    assert room.judge(EVE, task.review, "fox", supersedes=1)
