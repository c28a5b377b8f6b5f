"""The schedule as page."""

import pytest

from rollout.engine.decide.commands import Actor
from rollout.live.policy_application import apply_policy
from tests.api.bears import LAKE, POLICY, tick, widened
from tests.factories import NOON, TICK


@pytest.fixture
def granted(service):
    """Return the service with a grant at creek and an open proposal at lake."""
    widened(service.database, NOON)
    tick(service.database, NOON + 2 * TICK, cells=(LAKE,))
    return service


def test_the_page_lists_what_will_happen_by_day(browser, granted):
    page = browser.as_("vic").page("/rollouts/bears/schedule")
    assert "The grant of supervised to v1 ends at creek · day, unless renewed" in page
    assert "Proposal P-2 (widening) expires at lake · day" in page
    assert "First stop drill is due at creek" in page


def test_a_visitor_of_one_site_sees_that_site_alone(browser, granted):
    page = browser.as_("cleo").page("/rollouts/bears/schedule")
    assert "at creek" in page
    assert "at lake" not in page


def test_the_page_gives_the_reason_of_a_freeze(browser, service):
    frozen = POLICY + 'freezes: [{hours: "Jun 05", reason: alarm of ana}]\n'
    apply_policy(service.database, frozen, Actor("zoe"), NOON)
    page = browser.as_("vic").page("/rollouts/bears/schedule")
    assert "Freeze (alarm of ana): nothing widens" in page
