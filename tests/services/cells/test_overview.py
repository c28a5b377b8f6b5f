"""All rollouts at a glance, and what happened in them lately."""

from datetime import timedelta

import pytest

from rollout.core.scope.commands import Person
from rollout.core.scope.permissions import Caller, Right
from rollout.services.access.authentication import Door
from rollout.services.cells.overview import board
from rollout.services.engine.policy_application import apply
from rollout.services.engine.service import service_on
from rollout.services.ledger.activity import lately
from rollout.services.support.clock import SetClock
from tests.api import bears
from tests.factories import DAY, HOUR, NOON
from tests.services.reports.test_inputs import keep
from tests.services.review_room import MINUTE

VIC = Caller("vic", rights=(Right("viewer"),))
SECOND = bears.POLICY.replace("rollout: bears", "rollout: aardvarks")


@pytest.fixture
def service(database):
    bears.founded(database, NOON - DAY)
    return service_on(database, Door(database, SetClock(NOON)), SetClock(NOON))


def test_each_rollout_that_one_may_read_has_a_line_by_name(database, service):
    apply(database, SECOND, Person("zoe"), NOON, salt=bytes(32))
    assert [line.name for line in board(service, VIC, NOON)] == ["aardvarks", "bears"]
    bear_keeper = Caller("bo", rights=(Right("operator", "bears", "creek"),))
    assert [line.name for line in board(service, bear_keeper, NOON)] == ["bears"]
    assert board(service, Caller("rita", rights=(Right("reviewer"),)), NOON) == ()


def test_what_moved_is_read_anew_and_what_did_not_is_not(database, service, monkeypatch):
    board(service, VIC, NOON)
    asked = []
    confirmed = type(service.watch).confirmed
    monkeypatch.setattr(
        type(service.watch),
        "confirmed",
        lambda self, name: asked.append(name) or confirmed(self, name),
    )
    assert not board(service, VIC, NOON)[0].stood.scope.proposals
    assert asked == []
    bears.tick(database, NOON)
    assert board(service, VIC, NOON)[0].stood.scope.proposals
    assert asked == ["bears"]


def test_traffic_is_the_newest_case_and_how_many_came_within_an_hour(database, service):
    assert (line := board(service, VIC, NOON)[0]).last_case is None
    assert (line.in_last_hour, line.ticked_at) == (0, None)
    for n in range(1, 9):
        keep(database, f"c{n}", NOON - (9 - n) * HOUR / 4)
    line = board(service, VIC, NOON)[0]
    assert (line.last_case, line.in_last_hour) == (NOON - HOUR / 4, 3)
    assert not line.or_more


def test_more_cases_than_are_looked_at_are_said_to_be_more(database, service, monkeypatch):
    monkeypatch.setattr("rollout.store.ledger.revisions.LATELY", 2)
    monkeypatch.setattr("rollout.services.cells.overview.LATELY", 2)
    for n in range(3):
        keep(database, f"c{n}", NOON - MINUTE)
    line = board(service, VIC, NOON)[0]
    assert (line.in_last_hour, line.or_more) == (2, True)


def test_news_are_the_newest_first_and_of_sites_that_one_may_read(database, service):
    bears.widened(database, NOON - HOUR, bears.CREEK)
    said = lately(service, VIC, NOON - 2 * HOUR)
    assert [one.what.revision for one in said] == sorted(
        (one.what.revision for one in said), reverse=True
    )
    assert "goes up to supervised" in " ".join(one.what.text for one in said)
    assert "approved by" in " ".join(one.what.text for one in said)
    at_the_lake = Caller("lu", rights=(Right("viewer", "bears", "lake"),))
    assert not [one for one in lately(service, at_the_lake, None) if one.what.site == "creek"]


def test_no_news_since_the_newest(service):
    assert lately(service, VIC, NOON + timedelta(days=1)) == ()
