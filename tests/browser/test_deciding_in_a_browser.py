"""Approve, stop, narrow and resume in a real Chromium: with and without scripts, on any screen."""

import pytest

from tests.browser.console_pages import (
    PHONE,
    SMALLEST,
    WIDE,
    chromium,
    needs_chromium,
    served_town,
    windows,
)
from tests.browser.test_console_pages import LARGE, OPENED, SMALL_TARGETS, TOO_WIDE
from tests.browser.town import ODD

axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright",
    reason="axe-core is not installed; it comes with the extra dev",
)
pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

BEARS = "/rollouts/bears"
PATHS = {
    "a proposal": f"{BEARS}/proposals/P-1",
    "proposals": f"{BEARS}/proposals",
    "several approved": f"{BEARS}/approvals?p=P-1.ab",
    "stop, step 1": f"{BEARS}/stop",
    "stop, step 2": f"{BEARS}/stop/confirm?reach=all&reason=smoke&drill=yes",
    "stop, refused": f"{BEARS}/stop/confirm?reach=nothing",
    "no stop": f"{BEARS}/stop/done",
    "stops": f"{BEARS}/stops",
    "narrow, step 1": f"{BEARS}/narrow",
    "narrow, step 2": f"{BEARS}/narrow/confirm?reach=all&to=shadow",
    "narrowed": f"{BEARS}/narrow/done",
}
WAITED = 2_500  # ms: a change shows within two seconds


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def quiet(browser, tmp_path_factory):
    """Return a town that nobody changes, and windows of ana's by width and scheme."""
    with (
        served_town(tmp_path_factory.mktemp("quiet"), 30) as made,
        windows(browser, made.address) as opened,
    ):
        kept = {}

        def of(width=WIDE, scheme="light"):
            if (width, scheme) not in kept:
                kept[width, scheme] = opened(width=width, scheme=scheme).as_("ana")
            kept[width, scheme].heard.clear()
            return kept[width, scheme]

        yield of


@pytest.fixture
def town(browser, tmp_path):
    with served_town(tmp_path, 30) as made, windows(browser, made.address) as opened:
        made.opened = opened
        yield made


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_an_accessibility_checker_finds_nothing_and_nothing_scrolls_sideways(quiet, path):
    for width, scheme in ((WIDE, "light"), (WIDE, "dark"), (PHONE, "light"), (PHONE, "dark")):
        window = quiet(width, scheme)
        page = window.open(path)
        page.evaluate(OPENED)
        found = axe.Axe().run(page).response["violations"]
        said = [(v["id"], v["nodes"][0]["html"][:160]) for v in found]
        assert said == [], (width, scheme)
        assert [text for text in window.heard if "422" not in text] == []
        assert page.evaluate(SMALL_TARGETS) == []
    page = quiet(SMALLEST).open(path)
    assert page.evaluate(TOO_WIDE) <= 0
    page = quiet().open(path)
    page.evaluate(LARGE)
    assert page.evaluate(TOO_WIDE) <= 0


def test_two_people_approve_without_scripts_in_two_browsers_and_a_third_sees_it(town):
    vic = town.opened().as_("vic")
    watched = vic.open(f"{BEARS}/proposals/P-1")
    for name in ("ana", "bo"):
        page = town.opened(script=False).as_(name).open(f"{BEARS}/proposals/P-1")
        page.fill("#reason", f"{name} looked")
        page.click("button:has-text('Approve')")
        assert f"{name} looked" in page.inner_text("aside")
    watched.wait_for_selector("#changed:not([hidden])", timeout=WAITED)
    watched.click("#changed a")
    assert "All approvals are there" in watched.inner_text(".lede")
    town.hours(1)
    applied = vic.open(f"{BEARS}/proposals/P-1")
    assert "It was approved and holds since then" in applied.inner_text(".lede")


def test_typed_text_and_focus_survive_what_others_do_meanwhile(town):
    page = town.opened().as_("ana").open(f"{BEARS}/proposals/P-1")
    page.fill("#reason", "I am still wri")
    other = town.opened(script=False).as_("bo").open(f"{BEARS}/proposals/P-1")
    other.fill("#reason", "no")
    other.click("button:has-text('Reject')")
    page.wait_for_selector("#changed:not([hidden])", timeout=WAITED)
    assert page.input_value("#reason") == "I am still wri"
    assert page.evaluate("document.activeElement.id") == "reason"
    page.click("button:has-text('Approve')")
    assert "bo rejected it" in page.inner_text("aside")
    assert "You had written: “I am still wri”" in page.inner_text("aside")


def test_a_site_of_an_odd_name_is_stopped_without_scripts_by_keyboard_and_resumed(town):
    window = town.opened(script=False, width=PHONE).as_("ana")
    page = window.open("/")
    page.focus("text=Stop…")
    page.keyboard.press("Enter")
    page.wait_for_selector("#reach")
    page.select_option("#reach", label=ODD)
    page.fill("#reason", "smoke")
    page.focus("text=Go on to confirm")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Stop now")
    assert ODD in page.inner_text("h1")
    page.focus("text=Stop now")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Stopped: people decide")
    assert "“smoke”" in page.inner_text("main")
    assert "broken in" not in page.title()
    page.click("text=Ask for a resume")
    assert page.inner_text("h1").startswith("Resume after stop S-")
    assert "ana raised" in page.inner_text("aside")
    assert window.heard == []


def test_several_are_approved_at_once_by_their_boxes(town):
    page = town.opened(script=False).as_("ana").open(f"{BEARS}/proposals")
    boxes = page.locator("input[type=checkbox]")
    count = boxes.count()
    assert count > 1
    for number in range(count):
        boxes.nth(number).check()
    page.fill("#reason", "all seen")
    page.click("text=Approve those ticked")
    assert page.inner_text("h1") == f"{count} approved"
