"""A version's next attempt, begun on the cell's page: its price first, then the confirmation."""

from urllib.parse import urlencode

import pytest

from rollout.engine.decide.commands import Actor
from rollout.live.policy_application import apply_policy
from tests.api.bears import CREEK, POLICY, approved, scope_of, tick, widened
from tests.factories import HOUR, NOON, NOTHING

CELL = "/rollouts/bears/cells/creek/day"
ATTEMPT = "/rollouts/bears/attempt"
OWN = {"version": "v1", "site": "creek", "window": "day"}
PAGE = f"{ATTEMPT}?{urlencode(OWN)}"
PRICE = "creek · day: v1 starts anew, as attempt 2 of the year in this cell, over all versions"


@pytest.fixture
def wide(service):
    widened(service.database, NOON, CREEK)


def test_next_attempt_is_begun_after_its_price_was_read(browser, service, wide):
    page = browser.as_("cleo").page(CELL)
    assert f'href="/console{ATTEMPT}?version=v1&amp;site=creek&amp;window=day"' in page
    asked = browser.page(PAGE)
    assert PRICE in asked
    assert "only units that occur from then on count" in asked
    assert scope_of(service.database).get_cell_state(CREEK, "v1").attempt == 1
    answer = browser.submit(ATTEMPT, on=PAGE, **OWN, reason="the box was offline")
    state = scope_of(service.database).get_cell_state(CREEK, "v1")
    assert state.attempt == 2
    assert [grant.stage for grant in state.grants] == ["supervised"]
    text = browser.page(answer.headers["location"].removeprefix("/console"))
    assert "v1 began its next attempt; cleo: the box was offline" in text
    assert "narrowed" not in text.partition('<h2 id="tl">')[2]
    assert f"{ATTEMPT}?" not in text  # it begins with its first unit


def test_next_attempt_needs_a_reason_and_an_attempt_that_has_begun(browser, service, wide):
    answer = browser.as_("cleo").submit(ATTEMPT, 422, on=PAGE, **OWN, reason=" ")
    assert "give a reason" in answer.text
    assert PRICE in answer.text
    other = PAGE.replace("=day", "=night")
    assert "its attempt begins with the first one" in browser.page(other)
    for path, status in ((PAGE.replace("=day", "=dusk"), 404), (PAGE.replace("v1", "v9"), 422)):
        browser.page(path, status)
    assert scope_of(service.database).get_cell_state(CREEK, "v1").attempt == 1


def test_only_operators_of_the_site_see_or_begin_the_next_attempt(browser, service, wide):
    assert "Begin next attempt" not in browser.as_("vic").page(CELL)
    browser.page(PAGE, 403)
    browser.submit(ATTEMPT, 403, on=CELL, **OWN, reason="curious")
    browser.as_("cleo").page(PAGE.replace("creek", "lake"), 403)
    assert scope_of(service.database).get_cell_state(CREEK, "v1").attempt == 1


def test_proposal_of_an_edited_question_names_what_starts_anew_at_what_price(browser, service):
    tick(service.database, NOON, of=NOTHING)
    tick(service.database, NOON + HOUR)
    approved(service.database, NOON + HOUR)
    edited = POLICY.replace("{measure: agreement, at_least: 95%}",
                            "{measure: recall, label: bear, at_least: 90%}")  # fmt: skip
    apply_policy(service.database, edited, Actor("zoe"), NOON + HOUR)
    proposal = next(p for p in scope_of(service.database).proposals.values() if p.kind == "policy")
    page = browser.as_("vic").page(f"/rollouts/bears/proposals/{proposal.id}")
    assert "Evidence starts anew, at a smaller risk" in page
    assert "creek · day: recall of bear at least 90" in page
    assert "as attempt 2 of the year in this cell" in page
    assert "lake" not in page.partition("Evidence starts anew")[2].partition("</ul>")[0]
