"""Cases held ahead in a real Chromium: the next at once, and an answer that does not arrive."""

import pytest

from rollout.services.reviews import reviews
from tests.browser.chromium import PHONE, needs_chromium
from tests.browser.test_review_in_a_browser import (
    GIF,
    SEEN,
    await_pictures,
    browser,
    fill,
    form_of,
    hall,
    looked,
    opened,
    press,
)
from tests.console.reading_room import verdicts
from tests.console.test_review_pages import sent_in
from tests.services.houses import PASSWORD
from tests.services.review_room import DAN, MINUTE

__all__ = ["browser", "hall", "opened"]
pytestmark = [needs_chromium, pytest.mark.enable_socket]  # a server on this machine is looked at

AHEAD = "**/review-ahead"
MARK = "window.marked = true"
SAVED = "#review-saved:text-is('Saved')"
REFUSED = "#review-refused p"


def holding(opened, count=3, **how):
    """Return a page once its script holds cases."""
    window = opened(**how).as_("rita")
    with window.page.expect_response(AHEAD) as answer:
        page = window.open("/rollouts/bears/review")
    assert len(answer.value.json()["held"]) == count
    page.wait_for_timeout(SEEN)
    page.evaluate(MARK)
    return window, page


def test_the_next_case_appears_before_its_answer_is_stored(hall, opened):
    fill(hall)
    window, page = holding(opened)
    waiting = []  # requests that are kept until this no longer looks at them
    window.context.route(AHEAD, lambda route: waiting.append(route) or None)
    first = form_of(page)
    page.keyboard.press(".")
    page.keyboard.type("brown")
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    second = form_of(page)
    assert second not in {"", first}
    assert (page.input_value("#note"), page.inner_text("#review-saved")) == ("", "Sending…")
    page.wait_for_timeout(SEEN)
    page.keyboard.press("f")  # a second one, while the first is on its way
    third = form_of(page)
    assert len({first, second, third}) == 3
    assert verdicts(hall, "rita") == {}
    window.context.unroute(AHEAD)
    page.wait_for_selector("#review-progress:has-text('2 done')")
    page.wait_for_selector(SAVED)
    said = sorted(verdicts(hall, "rita").values(), key=lambda one: one.review)
    assert sorted(one.answers["alarm"] for one in said) == ["bear", "fox"]
    assert [one.note for one in said if one.note] == ["brown"]
    assert page.evaluate("window.marked")  # all on one page
    assert form_of(page) == third
    assert window.heard == []


def test_a_double_click_answers_one_case(hall, opened):
    """The second click lands on the same button of a case that nobody has seen yet."""
    fill(hall)
    _, page = holding(opened)
    page.dblclick("button:has-text('Bear')")
    page.wait_for_selector(SAVED)
    page.wait_for_timeout(SEEN)
    assert len(verdicts(hall, "rita")) == 1
    page.click("button:has-text('Fox')")
    page.wait_for_selector("#review-progress:has-text('2 done')")


@pytest.mark.parametrize("width", [1280, PHONE])
def test_an_answer_that_was_not_sent_comes_back_in_front_and_leaving_warns(hall, opened, width):
    fill(hall)
    window, page = holding(opened, width=width)
    window.context.route(AHEAD, lambda route: route.abort())
    first = form_of(page)
    page.keyboard.press("b")
    page.wait_for_selector(REFUSED)
    assert form_of(page) == first
    assert "It is not known whether your answer “Bear” is stored. The service could not" in (
        page.inner_text(REFUSED)
    )
    assert page.inner_text("#review-saved") == ""
    assert looked(page) == []
    warned = []
    page.on("dialog", lambda dialog: (warned.append(dialog.type), dialog.dismiss()))
    page.click("text=Leave", no_wait_after=True)
    page.wait_for_timeout(SEEN)
    assert (warned, form_of(page)) == (["beforeunload"], first)
    window.context.unroute(AHEAD)
    page.click("button:has-text('Fox')")
    page.wait_for_selector(SAVED)
    assert page.locator(REFUSED).count() == 0
    assert [one.answers for one in verdicts(hall, "rita").values()] == [{"alarm": "fox"}]
    assert page.evaluate("window.marked")
    page.click("text=Leave")
    assert page.url == f"{hall.address}/console/"
    assert warned == ["beforeunload"]


def test_a_refused_answer_comes_back_with_its_reason_and_can_be_passed(hall, opened):
    fill(hall)
    _, page = holding(opened)
    first = form_of(page)
    reviews.release_reviewer_claims(hall.room.database, DAN, hall.room.stood, "rita")
    page.keyboard.press("b")
    page.wait_for_selector(REFUSED)
    assert form_of(page) == first
    assert "given to another reviewer" in page.inner_text(REFUSED)
    page.click("text=Continue without it")
    page.wait_for_function("before => document.querySelector('#decision') !== null", arg=first)
    assert page.locator(REFUSED).count() == 0
    assert verdicts(hall, "rita") == {}


def test_an_answer_after_the_session_ended_is_kept_by_the_sign_in(hall, opened):
    fill(hall)
    window, page = holding(opened)
    first = form_of(page)
    page.keyboard.press(".")
    page.keyboard.type("two cubs")
    page.keyboard.press("Escape")
    window.context.clear_cookies(name="rollout")
    page.keyboard.press("b")
    page.wait_for_selector("text=You are signed out")
    page.fill("#name", "rita")
    page.fill("#password", PASSWORD)
    page.click("button:has-text('Sign in')")
    assert (form_of(page), page.input_value("#note")) == (first, "two cubs")
    assert "You had pressed “B Bear”" in page.inner_text("main").replace("\n", " ")
    assert verdicts(hall, "rita") == {}


def test_claims_that_ended_are_given_back_and_the_page_says_so(hall, opened):
    fill(hall)
    _, page = holding(opened)
    hall.later(11 * MINUTE)
    press(page, "b")
    page.wait_for_selector("text=Cases loaded ahead are given back")
    assert len(verdicts(hall, "rita")) == 1
    assert not page.evaluate("window.marked")


def test_a_case_that_a_client_waits_for_comes_at_the_next_key(hall, opened):
    fill(hall)
    _, page = holding(opened)
    hall.room.arrive("case-29")
    page.keyboard.press("b")
    page.wait_for_selector("text=A client waits for this answer")
    assert "Answer by" in page.inner_text("main")


def test_pictures_of_held_cases_are_there_before_them(hall, opened):
    for n in range(4):
        sent_in(hall, f"case-{n}", {"still": f"https://pictures.example/{n}.gif"})
    hall.later(5 * MINUTE)
    window = opened().as_("rita")
    loaded = []

    def give(route):
        loaded.append(route.request.url)
        route.fulfill(body=GIF, content_type="image/gif")

    window.context.route("https://pictures.example/*", give)
    with window.page.expect_response(AHEAD):
        page = window.open("/rollouts/bears/review")
    await_pictures(page, loaded, 4)
    page.keyboard.press("b")
    assert page.evaluate("document.querySelector('.judge-photo img').complete")
    assert window.heard == []
