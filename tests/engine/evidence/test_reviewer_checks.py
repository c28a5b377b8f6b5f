"""Reviewer checks: what is compared, who fails, and what is excluded."""

from dataclasses import replace
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.evidence.frames import build_gold_schema
from rollout.engine.evidence.reviewer_checks import build_reviewer_checks
from rollout.kernel.units import Lever, Margin, Number
from tests.engine.evidence.histories import (
    ALARM,
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    predictions,
    records,
)
from tests.properties import examples

SEATED = evidence(a_policy(), outside="unknown")
OUTSIDE = a_policy()
THREE, FIVE = (evidence(SEATED, verdicts=n) for n in (3, 5))
PRICE = Lever("price", number=Number("EUR", 0, 100, Margin(0.1, relative=True)))


def read(*said, policy=SEATED, levers=("alarm",), **more):
    """One case, judged by ana, bo, cy, … at hours 1, 2, …, in tasks 1, 2, …"""
    rows = [
        ("a", answer, {"reviewer": who, "seat": seat, "at": seat, **more})
        for seat, (who, answer) in enumerate(
            zip(("ana", "bo", "cy", "di", "ed"), said, strict=False), 1
        )
    ]
    return found(records(cases(("a", 0)), decision_rows=decisions(*rows, levers=levers)), policy)


def found(history, policy=SEATED):
    return {
        row["reviewer"]: row["agrees"] for row in build_reviewer_checks(history, policy).to_dicts()
    }


# What is a check


def test_two_who_read_one_case_are_held_against_each_other():
    assert read("bear", "bear") == {"ana": True, "bo": True}
    assert read("bear", "fox") == {"ana": False, "bo": False}


def test_whoever_is_unsure_and_whoever_was_alone_has_no_check():
    assert read("bear", None) == {}
    assert read("bear") == {}


def test_one_of_three_is_held_against_the_others_where_these_are_of_one_mind():
    assert read("bear", "bear", "fox", policy=THREE) == {"cy": False}
    assert read("bear", "bear", "bear", policy=THREE) == dict.fromkeys(("ana", "bo", "cy"), True)
    assert read("bear", "fox", "none", policy=THREE) == {}
    assert read("bear", None, "fox", policy=THREE) == {"ana": False, "cy": False}


def test_among_five_three_who_agree_are_held_against_the_other_four():
    said = read("bear", "bear", "bear", "bear", "fox", policy=FIVE)
    assert said == {"ana": True, "bo": True, "cy": True, "di": True, "ed": False}
    said = read("bear", "bear", "bear", "fox", "fox", policy=FIVE)
    assert said == {"di": False, "ed": False}


def test_a_check_waits_for_everybody_who_was_asked():
    assert read("bear", "bear", policy=THREE) == {}


def test_numbers_agree_within_the_tolerance_of_the_larger_whoever_comes_first():
    policy = replace(SEATED, levers=(PRICE,))
    for said, alike in ((("90", "100"), True), (("100", "89"), False), (("89", "100"), False)):
        assert set(read(*said, policy=policy, levers=["price"]).values()) == {alike}


def test_several_levers_are_one_answer():
    policy = replace(SEATED, levers=(ALARM, replace(ALARM, id="gate")))
    both = {"policy": policy, "levers": ("alarm", "gate")}
    assert read(("bear", "fox"), ("bear", "fox"), **both) == {"ana": True, "bo": True}
    assert read(("bear", "fox"), ("bear", "bear"), **both) == {"ana": False, "bo": False}


@pytest.mark.parametrize("exposure", ["assisted", "revealed", "unknown"])
def test_only_blind_verdicts_are_checked(exposure):
    assert read("bear", "fox", exposure=exposure) == {}


def test_verdicts_made_elsewhere_are_checks_where_the_policy_vouches_for_them():
    assert read("bear", "fox", seat=None) == {}
    assert read("bear", "fox", seat=None, policy=OUTSIDE) == {"ana": False, "bo": False}


def test_a_verdict_in_a_seat_changes_no_check_of_verdicts_made_elsewhere():
    rows = [
        ("a", said, {"reviewer": who, "at": at})
        for who, said, at in (("ana", "fox", 1), ("bo", "bear", 2))
    ]
    seated = ("a", "bear", {"reviewer": "cy", "seat": 1, "at": 3})
    before = records(cases(("a", 0)), decision_rows=decisions(*rows))
    after = records(cases(("a", 0)), decision_rows=decisions(*rows, seated))
    assert found(before, OUTSIDE) == found(after, OUTSIDE) == {"ana": False, "bo": False}


