"""A sender dates some cases before the attempt, or before the grant: they count all the same."""

import pytest

from tests.data.databases import on_sqlite
from tests.factories import DAY, HOUR
from tests.live.guarded_desk import RIGHT, WIDENED
from tests.live.test_live import written

pytestmark = pytest.mark.slow


@on_sqlite
def test_cases_at_once_widen(desk):
    assert desk.pass_hours(12, RIGHT, RIGHT) == WIDENED


@on_sqlite
@pytest.mark.parametrize("answer", ["low", None], ids=["wrong", "silent"])
def test_cases_dated_before_the_attempt_are_missing_in_it(desk, answer):
    wrong = {"ago": 10 * DAY, "verdict": "high", "answer": answer}
    assert desk.pass_hours(30, RIGHT, wrong) == []


@on_sqlite
def test_cases_dated_before_the_grant_reach_its_guards(widened_desk):
    wrong = {"ago": 10 * DAY, "verdict": "high"}
    assert widened_desk.pass_hours(15, wrong, wrong) == ["Narrowed"]


@on_sqlite
def test_a_harm_of_a_case_dated_before_the_grant_narrows(widened_desk):
    assert widened_desk.pass_hours(1, {"ago": 10 * DAY, "harm": "burn"}) == ["Narrowed"]


@on_sqlite
def test_a_backlog_that_people_decided_in_time_counts_where_it_occurred(desk):
    """Of a device that was offline before the attempt began, beside a desk that was not."""
    old = {"ago": 10 * DAY, "verdict": "high", "decided_ago": 10 * DAY - HOUR}
    assert desk.pass_hours(12, RIGHT, RIGHT, old) == WIDENED
    assert desk.pass_hours(15, old, old) == []
    assert "IncidentOpened" not in {
        type(event).__name__ for event in written(desk.database, "shop")
    }
