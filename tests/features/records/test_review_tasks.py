"""Which review tasks are opened for a case, by its stage, its draw and what was said of it."""

from dataclasses import replace
from itertools import groupby, permutations

import pytest
from msgspec import structs
from sqlalchemy import select

from rollout.data.records.records import RecordStore
from rollout.data.reviews.reviews import ReviewTaskStore
from rollout.data.tables.tables import decisions, reviews
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.records.record_notes import open_reviews_of_batch
from rollout.features.reviews import reviews as reviewing
from rollout.features.reviews.own_decisions import load_own_decision
from tests.features.review_room import ANA, MINUTE, START, Room, on_stage, person, policy_text
from tests.features.stored_reviews import (
    AUDITED,
    AUTONOMOUS,
    DRAWN,
    HIGH,
    KEYS,
    LOW,
    SHADOW,
    SUPERVISED,
    lite,
    stored,
    waiting,
)

__all__ = ["lite"]


def test_in_shadow_every_case_is_judged_blind(lite):
    assert waiting(Room(lite).arrive(LOW, HIGH)) == {"blind": 2}


def test_supervised_a_person_confirms_what_the_draw_does_not_keep_blind(lite):
    assert waiting(Room(lite, SUPERVISED).arrive(LOW, HIGH)) == {"blind": 1, "assisted": 1}


def test_autonomous_only_the_audited_share_is_judged(lite):
    assert waiting(Room(lite, AUTONOMOUS).arrive(*KEYS)) == {"blind": sum(AUDITED.values())}


def test_a_burst_is_drawn_whole(lite):
    text = policy_text(further="episode_span: 10m").replace("unit: case", "unit: episode")
    room = Room(lite, AUTONOMOUS, text)
    room.arrive("a", "b", "c", episode=LOW).arrive("d", "e", episode=HIGH)
    assert waiting(room) == {"blind": 3}


def test_opening_again_changes_nothing(lite):
    room = Room(lite, text=policy_text(verdicts=3)).arrive("a")
    case = Case(key="a", site="creek", occurred_at=START, window="always")
    for rung in (AUTONOMOUS, SHADOW):
        with lite.begin_write() as transaction:
            reviewing.open_reviews(transaction, on_stage(room.stood, rung), [case], room.at)
    assert waiting(room) == {"blind": 1}
    assert len(stored(room, reviews)) == 3


def test_a_case_of_yesterday_is_asked_about_as_it_stood_then(lite):
    """The ledger's last row came after it: the cell was in shadow when the case occurred."""
    room = Room(lite, AUTONOMOUS)
    scope = replace(room.stood.scope, at=START)
    room.stood = replace(room.stood, scope=scope)
    assert waiting(room.arrive(HIGH, occurred_at=START - MINUTE)) == {"blind": 1}


def test_a_case_of_which_it_was_said_that_a_person_decides_gets_one(lite):
    room = Room(lite, AUTONOMOUS).arrive(HIGH, decider="human")
    assert waiting(room) == {"blind": 1}


def test_a_challenger_that_asks_too_brings_no_work(lite):
    told = [
        Prediction(key=HIGH, version=version, answers={"alarm": "bear"}, decider=decider)
        for version, decider in (("v1", "model"), ("v2", "human"), ("v3", None))
    ]
    assert waiting(Room(lite, AUTONOMOUS).arrive(HIGH, answers=told)) == {}


@pytest.mark.parametrize(
    ("answers", "error"), [({"alarm": "bear"}, "timeout"), ({"alarm": "wolf"}, None), ({}, None)]
)
@pytest.mark.parametrize("rung", [SUPERVISED, AUTONOMOUS])
def test_a_person_decides_where_the_policy_has_no_action(lite, rung, answers, error):
    answer = Prediction(key=HIGH, version="v1", answers=answers, error=error)
    assert waiting(Room(lite, rung).arrive(HIGH, answers=[answer])) == {"blind": 1}


def send(room, *records, sender=None):
    """Store records that came in one batch, with what follows."""
    with room.database.begin_write() as transaction:
        store = RecordStore(transaction, room.stood.rollout)
        batch = store.store(records, received_at=room.at, sender=sender)
        open_reviews_of_batch(transaction, room.stood, records, batch, room.at)


