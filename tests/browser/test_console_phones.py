"""The console's header on a phone: every entry in sight, and Stop wherever one has scrolled to."""

import pytest

from tests.browser.chromium import LARGE, PHONE, SMALLEST, needs_chromium
from tests.browser.console_pages import residents

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

ENTRIES = {
    "ana": ["Overview", "Divergences", "Incidents", "Reports", "Ledger", "Settings", "Stop…"],
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
  return [at.matches('.nav a, .btn-stop') ? at.innerText.split(/\\s/)[0] : '', at.contains(seen)];
})()
"""
OWN_ROW = "document.querySelector('.bar-own').getBoundingClientRect()"
END = "scrollTo(0, document.body.scrollHeight)"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    with residents(tmp_path_factory.mktemp("town")) as made:
        yield made


def looked(seen, name="ana", **how):
    window = seen(name, **how)
    window.page.goto(f"{window.address}/console/settings")
    return window.page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, SMALLEST])
def test_every_entry_is_in_sight_without_scrolling_sideways(seen, width, scheme):
    page = looked(seen, width=width, scheme=scheme)
    assert page.evaluate(OUTSIDE) == []
    page.evaluate(LARGE)
    assert page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("name", ENTRIES)
def test_the_tab_key_comes_to_each_entry_where_it_can_be_seen(seen, name):
    page = looked(seen, name, width=PHONE, script=False)
    reached = []
    for _ in range(len(ENTRIES[name]) + 3):  # the way to the content, the name, signing out
        page.keyboard.press("Tab")
        reached.append(page.evaluate(IN_SIGHT))
    assert all(shown for _, shown in reached), reached
    assert [entry for entry, _ in reached if entry] == ENTRIES[name]


def test_stop_stays_in_sight_and_little_else_does(seen):
    page = looked(seen, width=PHONE)
    page.evaluate(END)
    assert page.evaluate("scrollY") > 0
    assert page.evaluate(f"{OWN_ROW}.top") == 0
    assert page.evaluate(f"{OWN_ROW}.height") < 60
    assert page.locator(".bar-own .btn-stop").is_visible()
    assert page.locator(".nav").bounding_box()["y"] < -40
