"""Failed or slow answers, dated back behind the span of a guard, count when they come."""

import pytest

from rollout.engine.records.records import Case
from tests.data.databases import on_sqlite
from tests.factories import DAY, HOUR, MINUTE
from tests.live.guarded_desk import POLICY, RIGHT, WIDENED, Desk

pytestmark = pytest.mark.slow
FAILURES, LATENCY = "failures, at_most: 20%", "latency_p95, at_most: 1s"
GUARD = "  - {{measure: {}, over: 2h, then: suspend}}\ntick: 1h"
VOUCHED = "vouched: [{account: door, within: 6h}], accounts:"


def send_answers(desk, count, ago, **answer):
    for _ in range(count):
        desk.now += MINUTE
        key = f"c{len(desk.cases)}"
        desk.cases[key] = Case(key=key, site="kiosk", window="", occurred_at=desk.now - ago)
        desk.send(desk.cases[key])
        desk.predict(key, **answer, at=desk.now - ago)


@on_sqlite
@pytest.mark.parametrize(
    ("sources", "ago", "suspends"),
    [
        ("accounts:", 0 * HOUR, True),
        ("accounts:", 5 * HOUR, True),
        ("accounts:", 90 * DAY, True),
        (VOUCHED, 0 * HOUR, True),
        (VOUCHED, 5 * HOUR, False),  # somebody vouches that the box was offline
    ],
)
@pytest.mark.parametrize(
    ("measure", "answer"),
    [(FAILURES, {"answer": None}), (LATENCY, {"latency": 5_000})],
    ids=["failed", "slow"],
)
def test_bad_answers_suspend_when_they_come(database, sources, ago, suspends, measure, answer):
    text = POLICY.replace("accounts:", sources).replace("tick: 1h", GUARD.format(measure))
    desk = Desk(database, text)
    assert desk.pass_hours(15, RIGHT, RIGHT) == WIDENED
    send_answers(desk, 40, 0 * HOUR, latency=100)  # as many as end what old answers began
    send_answers(desk, 30, ago, **answer)
    names = {type(event).__name__ for event in desk.tick()}
    assert ("Suspended" in names) is suspends
