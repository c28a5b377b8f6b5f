"""What a review page's script is sent ahead: cases alike whatever their kind, and no hint."""

import re

import pytest
from sqlalchemy import select

from api.console.page.form import TOKEN_FIELD
from rollout.services.reviews import reviews
from rollout.store.tables.tables import reviews as review_table
from tests.console.conftest import token_of
from tests.console.reading_room import (
    REVIEW,
    ReadingRoom,
    answered,
    browser,
    form_of,
    hall,
    hidden,
    verdicts,
)
from tests.console.test_review_pages import sent_in
from tests.services.review_room import DAN, DAY, MINUTE

__all__ = ["browser", "hall"]
AHEAD = "/rollouts/bears/review-ahead"
OWN = re.compile(
    r'/review/\d+"|<time [^>]*>[^<]*</time>|name="page_token" value="[^"]*"|case-\d.jpg'
)
"""A case's own: number, time, name of its picture, and the mask of the page's token."""


def ahead(browser, page, *, status=200, shown=None, **fields):
    """Ask for the next cases as the page's script does; return what it is sent."""
    data = {
        TOKEN_FIELD: token_of(page),
        "shown": shown or form_of(page).rpartition("/")[2],
        "terms": re.search(r'data-terms="([^"]*)"', page)[1],
        **fields,
    }
    answer = browser.post(f"/console{AHEAD}", data=data)
    assert answer.status_code == status, (answer.status_code, answer.text[-900:])
    return answer.json()


def arrived(hall, count=6):
    hall.room.arrive(*(f"case-{n}" for n in range(count)), confidence=0.77)
    hall.later(5 * MINUTE)


def test_three_cases_are_sent_with_picture_question_and_attributes(hall, browser):
    for n in range(5):
        picture = {"still": f"https://pictures.example/{n}.jpg"}
        sent_in(hall, f"case-{n}", picture, {"weather": "dry"}, confidence=0.77)
    hall.later(5 * MINUTE)
    page = browser.as_("rita").page(REVIEW)
    found = ahead(browser, page)
    assert list(found) == ["refused", "reload", "around", "held"]
    assert len(found["held"]) == 3
    for case in found["held"]:
        assert list(case) == ["review", "html"]
        assert f'action="/console{REVIEW}/{case["review"]}"' in case["html"]
        assert "<h1>Bear, fox or none?</h1>" in case["html"]
        assert "<dt>weather</dt><dd>dry</dd>" in case["html"]
        assert "https://pictures.example/" in case["html"]
        for hint in ("v1", "77", "model", "case-"):
            assert hint not in OWN.sub("", case["html"])
    assert "0 done, 5 to go" in found["around"]


def test_a_case_that_the_page_has_is_named_and_not_sent_again(hall, browser):
    arrived(hall)
    page = browser.as_("rita").page(REVIEW)
    numbers = [case["review"] for case in ahead(browser, page)["held"]]
    again = ahead(browser, page, held=[str(number) for number in numbers[:2]])["held"]
    assert [case["review"] for case in again] == numbers
    assert [bool(case["html"]) for case in again] == [False, False, True]


def test_gold_second_and_ordinary_cases_are_alike_in_bytes_fields_and_order(database):
    hall = ReadingRoom(database, second="100%", reveal="after")
    hall.room.arrive("case-1", label="fox")
    hall.later(DAY + MINUTE)
    hall.room.arrive("case-0")
    with hall.browsing() as browser:
        page = browser.as_("rita").page(REVIEW)
        asked = {"reviewer_count": 2, "at": hall.room.at}
        known = ("case-1", {"alarm": "bear"})
        reviews.seed_gold_case(database, DAN, hall.room.stood, *known, **asked)
        hall.room.arrive("case-2", label="none")
        for _ in range(3):  # all that there is, so that the second task of case-2 is left
            answered(browser.as_("ron"), "bear")
        hall.room.arrive("case-3")
        hall.later(5 * MINUTE)
        page = browser.as_("rita").page(REVIEW)
        held = {case["review"]: case["html"] for case in ahead(browser, page)["held"]}
    with database.begin_read() as transaction:
        rows = list(transaction.execute(select(review_table)))
    kinds = {(row.kind, row.task_number) for row in rows if row.id in held}
    assert {("blind", 1), ("blind", 2)} < kinds
    assert "gold" in {kind for kind, _ in kinds}
    alike = [OWN.sub("", html) for html in held.values()]
    assert len({len(html.encode()) for html in held.values()}) == 1
    assert len(set(alike)) == 1
    fields = [re.findall(r'name="([^"]*)"', html) for html in alike]
    assert fields[0] == fields[1] == fields[2] != []


