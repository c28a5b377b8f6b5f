"""Drawings in Chromium: no text over another, over the line of now, or outside its drawing."""

import pytest

from tests.browser.chromium import WIDE, needs_chromium
from tests.browser.console_pages import residents
from tests.browser.test_console_pages import PAGES

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

DRAWN = ("overview", "rollout", "rollout as it was", "cell", "proposal", "incident")
PHONE = 390
COLLISIONS = """
() => Array.from(document.querySelectorAll('svg.chart, svg.map')).flatMap(svg => {
  const seen = part => part.checkVisibility() && part.getBoundingClientRect().width > 0;
  const all = css => Array.from(svg.querySelectorAll(css));
  const boxes = all('text').filter(text => text.textContent && seen(text))
    .map(text => [text.textContent, text.getBoundingClientRect()]);
  const lines = all('.g-now').map(line => line.getBoundingClientRect());
  const room = svg.getBoundingClientRect();
  const meet = (one, other) =>
    Math.min(one.right, other.right) - Math.max(one.left, other.left) > .5
    && Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 1.5;
  const crosses = (box, line) => line.left > box.left && line.left < box.right
    && line.top < box.bottom && line.bottom > box.top;
  return boxes.flatMap(([text, box], at) => [
    ...boxes.slice(at + 1).filter(([_, other]) => meet(box, other)).map(([other]) => [text, other]),
    ...lines.filter(line => crosses(box, line)).map(() => [text, 'now']),
    ...(box.left < room.left - 1 || box.right > room.right + 1 || box.bottom > room.bottom + 4
        ? [[text, 'outside']] : []),
  ]);
})
"""
TEXTS = "document.querySelectorAll('svg.chart text, svg.map text').length"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    with residents(tmp_path_factory.mktemp("town"), odd=False) as made:
        yield made


@pytest.mark.parametrize("page", DRAWN)
@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_each_text_of_a_drawing_can_be_read(seen, page, width):
    name, path = PAGES[page]
    window = seen(name, width=width)
    window.page.goto(f"{window.address}/console{path}")
    assert window.page.evaluate(TEXTS) > 0
    assert window.page.evaluate(COLLISIONS) == []


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_the_signs_of_a_timeline_are_explained_beside_it(seen, width):
    name, path = PAGES["incident"]
    window = seen(name, width=width)
    window.page.goto(f"{window.address}/console{path}")
    key = window.page.locator("ul[aria-label='Signs of the timeline']")
    assert key.is_visible()
    words = key.inner_text()
    for sign in ("Humans alone", "v1: one ", "Gate 7", "Guard 60", "Narrowing, stop or lapse"):
        assert sign in words
