"""A decision is kept once, with its review task, and undone only while nothing was revealed."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from rollout import faults
from rollout.data.counting.count_queue import CountQueue
from rollout.data.records.external_keys import ExternalKeys, refuse_name
from rollout.data.reviews.reviews import ReviewTaskStore
from rollout.data.tables.tables import cases, exposures
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.records.records import NAMED_BY_DECISION, Case, Decision, Prediction
from rollout.engine.records.reviews import (
    DecisionConflictError,
    InvalidDecisionError,
    ReviewReassignedError,
    UnknownReviewError,
)
from rollout.features.records.ingest import store_asked_cases
from rollout.features.reviews import reviews
from rollout.features.reviews.reviews import DecisionDraft
from rollout.kernel.errors import NotAllowedError, UnknownRolloutError, UserRequiredError
from rollout.kernel.units import CASELESS
from rollout.live.evidence.unit_counting import resolve_case_units
from tests.features.review_room import (
    ANA,
    BO,
    DAN,
    DAY,
    MINUTE,
    START,
    Room,
    person,
    policy_text,
)
from tests.features.stored_reviews import HIGH, LOW, SUPERVISED, lite, only, stored, waiting

__all__ = ["lite"]


def test_a_verdict_is_kept_blind_with_its_seat_and_counts_as_evidence(database):
    room = Room(database).arrive("a")
    task = room.take(ANA)
    room.judge(ANA, task.review, "fox", note="fog", started_at=START - MINUTE)
    row = only(stored(room))
    assert (row.reviewer, row.exposure, row.claimed_exposure, row.task_number) == (
        "ana",
        "blind",
        "blind",
        1,
    )
    assert (row.review, row.note, row.submitted_at) == (task.review, "fog", START)
    with database.begin_read() as transaction:
        units = resolve_case_units(transaction, room.stood, {row.case_id})
        assert CountQueue(transaction, room.stood.rollout).count_waiting() == 2
    guard = units.filter(units["track"] == "guard").to_dicts()
    assert [(u["decided"], u["predicted"], u["excluded"]) for u in guard] == [("fox", "bear", None)]


def test_sending_a_verdict_again_answers_the_same(database):
    room = Room(database).arrive("a")
    review = room.take(ANA).review
    first = room.judge(ANA, review, note="x")
    assert room.later(MINUTE).judge(ANA, review, note="x") == first
    with pytest.raises(DecisionConflictError, match="supersedes: 1"):
        room.judge(ANA, review, "fox")
    assert len(stored(room)) == 1


def test_a_verdict_that_came_another_way_is_not_the_same_one_sent_again(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    answers = {"alarm": "bear"}
    room.keep(
        Decision(key="a", reviewer="ana", answers=answers, claims="blind", submitted_at=START)
    )
    with pytest.raises(DecisionConflictError, match="in another task"):
        room.judge(ANA, review)


def test_a_verdict_that_is_not_stored_leaves_its_task_open(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    with lite.begin_write() as transaction:  # as an erasure does that began meanwhile
        refuse_name(transaction, room.stood.rollout, "ana")
    with pytest.raises(DecisionConflictError, match="erased"):
        room.judge(ANA, review)
    assert only(room.mine(ANA).tasks).review == review


def test_no_verdict_is_taken_for_a_task_that_was_withdrawn_from_who_had_claimed_it(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    with lite.begin_write() as transaction:
        ReviewTaskStore(transaction, room.stood.rollout).withdraw([1], ["blind"], at=room.at)
    with pytest.raises(ReviewReassignedError):
        room.judge(ANA, review)
    assert stored(room) == []


def test_a_verdict_is_undone_by_the_next_revision(database):
    room = Room(database).arrive("a")
    review = room.take(ANA).review
    room.judge(ANA, review)
    with pytest.raises(DecisionConflictError, match="revision 1"):
        room.judge(ANA, review, "fox", supersedes=2)
    second = room.judge(ANA, review, "fox", supersedes=1)
    assert (second.revision, second.answers) == (2, {"alarm": "fox"})
    assert room.judge(ANA, review, "fox", supersedes=1) == second
    assert [row.revision for row in stored(room)] == [1, 2]


def test_nothing_is_undone_once_the_model_was_seen(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    room.judge(ANA, review)
    room.show(ANA, "a")
    with pytest.raises(DecisionConflictError, match="seen the model"):
        room.judge(ANA, review, "fox", supersedes=1)


def test_a_first_verdict_supersedes_nothing(lite):
    room = Room(lite).arrive("a")
    with pytest.raises(DecisionConflictError, match="not decided this case yet"):
        room.judge(ANA, room.take(ANA).review, supersedes=1)


def test_unsure_is_a_verdict(lite):
    room = Room(lite).arrive("a")
    room.done(ANA, None)
    row = only(stored(room))
    assert (row.unsure, row.answers) == (True, {})


def test_a_verdict_that_no_lever_has_is_refused_and_the_case_stays(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    with pytest.raises(InvalidDecisionError, match="one of bear, fox, none"):
        room.judge(ANA, review, "wolf")
    assert room.judge(ANA, review).answers == {"alarm": "bear"}


def test_who_is_slow_may_still_answer_while_nobody_else_has_the_case(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    assert room.later(20 * MINUTE).judge(ANA, review).revision == 1


def test_who_is_too_slow_is_told_so(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    assert room.later(20 * MINUTE).take(BO).review == review
    with pytest.raises(ReviewReassignedError, match="take the next one"):
        room.judge(ANA, review)


def test_a_review_of_somebody_else_is_as_unknown_as_none(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    texts = []
    for number in (review, 999):
        with pytest.raises(UnknownReviewError) as refused:
            room.judge(BO, number)
        texts.append(str(refused.value).replace(str(number), "N"))
    assert texts[0] == texts[1]


def test_what_is_claimed_makes_a_verdict_worse_and_never_better(lite):
    room = Room(lite, SUPERVISED).arrive(LOW, HIGH)
    room.judge(ANA, room.take(ANA, kind="blind").review, claimed_exposure="revealed")
    room.judge(ANA, room.take(ANA, kind="assisted").review, claimed_exposure="blind")
    assert {row.exposure for row in stored(room)} == {"revealed", "assisted"}


def test_machines_judge_nothing(lite):
    room = Room(lite).arrive("a")
    machine = person("box", AssignedRole("reviewer", "bears"), machine=True)
    with pytest.raises(UserRequiredError):
        room.take(machine)
    with pytest.raises(UserRequiredError):
        room.judge(machine, 1)


@pytest.mark.parametrize("who", [DAN, person("eve", AssignedRole("viewer", "bears"))])
def test_only_reviewers_review(lite, who):
    room = Room(lite).arrive("a")
    for act in (room.take, room.mine, lambda w: room.judge(w, 1)):
        with pytest.raises(NotAllowedError):
            act(who)
    with pytest.raises(UnknownRolloutError):
        room.take(person("eve", AssignedRole("reviewer", "other")))


def test_who_lost_a_site_can_no_more_judge_there(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    with pytest.raises(NotAllowedError, match="creek"):
        room.judge(person("ana", AssignedRole("reviewer", "bears", "lake")), review)


def test_a_verdict_sent_twice_at_once_is_stored_once(database):
    room = Room(database).arrive("a")
    review = room.take(ANA).review
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: room.judge(ANA, review), range(2))
    assert first == second
    assert len(stored(room)) == 1


@pytest.mark.parametrize(
    "point",
    [
        "review.claimed",
        "review.shown",
        "review.decided",
        "ingest.due",
        "review.due",
        "commit.before",
    ],
)
def test_whatever_breaks_off_can_be_asked_again(database, point):
    room = Room(database, SUPERVISED).arrive(HIGH)

    def broken(name):
        raise RuntimeError(name)

    def asked():
        return room.judge(ANA, room.take(ANA).review)

    with faults.install_action(broken, point), pytest.raises(RuntimeError):
        asked()
    assert stored(room) == []
    asked()
    assert len(stored(room)) == 1
    assert len(stored(room, exposures)) == 2
    assert waiting(room) == {}


def test_a_verdict_needs_words_that_can_be_kept(lite):
    room = Room(lite).arrive("a")
    review = room.take(ANA).review
    with pytest.raises(InvalidDecisionError):
        reviews.submit_decision(
            lite, ANA, room.stood, review, DecisionDraft(unsure=True, note="\0"), room.at
        )


@pytest.mark.parametrize("begun", [START - 8 * DAY, START + 6 * MINUTE])
def test_a_beginning_that_no_right_clock_says_is_refused(lite, begun):
    room = Room(lite).arrive("a")
    with pytest.raises(InvalidDecisionError, match="started_at"):
        room.judge(ANA, room.take(ANA).review, started_at=begun)


def test_a_review_decides_a_case_that_nobody_registered_where_the_page_shows_it(database):
    text = policy_text().replace("verdicts: 1", "sources: {cases: [camera]}, verdicts: 1")
    room = Room(database, text=text)
    case = Case(key="a", site="creek", occurred_at=START, window="always")
    prediction = Prediction(key="a", version="v1", answers={"alarm": "bear"})
    room.arrive("b")
    with database.begin_write() as transaction:
        store_asked_cases(transaction, room.stood, "box", [case], [prediction], START)
    for task in room.claim(ANA, target_count=2):
        room.judge(ANA, task.review)
    with database.begin_read() as transaction:
        case_ids = ExternalKeys(transaction, room.stood.rollout).find_ids(["a", "b"])
        units = resolve_case_units(transaction, room.stood, set(case_ids.values()))
    rows = units.sort("track", "case_key").select("track", "case_key", "site", "predicted").rows()
    assert rows == [
        ("gate", "a", "creek", CASELESS),
        ("gate", "b", "creek", "bear"),
        ("guard", "a", "creek", "bear"),
        ("guard", "b", "creek", "bear"),
    ]


def test_the_place_of_a_reviewed_case_is_drawn_for_a_sample(database):
    text = policy_text().replace("verdicts: 1", "sources: {cases: [camera]}, verdicts: 1")
    room = Room(database, text=f"{text}versions: [{{id: v1, sample: 10%}}]\n")
    case = Case(key="a", site="creek", occurred_at=START, window="always")
    prediction = Prediction(key="a", version="v1", answers={"alarm": "bear"})
    with database.begin_write() as transaction:
        store_asked_cases(transaction, room.stood, "box", [case], [prediction], START)
    room.done(ANA)
    assert {row.revision: row.draws["v1"] for row in stored(room, cases)}.keys() == {
        NAMED_BY_DECISION,
        NAMED_BY_DECISION + 1,
    }
