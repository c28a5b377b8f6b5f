"""The review pages: one case, no hint, a key for each answer, and back again by Undo."""

import re
from datetime import timedelta

import pytest

from rollout.engine.records.records import Case, Prediction
from rollout.features.reviews import reviews
from tests.console.reading_room import (
    PICTURE,
    REVIEW,
    ReadingRoom,
    answered,
    browser,
    form_of,
    hall,
    hidden,
    undo_of,
    verdicts,
)
from tests.features.review_room import DAN, DAY, MINUTE, person, policy_text
from tests.page_text import collapse_space

__all__ = ["browser", "hall"]
SECOND = timedelta(seconds=1)
ODD = "\"><script>alert('7')</script>"


def test_one_rollout_with_something_is_gone_straight_into(hall, browser):
    hall.room.arrive("case-1")
    asked = browser.as_("rita").get("/console/review", follow_redirects=False)
    assert asked.headers["location"] == f"/console{REVIEW}"


def test_where_nothing_waits_the_page_says_what_to_do_next(hall, browser):
    assert "No cases to review" in browser.as_("rita").page("/review")
    assert "Reload" in browser.page(REVIEW)


def test_who_reviews_nowhere_is_told_who_could_change_that(hall, browser):
    said = browser.as_("vic").page("/review")
    assert "An admin grants it" in said
    assert "it needs the role reviewer: ask an admin" in browser.page(REVIEW, 403)
    assert "data-key" not in said


def test_a_case_shows_place_time_question_and_a_key_for_each_answer(hall, browser):
    hall.room.arrive("case-1", confidence=0.77)
    page = browser.as_("rita").page(REVIEW)
    assert "creek, <time" in page
    assert "<h1>Bear, fox or none?</h1>" in page
    assert re.findall(r'accesskey="(.)"', page) == ["b", "f", "n", "u", ".", "?"]
    assert "<dt>weather</dt><dd>dry</dd>" in page
    assert "0 done, 1 to go" in page
    without_hashes = re.sub(r"\?of=\w+", "", page)  # of scripts and styles, with any digits
    for hint in ("v1", "77", "model", 'class="nav"', "Stop…"):
        assert hint not in without_hashes


def test_a_verdict_is_kept_blind_with_its_note_and_leads_to_the_next_case(hall, browser):
    hall.room.arrive("case-1", "case-2")
    browser.as_("rita").page(REVIEW)
    hall.later(9 * SECOND)
    assert answered(browser, "fox", note="two of\r\nthem") == f"/console{REVIEW}"
    (said,) = verdicts(hall, "rita").values()
    assert (said.answers, said.exposure, said.note) == ({"alarm": "fox"}, "blind", "two of\nthem")
    assert said.started_at == hall.room.at
    assert "1 done, 1 to go" in browser.page(REVIEW)


@pytest.mark.parametrize(
    "began",
    ["", "soon", "2027-06-01T12:00:00", "2020-01-01T00:00:00+00:00", "2031-01-01T00:00+00:00"],
)
def test_when_a_form_was_begun_is_no_reason_to_refuse_it(hall, browser, began):
    hall.room.arrive("case-1")
    answered(browser.as_("rita"), began=began)
    assert verdicts(hall, "rita")["case-1"].started_at is None


def test_unsure_is_an_answer(hall, browser):
    hall.room.arrive("case-1")
    answered(browser.as_("rita"), None)
    assert verdicts(hall, "rita")["case-1"].unsure
    assert undo_of(browser.page(REVIEW))[0] == "unsure"