def test_a_check_is_made_when_the_last_verdict_of_it_is_in():
    rows = [
        ("a", "bear", {"reviewer": who, "seat": n, "at": 3 * n})
        for n, who in ((1, "ana"), (2, "bo"))
    ]
    frame = build_reviewer_checks(records(cases(("a", 0)), decision_rows=decisions(*rows)), SEATED)
    assert set(frame["at"]) == {int(hour(6).timestamp() * 1e6)}


def test_a_burst_is_one_check_each():
    by_episode = evidence(SEATED, unit="episode")
    rows = [(key, 1, {"episode": "e"}) for key in "abc"]
    said = [
        (key, label, {"reviewer": who, "seat": seat, "at": 2 + place})
        for place, key in enumerate("abc")
        for seat, (who, label) in enumerate(
            (("ana", "bear"), ("bo", "fox" if key == "a" else "bear")), 1
        )
    ]
    history = records(cases(*rows), decision_rows=decisions(*said))
    assert found(history, by_episode) == {"ana": False, "bo": False}
    assert build_reviewer_checks(history, SEATED).height == 6


def knowing(*rows, levers=("alarm",)):
    """Decisions on known cases: (key, said, right, reviewer, hour)."""
    return pl.DataFrame(
        [
            {"case_key": key, "reviewer": who, "value:alarm": said, "right:alarm": right,
             "unsure": said is None, "at": hour(at)}
            for key, said, right, who, at in rows
        ],
        schema=build_gold_schema(levers),
    )  # fmt: skip


def test_a_known_case_is_a_check_against_what_is_known():
    rows = [
        ("a", "bear", "bear", "ana", 3),
        ("b", "fox", "bear", "ana", 4),
        ("a", None, "bear", "bo", 5),
    ]
    history = replace(records(cases(("a", 0), ("b", 0))), gold_decisions=knowing(*rows))
    frame = build_reviewer_checks(history, SEATED)
    assert frame.select("reviewer", "agrees", "known").rows() == [
        ("ana", True, True),
        ("ana", False, True),
    ]


@pytest.mark.slow
@examples(given(data=st.data()), fast=8, whole=40)
def test_the_order_of_the_records_and_what_a_model_says_change_no_check(data):
    draw = data.draw
    policy = draw(st.sampled_from([SEATED, OUTSIDE, THREE, evidence(THREE, unit="episode")]))
    said = st.sampled_from(["bear", "fox", None])
    keys = [f"c{i}" for i in range(6)]
    rows = [
        (
            key,
            draw(said),
            {
                "reviewer": who,
                "seat": draw(st.sampled_from([None, 1, 2, 3])),
                "at": draw(st.integers(0, 60)),
            },
        )
        for key in keys
        for who in draw(st.sets(st.sampled_from(["ana", "bo", "cy", "di"])))
    ]
    where = cases(*((key, 0, {"episode": draw(st.sampled_from([None, "e"]))}) for key in keys))
    history = records(where, predictions(*((k, "bear") for k in keys)), decisions(*rows))
    seed = draw(st.integers(0, 99))
    mixed = replace(
        history,
        cases=where.sample(fraction=1, shuffle=True, seed=seed),
        predictions=predictions(*((k, "fox") for k in keys)),
        decisions=history.decisions.sample(fraction=1, shuffle=True, seed=seed),
    )
    assert build_reviewer_checks(history, policy).equals(build_reviewer_checks(mixed, policy))


@pytest.mark.slow
@examples(given(data=st.data()), fast=8, whole=40)
def test_what_comes_in_later_changes_no_check_that_was_made(data):
    draw = data.draw
    policy = draw(st.sampled_from([SEATED, OUTSIDE, evidence(THREE, outside="blind")]))
    people = st.permutations(["ana", "bo", "cy", "di"])
    said, seat = st.sampled_from(["bear", "fox", None]), st.sampled_from([None, 1, 2, 3])
    rows = [
        (key, draw(said), {"reviewer": who, "at": at, "seat": draw(seat)})
        for key in "abc"
        for at, who in enumerate(draw(people), start=1)
    ]
    where = cases(*((key, 0) for key in "abc"))
    for until, later in pairwise([1, 2, 3, 4]):
        then, now = (
            build_reviewer_checks(
                records(where, decision_rows=decisions(*(r for r in rows if r[2]["at"] <= at))),
                policy,
            )
            for at in (until, later)
        )
        known = now.filter(pl.col("at") <= int(hour(until).timestamp() * 1e6))
        assert then.equals(known)
