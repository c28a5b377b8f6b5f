"""Cases that wait to be settled, for the operators of their sites."""

import pytest

from rollout.engine.decide.permissions import AssignedRole, NotAllowedError
from rollout.features.reviews.reviews import load_adjudication_cases, seed_gold_case
from tests.features.review_room import ANA, BO, CY, DAN, MINUTE, Room, person, policy_text


@pytest.fixture
def room(database):
    made = Room(database, text=policy_text(second="100%"))
    made.arrive("case-1").arrive("case-2", site="lake").later(5 * MINUTE)
    return made


def waiting(room, who=DAN):
    found = load_adjudication_cases(room.database, who, room.stood, room.at)
    return [(one.case.key, one.is_claimed) for one in found]


def test_a_case_waits_from_when_two_differ_until_it_is_settled(room):
    assert waiting(room) == []
    for _ in range(2):
        room.later(MINUTE).done(ANA, "bear")
        room.done(BO, "fox")
    assert sorted(waiting(room)) == [("case-1", False), ("case-2", False)]
    room.claim(CY, kind="adjudicate")
    assert sorted(taken for _, taken in waiting(room)) == [False, True]
    room.done(CY, kind="adjudicate")
    assert len(waiting(room)) == 1


def test_a_claim_of_a_case_to_settle_ends_on_the_clock_of_claims(room):
    room.done(ANA, "bear")
    room.done(BO, "fox")
    room.claim(CY, kind="adjudicate")
    for minutes, is_claimed in ((9, True), (10, False)):
        (found,) = load_adjudication_cases(
            room.database, DAN, room.stood, room.at, claim_time=room.at + minutes * MINUTE
        )
        assert found.is_claimed is is_claimed


def test_a_case_that_an_operator_may_still_be_asked_about_is_not_listed(room):
    for _ in range(2):
        room.done(ANA, "bear")
        room.done(BO, "fox")
    seed_gold_case(
        room.database, DAN, room.stood, "case-1", {"alarm": "fox"}, reviewer_count=1, at=room.at
    )
    rights = AssignedRole("operator", "bears"), AssignedRole("reviewer", "bears")
    assert waiting(room, person("lou", *rights)) == [("case-2", False)]
    assert len(waiting(room)) == 2


def test_an_operator_of_one_site_sees_its_cases_alone(room):
    for _ in range(2):
        room.done(ANA, "bear")
        room.done(BO, "fox")
    lou = person("lou", AssignedRole("operator", "bears", "lake"))
    assert waiting(room, lou) == [("case-2", False)]
    with pytest.raises(NotAllowedError):
        waiting(room, ANA)
