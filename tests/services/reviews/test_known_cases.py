"""A case whose answer is known looks like any other, and is no evidence."""

import pytest

from rollout.core.errors import NotAllowed
from rollout.core.records.reviews import BadVerdict, StillOpen, VerdictStands
from rollout.core.scope.permissions import Right
from rollout.services.reviews import reviews
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.reviews import Reviews
from tests.services.review_room import ANA, DAN, Room, person, policy_text
from tests.services.stored_reviews import AUTONOMOUS, HIGH, LOW, lite, only, stored

__all__ = ["lite"]


def seeded(room, key="a", people=2):
    reviews.seed(room.database, DAN, room.stood, key, {"alarm": "fox"}, people=people, at=room.at)


def test_a_known_case_looks_like_any_other_and_is_no_record(database):
    room = Room(database, AUTONOMOUS, policy_text(reveal="after")).arrive(HIGH, LOW)
    seeded(room, HIGH)
    known, other = room.claim(ANA, hold=2)

    def shape(task):
        return (task.kind, task.answer_by, task.claimed_until, task.proposal, task.verdicts)

    assert shape(known) == shape(other)
    for task in (known, other):
        first = room.judge(ANA, task.review, "bear", note="x")
        assert room.judge(ANA, task.review, "bear", note="x") == first
        with pytest.raises(VerdictStands):
            room.judge(ANA, task.review, "none")
        room.judge(ANA, task.review, "none", supersedes=1)
        assert only(room.reveal(ANA, task.review)).answers == {"alarm": "bear"}
        with pytest.raises(VerdictStands, match="shown"):
            room.judge(ANA, task.review, "fox", supersedes=2)
    with database.reading() as transaction:
        kept = only(Reviews(transaction, room.stood.rollout).seeded())
        assert HIGH not in Newest(transaction, room.stood.rollout).decisions([kept.case_id])
    assert (kept.known, kept.said["answers"]) == ({"alarm": "fox"}, {"alarm": "none"})
    assert {row.review for row in stored(room)} == {known.review, other.review} - {kept.id}


def test_who_knows_the_answer_is_not_asked(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH)
    seeded(room, HIGH)
    everything = person("dan", *DAN.rights, Right("reviewer", "bears"))
    assert room.take(everything) is None
    assert room.take(ANA) is not None


def test_a_case_that_may_be_evidence_is_no_known_case(lite):
    room = Room(lite).arrive("a")
    with pytest.raises(StillOpen):
        seeded(room)
    with pytest.raises(BadVerdict):
        reviews.seed(lite, DAN, room.stood, "a", {"alarm": "wolf"}, people=1, at=room.at)
    with pytest.raises(NotAllowed):
        reviews.seed(lite, ANA, room.stood, "a", {"alarm": "fox"}, people=1, at=room.at)
