"""A case whose answer is known looks like any other, and is no evidence."""

import pytest

from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.history import StoredHistory
from rollout.data.records.incoming_cases import ANY_REVIEWER, ExposureStore
from rollout.data.reviews.reviews import ReviewTaskStore
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.evidence.frames import GOLD_PREFIX, VALUE_PREFIX
from rollout.engine.records.reviews import (
    DecisionConflictError,
    InvalidDecisionError,
    ReviewStillOpenError,
)
from rollout.features.reports.stored_inputs import ReportPeriod, load_visible_records
from rollout.features.reviews import reviews
from rollout.kernel.errors import NotAllowedError
from tests.factories import DAY
from tests.features.review_room import ANA, DAN, MINUTE, Room, person
from tests.features.stored_reviews import AUDITED, AUTONOMOUS, HIGH, KEYS, LOW, lite, only, stored

__all__ = ["lite"]


def seeded(room, key="a", people=2):
    reviews.seed_gold_case(
        room.database, DAN, room.stood, key, {"alarm": "fox"}, reviewer_count=people, at=room.at
    )


def test_a_known_case_looks_like_any_other_and_is_no_record(database):
    room = Room(database, AUTONOMOUS).arrive(HIGH, LOW)
    seeded(room, HIGH)
    known, other = room.claim(ANA, target_count=2)

    def shape(task):
        return (task.kind, task.answer_by, task.claimed_until, task.proposal, task.verdicts)

    assert shape(known) == shape(other)
    for task in (known, other):
        first = room.judge(ANA, task.review, "bear", note="x")
        assert room.judge(ANA, task.review, "bear", note="x") == first
        with pytest.raises(DecisionConflictError):
            room.judge(ANA, task.review, "none")
        room.judge(ANA, task.review, "none", supersedes=1)
        room.show(ANA, task.case.key)
        with pytest.raises(DecisionConflictError, match="seen the model"):
            room.judge(ANA, task.review, "fox", supersedes=2)
    with database.begin_read() as transaction:
        store = ReviewTaskStore(transaction, room.stood.rollout)
        tasks = [store.find(number) for number in (known.review, other.review)]
        kept = only([task for task in tasks if task.gold_answers])
        assert HIGH not in NewestRecords(transaction, room.stood.rollout).load_decisions(
            [kept.case_id]
        )
    assert (kept.gold_answers, kept.gold_decision["answers"]) == (
        {"alarm": "fox"},
        {"alarm": "none"},
    )
    assert {row.review for row in stored(room)} == {known.review, other.review} - {kept.id}


def test_who_knows_the_answer_is_not_asked(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH)
    seeded(room, HIGH)
    everything = person("dan", *DAN.role_assignments, AssignedRole("reviewer", "bears"))
    assert room.take(everything) is None
    assert room.take(ANA) is not None


def test_a_case_that_may_be_evidence_is_no_known_case(lite):
    room = Room(lite).arrive("a")
    with pytest.raises(ReviewStillOpenError):
        seeded(room)
    with pytest.raises(InvalidDecisionError):
        reviews.seed_gold_case(
            lite, DAN, room.stood, "a", {"alarm": "wolf"}, reviewer_count=1, at=room.at
        )
    with pytest.raises(NotAllowedError):
        reviews.seed_gold_case(
            lite, ANA, room.stood, "a", {"alarm": "fox"}, reviewer_count=1, at=room.at
        )


def test_a_case_that_unknown_readers_may_have_read_of_is_no_known_case(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH)
    with lite.begin_write() as transaction:
        ExposureStore(transaction, room.stood.rollout).record_figures(
            ANY_REVIEWER, room.at + MINUTE, page="report"
        )
    with pytest.raises(ReviewStillOpenError, match="whose readers are not"):
        seeded(room, HIGH)
    later = next(key for key in KEYS if not AUDITED[key] and key != HIGH)
    room.later(MINUTE).arrive(later)
    seeded(room, later)


def test_reports_read_who_got_a_known_case_right_and_nothing_else_does(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH)
    seeded(room, HIGH, people=1)
    room.judge(ANA, room.take(ANA).review, "bear")
    period = ReportPeriod(room.at - DAY, room.at + DAY, room.at + DAY)
    with lite.begin_read() as transaction:
        records = load_visible_records(transaction, room.stood, period, room.stood.policy).records
        counted = StoredHistory(transaction, room.stood.rollout, levers=["alarm"]).load_records()
    (told,) = records.gold_decisions.to_dicts()
    assert (told["case_key"], told["reviewer"]) == (HIGH, ANA.name)
    assert (told[f"{VALUE_PREFIX}alarm"], told[f"{GOLD_PREFIX}alarm"]) == ("bear", "fox")
    assert counted.gold_decisions.is_empty()
