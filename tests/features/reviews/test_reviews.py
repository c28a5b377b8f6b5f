"""Reviewers hold cases and give them back; operators see which decisions will be missing."""

import pytest

from rollout.engine.records.reviews import UnknownReviewError
from rollout.features.reviews import reviews
from rollout.kernel.errors import NotAllowedError
from tests.features.review_room import (
    ANA,
    BO,
    CY,
    DAN,
    DAY,
    MINUTE,
    START,
    Room,
    person,
    policy_text,
)
from tests.features.stored_reviews import KEYS, lite, only, stored

__all__ = ["lite"]


def test_somebody_holds_as_many_as_they_ask_for_and_asking_again_is_safe(lite):
    room = Room(lite).arrive(*KEYS[:9])
    first = room.claim(ANA, target_count=3)
    assert len(first) == 3
    assert room.claim(ANA, target_count=3) == first
    assert len(room.claim(ANA, target_count=99)) == 5
    assert room.mine(ANA).tasks[:3] == first


def test_three_verdicts_are_those_of_three_people(lite):
    room = Room(lite, text=policy_text(verdicts=3)).arrive("a")
    for who in (ANA, BO, CY):
        assert room.done(who).case == "a"
        assert room.take(who) is None
    assert sorted((row.reviewer, row.task_number) for row in stored(room)) == [
        ("ana", 1),
        ("bo", 2),
        ("cy", 3),
    ]
    assert room.take(person("eve")) is None


def test_a_case_that_was_given_back_is_free(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    for _ in range(2):
        reviews.release_review(lite, ANA, room.stood, review)
    assert room.take(BO).review == review
    reviews.release_review(lite, ANA, room.stood, review)
    assert room.mine(BO).tasks
    with pytest.raises(UnknownReviewError):
        reviews.release_review(lite, CY, room.stood, review)


def test_a_claim_ends_on_its_own_clock_and_the_task_on_that_of_the_records(lite):
    room, wall = Room(lite).arrive("a"), START + 400 * DAY
    review = room.take(ANA, claim_time=wall).review
    room.later(DAY - MINUTE)
    assert room.take(BO, claim_time=wall + 9 * MINUTE) is None
    held = reviews.load_own_reviews(lite, ANA, room.stood, room.at, wall + 9 * MINUTE)
    assert only(held.tasks).review == review
    late = only(
        reviews.load_overdue_reviews(lite, DAN, room.stood, room.at, claim_time=wall + 9 * MINUTE)
    )
    assert late.reviewer == "ana"
    assert room.take(BO, claim_time=wall + 10 * MINUTE).review == review
    room.later(MINUTE)
    assert room.take(CY, claim_time=wall + 30 * MINUTE) is None


def test_an_operator_gives_back_what_somebody_holds_who_is_away(lite):
    room = Room(lite).arrive("a", "b")
    room.claim(ANA, target_count=2)
    assert reviews.release_reviewer_claims(lite, DAN, room.stood, "ana") == 2
    assert len(room.claim(BO, target_count=2)) == 2
    with pytest.raises(NotAllowedError):
        reviews.release_reviewer_claims(lite, ANA, room.stood, "bo")


def test_verdicts_that_are_about_to_be_missing_are_listed_for_operators(lite):
    room = Room(lite).arrive("a").later(20 * 60 * MINUTE).arrive("b")
    room.claim(ANA, kind="blind", target_count=2)
    late = only(reviews.load_overdue_reviews(lite, DAN, room.stood, room.at))
    assert (late.case, late.site, late.kind, late.reviewer) == ("a", "creek", "blind", "ana")
    assert late.due_at == START + DAY
    assert len(reviews.load_overdue_reviews(lite, DAN, room.stood, room.at + 9 * DAY)) == 0