SAID = Prediction(key=HIGH, version="v1", answers={"alarm": "bear"})
JUDGED = Decision(
    key=HIGH, reviewer="bo", answers={"alarm": "bear"}, exposure="blind", source="account"
)


CASE = Case(key=HIGH, site="creek", occurred_at=START, window="always")
CONFIRMED = [key for key in KEYS if DRAWN[key] >= 0.5]


def split_posts():
    """Yield posts of case, prediction and decision in every order, together or not."""
    for order in permutations((CASE, SAID, JUDGED)):
        yield [[record] for record in order]
        yield [order]
    for alone in (CASE, SAID, JUDGED):
        others = [record for record in (CASE, SAID, JUDGED) if record is not alone]
        yield from ([[alone], others], [others, [alone]])


def send_posts(room, key, posts, find_sender):
    """Send posts about a case; a post of two senders is two."""
    for post in posts:
        for sender, records in groupby(post, find_sender):
            send(room, *(structs.replace(each, key=key) for each in records), sender=sender)


@pytest.mark.slow
@pytest.mark.parametrize("rung", [SHADOW, SUPERVISED])
def test_who_predicted_a_case_takes_it_from_nobody(lite, rung):
    """Whatever came first, and whatever came together."""
    room, kind = Room(lite, rung), "blind" if rung == SHADOW else "assisted"
    for key, posts in zip(CONFIRMED, split_posts(), strict=False):
        send_posts(room, key, posts, lambda _: "u-box")
        assert waiting(room) == {kind: 1}, posts
        send(room, structs.replace(JUDGED, key=key, reviewer="cy"), sender="u-people")
        assert waiting(room) == {}, posts
        send(room, structs.replace(SAID, key=key, version="v2"), sender="u-box")
        assert waiting(room) == {}, posts
    assert len(CONFIRMED) >= len(list(split_posts()))


@pytest.mark.parametrize("rung", [SHADOW, SUPERVISED])
def test_who_did_not_predict_a_case_answers_its_tasks(lite, rung):
    room = Room(lite, rung)
    for key, posts in zip(CONFIRMED, split_posts(), strict=False):
        send_posts(room, key, posts, lambda record: "u-box" if record is SAID else "u-people")
        assert waiting(room) == {}, posts


def test_a_correction_with_a_decision_withdraws_what_it_answers(lite):
    room = Room(lite)
    send(room, CASE, sender="u-people")
    assert waiting(room) == {"blind": 1}
    send(room, structs.replace(CASE, site="lake", revision=2), JUDGED, sender="u-people")
    assert waiting(room) == {}


def test_a_name_in_two_spellings_gives_one_of_the_decisions_that_are_asked_for(lite):
    room = Room(lite, text=policy_text(verdicts=3))
    case = Case(key=HIGH, site="creek", occurred_at=START, window="always")
    others = [structs.replace(JUDGED, reviewer=name) for name in ("Bo", "di")]
    send(room, case, JUDGED, *others, sender="u-people")
    assert len(stored(room, reviews)) == 3
    assert waiting(room) == {"blind": 1}
    send(room, structs.replace(JUDGED, reviewer="cy"), sender="u-people")
    assert waiting(room) == {}


FAILED = Prediction(key=HIGH, version="v1", answers={}, error="timeout")


@pytest.mark.parametrize(
    "answer", [FAILED, structs.replace(FAILED, answers={"alarm": "wolf"}, error=None)]
)
def test_a_person_decides_where_the_failed_prediction_comes_after_its_case(lite, answer):
    room = Room(lite, AUTONOMOUS).arrive(HIGH, label=None)
    assert waiting(room) == {}
    other = structs.replace(answer, version="v2")
    send(room, other)
    send(room, structs.replace(answer, version="v3", answers={"alarm": "bear"}, error=None))
    assert waiting(room) == {}
    send(room, answer)
    send(room, structs.replace(answer, revision=2))
    assert waiting(room) == {"blind": 1}
    assert len(stored(room, reviews)) == 1