def test_what_is_sent_twice_is_kept_once_and_judges_nothing_else(hall, browser):
    hall.room.arrive("case-1", "case-2")
    first = browser.as_("rita").page(REVIEW)
    sent = {"began": hidden(first, "began"), "lever.alarm": "bear"}
    for _ in range(2):
        again = browser.submit(form_of(first), on=REVIEW, **sent)
        assert again.headers["location"] == f"/console{REVIEW}"
    assert len(verdicts(hall, "rita")) == 1
    other = browser.submit(form_of(first), on=REVIEW, **{**sent, "lever.alarm": "fox"})
    assert "You already answered that case" in browser.get(other.headers["location"]).text
    (said,) = verdicts(hall, "rita").values()
    assert (said.answers, said.revision) == ({"alarm": "bear"}, 1)


def test_a_case_that_somebody_else_took_meanwhile_leads_on_with_one_line(hall, browser):
    hall.room.arrive("case-1")
    form = form_of(browser.as_("rita").page(REVIEW))
    hall.later(11 * MINUTE)
    browser.as_("ron").page(REVIEW)
    browser.as_("rita")
    answer = browser.submit(form, on=REVIEW, **{"lever.alarm": "bear"})
    assert "That case was given to another reviewer" in browser.get(answer.headers["location"]).text
    assert verdicts(hall, "rita") == {}


def test_a_live_case_says_until_when_and_what_happens_then(hall, browser):
    hall.room.arrive("case-1")
    page = browser.as_("rita").page(REVIEW)
    assert re.search(
        r"Answer by <strong><time [^>]*>12:02:00 UTC</time></strong>\. Without an answer by then, "
        r"the action is ring",
        page,
    )
    hall.later(3 * MINUTE)
    assert "The deadline was <time" in browser.page(REVIEW)


def test_an_answer_that_came_too_late_is_kept_and_says_so(hall, browser):
    hall.room.arrive("case-1")
    page = browser.as_("rita").page(REVIEW)
    hall.later(3 * MINUTE)
    sent = {"began": hidden(page, "began"), "lever.alarm": "bear"}
    browser.submit(form_of(page), on=REVIEW, **sent)
    assert "Your last answer came after <time" in browser.page(REVIEW)
    assert "case-1" in verdicts(hall, "rita")
    hall.later(3 * MINUTE)
    assert "Your last answer" not in browser.page(REVIEW)


def test_nobody_waits_for_a_live_case_that_lies_behind_another(hall, browser):
    hall.room.arrive("case-1", "case-2")
    first = form_of(browser.as_("rita").page(REVIEW))
    second = form_of(browser.as_("ron").page(REVIEW))
    assert None not in {first, second}
    assert first != second


def sent_in(hall, key, media, attributes=None, **more):
    """Let a case come in, and then its media."""
    hall.room.arrive(key, **more)
    hall.room.keep(
        Case(
            key=key,
            site="creek",
            occurred_at=hall.room.at,
            window="always",
            attributes=attributes or {},
            media=media,
            revision=2,
        )
    )


@pytest.mark.slow
def test_leaving_gives_back_what_was_held(hall, browser):
    hall.room.arrive("case-1", "case-2")
    hall.later(5 * MINUTE)
    browser.as_("rita").page(REVIEW)
    assert "1 to go" in browser.as_("ron").page(REVIEW)
    left = browser.as_("rita").submit(f"{REVIEW}/leave", on=REVIEW)
    assert left.headers["location"] == "/console/"
    assert "2 to go" in browser.as_("ron").page(REVIEW)


@pytest.mark.slow
def test_whoever_saw_what_the_model_said_elsewhere_undoes_nothing(hall, browser):
    hall.room.arrive("case-1", "case-2", label="fox", confidence=0.61)
    form = form_of(browser.as_("rita").page(REVIEW))
    answered(browser)
    (key,) = verdicts(hall, "rita")
    hall.room.show(person("rita"), key)
    assert "You have seen the model" in browser.page(form)
    assert undo_of(browser.page(REVIEW)) is None
    sent = {"lever.alarm": "none", "supersedes": "1"}
    late = browser.submit(form, on=REVIEW, **sent)
    assert late.headers["location"].endswith("?after=fixed")
    browser.submit(form, 422, on=REVIEW, **sent | {"supersedes": "²"})


