"""What was shown is noted and decides exposure; nobody sees what they could still judge."""

from datetime import timedelta

import pytest

from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.tables.tables import exposures
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.records.records import Decision, Prediction
from rollout.features.reviews.decisions import record_unclaimed_cases
from rollout.kernel.errors import StaleRevisionError
from tests.features.review_room import ANA, DAN, DAY, MINUTE, Room, person, policy_text
from tests.features.stored_reviews import AUTONOMOUS, HIGH, LOW, SUPERVISED, lite, only, stored

__all__ = ["lite"]


def test_an_assisted_review_shows_the_proposal_and_that_is_noted_first(database):
    room = Room(database, SUPERVISED).arrive(HIGH, confidence=0.75)
    task = room.take(ANA)
    assert (task.kind, task.proposal.answers) == ("assisted", {"alarm": "bear"})
    assert {(row.reviewer, row.content, row.page) for row in stored(room, exposures)} == {
        ("ana", "case", "review"),
        ("ana", "prediction", "review"),
    }
    room.judge(ANA, task.review, "fox")
    assert only(stored(room)).exposure == "assisted"
    assert only(stored(room)).task_number is None


def test_an_assisted_review_shows_no_decision_of_others(lite):
    room = Room(lite, SUPERVISED).arrive(HIGH)
    room.keep(Decision(key=HIGH, reviewer="bo", answers={"alarm": "fox"}))
    assert room.take(ANA).verdicts == ()
    assert {row.content for row in stored(room, exposures)} == {"case", "prediction"}


def test_an_assisted_review_before_any_proposal_is_a_blind_verdict(lite):
    room = Room(lite, SUPERVISED).arrive(HIGH, label=None)
    task = room.take(ANA)
    assert task.proposal is None
    room.judge(ANA, task.review)
    assert only(stored(room)).exposure == "blind"


def test_a_proposal_that_comes_meanwhile_is_shown_and_noted(lite):
    room = Room(lite, SUPERVISED).arrive(HIGH, label=None)
    task = room.take(ANA)
    room.keep(Prediction(key=HIGH, version="v1", answers={"alarm": "fox"}))
    assert only(room.mine(ANA).tasks).proposal.answers == {"alarm": "fox"}
    room.judge(ANA, task.review)
    assert only(stored(room)).exposure == "assisted"


def test_what_is_shown_twice_is_noted_once(lite):
    room = Room(lite, SUPERVISED).arrive(HIGH)
    for _ in range(3):
        room.later(MINUTE).claim(ANA)
    assert len(stored(room, exposures)) == 2


@pytest.mark.parametrize("name", ["ana", "Ana"])
def test_a_prediction_seen_on_another_page_makes_a_verdict_no_evidence(lite, name):
    """Should a page ever show what it must not, the decision after it is not blind."""
    room, reviewer = Room(lite).arrive("a"), person(name)
    review = room.take(reviewer).review
    room.show(reviewer, "a")
    room.judge(reviewer, review)
    assert only(stored(room)).exposure == "revealed"


def test_a_prediction_is_kept_from_whoever_could_still_judge_blind(lite):
    room = Room(lite, text=policy_text(verdicts=3)).arrive("a")
    both = person("eve", AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears"))
    there = person(
        "lee", AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears", "lake")
    )
    assert not room.may_see(both, "a")
    assert room.may_see(there, "a")
    assert room.may_see(DAN, "a")
    room.done(both)
    assert room.may_see(both, "a")
    assert not room.may_see(ANA, "a")
    assert room.later(DAY).may_see(ANA, "a")


def test_a_prediction_is_kept_from_who_holds_a_claim_whatever_rights_are_left(lite):
    room = Room(lite).arrive("a")
    room.take(ANA)
    assert not room.may_see(
        person("ana", AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears", "lake")),
        "a",
    )


def test_a_prediction_that_came_before_its_case_is_kept_from_all_reviewers(lite):
    room = Room(lite)
    room.keep(Prediction(key="early", version="v1", answers={"alarm": "bear"}))
    assert not room.may_see(ANA, "early")
    assert room.may_see(DAN, "early")


def test_an_unwatched_case_of_the_models_hides_nothing(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH, LOW)
    assert room.may_see(ANA, HIGH)
    assert not room.may_see(ANA, LOW)


def test_of_machines_no_page_is_noted(lite):
    room = Room(lite).arrive("a")
    box = person("box", AssignedRole("viewer", "bears"), machine=True)
    with lite.begin_write() as transaction:
        record_unclaimed_cases(transaction, room.stood, box, ["a"], room.at, page="report")
    assert stored(room, exposures) == []


def test_a_page_is_refused_whose_case_its_reader_has_claimed_since_it_was_read(lite):
    room = Room(lite).arrive("a")
    room.take(ANA)
    with (
        pytest.raises(StaleRevisionError, match="just been given"),
        lite.begin_write() as transaction,
    ):
        record_unclaimed_cases(transaction, room.stood, ANA, ["a"], room.at, page="cases")
    assert only(stored(room, exposures)).content == "case"


def test_who_saw_figures_is_still_asked_about_cases_that_may_be_among_them(lite):
    room = Room(lite).arrive("a")
    with lite.begin_write() as transaction:
        ExposureStore(transaction, room.stood.rollout).record_figures(
            "ana", room.at + MINUTE, page="report"
        )
    assert room.take(ANA) is not None


def test_an_assisted_task_keeps_no_prediction_from_reviewers(lite):
    assert Room(lite, SUPERVISED).arrive(HIGH).may_see(ANA, HIGH)


def test_figures_of_later_cases_make_a_verdict_no_evidence_once_its_case_may_be_among_them(lite):
    """Figures leave a case out until its task is due."""
    for hours, exposure in ((23, "blind"), (25, "revealed")):
        room = Room(lite).arrive(f"after {hours} h")
        review = room.take(ANA, target_count=1).review
        with lite.begin_write() as transaction:
            ExposureStore(transaction, room.stood.rollout).record_figures(
                "ana", room.at + MINUTE, page="report"
            )
        room.later(timedelta(hours=hours)).judge(ANA, review)
        assert stored(room)[-1].exposure == exposure
