"""Conflicts: what was said side by side without names, settled by a user without a review task."""

import re

import pytest

from rollout.features.reviews import reviews
from tests.console.reading_room import (
    ADJUDICATION,
    ReadingRoom,
    answered,
    form_of,
    undo_of,
    verdicts,
)
from tests.console.reviews.test_review_pages import ODD
from tests.features.review_room import ANA, DAN, MINUTE, person

pytestmark = pytest.mark.slow

ON_BOTH_ENGINES = True
NEXT = f"{ADJUDICATION}/next"
BO = person("bo")


@pytest.fixture
def hall(database):
    return ReadingRoom(database, second="100%")


@pytest.fixture
def browser(hall):
    with hall.browsing() as made:
        yield made


def split(hall, *keys, said=("bear", "none"), **more):
    """Let two people differ on cases."""
    hall.room.arrive(*keys, **more)
    hall.later(5 * MINUTE)
    for _ in keys:
        for who, label in zip((ANA, BO), said, strict=True):
            hall.room.done(who, label)


def test_a_third_person_sees_the_answers_side_by_side_without_names(hall, browser):
    split(hall, "case-1", said=("none", "bear"))
    browser.as_("rita")
    listed = browser.page(ADJUDICATION)
    assert "<h1>1 conflict for you</h1>" in listed
    page = browser.page(NEXT)
    assert re.findall(r"Answer \d</span><br><strong>(\w+)<", page) == ["Bear", "None"]
    assert "0 done, 1 to go" in page
    for name in ("ana", "bo<", "v1"):
        assert name not in page.replace("Canada", "")


def test_what_settles_a_case_is_kept_and_is_no_evidence(hall, browser):
    split(hall, "case-1", "case-2")
    browser.as_("rita")
    assert answered(browser, "fox", page=NEXT, note="a fox") == f"/console{NEXT}"
    (said,) = verdicts(hall, "rita").values()
    assert (said.answers, said.exposure, said.note) == ({"alarm": "fox"}, "revealed", "a fox")
    answered(browser, "bear", page=NEXT)
    assert "No more conflicts for you." in browser.get(f"/console{NEXT}").text


def test_what_was_settled_may_be_settled_otherwise(hall, browser):
    split(hall, "case-1", "case-2")
    browser.as_("rita")
    answered(browser, "fox", page=NEXT)
    said, where = undo_of(browser.page(NEXT))
    assert (said, where) == ("fox", form_of(browser.page(where)))
    assert "/adjudication/" in where
    assert answered(browser, "none", page=where).endswith("/adjudication/next")
    assert next(iter(verdicts(hall, "rita").values())).answers == {"alarm": "none"}


@pytest.mark.slow
def test_who_judged_the_case_is_not_asked_to_settle_it(hall, browser):
    hall.room.arrive("case-1")
    browser.as_("rita")
    answered(browser, "bear")
    answered(browser.as_("ron"), "fox")
    for name, waits in (("rita", False), ("ron", False), ("roy", True)):
        browser.as_(name)
        assert ("1 conflict for you" in browser.page(ADJUDICATION)) == waits
        assert (form_of(browser.get(f"/console{NEXT}").text) is not None) == waits


def test_review_says_how_many_conflicts_wait_besides(hall, browser):
    split(hall, "case-1")
    assert "1 conflict to adjudicate" in browser.as_("rita").page("/rollouts/bears/review")


def test_an_operator_sees_which_cases_wait_and_whether_somebody_is_at_them(hall, browser):
    split(hall, "case-1", "case-2")
    assert browser.as_("ona").page(ADJUDICATION).count(">Open<") == 2
    browser.as_("rita").page(NEXT)
    page = browser.as_("ona").page(ADJUDICATION)
    assert (page.count(">Open<"), page.count("In progress")) == (1, 1)
    assert "rita" not in page
    assert "Users with the role reviewer adjudicate conflicts" in page
    browser.page(NEXT, 403)


def test_a_reviewer_sees_no_list_and_who_reads_alone_neither(hall, browser):
    split(hall, "case-1")
    page = browser.as_("rita").page(ADJUDICATION)
    assert "case-1" not in page
    assert "<form" not in page.partition("<main")[2]
    assert "it needs the role reviewer" in browser.as_("vic").page(ADJUDICATION, 403)
    assert "it needs the role reviewer" in browser.page(NEXT, 403)


def test_an_operator_has_a_case_settled_with_the_answer_of_a_version(hall, browser):
    hall.room.arrive("case-1", label="fox")
    for who in (ANA, BO):
        hall.room.done(who, "bear")
    browser.as_("ona")
    page = browser.page(f"{ADJUDICATION}?case=case-1")
    assert 'name="case" value="case-1"' in page
    fields = {"case": "case-1", "version": "v1"}
    answer = browser.submit(ADJUDICATION, **fields)
    assert "will adjudicate" in browser.get(answer.headers["location"]).text
    told = browser.as_("rita").page(NEXT)
    assert re.findall(r"Answer \d</span><br><strong>(\w+)<", told) == ["Bear", "Fox"]
    assert "v1" not in told


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"case": "", "version": ""}, "Write the case&#39;s key"),
        ({"case": ODD, "version": ""}, "There is no case &#34;&gt;&lt;script"),
        ({"case": "open-1", "version": ""}, "Reviewers may still decide this case blind"),
        ({"case": "case-1", "version": "v9"}, "v9 has not answered this case"),
    ],
)
def test_a_case_that_can_not_be_settled_comes_back_with_the_reason(hall, browser, fields, says):
    split(hall, "case-1")
    hall.room.arrive("open-1")
    page = browser.as_("ona").submit(ADJUDICATION, 422, **fields).text
    assert says in page
    assert "<title>Error: " in page
    assert "<script>alert" not in page


def test_somebody_who_may_not_operate_asks_for_nothing(hall, browser):
    split(hall, "case-1")
    on = "/"
    browser.as_("vic").submit(ADJUDICATION, 403, on=on, case="case-1", version="")
    browser.as_("rita").submit(ADJUDICATION, 403, on=on, case="case-1", version="")


def test_a_list_leaves_out_what_the_operator_may_still_judge(hall, browser):
    split(hall, "case-1", "case-2")
    hall.later(6 * MINUTE)
    asked = {"reviewer_count": 1, "at": hall.room.at}
    reviews.seed_gold_case(
        hall.room.database, DAN, hall.room.stood, "case-1", {"alarm": "bear"}, **asked
    )
    page = browser.as_("eve").page(ADJUDICATION)
    assert ("case-1" in page, "case-2" in page) == (False, True)
    assert "case-1" in browser.as_("ona").page(ADJUDICATION)
