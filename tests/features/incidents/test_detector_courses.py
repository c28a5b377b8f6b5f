"""The course of a detector as the service loads it, recomputed unit by unit; and who reads it."""

from math import log

import pytest

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.incidents.incident_causes import (
    MAY_BE_ASKED,
    OPEN,
    RECOUNTED,
    load_detector_course,
)
from rollout.features.incidents.incident_impact import load_incident_impact
from rollout.features.reports.figures import incident_cause
from rollout.features.reports.figures.incident_cause import compute_incident_courses
from rollout.features.reports.stored_inputs import load_report_inputs, load_whole_period
from rollout.kernel.policy.policy import Guard
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from tests.api.bears import CREEK, POLICY
from tests.features.incidents.cause_town import (
    CASES,
    CHANGE,
    END,
    alarm_town,
    build_town,
    find_time,
    is_wrong,
)
from tests.kernel.statistics.step_detectors import AgreementDetector

pytestmark = pytest.mark.slow

VIEWER = Caller("vic", role_assignments=(AssignedRole("viewer"),))
REVIEWER = Caller("eve", role_assignments=(AssignedRole("operator"), AssignedRole("reviewer")))


@pytest.fixture
def service(database):
    return build_service(database, None, ManualClock(END))


@pytest.fixture
def town(database):
    alarm_town(database)


def load(service, caller=VIEWER):
    impact = load_incident_impact(service, caller, "bears", "I-1", at=END)
    return load_detector_course(service, caller, "bears", impact, at=END)


def find_guard() -> Guard:
    guards = parse_policy(POLICY).list_guards(CREEK)
    return next(guard for guard in guards if guard.condition.measure.name == "agreement")


def find_number(at):
    """Return which case was counted in the slot that ends at an instant."""
    return next(n for n in range(CASES) if find_time(n) <= at < find_time(n + 1))


@pytest.mark.slow
@pytest.mark.usefixtures("town")
def test_the_course_is_that_of_a_detector_fed_unit_by_unit(service):
    course = load(service).course
    guard = find_guard()
    detector, against, expected = AgreementDetector(0.93, guard.false_alarm_every), 0, []
    numbers = [find_number(point.at) for point in course.points]  # of the reviewed cases
    for records, n in enumerate(numbers, 1):
        detector = detector.update(0 if is_wrong(n) else 1, 1)
        against += is_wrong(n)
        expected.append((records, against, pytest.approx(detector.log_value)))
    assert [(p.records, p.against, p.log_value) for p in course.points] == expected
    assert 60 < len(numbers) < CHANGE + 40
    assert course.threshold == guard.false_alarm_every
    assert course.points[-1].log_value >= log(course.threshold)
    assert all(point.log_value < log(course.threshold) for point in course.points[:-1])


@pytest.mark.usefixtures("town")
@pytest.mark.slow
def test_long_courses_keep_some_points_and_the_alarm(service, monkeypatch):
    whole = load(service).course.points
    monkeypatch.setattr(incident_cause, "MAX_COURSE_POINTS", 10)
    points = load(service).course.points
    assert 5 < len(points) <= 10
    assert points[-1] == whole[-1]
    assert set(points) < set(whole)


@pytest.mark.slow
@pytest.mark.usefixtures("town")
def test_a_user_who_may_be_asked_blind_reads_no_course(service):
    loaded = load(service, REVIEWER)
    assert (loaded.course, loaded.hidden) == (None, MAY_BE_ASKED)


@pytest.mark.slow
@pytest.mark.usefixtures("town")
def test_nobody_reads_a_course_while_one_of_its_cases_may_be_decided_blind(service, monkeypatch):
    monkeypatch.setattr(PeriodRecords, "list_blind_cases", lambda *_: {10**9})
    assert load(service).course is not None
    monkeypatch.setattr(PeriodRecords, "list_blind_cases", lambda *_: set(range(10**5)))
    loaded = load(service)
    assert (loaded.course, loaded.hidden) == (None, OPEN)


@pytest.mark.slow
@pytest.mark.usefixtures("town")
def test_records_other_than_those_of_the_alarm_draw_no_course(service, monkeypatch):
    monkeypatch.setattr(incident_cause, "find_slot_before", lambda *_: 2**40)
    loaded = load(service)
    assert (loaded.course, loaded.hidden) == (None, RECOUNTED)


def test_an_incident_without_a_detector_has_no_course(service, database):
    build_town(database)
    assert load(service) is None


def load_report_courses(service):
    with service.database.begin_read() as transaction:
        state = load_rollout_state(transaction, "bears")
        period = load_whole_period(transaction, state, END)
        return compute_incident_courses(load_report_inputs(transaction, state, period))


@pytest.mark.slow
@pytest.mark.usefixtures("town")
def test_a_report_has_the_course_of_the_page(service, monkeypatch):
    whole = load(service).course
    monkeypatch.setattr(incident_cause, "MAX_REPORT_POINTS", 200)
    assert [item.course for item in load_report_courses(service)] == [whole]
    monkeypatch.setattr(incident_cause, "MAX_REPORT_POINTS", 10)
    (item,) = load_report_courses(service)
    assert (item.incident, item.site, item.window) == ("I-1", "creek", "day")
    assert set(item.course.points) < set(whole.points)
    assert item.course.points[-1] == whole.points[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("town")
def test_a_report_has_no_course_while_one_of_its_cases_may_be_decided_blind(service, monkeypatch):
    points = load(service).course.points
    numbers = {find_number(point.at) for point in points}  # of the reviewed cases
    unread = next(n for n in range(CHANGE) if n not in numbers)
    for number, count in ((find_number(points[9].at), 0), (unread, 1), (CASES - 1, 1)):
        with service.database.begin_read() as transaction:
            rollout = load_rollout_state(transaction, "bears").rollout
            ids = set(ExternalKeys(transaction, rollout).find_ids([f"c{number:04}"]).values())
        monkeypatch.setattr(PeriodRecords, "list_blind_cases", lambda *_, found=ids, **__: found)
        courses = load_report_courses(service)
        assert [item.course.points[-1] for item in courses] == [points[-1]] * count
