"""A sender dates failed predictions back, behind the span of a guard: they count when they come."""

import pytest

from rollout.engine.records.records import Case
from tests.data.databases import on_sqlite
from tests.factories import HOUR, MINUTE
from tests.live.guarded_desk import POLICY, RIGHT, WIDENED, Desk

pytestmark = pytest.mark.slow
FAILURES = "  - {measure: failures, at_most: 20%, over: 2h, then: suspend}\ntick: 1h"
VOUCHED = "vouched: [{account: door, within: 6h}], accounts:"


def send_failures(desk, count, ago):
    for _ in range(count):
        desk.now += MINUTE
        key = f"c{len(desk.cases)}"
        desk.cases[key] = Case(key=key, site="kiosk", window="", occurred_at=desk.now - ago)
        desk.send(desk.cases[key])
        desk.predict(key, answer=None, at=desk.now - ago)


@on_sqlite
@pytest.mark.parametrize(
    ("sources", "ago", "suspends"),
    [
        ("accounts:", 0 * HOUR, True),
        ("accounts:", 5 * HOUR, True),
        (VOUCHED, 0 * HOUR, True),
        (VOUCHED, 5 * HOUR, False),  # somebody vouches that the box was offline
    ],
)
def test_failures_suspend_when_they_come(database, sources, ago, suspends):
    text = POLICY.replace("accounts:", sources).replace("tick: 1h", FAILURES)
    desk = Desk(database, text)
    assert desk.pass_hours(15, RIGHT, RIGHT) == WIDENED
    send_failures(desk, 30, ago)
    names = {type(event).__name__ for event in desk.tick()}
    assert ("Suspended" in names) is suspends
