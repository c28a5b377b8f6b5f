"""What people do in the console, in real browsers: see a change come, approve it together, stop it.

The pages are open in windows of their own, each with its own session; the third one only watches.
"""

import re
import time

import pytest

from rollout.engine.decide.scope import find_acting_version
from rollout.kernel.calendar.instants import Cell
from rollout.live.rollout_state import load_rollout_state
from tests.browser.chromium import PHONE, needs_chromium
from tests.browser.console_pages import served_town, windows
from tests.browser.town import NAME, approve

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

CREEK = Cell("creek", "night")
PATIENCE = 10_000  # milliseconds: machines are busy
SOON = 4.0  # seconds for 2 that were promised: for the same reason
PROPOSAL = "a:has-text('Read and decide: Widen creek · night')"


@pytest.fixture
def made(tmp_path):
    with served_town(tmp_path) as town:
        yield town


@pytest.fixture
def opened(browser, made):
    with windows(browser, made.address) as of:
        yield of


def stage_of(town, cell=CREEK):
    """Return who acts in a cell and on which stage."""
    with town.database.begin_read() as transaction:
        stood = load_rollout_state(transaction, NAME)
    return find_acting_version(stood.scope, stood.policy, cell, town.clock.now())


def decide(window, name, verdict="Approve", reason="seen on both cameras"):
    """Sign in, open the proposal of creek by night, decide about it."""
    page = window.as_(name).page
    page.click(PROPOSAL)
    page.fill("#reason", reason)
    page.click(f"form button:has-text('{verdict}')")
    return page


def test_a_cell_becomes_eligible_before_ones_eyes_and_two_people_widen_it(made, opened):
    made.hours(1)
    ana = opened().as_("ana").page
    assert "No pending tasks" in ana.inner_text("h1")
    made.hours(1)
    vic = opened().as_("vic").open(f"/rollouts/{NAME}")  # idle for an hour below: the limit is two
    ana.wait_for_selector(PROPOSAL, timeout=PATIENCE)
    assert "No pending tasks" not in ana.inner_text("h1")
    decide(opened(), "ana")
    assert stage_of(made) is None
    decide(opened(), "bo")
    made.hours(1, sites=())
    assert stage_of(made) == ("v1", 1)
    since = time.monotonic()
    vic.wait_for_selector("[aria-labelledby=map-h] .wide-only .p-1", timeout=PATIENCE)
    assert "upervised" in vic.inner_text("[aria-labelledby=cells-h]")
    assert time.monotonic() - since < SOON


def test_what_changed_since_the_page_was_opened_is_said_and_nothing_is_lost(made, opened):
    made.hours(3)
    window = opened().as_("ana")
    window.page.click(PROPOSAL)
    window.page.fill("#reason", "half a thou")
    window.page.focus("#reason")
    assert "1 of 2" in decide(opened(), "bo").inner_text("aside")
    window.page.wait_for_selector("#changed:not([hidden])", timeout=PATIENCE)
    assert "1 change" in window.page.inner_text("#changed")
    assert window.page.input_value("#reason") == "half a thou"
    assert window.page.evaluate("document.activeElement.id") == "reason"
    window.page.keyboard.type("ght")
    assert window.page.input_value("#reason") == "half a thought"


@pytest.mark.parametrize("script", [True, False], ids=["with scripts", "without scripts"])
def test_somebody_stops_in_two_steps_and_others_see_it(made, opened, script):
    made.hours(3)
    approve(made, CREEK.site)
    made.hours(1, sites=())
    assert stage_of(made) == ("v1", 1)
    vic = opened().as_("vic").open(f"/rollouts/{NAME}")
    page = opened(script=script, width=PHONE).as_("ana").open(f"/rollouts/{NAME}")
    page.click("a:has-text('Stop…')")
    page.fill("#reason", "smoke in the valley")
    page.click("button:has-text('Continue')")
    assert stage_of(made) == ("v1", 1)
    page.click("button:has-text('Stop now')")
    assert stopped(made)
    vic.wait_for_selector("[aria-labelledby=map-h] .wide-only .p-held", timeout=PATIENCE)
    assert "Stopped" in vic.inner_text("[aria-labelledby=cells-h]")


def stopped(town, cell=CREEK):
    with town.database.begin_read() as transaction:
        return load_rollout_state(transaction, NAME).scope.is_stopped(cell)


def test_an_approval_of_what_moved_is_refused_with_the_reason_kept(made, opened):
    made.hours(3)
    page = opened().as_("ana").page
    page.click(PROPOSAL)
    page.evaluate("document.querySelector('input[name=evidence]').value = '0'.repeat(64)")
    page.fill("#reason", "seen it")
    page.click("form button:has-text('Approve')")
    assert "Nothing was approved" in page.inner_text("main")
    assert page.input_value("#reason") == "seen it"


def test_the_history_can_be_scrubbed_back_to_any_instant(made, opened):
    made.hours(3)
    approve(made, CREEK.site)
    made.hours(1, sites=())
    page = opened().as_("vic").open(f"/rollouts/{NAME}")
    assert page.locator(".wide-only .p-1").count()
    page.fill("input[name=at]", "2027-06-14T00:30")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("at="))
    assert "As of" in page.inner_text("main")
    assert not page.locator("main .wide-only path.p-1").count()


def test_a_policy_is_planned_compared_and_applied(made, opened):
    page = opened().as_("ada").open(f"/rollouts/{NAME}/settings")
    text = page.input_value("textarea[name=text]")
    page.fill("textarea[name=text]", text.replace("at_least: 75%", "at_most: 75%"))
    page.click("button:has-text('Plan')")
    assert "There is a problem" in page.inner_text("main")
    assert "at_most: 75%" in page.input_value("textarea[name=text]")
    page.fill("textarea[name=text]", text.replace("at_least: 75%", "at_least: 85%"))
    page.click("button:has-text('Plan')")
    assert "85" in page.inner_text("main")
    page.click("button:has-text('Apply')")
    with made.database.begin_read() as transaction:
        assert load_rollout_state(transaction, NAME).scope.policy_number == 2


ENTRIES = {
    "ana": ["Overview", "Divergences", "Incidents", "Reports", "Ledger", "Settings"],
    "ada": ["Overview", "Divergences", "Incidents", "Reports", "Ledger", "Settings"],
    "rita": ["Overview", "Review", "Settings"],
}


@pytest.mark.parametrize("name", ENTRIES)
def test_each_role_finds_its_own_entries_and_the_stop_where_it_may_stop(made, opened, name):
    page = opened().as_(name).page
    found = page.locator("nav li a").all_inner_texts()
    assert [text.split()[0] for text in found] == ENTRIES[name]
    assert page.locator("a:has-text('Stop…')").count() == (name == "ana")


def test_who_signs_out_everywhere_is_out_in_every_open_window(made, opened):
    here, there = opened().as_("ana"), opened().as_("ana")
    here.open("/settings").click("button:has-text('everywhere')")
    assert "Sign in" in here.page.inner_text("h1")
    there.page.wait_for_selector("h1:has-text('Sign in')", timeout=PATIENCE)
