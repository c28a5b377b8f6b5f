"""Every page of the console as people meet it: in a real Chromium, under the real policy.

The checks of console.md §10: axe-core without violation, no sideways scroll, 200 % text, a ring
wherever the focus is, targets large enough, and not one message of the browser.
"""

import re

import pytest

from tests.browser.chromium import (
    HEIGHT,
    LARGE,
    OPENED,
    SMALLEST,
    TOO_WIDE,
    WIDE,
    needs_chromium,
)
from tests.browser.console_pages import residents
from tests.browser.looks import each_look, find_violations

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

R = "/rollouts/bears"
PAGES = {
    "sign in": ("", "/sign-in"),
    "set a password": ("", "/set-password?token=abc"),
    "overview": ("ana", "/"),
    "overview of an admin": ("ada", "/"),
    "no such page": ("vic", "/nowhere"),
    "glossary": ("vic", "/glossary"),
    "rollout": ("ana", R),
    "rollout as it was": ("ana", f"{R}?at=2027-06-14T12:30"),
    "cell": ("ana", f"{R}/cells/creek/day"),
    "proposals": ("ana", f"{R}/proposals"),
    "proposal": ("ana", f"{R}/proposals/P-6"),
    "proposal that is closed": ("vic", f"{R}/proposals/P-2"),
    "stop, choose a rollout": ("ana", "/stop"),
    "stop, step 1": ("ana", f"{R}/stop"),
    "stop, step 2": ("ana", f"{R}/stop/confirm?target=all&reason=smoke"),
    "stops": ("ana", f"{R}/stops"),
    "narrow, step 1": ("ana", f"{R}/narrow"),
    "review": ("rita", f"{R}/review"),
    "adjudication": ("rita", f"{R}/adjudication"),
    "divergences": ("ana", f"{R}/divergences"),
    "cases": ("ana", f"{R}/cases"),
    "case": ("ana", f"{R}/cases/creek-0206"),
    "incidents": ("ana", "/incidents"),
    "incident": ("ana", f"{R}/incidents/I-1"),
    "reports": ("vic", "/reports"),
    "report": ("vic", f"{R}/reports/1/about"),
    "ledgers": ("vic", "/ledger"),
    "ledger": ("vic", f"{R}/ledger"),
    "access ledger": ("ada", "/ledger/access"),
    "settings": ("ana", "/settings"),
    "keys": ("ana", "/settings/keys"),
    "users": ("ada", "/settings/users"),
    "user": ("ada", "/settings/users/bo"),
    "reviewers": ("ada", "/settings/reviewers"),
    "policy": ("ada", f"{R}/settings"),
    "deliveries": ("ada", f"{R}/settings/deliveries"),
    "new": ("ada", "/new"),
    "cause": ("ana", f"{R}/cause?site=creek&window=day&version=v1"),
    "what if": ("ana", f"{R}/settings/what-if"),
    "uploaded files": ("ana", "/files"),
    "search": ("ana", "/search?q=creek"),
}
"""Who looks at what; "" is nobody. Each has its picture in docs/images/console."""
ANSWERS = {
    "several approved": ("ana", f"{R}/approvals?p=P-6.ab"),
    "stop, refused": ("ana", f"{R}/stop/confirm?target=nothing"),
    "no stop": ("ana", f"{R}/stop/done"),
    "narrow, step 2": ("ana", f"{R}/narrow/confirm?target=all&to=shadow"),
    "narrowed": ("ana", f"{R}/narrow/done"),
    "second factor": ("ana", "/settings/second-factor"),
    "notifications": ("ana", "/settings/notifications"),
    "erasures": ("ada", "/settings/erasures"),
    "planted cases": ("ada", f"{R}/settings/planted-cases"),
    "review plan": ("ana", f"{R}/review-plan"),
}
"""What forms lead to, without a picture."""
REACHED = """
(() => {
  const at = document.activeElement;
  if (at === null || at === document.body) return null;
  const style = getComputedStyle(at);
  return [at.outerHTML.slice(0, 100), style.outlineStyle, parseFloat(style.outlineWidth)];
})()
"""
SMALL_TARGETS = """
Array.from(document.querySelectorAll('button, .btn, input, select, summary')).filter(part => {
  const box = part.getBoundingClientRect();
  const least = part.matches('.btn') ? 32 : 24;
  return box.width && part.type !== 'hidden' && box.height < least
    && !part.matches('.hidden-words, .as-link, input[type=checkbox], input[type=radio]')
}).map(part => part.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    with residents(tmp_path_factory.mktemp("town")) as made:
        yield made


def looked(seen, page, width=WIDE, scheme="light"):
    name, path = (PAGES | ANSWERS)[page]
    window = seen(name, width=width, scheme=scheme)
    window.heard.clear()
    window.page.goto(f"{window.address}/console{path}")
    window.page.evaluate(OPENED)
    return window


@pytest.mark.parametrize("page", PAGES | ANSWERS)
def test_everybody_can_use_a_page_in_any_look_and_the_browser_says_nothing(seen, page):
    window = looked(seen, page)
    for look in each_look(window.page):
        assert window.page.evaluate(SMALL_TARGETS) == [], look
        assert find_violations(window.page) == [], look
        assert [text for text in window.heard if not re.search("404|422", text)] == []
        assert "broken in" not in window.page.title()
    fits_the_smallest_phone_and_letters_twice_as_large(window.page)
    shows_a_ring_around_all_that_the_tab_key_reaches(window.page)


def fits_the_smallest_phone_and_letters_twice_as_large(page):
    """See that nothing scrolls sideways: style sheets alone know of the size."""
    for width, letters in ((SMALLEST, ""), (WIDE, LARGE), (WIDE, LARGE.replace("200%", ""))):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        page.evaluate(letters or "0")
        assert page.evaluate(TOO_WIDE) <= 0, (width, letters)


def shows_a_ring_around_all_that_the_tab_key_reaches(page):
    """See the focus go through the whole page."""
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        at = page.evaluate(REACHED)
        if at is None or at[0] in reached:
            break
        reached.add(at[0])
        assert (at[1], at[2] >= 2) == ("solid", True), at
    assert reached
