"""Reports tell a possible reviewer of a case nothing of it, in no form and in no comparison."""

from datetime import timedelta

import pytest

from rollout.core.records.reviews import DecisionConflictError
from rollout.core.scope.permissions import AssignedRole, Caller
from rollout.services.records.review_tasks import seed_gold_case
from rollout.services.reports import archive
from rollout.services.reports.archive import (
    TooManyReportsError,
    format_report,
    load_report,
    request_report,
)
from rollout.services.reports.builder import ReportOptions, create_report
from tests.services.review_room import ANA, DAN, Room

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


def test_nobody_fills_the_ledger_with_reports(room, monkeypatch):
    """Under ever other names the same would be sealed again and again, and all of it stays."""
    monkeypatch.setattr(archive, "MAX_REPORTS_PER_HOUR", 2)
    room.arrive("case-1", label="fox").later(HOUR)

    def asked(who, name):
        return request_report(room.database, who, "bears", name, ReportOptions(), room.at).is_new

    assert [asked(VIEWER, "a"), asked(VIEWER, "b")] == [True, True]
    with pytest.raises(TooManyReportsError):
        asked(VIEWER, "c")
    assert asked(EVE, "c")
    room.later(2 * HOUR)
    assert asked(VIEWER, "d")


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
