"""Decisions taken back on the page of review."""

from datetime import timedelta

import pytest

from tests.console.reading_room import (
    REVIEW,
    answered,
    browser,
    hall,
    undo_of,
    verdicts,
)
from tests.features.review_room import MINUTE

pytestmark = pytest.mark.slow

__all__ = ["browser", "hall"]
SECOND = timedelta(seconds=1)


@pytest.mark.slow
def test_undo_brings_the_case_back_with_what_was_said_and_takes_another_answer(hall, browser):
    hall.room.arrive("case-1", "case-2")
    answered(browser.as_("rita"), "bear", note="brown")
    said, where = undo_of(browser.page(REVIEW))
    assert said == "bear"
    again = browser.page(where)
    assert "You answered <strong>bear</strong>" in again
    assert ">brown</textarea>" in again
    answered(browser, "none", page=where, note="a stump")
    (now,) = verdicts(hall, "rita").values()
    assert (now.answers, now.note, now.revision) == ({"alarm": "none"}, "a stump", 2)
    assert undo_of(browser.page(REVIEW))[0] == "none"


@pytest.mark.slow
def test_undo_goes_back_over_two_answers_and_no_further(hall, browser):
    hall.room.arrive("case-1", "case-2", "case-3", "case-4")
    browser.as_("rita")
    for label in ("bear", "fox", "none"):
        answered(browser, label)
        hall.later(MINUTE)
    said, last = undo_of(browser.page(REVIEW))
    assert said == "none"
    said, before = undo_of(browser.page(last))
    assert said == "fox"
    page = browser.page(before)
    assert undo_of(page) is None
    first = before.rpartition("/")[0] + "/" + str(first_review(hall, "rita"))
    assert "You have answered later cases since" in browser.page(first)


def first_review(hall, who):
    return min(verdicts(hall, who).values(), key=lambda said: said.submitted_at).review


def test_within_half_a_minute_every_answer_may_be_taken_back(hall, browser):
    hall.room.arrive("case-1", "case-2", "case-3", "case-4")
    browser.as_("rita")
    for label in ("bear", "fox", "none"):
        answered(browser, label)
        hall.later(SECOND)
    first = first_review(hall, "rita")
    assert "You answered <strong>bear</strong>" in browser.page(f"{REVIEW}/{first}")


def test_somebody_elses_case_can_not_be_brought_back(hall, browser):
    hall.room.arrive("case-1")
    answered(browser.as_("rita"))
    number = first_review(hall, "rita")
    browser.as_("ron")
    browser.page(f"{REVIEW}/{number}", 404)