def test_who_was_asked_or_has_decided_is_not_asked_for_a_failed_prediction(lite):
    audited = next(key for key in KEYS if AUDITED[key])
    room = Room(lite, AUTONOMOUS).arrive(audited, HIGH, label=None)
    decided = Decision(key=HIGH, reviewer="bo", answers={"alarm": "bear"}, exposure="blind")
    send(room, structs.replace(FAILED, key=audited), FAILED, decided)
    assert waiting(room) == {"blind": 1}
    unknown = Prediction(key="elsewhere", version="v1", answers={}, error="timeout")
    send(room, unknown)
    assert waiting(room) == {"blind": 1}


@pytest.mark.parametrize(
    ("confidence", "expected"), [(0.9, {}), (0.7, {"blind": 1}), (None, {"blind": 1})]
)
def test_below_the_floor_a_person_decides(lite, confidence, expected):
    room = Room(lite, AUTONOMOUS, policy_text(further="confidence_floor: 80%"))
    assert waiting(room.arrive(HIGH, confidence=confidence)) == expected


def test_an_answer_under_a_later_name_is_compared_with_the_floor_and_shown(lite):
    answer = Prediction(key=HIGH, version="v1b", answers={"alarm": "fox"}, confidence=0.9)
    sure = Room(lite, AUTONOMOUS, policy_text(further="confidence_floor: 80%"))
    sure.stood = renamed(sure.stood)
    assert waiting(sure.arrive(HIGH, answers=[answer])) == {}
    confirming = replace(sure, rung=SUPERVISED)
    confirming.stood = renamed(confirming.stood)
    other = next(key for key in KEYS if DRAWN[key] >= 0.5 and key != HIGH)
    confirming.arrive(other, answers=[structs.replace(answer, key=other)])
    task = confirming.take(ANA)
    assert (task.kind, task.proposal.version) == ("assisted", "v1b")
    confirming.judge(ANA, task.review, "fox")
    with lite.begin_read() as transaction:
        (row,) = transaction.execute(select(decisions.c.exposure))
    assert row.exposure == "assisted"
    own = load_own_decision(lite, ANA, confirming.stood, task.review)
    assert own.proposal.answers == {"alarm": "fox"}


def renamed(state):
    """Return the state after a rename of v1."""
    return replace(state, scope=replace(state.scope, aliases={"v1b": "v1"}))


def test_outside_the_policys_windows_and_sites_people_decide(lite):
    assert waiting(Room(lite, AUTONOMOUS).arrive(HIGH, site="elsewhere")) == {"blind": 1}


def test_a_corrected_case_is_judged_where_it_is(lite):
    room = Room(lite).arrive("a")
    moved = Case(key="a", site="lake", occurred_at=START, window="always", revision=2)
    room.keep(moved)
    with lite.begin_write() as transaction:
        reviewing.open_reviews(transaction, room.stood, [moved], room.at)
    assert waiting(room, person("eve", AssignedRole("reviewer", "bears", "lake"))) == {"blind": 1}
    assert waiting(room, person("eve", AssignedRole("reviewer", "bears", "creek"))) == {}


@pytest.mark.parametrize(
    ("rule", "exposure", "left"),
    [
        ("outside: blind", "unknown", {}),
        ("outside: unknown", "unknown", {"blind": 1}),
        ("outside: unknown", "blind", {}),
        ("outside: blind", "assisted", {"blind": 1}),
    ],
)
def test_who_was_judged_elsewhere_is_asked_about_only_if_that_is_no_evidence(
    lite, rule, exposure, left
):
    room = Room(lite, text=policy_text(further=rule)).arrive("a")
    room.keep(Decision(key="a", reviewer="eve", answers={"alarm": "fox"}, exposure=exposure))
    with lite.begin_write() as transaction:
        numbers = {
            review.case_id
            for review in ReviewTaskStore(transaction, room.stood.rollout).list_of_cases([1])
        }
        reviewing.withdraw_answered_reviews(transaction, room.stood, numbers, room.at)
    assert waiting(room) == left
