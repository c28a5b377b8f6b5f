"""Who is asked about a case, by draws and stage; how blind a decision is, by what was shown."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from rollout.engine.decide.assignment import compute_unit_key
from rollout.engine.records.records import Case
from rollout.engine.records.reviews import (
    ADJUDICATE,
    ASSISTED,
    BLIND,
    EXPOSURE_ORDER,
    CaseDraws,
    InvalidDecisionError,
    PlannedReviewTask,
    check_decision,
    compute_answer_deadline,
    compute_due_time,
    compute_exposure,
    draw_case_values,
    has_disagreement,
    plan_review_tasks,
)
from rollout.kernel.policy.policy import EvidenceRules, Stage
from rollout.kernel.statistics.sampling import compute_sampling_value
from rollout.kernel.units import Lever, Margin, Number
from tests.factories import HOUR, MINUTE, NOON, policy

LADDER = (Stage("supervised", blind=0.5), Stage("autonomous", blind=0.1, audit=0.5))
CASE = Case(key="a", site="creek", window="day", occurred_at=NOON)
SALT = bytes(32)
shares = st.floats(0, 1, exclude_max=True)


def asked(rung, drawn, audit=0.9, *, verdicts=1, second_verdict=0.0, second=0.9, sure=True):
    rules = EvidenceRules(verdicts=verdicts, second_verdict=second_verdict)
    made = policy(stages=LADDER, evidence=rules)
    return plan_review_tasks(made, rung, draws=CaseDraws(drawn, audit, second), is_trusted=sure)


def blind(count):
    return tuple(PlannedReviewTask(BLIND, number) for number in range(1, count + 1))


@pytest.mark.parametrize(
    ("rung", "drawn", "audit", "expected"),
    [
        (0, 0.99, 0.99, blind(3)),
        (1, 0.49, 0.99, blind(3)),
        (1, 0.5, 0.0, (PlannedReviewTask(ASSISTED),)),
        (2, 0.09, 0.99, blind(3)),
        (2, 0.99, 0.49, blind(3)),
        (2, 0.1, 0.5, ()),
    ],
    ids=["shadow", "blind share", "confirmed", "hold-out", "audited", "unwatched"],
)
def test_the_stage_and_the_draws_say_who_is_asked(rung, drawn, audit, expected):
    assert asked(rung, drawn, audit, verdicts=3) == expected


def test_below_the_confidence_floor_one_person_decides_unseen():
    assert asked(1, 0.9, verdicts=3, sure=False) == blind(1)
    assert asked(2, 0.9, verdicts=3, sure=False) == blind(1)
    assert asked(1, 0.1, verdicts=3, sure=False) == blind(3)


def test_a_second_reading_adds_a_blind_seat_where_somebody_is_asked_unseen():
    assert asked(0, 0.9, second_verdict=0.2, second=0.19) == blind(2)
    assert asked(0, 0.9, second_verdict=0.2, second=0.2) == blind(1)
    assert asked(1, 0.9, second_verdict=0.2, second=0.19) == (PlannedReviewTask(ASSISTED),)
    assert asked(0, 0.9, second_verdict=0.2, second=0.19, verdicts=3) == blind(3)


@given(st.integers(0, 2), shares, shares, shares)
def test_an_audited_case_has_the_seats_of_any_other_blind_one(rung, drawn, audit, second):
    found = asked(rung, drawn, audit, second_verdict=0.3, second=second)
    assert found in (
        (),
        (PlannedReviewTask(ASSISTED),),
        asked(0, 0.0, second_verdict=0.3, second=second),
    )


def test_a_case_is_drawn_by_its_unit():
    by_episode = policy(evidence=EvidenceRules(unit="episode"))
    spanned = policy(evidence=EvidenceRules(unit="episode", episode_span=10 * MINUTE))
    burst = structs.replace(CASE, episode="e")
    slot = int(NOON.timestamp()) // 600

    def unit(of, case):
        return compute_unit_key(of, case.key, case.site, case.occurred_at, case.episode)

    assert [unit(p, burst) for p in (policy(), by_episode, spanned)] == ["a", "e", "e"]
    assert [unit(p, CASE) for p in (by_episode, spanned)] == ["a", f"creek@{slot}"]
    assert draw_case_values(by_episode, SALT, b"own", burst) == CaseDraws(
        compute_sampling_value(SALT, "stage", "e"),
        compute_sampling_value(b"own", "audit", "e"),
        compute_sampling_value(SALT, "second", "a"),
    )


def test_a_verdict_is_asked_for_until_it_is_too_late_to_count():
    made = policy(evidence=EvidenceRules(grace=HOUR))
    assert compute_due_time(made, NOON, NOON - MINUTE) == NOON + HOUR
    assert compute_due_time(made, NOON, NOON + MINUTE) == NOON + HOUR + MINUTE


def test_the_most_pressing_lever_says_until_when_an_answer_is_of_use():
    levers = [replace(policy().levers[0], id=n, answer_within=w) for n, w in LIMITS]
    assert compute_answer_deadline(policy(levers=tuple(levers)), NOON) == NOON + MINUTE
    assert compute_answer_deadline(policy(), NOON) is None


LIMITS = [("a", HOUR), ("b", MINUTE), ("c", None)]


@pytest.mark.parametrize(
    ("kind", "shown", "expected"),
    [
        (BLIND, [], "blind"),
        (BLIND, [("case", "review")], "blind"),
        (BLIND, [("prediction", "case")], "revealed"),
        (BLIND, [("decisions", "review")], "revealed"),
        (ASSISTED, [("case", "review")], "blind"),
        (ASSISTED, [("prediction", "review")], "assisted"),
        (ASSISTED, [("prediction", "review"), ("prediction", "case")], "revealed"),
        (ADJUDICATE, [], "revealed"),
    ],
)
def test_what_the_server_showed_says_how_blind_a_verdict_is(kind, shown, expected):
    assert compute_exposure(kind, shown) == expected


pages = st.tuples(st.sampled_from(["case", "prediction", "decisions"]), st.sampled_from("abc"))


@given(
    st.sampled_from([BLIND, ASSISTED, ADJUDICATE]), st.lists(pages), st.sampled_from(EXPOSURE_ORDER)
)
def test_a_claim_never_makes_a_verdict_better_evidence(kind, shown, claimed):
    said = compute_exposure(kind, shown, claimed)
    assert EXPOSURE_ORDER.index(said) >= EXPOSURE_ORDER.index(compute_exposure(kind, shown))
    assert EXPOSURE_ORDER.index(said) >= EXPOSURE_ORDER.index(claimed)


def test_people_differ_where_two_who_are_sure_say_different_things():
    bear, fox, unsure = {"a": "bear"}, {"a": "fox"}, {"a": None}
    assert has_disagreement([bear, fox])
    assert has_disagreement([{**bear, "b": "x"}, {**bear, "b": "y"}])
    assert not has_disagreement([bear, bear, unsure, {}])
    assert not has_disagreement([])


MIXED = policy(
    levers=(
        policy().levers[0],
        Lever("price", number=Number("CHF", 1, 99.5, Margin(0.05, relative=True))),
    )
)


@pytest.mark.parametrize(
    "answers",
    [{"alarm": "bear"}, {"alarm": None, "price": "7.5"}, {"price": "+1e1"}, {"price": "99.5"}],
)
def test_an_answer_that_a_lever_has_passes(answers):
    check_decision(MIXED, answers, unsure=False)
    check_decision(MIXED, {}, unsure=True)


@pytest.mark.parametrize(
    ("answers", "unsure", "says"),
    [
        ({"alarm": "wolf"}, False, "alarm: one of bear, none"),
        ({"siren": "bear"}, False, "no lever siren; there is alarm, price"),
        ({}, False, "no answer; give one for alarm, price"),
        ({"alarm": None}, False, "no answer"),
        ({"alarm": "bear"}, True, "unsure and an answer at once"),
        *(({"price": p}, False, "price: a number from 1 to 99.5") for p in ("", "0", "nan", "1_0")),
        ({"price": "٣"}, False, "price: a number from 1 to 99.5"),
    ],
)
def test_an_answer_that_no_lever_has_is_refused_with_what_would_be_right(answers, unsure, says):
    with pytest.raises(InvalidDecisionError, match=says):
        check_decision(MIXED, answers, unsure=unsure)


def test_a_note_that_no_database_takes_is_refused():
    with pytest.raises(InvalidDecisionError, match="NUL"):
        check_decision(MIXED, {}, unsure=True, note="a\0b")


def test_grace_is_measured_from_the_later_of_the_two():
    assert compute_due_time(policy(), NOON, NOON + HOUR) - NOON == timedelta(hours=25)
