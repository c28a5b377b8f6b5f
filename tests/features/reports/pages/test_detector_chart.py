"""The days below a detector's course: the last one named, none over another."""

import re
from datetime import timedelta
from itertools import pairwise

import pytest

from rollout.features.reports.figures.incident_cause import CoursePoint, DetectorCourse
from rollout.features.reports.pages.number_charts import build_detector_view
from tests.factories import DAY, NOON

LETTER = 6.8  # pixels of the widest usual letters


@pytest.mark.parametrize("days", [1, 3, 6, 40])
def test_the_last_day_is_named_and_no_name_lies_over_another(days):
    points = tuple(
        CoursePoint(NOON + day * DAY + timedelta(minutes=n), 0.2 * day, day, 20 * day + n + 1)
        for day in range(days)
        for n in range(20)
    )
    course = DetectorCourse("agreement at least 90 %", "disagree", 10_000.0, points)
    view = build_detector_view(course, "UTC", "det")
    for svg, width in ((view.wide, 810), (view.narrow, 326)):
        found = re.findall(r'x="([\d.]+)"[^>]*>(\d+ [A-Z][a-z]+)</text>', svg)
        names = [(float(x), text) for x, text in found]
        last = NOON + (days - 1) * DAY
        if days <= 6 and (width, days) != (326, 6):  # no room: 40 pixels
            assert names[-1][1] == f"{last.day} {last:%b}"
        assert all(x + LETTER * len(text) <= width for x, text in names)
        assert all(x + LETTER * len(text) < next_x for (x, text), (next_x, _) in pairwise(names))


def test_the_day_of_the_alarm_is_named_before_crowded_days():
    ends = [*range(5, 66, 3), 90]  # records at the end of each day; the last day has room
    points = tuple(CoursePoint(NOON + day * DAY, 0.2, 0, end) for day, end in enumerate(ends))
    view = build_detector_view(
        DetectorCourse("agreement", "disagree", 10_000.0, points), "UTC", "det"
    )
    last = points[-1].at
    for svg in (view.wide, view.narrow):
        assert f">{last.day} {last:%b}</text>" in svg
