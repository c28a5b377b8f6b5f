"""Review in a real Chromium: by keyboard alone, by touch, without script, and with a slow hand."""

from contextlib import contextmanager
from unittest import mock

import pytest

from api.app import create_app
from rollout.data.database.session import Database
from tests.browser.chromium import HEIGHT, PHONE, SMALLEST, WIDE, needs_chromium
from tests.browser.console_pages import windows
from tests.browser.looks import each_look, find_violations
from tests.browser.pictures import picture
from tests.browser.town import served
from tests.console.reading_room import ADJUDICATION, PICTURE, REVIEW, ReadingRoom, verdicts
from tests.console.reviews.test_review_pages import sent_in
from tests.console.reviews.test_set_reviews import SETS
from tests.data.databases import fresh
from tests.features.review_room import ANA, BO, MINUTE, policy_text

pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

SEEN = 350  # ms after which a key counts
CASES = 24
TYPED = "bfnuz?. b"
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LARGE = "document.documentElement.style.fontSize = '200%'"
RING = "getComputedStyle(document.activeElement).outlineStyle"
OPENED = "document.querySelectorAll('details').forEach(part => part.open = true)"
ACTION = "document.querySelector('#decision')?.getAttribute('action') ?? ''"
NEXT = f"before => document.readyState === 'complete' && ({ACTION}) !== before"
FOCUSED = "document.activeElement.localName"
HEIGHTS = """
Array.from(document.querySelectorAll('button, .btn, summary, .judge-link')).map(part => [
  part.textContent.trim(), part.getBoundingClientRect().height])
"""
SHOWN = """
(() => {
  const style = getComputedStyle(document.querySelector('.judge-photos img'));
  return [style.zoom, style.filter, style.maxWidth === 'none'];
})()
"""
HASTY = """
document.addEventListener('DOMContentLoaded', () => document.body.dispatchEvent(
  new KeyboardEvent('keydown', {key: 'b', bubbles: true})))
"""


@contextmanager
def served_hall(folder, **more):
    """Serve a hall of its own; its clock stands still."""
    with (
        mock.patch("api.limits.ANONYMOUS_BURST", 1e9),
        fresh("sqlite", folder) as url,
    ):
        database = Database(url)
        hall = ReadingRoom(database, **more)
        try:
            with served(create_app(hall.service)) as address:
                hall.address = address
                yield hall
        finally:
            database.close()


@pytest.fixture
def hall(tmp_path):
    with served_hall(tmp_path) as made:
        yield made


@pytest.fixture
def opened(browser, hall):
    with windows(browser, hall.address) as made:
        yield made


def fill(hall, count=CASES):
    hall.room.arrive(*(f"case-{n}" for n in range(count)))
    hall.later(5 * MINUTE)


def reviewing(opened, name="rita", **how):
    window = opened(**how).as_(name)
    return window, window.open(REVIEW)


def press(page, key):
    """Press a key that leads on, once the case has been on the screen for a moment."""
    page.wait_for_timeout(SEEN)
    with leading_on(page):
        page.keyboard.press(key)


@contextmanager
def leading_on(page):
    """Wait for the page of the next case."""
    before = form_of(page)
    yield
    page.wait_for_function(NEXT, arg=before)


def form_of(page):
    return page.evaluate(ACTION)


def test_twenty_cases_are_judged_by_keyboard_alone(hall, opened):
    fill(hall)
    window, page = reviewing(opened)
    pressed = []
    for number in range(20):
        if number == 5:  # a note: its letters judge nothing
            before = form_of(page)
            page.keyboard.press(".")
            assert page.evaluate(FOCUSED) == "textarea"
            page.keyboard.type(TYPED)
            page.keyboard.press("Escape")
            assert (form_of(page), page.input_value("#note")) == (before, TYPED)
        if number == 10:  # the last was wrong
            press(page, "z")
            assert "You answered bear" in page.inner_text("main")
            press(page, "f")
            pressed[-1] = "f"
        key = {7: "u", 9: "b", 13: "n"}.get(number, "b" if number % 2 else "f")
        press(page, key)
        pressed.append(key)
        assert page.evaluate(FOCUSED) == "body"
        assert page.evaluate("scrollY") == 0
    assert "20 done, 4 to go" in page.inner_text(".judge-top")
    said = sorted(verdicts(hall, "rita").values(), key=lambda one: one.review)
    words = [one.answers.get("alarm", "unsure") for one in said]
    assert sorted(words) == sorted(
        {"b": "bear", "f": "fox", "n": "none", "u": "unsure"}[k] for k in pressed
    )
    assert [one.note for one in said if one.note] == [TYPED]
    assert sorted(one.revision for one in said)[-2:] == [1, 2]
    assert window.heard == []