@pytest.mark.slow
def test_who_confirms_sees_the_proposal_before_and_after(database):
    hall = ReadingRoom(database, rung=1)
    keys = [f"case-{n}" for n in range(12)]
    hall.room.arrive(*keys, label="fox", confidence=0.61)
    hall.room.keep(*(Prediction(key=k, version="v0", answers={"alarm": "none"}) for k in keys))
    hall.room.keep(*(Prediction(key=k, version="v2", answers={"alarm": "none"}) for k in keys))
    hall.later(5 * MINUTE)
    with hall.browsing() as browser:
        browser.as_("rita")
        pages = []
        for _ in range(12):
            pages.append(browser.page(REVIEW))
            answered(browser, "bear")
        proposed = ["The model proposes: <strong>v1: fox" in page for page in pages]
        assert set(proposed) == {True, False}
        assert not any("v1" in page for page, told in zip(pages, proposed, strict=True) if not told)
        last = browser.page(undo_of(browser.page(REVIEW))[1])
        assert re.findall(r"(v\d: \w+)", last) == (["v1: fox"] if proposed[-1] else [])


@pytest.mark.parametrize(
    ("fields", "says", "at"),
    [
        ({}, "Choose an answer, or Unsure", "answer-1"),
        ({"lever.alarm": "wolf"}, "Give Alarm one of these", "answer-1"),
        ({"lever.alarm": "bear", "note": "x" * 2001}, "Shorten the note", "note"),
        ({"lever.alarm": "bear", "note": "a\0b"}, "Refused: the note has a NUL character", "note"),
    ],
)
def test_a_refused_answer_comes_back_with_what_was_typed(hall, browser, fields, says, at):
    hall.room.arrive("case-1", "case-2")
    hall.later(5 * MINUTE)
    form = form_of(browser.as_("rita").page(REVIEW))
    page = browser.submit(form, 422, on=REVIEW, **{"note": "seen twice", **fields}).text
    assert f'<a href="#{at}">{says}' in page
    assert "<title>Error: " in page
    assert form_of(page) == form
    assert (fields.get("note") or "seen twice") in page
    assert verdicts(hall, "rita") == {}


@pytest.mark.slow
def test_nothing_that_a_machine_or_a_person_sent_is_markup(database):
    label = ODD.replace("'7'", "7")
    text = policy_text().replace("fox", f"'{label}'")
    hall = ReadingRoom(database, text=text)
    bad = {ODD: "javascript:alert(1)", "page": "data:text/html,<b>", "still": PICTURE}
    for n in (1, 2):
        sent_in(
            hall, f"case-{n}", {**bad, "clip": "https://pictures.example/7.mp4?\"'<"}, {ODD: ODD}
        )
    with hall.browsing() as browser:
        page = browser.as_("rita").page(REVIEW)
        assert answered(browser, label, note=ODD).endswith("/review")
        where = undo_of(browser.page(REVIEW))[1]
        pages = [page, browser.page(where)]
        for one in pages:
            assert "<script>alert" not in one
            assert not re.search(r'(href|src)="(javascript|data:text)', one)
        assert page.count("<img ") == 1
        assert 'target="_blank" rel="noopener noreferrer"' in page


def test_pictures_without_tls_are_let_in_from_their_own_host_alone(hall, browser):
    sent_in(hall, "case-1", {"still": "http://cam.local:8080/1.jpg"})
    answer = browser.as_("rita").get(f"/console{REVIEW}")
    policy = answer.headers["content-security-policy"]
    assert "img-src 'self' data: https: http://cam.local:8080;" in policy
    assert "script-src 'self';" in policy


