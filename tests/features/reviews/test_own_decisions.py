"""What somebody judged lately, as they said it."""

import pytest

from rollout.engine.decide.permissions import NotAllowedError
from rollout.engine.records.reviews import UnknownReviewError
from rollout.features.reviews import reviews
from rollout.features.reviews.own_decisions import load_own_decision, load_own_decisions
from tests.features.review_room import ANA, BO, DAN, DAY, MINUTE, Room


@pytest.fixture
def room(database):
    return Room(database)


def lately(room, who=ANA, **more):
    return load_own_decisions(room.database, who, room.stood, room.at - DAY, **more)


def test_who_has_judged_nothing_has_judged_nothing_lately(room):
    room.arrive("case-1")
    assert (lately(room).count, lately(room).recent_decisions) == (0, ())


def test_the_last_verdicts_come_newest_first_and_only_ones_own(room):
    room.arrive("case-1", "case-2", "case-3")
    for label in ("bear", "fox", None):
        room.later(MINUTE).done(ANA if label else BO, label)
    found = lately(room)
    assert [one.decision.answers for one in found.recent_decisions] == [
        {"alarm": "fox"},
        {"alarm": "bear"},
    ]
    assert (found.count, found.recent_decisions[0].at) == (2, room.at - MINUTE)
    assert [len(lately(room, limit=1).recent_decisions), lately(room, limit=1).count] == [1, 2]


def test_own_figures_are_of_the_newest_revisions_since_the_time(room):
    assert (lately(room).median_seconds, lately(room).unsure_share) == (None, None)
    room.arrive("case-1", "case-2", "case-3")
    for label in ("bear", "fox", None):
        room.later(MINUTE).done(ANA, label)
    assert lately(room).unsure_share == pytest.approx(1 / 3)
    room.later(2 * DAY)
    assert (lately(room).median_seconds, lately(room).unsure_share) == (None, None)


def test_verdicts_before_the_day_are_told_but_not_counted(room):
    room.arrive("case-1").done(ANA)
    room.later(2 * DAY)
    assert (lately(room).count, len(lately(room).recent_decisions)) == (0, 1)


def test_a_verdict_stands_once_the_model_was_seen(room):
    room.arrive("case-1", "case-2")
    task = room.take(ANA)
    told = room.judge(ANA, task.review)
    room.done(ANA)
    room.show(ANA, task.case.key)
    assert [
        one.is_final for one in lately(room).recent_decisions if one.task_number == told.review
    ] == [True]
    assert [
        one.is_final for one in lately(room).recent_decisions if one.task_number != told.review
    ] == [False]


def test_a_known_case_is_told_like_any_other(room):
    room.arrive("case-1").later(DAY + MINUTE)
    seeded = {"reviewer_count": 1, "at": room.at}
    reviews.seed_gold_case(room.database, DAN, room.stood, "case-1", {"alarm": "bear"}, **seeded)
    told = room.done(ANA, "fox")
    (found,) = lately(room).recent_decisions
    assert (found.kind, found.decision.answers, found.decision.revision) == (
        "blind",
        {"alarm": "fox"},
        1,
    )
    assert load_own_decision(room.database, ANA, room.stood, told.review) == found


def test_somebody_elses_verdict_is_not_there(room):
    told = room.arrive("case-1").done(ANA)
    with pytest.raises(UnknownReviewError):
        load_own_decision(room.database, BO, room.stood, told.review)
    with pytest.raises(NotAllowedError):
        lately(room, DAN)