def test_an_answer_is_stored_and_the_next_case_noted(hall, browser):
    arrived(hall)
    page = browser.as_("rita").page(REVIEW)
    first = ahead(browser, page)["held"]
    number = form_of(page).rpartition("/")[2]
    sent = {"answered": number, "began": hidden(page, "began"), "lever.alarm": "fox", "note": "x"}
    fields = {"shown": str(first[0]["review"]), "held": [case["review"] for case in first[1:]]}
    found = ahead(browser, page, **fields, **sent)
    assert [case["review"] for case in found["held"]][:2] == fields["held"]
    assert "1 done, 5 to go" in found["around"]
    assert f"{REVIEW}/{number}" in found["around"]  # Undo
    (said,) = verdicts(hall, "rita").values()
    assert (said.answers, said.exposure, said.note) == ({"alarm": "fox"}, "blind", "x")
    assert ahead(browser, page, **fields, **sent)["refused"] == ""  # sent again
    assert len(verdicts(hall, "rita")) == 1
    other = ahead(browser, page, status=409, **fields, **{**sent, "lever.alarm": "bear"})
    assert other["refused"].startswith("You already answered that case")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "Choose an answer, or Unsure"),
        ({"lever.alarm": "wolf"}, "Alarm: "),
        ({"lever.alarm": "bear", "note": "a\0b"}, "The note has a NUL character"),
        ({"lever.alarm": "bear", "answered": "999"}, "That case is no longer stored"),
    ],
)
def test_a_refused_answer_says_why_and_stores_nothing(hall, browser, fields, says):
    arrived(hall)
    page = browser.as_("rita").page(REVIEW)
    number = form_of(page).rpartition("/")[2]
    found = ahead(browser, page, status=409, **{"answered": number, **fields})
    assert found["refused"].startswith(says)
    assert verdicts(hall, "rita") == {}


def test_another_reviewer_and_a_signed_out_one_get_nothing(hall, browser):
    arrived(hall)
    page = browser.as_("rita").page(REVIEW)
    fields = {TOKEN_FIELD: token_of(page), "shown": form_of(page).rpartition("/")[2]}
    browser.cookies.clear()
    signed_out = browser.post(f"/console{AHEAD}", data=fields, follow_redirects=False)
    assert signed_out.status_code in {303, 401}
    assert "Bear, fox or none?" not in signed_out.text
    token = token_of(browser.as_("vic").page("/settings"))
    assert browser.post(f"/console{AHEAD}", data={**fields, TOKEN_FIELD: token}).status_code == 403
    theirs = token_of(browser.as_("ron").page("/settings"))
    found = browser.post(f"/console{AHEAD}", data={**fields, TOKEN_FIELD: theirs}).json()
    assert (found["reload"], found["held"]) == ("changed", [])


@pytest.mark.parametrize("number", ["", "x", "-1", "9" * 16, "٣"])
def test_what_is_no_number_is_refused(hall, browser, number):
    arrived(hall)
    token = token_of(browser.as_("rita").page(REVIEW))
    data = {TOKEN_FIELD: token, "shown": number}
    answer = browser.post(f"/console{AHEAD}", data=data)
    assert (answer.status_code, "reload the page" in answer.text) == (422, True)
