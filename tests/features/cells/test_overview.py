"""All rollouts at a glance, and what happened in them lately."""

from datetime import timedelta

import pytest

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import RecordsCounted
from rollout.features.access.authentication import Authenticator
from rollout.features.cells.overview import load_rollout_summaries
from rollout.features.ledger.activity import load_recent_activity
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from tests.api import bears
from tests.factories import DAY, HOUR, NOON
from tests.features.reports.test_inputs import keep
from tests.features.review_room import MINUTE

VIC = Caller("vic", role_assignments=(AssignedRole("viewer"),))
SECOND = bears.POLICY.replace("rollout: bears", "rollout: aardvarks")


@pytest.fixture
def service(database):
    bears.founded(database, NOON - DAY)
    return build_service(database, Authenticator(database, ManualClock(NOON)), ManualClock(NOON))


def test_each_rollout_that_one_may_read_has_a_line_by_name(database, service):
    apply_policy(database, SECOND, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    assert [line.name for line in load_rollout_summaries(service, VIC, NOON)] == [
        "aardvarks",
        "bears",
    ]
    bear_keeper = Caller("bo", role_assignments=(AssignedRole("operator", "bears", "creek"),))
    assert [line.name for line in load_rollout_summaries(service, bear_keeper, NOON)] == ["bears"]
    assert (
        load_rollout_summaries(
            service, Caller("rita", role_assignments=(AssignedRole("reviewer"),)), NOON
        )
        == ()
    )


def test_what_moved_is_read_anew_and_what_did_not_is_not(database, service, monkeypatch):
    load_rollout_summaries(service, VIC, NOON)
    asked = []
    confirmed = type(service.state_cache).reload_rollout
    monkeypatch.setattr(
        type(service.state_cache),
        "reload_rollout",
        lambda self, name: asked.append(name) or confirmed(self, name),
    )
    assert not load_rollout_summaries(service, VIC, NOON)[0].state.scope.proposals
    assert asked == []
    bears.tick(database, NOON)
    assert load_rollout_summaries(service, VIC, NOON)[0].state.scope.proposals
    assert asked == ["bears"]


def test_traffic_is_the_newest_case_and_how_many_came_within_an_hour(database, service):
    assert (line := load_rollout_summaries(service, VIC, NOON)[0]).last_case is None
    assert (line.cases_in_last_hour, line.ticked_at) == (0, None)
    for n in range(1, 9):
        keep(database, f"c{n}", NOON - (9 - n) * HOUR / 4)
    line = load_rollout_summaries(service, VIC, NOON)[0]
    assert (line.last_case, line.cases_in_last_hour) == (NOON - HOUR / 4, 3)
    assert not line.has_more_cases


def test_more_cases_than_are_looked_at_are_said_to_be_more(database, service, monkeypatch):
    monkeypatch.setattr("rollout.data.records.case_pages.MAX_RECENT_CASES", 2)
    monkeypatch.setattr("rollout.features.cells.overview.MAX_RECENT_CASES", 2)
    for n in range(3):
        keep(database, f"c{n}", NOON - MINUTE)
    line = load_rollout_summaries(service, VIC, NOON)[0]
    assert (line.cases_in_last_hour, line.has_more_cases) == (2, True)


def test_news_are_the_newest_first_and_of_sites_that_one_may_read(database, service):
    bears.widened(database, NOON - HOUR, bears.CREEK)
    said = load_recent_activity(service, VIC, NOON - 2 * HOUR)
    assert [one.event_description.revision for one in said] == sorted(
        (one.event_description.revision for one in said), reverse=True
    )
    assert "widened to supervised" in " ".join(one.event_description.text for one in said)
    assert "approved by" in " ".join(one.event_description.text for one in said)
    at_the_lake = Caller("lu", role_assignments=(AssignedRole("viewer", "bears", "lake"),))
    assert not [
        one
        for one in load_recent_activity(service, at_the_lake, None)
        if one.event_description.site == "creek"
    ]


def test_no_news_since_the_newest(service):
    assert load_recent_activity(service, VIC, NOON + timedelta(days=1)) == ()


def test_news_leave_out_what_ticks_counted(database, service):
    bears.widened(database, NOON - HOUR, bears.CREEK)
    append_counts(database, NOON, 20)
    news = [one.event_description for one in load_recent_activity(service, VIC, NOON - 2 * HOUR)]
    assert "widened to supervised" in " ".join(one.text for one in news)
    assert "RecordsCounted" not in {one.kind for one in news}


def append_counts(database, at, number):
    """Append events of ticks that counted something, the newest entries of the ledger."""
    counted = RecordsCounted(at=at, by="policy", slot=at, records=1, digest="ab" * 32)
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "bears")
        Ledger(transaction, state.rollout).append([counted] * number, after=state.scope.revision)
