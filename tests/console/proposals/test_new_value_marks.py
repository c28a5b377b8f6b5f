"""A proposal's page marks the first counted case with a value that its cell had not met."""

import re
from datetime import timedelta

import pytest

from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access.users import AccountUpdate, load_local_caller, update_account
from rollout.live.clock import ManualClock
from tests.features.cells.test_new_values import END, fill, list_replayed, load_state
from tests.features.cells.test_new_values import (
    _a_story_shorter_than_a_week as a_story_shorter_than_a_week,
)

pytestmark = pytest.mark.slow

__all__ = ["a_story_shorter_than_a_week"]
MARK = re.compile(r"<li[^>]*>(?:(?!</li>).)*first counted case with group = new</li>", re.DOTALL)


@pytest.fixture
def clock():
    return ManualClock(END)


@pytest.fixture
def proposal_page(database, service):
    """Return the path of the story's open proposal."""
    fill(database)
    state = load_state(database)
    (proposal,) = state.scope.proposals.values()
    assert list_replayed()[proposal.cell]
    return f"/rollouts/story/proposals/{proposal.id}"


def test_whoever_decides_sees_the_mark(browser, proposal_page):
    page = browser.as_("ana").page(proposal_page)
    (mark,) = MARK.findall(page)
    assert "Wed 4 Jun 07:15 UTC" in mark
    assert "Approve" in page


def test_who_may_be_asked_about_a_case_sees_none(browser, service, clock, proposal_page):
    assert MARK.findall(browser.as_("vic").page(proposal_page))
    ada = load_local_caller(service.database, "ada")
    update = AccountUpdate(roles_to_grant=(AssignedRole("reviewer"),))
    update_account(service.database, ada, "vic", update, at=END)
    clock.advance(timedelta(minutes=1))  # sessions follow what changed a moment later
    page = browser.page(proposal_page)
    assert "Timeline of the cell" in page
    assert not MARK.findall(page)
    assert "group = new" not in page
