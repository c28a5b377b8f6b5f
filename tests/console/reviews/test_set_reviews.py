"""The review page of a lever with sets: labels are switched on and off, then saved."""

import re

import pytest

from tests.console.reading_room import REVIEW, ReadingRoom, form_of, hidden, verdicts
from tests.features.review_room import policy_text

ONE = "labels: [bear, fox, none]\n    actions: {bear: ring, fox: wait, none: wait}\n"
TEXT = policy_text().replace(ONE, "labels: [bear, fox, wolf-pack]\n    many: true\n")
SETS = TEXT.replace("    answer_within: 2m\n    unanswered: ring\n", "")


@pytest.fixture(name="hall")
def open_hall(database):
    return ReadingRoom(database, text=SETS)


@pytest.fixture(name="browser")
def open_browser(hall):
    with hall.browsing() as made:
        yield made


def save(browser, page, *labels, **more):
    """Send the form with labels switched on."""
    fields = {"began": hidden(page, "began"), "lever.alarm": list(labels), **more}
    return browser.submit(form_of(page), on=REVIEW, **fields)


def test_a_label_is_a_toggle_with_a_key_and_the_set_is_stored(hall, browser):
    hall.room.arrive("case-1", label=None)
    page = browser.as_("rita").page(REVIEW)
    assert "<h1>Alarm: which of these, if any?</h1>" in page
    boxes = re.findall(r'type="checkbox" name="lever.alarm" value="([^"]*)" accesskey="(.)"', page)
    assert boxes == [("bear", "b"), ("fox", "f"), ("wolf-pack", "w"), ("(none of them)", "n")]
    assert 'type="radio"' not in page
    assert "Save answer" in page
    save(browser, page, "wolf-pack", "bear")
    assert verdicts(hall, "rita")["case-1"].answers == {"alarm": "bear;wolf-pack"}
    assert "Undo last: bear, wolf pack" in browser.page(REVIEW)


def test_no_label_is_an_answer_of_its_own(hall, browser):
    hall.room.arrive("case-1", label=None)
    save(browser, browser.as_("rita").page(REVIEW), "(none of them)")
    assert verdicts(hall, "rita")["case-1"].answers == {"alarm": "(none of them)"}
    assert "Undo last: none of them" in browser.page(REVIEW)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ((), "Choose an answer, or Unsure"),
        (("bear", "(none of them)"), "Give Alarm some of these, or only None of them"),
    ],
)
def test_a_contradiction_is_refused_and_the_choice_stays(hall, browser, labels, sentence):
    hall.room.arrive("case-1", label=None)
    page = browser.as_("rita").page(REVIEW)
    answer = browser.submit(
        form_of(page), 422, on=REVIEW, began=hidden(page, "began"), **{"lever.alarm": list(labels)}
    )
    assert sentence in answer.text
    assert answer.text.count(" checked") == len(labels)
    assert verdicts(hall, "rita") == {}
