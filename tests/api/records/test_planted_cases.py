"""Planted cases over HTTP: declared by an admin, and alike for reviewers."""

import pytest

from tests.api.reviews.review_desk import ReviewDesk
from tests.api.test_shell import problem_of
from tests.features.review_room import ANA, DAN, MINUTE, Room

PATH = "/v1/rollouts/bears/planted-cases"


@pytest.fixture
def desk(database):
    return ReviewDesk(Room(database))


def declare(desk, who, *keys):
    return desk.client.by(who).post(PATH, json={"keys": keys, "reason": "a bear at the bin"})


def test_what_a_reviewer_gets_is_byte_for_byte_that_of_another_case(desk):
    assert declare(desk, DAN.name, "case-p").json() == {"new": 1, "repeated": 0}
    desk.room.arrive("case-n").arrive("case-p")
    desk.later(MINUTE)
    texts = {}
    for _ in range(2):
        answer = desk.post(ANA.name, "/claims", {})
        (task,) = answer.json()["tasks"]
        number = str(task["review"])
        text = answer.text.replace(task["case"], "KEY").replace(f'"review":{number},', "")
        texts[task["case"]] = text.partition('"waiting"')[0]  # one case fewer waits
        judged = desk.post(ANA.name, f"/{number}/decision", {"answers": {"alarm": "bear"}})
        assert judged.status_code == 200
    assert texts["case-n"] == texts["case-p"]
    assert "planted" not in texts["case-p"]


def test_who_does_not_administer_and_what_is_stored_are_refused(desk):
    assert declare(desk, ANA.name, "case-p").status_code == 403
    desk.room.arrive("case-n")
    code, name = problem_of(declare(desk, DAN.name, "case-n"))
    assert (code, name) == (422, "planting-refused")
