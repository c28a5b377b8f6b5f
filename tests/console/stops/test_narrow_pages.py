"""Narrow by the console: down to a stage, for good, in two steps."""

import re

import pytest

from tests.api.bears import CREEK, approved, scope_of, tick, widened
from tests.factories import NOON, TICK

NARROW = "/rollouts/bears/narrow"
CONFIRM = f"{NARROW}/confirm"
XSS = "<script>alert(1)</script>\"'"


def heading(page):
    return re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]


def narrow(browser, status=303, on=f"{CONFIRM}?target=all&to=shadow", **fields):
    return browser.submit(CONFIRM, status, on=on, **{"target": "all", "to": "shadow"} | fields)


@pytest.fixture
def wide(service):
    widened(service.database, NOON, CREEK)


def test_it_asks_how_far_and_down_to_which_stage_and_says_what_it_is_not(browser, wide):
    page = browser.as_("ana").page(NARROW)
    assert heading(page) == "Narrow bears"
    assert [*re.findall(r'<option value="(shadow|supervised|autonomous)"', page)] == [
        "shadow",
        "supervised",
    ]
    assert "stop the rest: grants at or below the stage continue" in page
    assert "Ends grants above a stage permanently" in page
    assert "approved by others" in page


def test_step_two_lists_which_grants_would_end(browser, wide):
    page = browser.as_("ana").page(f"{CONFIRM}?target=all&to=shadow&reason=fog")
    assert heading(page) == "Narrow everything in bears to shadow now?"
    assert "creek · day: v1 goes from supervised to shadow" in page
    assert "Reason: “fog”" in page


def test_where_nothing_stands_above_the_stage_there_is_no_button(browser, wide):
    page = browser.as_("ana").page(f"{CONFIRM}?target=all&to=supervised")
    assert "No grant there is above supervised" in page
    assert "Narrow now" not in page


def test_narrowing_ends_the_grants_and_says_what_is_gone(browser, service, wide):
    answer = narrow(browser.as_("ana"), reason=f"fog {XSS}")
    assert scope_of(service.database).get_holder(CREEK) is None
    page = browser.page(answer.headers["location"].removeprefix("/console"))
    assert heading(page) == "You have narrowed 1 cell"
    assert 'data-label="From">supervised' in page
    assert "fog &lt;script&gt;" in page
    assert XSS not in page


def test_what_is_told_afterwards_is_read_from_the_ledger(browser, service, wide):
    browser.as_("bo")
    assert heading(browser.page(f"{NARROW}/done?until=1&count=5")) == "Nothing was narrowed"
    assert browser.page(f"{NARROW}/done?until=99999&count=1", 404)
    assert browser.page(f"{NARROW}/done?until=x", 422)


def test_narrowing_to_what_is_no_stage_comes_back_with_what_was_typed(browser, service, wide):
    browser.as_("ana")
    page = narrow(browser, 422, to=XSS, reason="kept").text
    assert 'aria-describedby="to-error"' in page
    assert 'value="kept"' in page
    assert XSS not in page
    assert "There is a problem" in browser.page(f"{CONFIRM}?target=all&to=autonomous", 422)
    assert "There is a problem" in narrow(browser, 422, target="nowhere").text
    assert scope_of(service.database).get_holder(CREEK) == "v1"


def test_an_operator_of_one_site_narrows_that_alone(browser, service):
    widened(service.database, NOON, CREEK)
    browser.as_("cleo")
    page = browser.page(f"{CONFIRM}?target=all&to=shadow")
    assert "Excluded: lake (cleo is no operator there)" in page
    assert narrow(browser).status_code == 303
    assert scope_of(service.database).get_holder(CREEK) is None
    assert "vic" in browser.as_("vic").page(NARROW, 403)


def test_a_renewal_of_what_was_narrowed_is_not_offered(browser, service, wide):
    narrow(browser.as_("ana"))
    tick(service.database, NOON + TICK, cells=())
    approved(service.database, NOON + TICK)
    page = browser.page("/rollouts/bears/proposals")
    assert "Nothing now: renewals are possible" in page
