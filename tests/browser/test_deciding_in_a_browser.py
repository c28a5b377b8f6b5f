"""Approve, stop, narrow and resume in a real Chromium: with and without scripts, on any screen."""

import pytest

from tests.browser.chromium import PHONE, needs_chromium
from tests.browser.console_pages import served_town, windows
from tests.browser.town import ODD

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

BEARS = "/rollouts/bears"
WAITED = 2_500  # ms: a change shows within two seconds


@pytest.fixture
def town(browser, tmp_path):
    with served_town(tmp_path, 30) as made, windows(browser, made.address) as opened:
        made.opened = opened
        yield made


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
    assert "All approvals are given" in watched.inner_text(".lede")
    town.hours(1)
    applied = vic.open(f"{BEARS}/proposals/P-1")
    assert "It was approved and applied" in applied.inner_text(".lede")


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
    page.wait_for_selector("#target")
    page.select_option("#target", label=ODD)
    page.fill("#reason", "smoke")
    page.focus("text=Continue")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Stop now")
    assert ODD in page.inner_text("h1")
    page.focus("text=Stop now")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Stopped: humans decide")
    assert "“smoke”" in page.inner_text("main")
    assert "broken in" not in page.title()
    page.click("text=Request resume")
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
    page.click("text=Approve selected")
    assert page.inner_text("h1") == f"{count} approved"
