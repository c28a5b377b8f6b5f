"""The case of a review page: one at a time, and first the one that a client waits for."""

import pytest

from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.reviews.reviews import ReviewTaskStore
from rollout.data.tables.tables import exposures
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.records.reviews import SEEDED
from rollout.features.reviews import reviews
from rollout.kernel.errors import NotAllowedError, UserRequiredError
from tests.features.review_room import ANA, BO, DAN, DAY, MINUTE, Room, person
from tests.features.stored_reviews import KEYS, lite, stored

__all__ = ["lite"]


def open_page(room, who=ANA):
    return reviews.claim_page_task(room.database, who, room.stood, room.at)


def calm(lite, *keys):
    """Return a room in which no client waits for an answer any more."""
    return Room(lite).arrive(*keys).later(5 * MINUTE)


def free(room, who=BO):
    return room.mine(who).waiting["blind"]


def test_a_page_claims_one_case_and_shows_no_other(database):
    room = calm(database, *KEYS[:4])
    page = open_page(room)
    assert (page.to_go, page.to_settle, free(room)) == (4, 0, 3)
    assert open_page(room).task.review == page.task.review
    assert [(row.reviewer, row.content) for row in stored(room, exposures)] == [("ana", "case")]
    room.judge(ANA, page.task.review)
    assert open_page(room).task.review != page.task.review


def test_of_several_claimed_cases_the_page_shows_the_one_whose_claim_ends_first(lite):
    room = calm(lite, *KEYS[:2])
    first = room.take(ANA)
    room.later(MINUTE).claim(ANA, target_count=2)
    assert open_page(room).task.review == first.review


def test_without_a_case_the_page_has_none(lite):
    assert open_page(Room(lite)).task is None


def test_a_case_that_a_client_waits_for_comes_before_the_one_on_the_page(lite):
    room = calm(lite, *KEYS[:6])
    first = open_page(room).task
    room.arrive(KEYS[9])
    urgent = open_page(room).task
    assert urgent.answer_by is not None
    assert open_page(room).task.review == urgent.review
    room.judge(ANA, urgent.review)
    assert open_page(room).task.review == first.review  # it was on the page before


def test_of_two_cases_that_clients_wait_for_one_is_claimed(lite):
    room = Room(lite).arrive(*KEYS[:2])
    room.claim(ANA, target_count=2)
    assert free(room) == 0
    open_page(room)
    assert free(room) == 1


def test_a_gold_case_that_figures_may_have_revealed_is_given_back(lite):
    """Seen: it was refused and came again, so that its reviewer knew it and got no other case."""
    room = Room(lite)
    room.arrive("old").later(DAY + MINUTE)
    known = {"alarm": "bear"}
    reviews.seed_gold_case(lite, DAN, room.stood, "old", known, reviewer_count=1, at=room.at)
    room.later(MINUTE).arrive(*KEYS[:3]).later(5 * MINUTE)
    room.claim(ANA, target_count=4)
    with lite.begin_write() as transaction:
        ExposureStore(transaction, room.stood.rollout).record_figures(
            "ana", room.at, page="divergences"
        )
    task = open_page(room).task
    with lite.begin_read() as transaction:
        claimed = ReviewTaskStore(transaction, room.stood.rollout).list_claimed(
            "ana", room.at, (SEEDED,), None
        )
    assert claimed == []
    room.judge(ANA, task.review)


@pytest.mark.parametrize(
    ("who", "error"),
    [
        (person("vic", AssignedRole("viewer", "bears")), NotAllowedError),
        (person("bot", machine=True), UserRequiredError),
    ],
    ids=["viewer", "service account"],
)
def test_only_users_who_may_review_get_a_case(lite, who, error):
    with pytest.raises(error):
        open_page(calm(lite, KEYS[0]), who)
