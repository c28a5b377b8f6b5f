"""Whoever sends cases into an episode that was decided before hides none from the guards."""

import pytest

from rollout.engine.records.records import Case, Decision
from tests.data.databases import on_sqlite
from tests.factories import MINUTE
from tests.live.guarded_desk import POLICY, WIDENED, Desk

pytestmark = pytest.mark.slow


@pytest.fixture
def desk(database):
    return Desk(database, POLICY.replace("unit: case", "unit: episode"))


def judge(desk, verdict="low", episode=None):
    key = f"c{len(desk.cases)}"
    at = desk.now
    desk.cases[key] = Case(
        key=key, site="kiosk", window="", occurred_at=at, episode=episode or f"e-{key}"
    )
    desk.send(desk.cases[key])
    desk.predict(key)
    desk.now += 5 * MINUTE
    decision = Decision(key=key, reviewer="rae", answers={"price": verdict}, exposure="blind")
    desk.send(decision, account="desk")


def pass_hours(desk, hours, *cases):
    changes = []
    for _ in range(hours):
        for case in cases:
            judge(desk, **case)
        changes += desk.pass_hours(1)
    return changes


BAD = {"verdict": "high", "episode": "old"}


@on_sqlite
def test_a_case_that_joins_a_decided_episode_reaches_the_guards(desk):
    judge(desk, episode="old")
    assert pass_hours(desk, 20, {}, {}) == WIDENED
    assert pass_hours(desk, 12, BAD, BAD) == ["Narrowed"]


@on_sqlite
def test_a_burst_that_joins_a_decided_episode_is_one_unit(desk):
    judge(desk, episode="old")
    assert pass_hours(desk, 20, {}, {}) == WIDENED
    assert pass_hours(desk, 1, *[BAD] * 11) == []


@on_sqlite
def test_a_guard_holds_the_widening_of_a_version_whose_bad_cases_join_one(desk):
    judge(desk, episode="old")
    pass_hours(desk, 8)
    assert pass_hours(desk, 30, {}, BAD) == ["ProposalRaised"]
