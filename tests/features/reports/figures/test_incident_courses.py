"""Courses of detectors in a report: whole, as the incident's page has them, or not at all."""

import re
from dataclasses import replace

import pytest

from rollout.engine.events import IncidentOpened, Narrowed
from rollout.features.reports.figures import incident_cause
from rollout.features.reports.figures.incident_cause import compute_incident_courses
from rollout.features.reports.pages.html_report import render_html_report
from tests.kernel.statistics.step_detectors import AgreementDetector


def test_each_alarm_has_the_course_that_its_reason_counts(told):
    inputs, facts = told
    alarms = [event for event in inputs.events if isinstance(event, IncidentOpened)]
    assert [item.incident for item in facts.detector_courses] == [a.incident for a in alarms]
    for item, alarm in zip(facts.detector_courses, alarms, strict=True):
        last = item.course.points[-1]
        (counts,) = ((each.against, each.records) for each in alarm.alarms)
        assert counts == (last.against, last.records)
        assert (item.site, item.window) == (alarm.cell.site, alarm.cell.window)
    # the second begins where the first narrowed the cell: seven units that all differ
    second = facts.detector_courses[1].course
    detector, before = AgreementDetector(0.75, second.threshold), 0
    for point in second.points:
        detector, before = detector.update(0, point.records - before), point.records
        assert point.log_value == pytest.approx(detector.log_value)
    assert before == 7


def test_a_course_begins_with_the_state_before_the_alarm(told):
    """After it the cell is narrowed and its evidence begins anew."""
    inputs, facts = told
    narrowed = next(event for event in inputs.events if isinstance(event, Narrowed))
    assert facts.detector_courses[0].course.points[0].at < narrowed.at
    without_effects = replace(inputs, events=tuple(e for e in inputs.events if e is not narrowed))
    assert compute_incident_courses(without_effects) == facts.detector_courses[:1]


def test_a_withheld_unit_leaves_no_course(told):
    inputs, facts = told
    first = facts.detector_courses[0]
    key, view = next(item for item in inputs.evidence_views.items() if item[0][0].site == "creek")
    kept = view.rows.guard.select(view.rows.guard.slot != view.rows.guard.slot[-100])
    views = {**inputs.evidence_views, key: replace(view, rows=replace(view.rows, guard=kept))}
    remaining = compute_incident_courses(replace(inputs, evidence_views=views))
    assert len(remaining) < len(facts.detector_courses)
    assert first.incident in {item.incident for item in facts.detector_courses}


def test_the_newest_alarms_of_the_span_are_drawn(told, monkeypatch):
    inputs, _ = told
    monkeypatch.setattr(incident_cause, "MAX_COURSES", 1)
    assert [item.incident for item in compute_incident_courses(inputs)] == ["I-2"]
    opened_at = compute_incident_courses(inputs)[0].at
    later = replace(inputs, first=opened_at.replace(minute=1))
    assert compute_incident_courses(later) == ()


def test_the_page_says_when_only_the_newest_alarms_can_be_drawn(facts):
    words = "Detectors of earlier alarms are not drawn here"
    assert words not in render_html_report(facts, "engineer")
    courses = (*facts.detector_courses, *facts.detector_courses)
    assert len(courses) == incident_cause.MAX_COURSES
    assert words in render_html_report(replace(facts, detector_courses=courses), "engineer")


def test_the_engineers_page_alone_draws_each_course_in_a_fold(facts):
    page = render_html_report(facts, "engineer")
    for number, item in enumerate(facts.detector_courses, start=1):
        assert f"Detector of {item.incident}: creek" in page
        fold = page.split(f'aria-labelledby="det{number}-w-t')[0].rpartition("<details>")[2]
        assert "<summary>" in fold
        assert "</details>" not in fold
    assert len(re.findall('class="det-alarm"', page)) == 2 * len(facts.detector_courses) > 0
    assert "det-alarm" not in render_html_report(facts, "operator").partition("</style>")[2]
