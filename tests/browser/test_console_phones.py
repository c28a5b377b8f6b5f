"""The console on a phone: one row above, quiet cells in a line, decisions within reach."""

import pytest

from tests.browser.chromium import LARGE, PHONE, SMALLEST, WIDE, needs_chromium
from tests.browser.console_pages import residents
from tests.browser.town import find_lake_proposal

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

ENTRIES = {
    "ana": ["Overview", "Divergences", "Incidents", "Reports", "Ledger", "Settings"],
    "rita": ["Overview", "Review", "Settings"],
}
OUTSIDE = """
Array.from(document.querySelectorAll('.nav a, .btn-stop')).filter(part => {
  const box = part.getBoundingClientRect();
  return box.left < 0 || box.right > innerWidth || !part.checkVisibility();
}).map(part => part.innerText)
"""
IN_SIGHT = """
(() => {
  const at = document.activeElement, box = at.getBoundingClientRect();
  const seen = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  const isEntry = at.matches('.nav a, .menu, .btn-stop');
  return [isEntry ? at.innerText.split(/\\s/)[0] : '', at.contains(seen)];
})()
"""
COVERED = """
(() => {
  const box = document.activeElement.getBoundingClientRect();
  return box.bottom > document.querySelector('.stick-acts').getBoundingClientRect().top;
})()
"""
BAR = "document.querySelector('.bar').getBoundingClientRect()"
END = "scrollTo(0, document.body.scrollHeight)"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    with residents(tmp_path_factory.mktemp("town")) as made:
        yield made


def looked(seen, name="ana", **how):
    window = seen(name, **how)
    window.page.goto(f"{window.address}/console/settings")
    return window.page


def opened(seen, path, *, width=PHONE):
    window = seen("ana", width=width)
    window.page.goto(f"{window.address}/console{path}")
    return window.page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, SMALLEST])
def test_the_menu_shows_every_entry_without_scrolling_sideways(seen, width, scheme):
    page = looked(seen, width=width, scheme=scheme)
    assert not page.locator(".nav a").first.is_visible()
    page.click(".menu")
    assert page.evaluate(OUTSIDE) == []
    page.evaluate(LARGE)
    assert page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("name", ENTRIES)
def test_the_tab_key_comes_to_each_entry_where_it_can_be_seen(seen, name):
    page = looked(seen, name, width=PHONE, script=False)
    reached = []
    for _ in range(len(ENTRIES[name]) + 6):  # to the content, name, menu, search, sign out, Stop
        page.keyboard.press("Tab")
        reached.append(page.evaluate(IN_SIGHT))
        if reached[-1][0] == "Menu":
            page.keyboard.press("Enter")
    assert all(shown for _, shown in reached), reached
    expected = ["Menu", *ENTRIES[name], *(["Stop…"] if name == "ana" else [])]
    assert [entry for entry, _ in reached if entry] == expected
    page.keyboard.press("Escape")
    assert not page.locator(".nav a").first.is_visible()


@pytest.mark.parametrize("name", ENTRIES)
def test_the_header_is_one_row_that_stays_in_sight(seen, name):
    page = looked(seen, name, width=PHONE)
    page.evaluate(END)
    assert page.evaluate("scrollY") > 0
    assert page.evaluate(f"{BAR}.top") == 0
    assert page.evaluate(f"{BAR}.height") < 60
    assert page.locator(".menu").is_visible()
    assert page.locator(".btn-stop").is_visible() == (name == "ana")


def test_a_key_leads_to_the_search_but_not_from_a_field_nor_once_keys_are_off(seen):
    proposal = find_lake_proposal(seen.town)
    page = opened(seen, f"/rollouts/bears/proposals/{proposal.id}")
    page.focus("#reason")
    page.keyboard.type("a/b")
    assert page.input_value("#reason") == "a/b"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type("creek/")
    assert page.input_value("#search") == "creek/"
    opened(seen, "/settings")
    page.check("input[name=keys][value=off]")
    page.click("#single-keys ~ form button")
    page.keyboard.press("/")
    assert not page.locator("#search").is_visible()
    page.check("input[name=keys][value=on]")
    page.click("#single-keys ~ form button")


def test_the_search_needs_no_script(seen):
    page = looked(seen, width=PHONE, script=False)
    page.click(".menu")
    page.fill("#search", "creek")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.inner_text("h1") == "2 pages found"


def test_a_quiet_cell_is_one_line_until_it_is_opened(seen):
    page = opened(seen, "/rollouts/bears")
    quiet, loud = page.locator("tr.quiet"), page.locator(".against").locator("xpath=..")
    assert 0 < quiet.count() < loud.count()
    assert quiet.first.bounding_box()["height"] < 50
    assert [row.locator(".sayings").is_visible() for row in quiet.all()] == [False] * quiet.count()
    told = page.locator("tr:not(.quiet) > .sayings")
    assert all(saying.is_visible() for saying in told.all())
    quiet.first.locator("summary").click()
    assert quiet.first.locator(".sayings").is_visible()
    assert quiet.first.locator(".stage-name").is_visible()


def test_a_wide_window_folds_nothing(seen):
    page = opened(seen, "/rollouts/bears", width=WIDE)
    assert all(saying.is_visible() for saying in page.locator("tr.quiet > .sayings").all())
    assert all(part.is_visible() for part in page.locator(".folded").all())
    assert not any(part.is_visible() for part in page.locator(".fold, .menu").all())


def test_the_buttons_of_a_decision_stay_in_sight_and_ask_for_the_reason(seen):
    proposal = find_lake_proposal(seen.town)
    page = opened(seen, f"/rollouts/bears/proposals/{proposal.id}")
    button = page.get_by_role("button", name="Approve proposal")
    for place in ("scrollTo(0, 0)", END):
        page.evaluate(place)
        box = button.bounding_box()
        assert 0 < box["y"] < page.viewport_size["height"] - 40
    page.evaluate("scrollTo(0, 0)")
    button.click()
    assert page.evaluate("document.activeElement.id") == "reason"
    assert page.evaluate(COVERED) is False