def test_no_chord_no_space_no_enter_and_no_haste_judges_anything(hall, opened):
    fill(hall)
    window, page = reviewing(opened)
    page.wait_for_timeout(SEEN)
    before = form_of(page)
    for key in ("Control+b", "Alt+Shift+b", "Meta+b", "Space", "Enter", "x"):
        page.keyboard.press(key)
    page.keyboard.press("?")
    assert page.is_visible("text=Switch single keys off")
    page.wait_for_timeout(SEEN)
    assert (form_of(page), verdicts(hall, "rita")) == (before, {})
    window.context.add_init_script(HASTY)
    page.reload()
    page.wait_for_timeout(SEEN)
    assert (form_of(page), verdicts(hall, "rita")) == (before, {})


def test_a_key_that_is_held_down_judges_one_case(hall, opened):
    fill(hall)
    _, page = reviewing(opened)
    page.wait_for_timeout(SEEN)
    with leading_on(page):
        page.keyboard.down("b")
    page.wait_for_timeout(SEEN)
    page.keyboard.down("b")  # as a keyboard repeats it
    page.wait_for_timeout(SEEN)
    page.keyboard.up("b")
    assert len(verdicts(hall, "rita")) == 1


def test_single_keys_are_switched_off_from_the_keyboard(hall, opened):
    fill(hall)
    _, page = reviewing(opened)
    page.keyboard.press("?")
    with page.expect_navigation():
        page.focus("text=Switch single keys off")
        page.keyboard.press("Enter")
    page.wait_for_timeout(SEEN)
    page.keyboard.press("b")
    page.wait_for_timeout(SEEN)
    assert verdicts(hall, "rita") == {}
    assert "Single keys are off" in page.text_content("main")


def test_without_script_everything_works_by_touch_and_in_two_tabs(hall, opened):
    fill(hall)
    window, page = reviewing(opened, width=PHONE, script=False)
    small = [said for said in page.evaluate(HEIGHTS) if 0 < said[1] < 44]
    assert small == []
    first = form_of(page)
    second = window.context.new_page()  # the same case in another tab
    second.goto(page.url)
    page.click("summary:has-text('Add a note')")
    page.fill("#note", "brown")
    page.click("button:has-text('Bear')")
    assert "1 done" in page.inner_text(".judge-top")
    page.go_back()
    page.goto(f"{hall.address}/console{REVIEW}")
    assert (form_of(second), form_of(page) == first) == (first, False)
    second.click("button:has-text('Fox')")
    page = second
    assert "You already answered that case" in page.inner_text("main")
    page.click("a:has-text('Undo last: bear')")
    assert form_of(page) == first
    page.click("button:has-text('Unsure')")
    (said,) = verdicts(hall, "rita").values()
    assert (said.unsure, said.note, said.revision) == (True, "brown", 2)
    page.click("button:has-text('Leave')")
    assert page.url == f"{hall.address}/console/"


def test_the_same_letters_are_access_keys_without_script(hall, opened):
    fill(hall)
    window, page = reviewing(opened, script=False)
    alt_f = {"modifiers": 1, "key": "f", "code": "KeyF", "text": "f", "unmodifiedText": "f"}
    keyboard = window.context.new_cdp_session(page)  # Playwright's own sends no text with Alt
    with page.expect_navigation(timeout=5_000):
        keyboard.send("Input.dispatchKeyEvent", {"type": "keyDown", **alt_f})
    assert [one.answers for one in verdicts(hall, "rita").values()] == [{"alarm": "fox"}]


def shown(page):
    """Return zoom, filter and step of each tool, as the picture has them."""
    return page.evaluate(SHOWN)


@pytest.mark.parametrize("script", [True, False])
def test_a_picture_is_enlarged_brightened_and_inverted(hall, opened, script):
    sent_in(hall, "case-1", {"still": picture(1, bear=True)})
    window, page = reviewing(opened, width=PHONE, script=script)
    assert shown(page) == ["1", "brightness(1) contrast(1) invert(0)", False]
    page.click("summary:has-text('Zoom')")
    for step in ("zoom-4", "light-2", "contrast-1", "invert"):
        page.check(f"#{step}")
    assert shown(page) == ["4", "brightness(2.5) contrast(1.5) invert(1)", True]
    if script:
        assert looked(page) == []
    assert page.evaluate(TOO_WIDE) <= 0  # the picture scrolls, not the page
    page.focus("#zoom-4")
    page.keyboard.press("Enter")  # a form of nothing: it is not sent
    page.click("text=Reset picture")
    assert shown(page) == ["1", "brightness(1) contrast(1) invert(0)", False]
    page.click("button:has-text('Bear')")
    assert len(verdicts(hall, "rita")) == 1
    assert window.heard == []


