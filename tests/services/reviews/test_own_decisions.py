"""What somebody judged lately, as they said it."""

import pytest

from rollout.core.records.reviews import UnknownReview
from rollout.core.scope.permissions import NotAllowed
from rollout.services.reviews import reviews
from rollout.services.reviews.own_decisions import judged_lately, own_verdict
from tests.services.review_room import ANA, BO, DAN, DAY, MINUTE, Room, policy_text


@pytest.fixture
def room(database):
    return Room(database, text=policy_text(reveal="after"))


def lately(room, who=ANA, **more):
    return judged_lately(room.database, who, room.stood, room.at - DAY, **more)


def test_who_has_judged_nothing_has_judged_nothing_lately(room):
    room.arrive("case-1")
    assert (lately(room).count, lately(room).last) == (0, ())


def test_the_last_verdicts_come_newest_first_and_only_ones_own(room):
    room.arrive("case-1", "case-2", "case-3")
    for label in ("bear", "fox", None):
        room.later(MINUTE).done(ANA if label else BO, label)
    found = lately(room)
    assert [one.answers for one in found.last] == [{"alarm": "fox"}, {"alarm": "bear"}]
    assert (found.count, found.last[0].at) == (2, room.at - MINUTE)
    assert [len(lately(room, limit=1).last), lately(room, limit=1).count] == [1, 2]


def test_verdicts_before_the_day_are_told_but_not_counted(room):
    room.arrive("case-1").done(ANA)
    room.later(2 * DAY)
    assert (lately(room).count, len(lately(room).last)) == (0, 1)


def test_a_verdict_stands_once_the_model_was_seen(room):
    room.arrive("case-1", "case-2")
    told = room.done(ANA)
    room.done(ANA)
    room.reveal(ANA, told.review)
    assert [one.stands for one in lately(room).last if one.review == told.review] == [True]
    assert [one.stands for one in lately(room).last if one.review != told.review] == [False]


def test_a_known_case_is_told_like_any_other(room):
    room.arrive("case-1").later(DAY + MINUTE)
    seeded = {"people": 1, "at": room.at}
    reviews.seed(room.database, DAN, room.stood, "case-1", {"alarm": "bear"}, **seeded)
    told = room.done(ANA, "fox")
    (found,) = lately(room).last
    assert (found.kind, found.answers, found.revision) == ("blind", {"alarm": "fox"}, 1)
    assert own_verdict(room.database, ANA, room.stood, told.review) == found


def test_somebody_elses_verdict_is_not_there(room):
    told = room.arrive("case-1").done(ANA)
    with pytest.raises(UnknownReview):
        own_verdict(room.database, BO, room.stood, told.review)
    with pytest.raises(NotAllowed):
        lately(room, DAN)
