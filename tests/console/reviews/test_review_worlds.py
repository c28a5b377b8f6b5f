"""No page of a reviewer says anything of the model before the decision, byte by byte.

Two worlds get the same cases, people and answers of people; only the models' answers differ. Of
assisted reviews the proposal is left out of the comparison: it is what they are about.
"""

import re
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from rollout.data.database.session import Database
from rollout.engine.records.reviews import ReviewStillOpenError
from rollout.features.reviews import reviews
from tests.api.reviews.test_two_worlds import WORLDS
from tests.chance import without_chance
from tests.console.reading_room import ADJUDICATION, REVIEW, ReadingRoom, form_of, hidden, undo_of
from tests.data.databases import fresh
from tests.features.review_room import DAN, DAY, MINUTE

pytestmark = pytest.mark.exhaustive

PROPOSED = re.compile(r"The model proposes: <strong>[^<]*</strong>")
REVIEWERS = ("rita", "ron", "roy", "eve")


class AnsweredWorld:
    """One world; `pages` is all that reviewers were answered: status, headers, text."""

    def __init__(self, hall, browser, world):
        self.hall, self.browser, self.world, self.pages = hall, browser, world, []

    def masked(self, text):
        """Return a page without what the model proposes to those who confirm, nobody else."""
        return PROPOSED.sub("The model proposes", text) if self.hall.room.rung == 1 else text

    def arrive(self, *keys):
        said = [self.world.prediction(key, v) for key in keys for v in ("v1", "v2")]
        self.hall.room.arrive(*keys, answers=said)

    def get(self, path):
        answer = self.browser.get(f"/console{path}")
        headers = dict(answer.headers)
        if self.masked(answer.text) != answer.text:
            del headers["content-length"]
        self.pages.append((path, answer.status_code, headers, self.masked(answer.text)))
        return answer.text

    def answer(self, page, label):
        form = form_of(page)
        if form is None:
            return
        fields = {"page_token": hidden(page, "page_token"), "began": hidden(page, "began")}
        if 'name="supersedes"' in page:
            fields["supersedes"] = hidden(page, "supersedes")
        path = f"/console{form}"
        sent = self.browser.post(
            path, data={**fields, "lever.alarm": label}, follow_redirects=False
        )
        self.pages.append((form, sent.status_code, dict(sent.headers), self.masked(sent.text)))

    def day(self):
        """Judge, undo, differ, settle, look at lists and at what may not be seen yet."""
        self.arrive(*(f"case-{n}" for n in range(6)))
        self.hall.later(5 * MINUTE)
        for person, labels in (("rita", ("bear", "fox", "wolf")), ("ron", ("fox", "bear", "bear"))):
            self.browser.as_(person)
            for label in labels:
                page = self.get(REVIEW)
                self.answer(page, label)
            undo = undo_of(self.get(REVIEW))
            if undo is not None:
                self.answer(self.get(undo[1]), "none")
        self.hall.later(DAY)
        known = ("case-1", {"alarm": "bear"})
        asked = {"reviewer_count": 3, "at": self.hall.room.at}
        with suppress(ReviewStillOpenError):  # in both worlds, or the pages would differ
            reviews.seed_gold_case(
                self.hall.room.database, DAN, self.hall.room.stood, *known, **asked
            )
        self.arrive("case-9")
        for person in REVIEWERS:
            self.browser.as_(person)
            for path in ("/review", REVIEW, ADJUDICATION, f"{ADJUDICATION}/next"):
                page = self.get(path)
            self.answer(page, "fox")
            for number in (1, 2, 5, 8):
                self.get(f"{REVIEW}/{number}")
        return self.pages


def both(rung, second):
    with ExitStack() as stack:
        stack.enter_context(without_chance())
        found = []
        for world in WORLDS:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            database = Database(stack.enter_context(fresh("sqlite", folder)))
            stack.callback(database.close)
            hall = ReadingRoom(database, rung, second=second)
            browser = stack.enter_context(hall.browsing())
            found.append(AnsweredWorld(hall, browser, world).day())
    return found


@pytest.mark.parametrize(
    ("rung", "second"),
    [(0, "0%"), (0, "100%"), (1, "100%"), (2, "100%")],
    ids=["shadow", "two seats", "supervised", "autonomous"],
)
def test_the_pages_of_a_reviewer_are_the_same_whatever_the_model_says(rung, second):
    one, other = both(rung, second)
    assert len(one) == len(other)
    for here, there in zip(one, other, strict=True):
        assert here == there
    texts = [text for _, status, _, text in one if status == 200]
    assert any("Bear, fox or none?" in text for text in texts)
    assert rung or second == "0%" or any("Answers so far" in text for text in texts)
    assert rung != 1 or any("The model proposes" in text for text in texts)


GOLD_CASES = 22  # more than a batch of figures


@pytest.mark.parametrize("days", [1, 2])
def test_own_figures_are_the_same_whether_answers_agree_with_known_ones_or_not(days):
    """A reviewer reads number, time and unsure share, and of agreement nothing, a day later too."""
    found = []
    with ExitStack() as stack:
        stack.enter_context(without_chance())
        for known in ("fox", "bear"):
            folder = Path(stack.enter_context(TemporaryDirectory()))
            database = Database(stack.enter_context(fresh("sqlite", folder)))
            stack.callback(database.close)
            hall = ReadingRoom(database)
            world = AnsweredWorld(hall, stack.enter_context(hall.browsing()), WORLDS[0])
            found.append(judge_gold_cases(world, known, days))
    assert found[0] == found[1]
    own = [text for path, _, _, text in found[0] if path == REVIEW]
    assert any(f"Today: {GOLD_CASES - 1} cases" in text for text in own)
    assert not any(re.search("agree|of the known|correct", text) for text in own)


def judge_gold_cases(world, known, days):
    """Let rita answer fox to cases whose known answer is another one or the same."""
    hall, keys = world.hall, [f"case-{n}" for n in range(GOLD_CASES)]
    world.arrive(*keys)
    hall.later(2 * DAY)
    for key in keys:
        asked = {"reviewer_count": 1, "at": hall.room.at}
        reviews.seed_gold_case(
            hall.room.database, DAN, hall.room.stood, key, {"alarm": known}, **asked
        )
    world.browser.as_("rita")
    for _ in keys:
        world.answer(world.get(REVIEW), "fox")
    hall.later(days * DAY)
    world.arrive("case-last")
    for path in ("/review", REVIEW, "/settings"):
        world.get(path)
    return world.pages
