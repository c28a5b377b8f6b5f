"""Cases that wait to be settled, for the operators of their sites."""

import pytest

from rollout.engine.decide.permissions import AssignedRole, NotAllowedError
from rollout.features.reviews.reviews import load_adjudication_cases
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


def test_an_operator_of_one_site_sees_its_cases_alone(room):
    for _ in range(2):
        room.done(ANA, "bear")
        room.done(BO, "fox")
    lou = person("lou", AssignedRole("operator", "bears", "lake"))
    assert waiting(room, lou) == [("case-2", False)]
    with pytest.raises(NotAllowedError):
        waiting(room, ANA)
