"""A live page, left open, equals a reload, and says when it no longer hears of anything."""

import time

import pytest

from api.cells import overview_pages
from tests.browser.chromium import api, needs_chromium
from tests.browser.console_pages import served_town, windows
from tests.browser.town import MINUTE, NAME, busy

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

R = f"/rollouts/{NAME}"
PAGES = (
    *("/", "/incidents", R, f"{R}/cells/creek/day", f"{R}/cells/lake/night", f"{R}/proposals"),
    *(f"{R}/proposals/P-6", f"{R}/incidents/I-1", f"{R}/stop", f"{R}/narrow", f"{R}/stops"),
    *(f"{R}/stop/confirm?target=all", f"{R}/ledger", f"{R}/settings", f"{R}/schedule"),
)
CONTENT = """
() => {
  const copy = document.querySelector("main").cloneNode(true);
  for (const field of copy.querySelectorAll("input, textarea, select")) field.remove();
  for (const part of copy.querySelectorAll("details")) part.removeAttribute("open");
  return [document.querySelector("main").innerText, copy.innerHTML];
}
"""
"""The words of a page, and its drawings and links; what is typed, and tokens, are a form's own."""
PATIENCE = 20.0  # seconds: many pages are open
TIMEOUTS = """
AbortSignal.timeout = (span) => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), span);
  return controller.signal;
};
"""
"""Lets time-outs pass with the page's own clock, which tests set."""


@pytest.fixture
def town(tmp_path):
    with served_town(tmp_path) as made:
        yield busy(made)


@pytest.fixture
def window(browser, town):
    with windows(browser, town.address) as opened:
        yield opened().as_("ana")


def open_pages(window):
    """Return a tab of each page by its path."""
    tabs = {}
    for path in PAGES:
        tabs[path] = window.context.new_page()
        tabs[path].goto(f"{window.address}/console{path}")
    return tabs


def list_unequal(window, tabs):
    """Return the paths whose open pages differ from a reload, and in which words."""
    unequal = {}
    for path, tab in tabs.items():
        reloaded = window.open(path).evaluate(CONTENT)
        if tab.evaluate(CONTENT) != reloaded:
            words, fresh = (set(text.splitlines()) for text, _ in (tab.evaluate(CONTENT), reloaded))
            unequal[path] = sorted(words ^ fresh)
    return unequal


def wait_until_equal(window, tabs):
    give_up = time.monotonic() + PATIENCE
    unequal = list_unequal(window, tabs)
    while unequal and time.monotonic() < give_up:
        time.sleep(0.5)
        unequal = list_unequal(window, {path: tabs[path] for path in unequal})
    assert unequal == {}


def test_an_open_page_equals_a_reload_after_two_minutes(window, town):
    tabs = open_pages(window)
    assert list_unequal(window, tabs) == {}
    before = {path: tab.evaluate(CONTENT) for path, tab in tabs.items()}
    town.clock.advance(2.5 * MINUTE)
    wait_until_equal(window, tabs)
    changed = [path for path, tab in tabs.items() if tab.evaluate(CONTENT) != before[path]]
    assert {"/", R, f"{R}/cells/creek/day"} <= set(changed)
    assert "Last case 2 min ago" in tabs["/"].inner_text("main")


def test_a_site_that_falls_silent_is_named_once_the_limit_has_passed(window, town, monkeypatch):
    monkeypatch.setattr(overview_pages, "MAX_SILENCE", 3 * MINUTE)
    page = window.open("/")
    assert "No data" not in page.inner_text("main")
    town.clock.advance(4 * MINUTE)
    page.wait_for_selector("main :text('without data nothing widens')")


def test_what_a_form_was_answered_stays_on_its_page(window, town):
    page = window.open(f"{R}/ledger")
    page.click("button:has-text('Verify now')")
    clock = page.inner_text(".who time")
    town.clock.advance(MINUTE)
    api.expect(page.locator(".who time")).not_to_have_text(clock)
    assert "Every hash was recomputed" in page.inner_text("main")


def test_a_page_that_gets_no_answer_says_so_within_its_limit(window):
    page = window.context.new_page()
    page.add_init_script(TIMEOUTS)
    page.clock.install()
    page.goto(f"{window.address}/console{R}")
    page.route("**/console/revision*", lambda _route: None)  # neither an answer nor an end
    page.clock.run_for(60_000)
    page.wait_for_selector("#silence:has-text('has not heard from the service for 40 s')")
    page.unroute("**/console/revision*")
    page.clock.run_for(15_000)
    page.wait_for_selector("#silence:empty", state="attached")