def test_keys_step_through_the_tools_and_do_nothing_in_a_field_or_once_off(hall, opened):
    sent_in(hall, "case-1", {"still": picture(1, bear=True)})
    _, page = reviewing(opened)
    for key in "+++++-)>":
        page.keyboard.press(key)
    assert shown(page) == ["2", "brightness(1.6) contrast(1.5) invert(0)", True]
    page.keyboard.press("!")
    page.keyboard.press(".")
    page.keyboard.type("+-<>()!")
    assert page.input_value("#note") == "+-<>()!"
    assert shown(page) == ["2", "brightness(1.6) contrast(1.5) invert(1)", True]
    page.click("summary:has-text('Keys')")
    page.click("text=Switch single keys off")
    for key in "+)>!":
        page.keyboard.press(key)
    assert shown(page) == ["1", "brightness(1) contrast(1) invert(0)", False]


def test_answers_stay_in_sight_below_a_long_case(hall, opened):
    sent_in(hall, "case-1", {"still": picture(1, bear=True)}, {f"a{n}": "x" for n in range(40)})
    _, page = reviewing(opened, width=PHONE)
    page.evaluate("scrollTo(0, 0)")
    box = page.locator("button:has-text('Unsure')").bounding_box()
    assert box["y"] + box["height"] <= page.viewport_size["height"]


def test_two_questions_are_answered_by_keys_and_enter(browser, tmp_path):
    second = "  - {id: flock, labels: [one, many], actions: {one: log, many: log2}}\nsites:"
    text = policy_text().replace("sites:", second, 1)
    with served_hall(tmp_path, text=text) as hall, windows(browser, hall.address) as opened:
        fill(hall, 2)
        _, page = reviewing(opened)
        page.wait_for_timeout(SEEN)
        page.keyboard.press("f")
        page.keyboard.press("m")
        with leading_on(page):
            page.keyboard.press("Enter")
        (said,) = verdicts(hall, "rita").values()
        assert said.answers == {"alarm": "fox", "flock": "many"}


@pytest.mark.parametrize("script", [True, False])
def test_labels_of_a_set_are_switched_by_keys_or_touch_and_saved(browser, tmp_path, script):
    with served_hall(tmp_path, text=SETS) as hall, windows(browser, hall.address) as opened:
        fill(hall, 1)
        window, page = reviewing(opened, script=script)
        if script:
            page.wait_for_timeout(SEEN)
            for key in "bfwf":  # the fox is switched on, then off
                page.keyboard.press(key)
            assert looked(page) == []
        else:
            for label in ("bear", "wolf-pack"):
                page.check(f'input[value="{label}"]')
        with page.expect_navigation():
            if script:
                page.keyboard.press("Enter")
            else:
                page.click("text=Save answer")
        (said,) = verdicts(hall, "rita").values()
        assert said.answers == {"alarm": "bear;wolf-pack"}
        assert window.heard == []


def looked(page):
    page.evaluate(OPENED)
    return find_violations(page)


def looked_at(page):
    """Return what is wrong with a page in each look, and leave it wide."""
    found = {look: looked(page) for look in each_look(page)}
    page.set_viewport_size({"width": WIDE, "height": HEIGHT})
    return found


def test_an_accessibility_checker_finds_nothing_in_any_look(browser, tmp_path):
    with (
        served_hall(tmp_path, second="100%") as hall,
        windows(browser, hall.address) as opened,
    ):
        hall.room.arrive("case-1", "case-2")
        for who, label in ((ANA, "bear"), (BO, "fox")):
            hall.room.done(who, label)
        sent_in(hall, "case-3", {"still": PICTURE})
        window, page = reviewing(opened)
        seen = {"live": looked_at(page)}
        press(page, "b")
        press(page, "z")
        seen["again"] = looked_at(page)
        for path in ("/review", ADJUDICATION, f"{ADJUDICATION}/next"):
            seen[path] = looked_at(window.open(path))
            page.set_viewport_size({"width": SMALLEST, "height": 700})
            assert page.evaluate(TOO_WIDE) <= 0, path
            page.set_viewport_size({"width": WIDE, "height": HEIGHT})
            page.evaluate(LARGE)
            assert page.evaluate(TOO_WIDE) <= 0, path
        operator = opened().as_("ona")
        seen["list"] = looked_at(operator.open(ADJUDICATION))
        assert {where: said for where, said in seen.items() if any(said.values())} == {}
        assert window.heard == operator.heard == []


def test_the_tab_key_reaches_everything_in_reading_order_and_shows_where_it_is(hall, opened):
    fill(hall)
    _, page = reviewing(opened)
    press(page, "b")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate(FOCUSED) == "body":
            break
        assert page.evaluate(RING) == "solid"
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    words = [
        "Go to",
        "Leave",
        "B Bear",
        "F Fox",
        "N None",
        "U Unsure",
        "Z Undo",
        "Add",
        "Keys",
    ]
    assert [said[: len(word)] for said, word in zip(reached, words, strict=True)] == words