@pytest.mark.slow
def test_own_figures_count_known_cases_as_any_other(hall, browser):
    hall.room.arrive("case-1", label="fox")
    hall.later(DAY + MINUTE)
    asked = {"reviewer_count": 1, "at": hall.room.at}
    reviews.seed_gold_case(
        hall.room.database, DAN, hall.room.stood, "case-1", {"alarm": "bear"}, **asked
    )
    hall.room.arrive("case-2")
    assert "Today:" not in browser.as_("rita").page(REVIEW)
    for label, seconds in (("fox", 4), (None, 9)):
        form = browser.page(REVIEW)
        hall.later(timedelta(seconds=seconds))
        sent = {"unsure": "1"} if label is None else {"lever.alarm": label}
        browser.submit(form_of(form), on=REVIEW, began=hidden(form, "began"), **sent)
    shown = browser.page(REVIEW).replace("\xa0", " ")
    assert "Today: 2 cases, 6.5 s each (median), 50 % unsure." in shown
    assert "Today:" not in browser.as_("ron").page(REVIEW)


def test_single_keys_are_switched_off_and_on_again(hall, browser):
    hall.room.arrive("case-1")
    page = browser.as_("rita").page(REVIEW)
    assert 'data-single-keys="on"' in page
    sent = {"keys": "off", "to": f"/console{REVIEW}"}
    answer = browser.submit("/review/keys", on=REVIEW, **sent)
    assert answer.headers["location"] == f"/console{REVIEW}"
    off = browser.page(REVIEW)
    assert 'data-single-keys="off"' in off
    assert 'accesskey="b"' in off
    browser.submit("/review/keys", on=REVIEW, keys="on", to="https://evil.example/")
    assert 'data-single-keys="on"' in browser.page(REVIEW)


def test_single_keys_that_were_switched_off_in_the_settings_are_off_here(hall, browser):
    hall.room.arrive("case-1")
    browser.as_("rita").submit("/settings/single-keys", on="/settings", keys="off")
    assert 'data-single-keys="off"' in browser.page(REVIEW)


@pytest.mark.slow
def test_several_questions_are_answered_together_and_one_may_stay_open(database):
    second = "  - {id: height, number: {in: cm, from: 0, to: 300, tolerance: 5}}\nsites:"
    text = policy_text().replace("sites:", second, 1)
    hall = ReadingRoom(database, text=text)
    hall.room.arrive("case-1", "case-2")
    with hall.browsing() as browser:
        page = browser.as_("rita").page(REVIEW)
        assert "<h1>2 questions about this case</h1>" in page
        assert 'type="radio" name="lever.alarm" value="bear"' in page
        assert "a number from 0 to 300 cm" in page
        answers = {"lever.alarm": "bear", "lever.height": "tall"}
        wrong = collapse_space(browser.submit(form_of(page), 422, on=REVIEW, **answers).text)
        assert '<a href="#answer-2">Give Height a number from 0 to 300 cm</a>' in wrong
        assert 'value="bear" checked' in wrong
        assert 'value="tall"' in wrong
        answered(browser, "bear", **{"lever.height": ""})
        answered(browser, "fox", **{"lever.height": " 85 "})
        said = [one.answers for one in verdicts(hall, "rita").values()]
        assert sorted(said, key=len) == [{"alarm": "bear"}, {"alarm": "fox", "height": "85"}]


@pytest.mark.slow
def test_a_known_case_looks_like_any_other_and_is_no_record(hall, browser):
    hall.room.arrive("case-1", label="fox")
    hall.later(DAY + MINUTE)
    asked = {"reviewer_count": 1, "at": hall.room.at}
    reviews.seed_gold_case(
        hall.room.database, DAN, hall.room.stood, "case-1", {"alarm": "bear"}, **asked
    )
    browser.as_("rita")
    assert form_of(browser.page(REVIEW))
    answered(browser, "fox", note="quick")
    where = undo_of(browser.page(REVIEW))[1]
    again = browser.page(where)
    assert "You answered <strong>fox</strong>" in again
    assert ">quick</textarea>" in again
    answered(browser, "bear", page=where)
    assert undo_of(browser.page(REVIEW))[0] == "bear"
    assert verdicts(hall, "rita") == {}
