"""Reviewer checks: what is compared, who fails, and what is excluded."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.core.policy.levers import Lever, Margin, Number
from rollout.core.policy.measures import MISSING
from rollout.tally import reviewer_checks
from rollout.tally.frames import build_gold_schema
from rollout.tally.reviewer_checks import (
    CHECK_SCHEMA,
    MIN_CHECKS,
    build_reviewer_checks,
    compute_reliability,
)
from tests.tally.histories import (
    ALARM,
    a_policy,
    cases,
    decisions,
    evidence,
    hour,
    predictions,
    records,
    resolved,
    track,
)

SEATED = evidence(a_policy(), outside_blind=False)
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


@settings(max_examples=20, deadline=None)
@given(data=st.data())
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
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_comes_in_later_changes_no_check_that_was_made(data):
    draw = data.draw
    policy = draw(st.sampled_from([SEATED, OUTSIDE, evidence(THREE, outside_blind=True)]))
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


# Who fails


def stood(*days, line=0.8):
    """Standings of one person from (agreed, differed) day by day."""
    rows = [
        {
            "reviewer": "ana",
            "case_key": "a",
            "at": day * reviewer_checks.DAY + 5,
            "agrees": agrees,
            "against": None,
            "known": False,
        }
        for day, (agreed, differed) in enumerate(days)
        for agrees in [True] * agreed + [False] * differed
    ]
    return compute_reliability(pl.DataFrame(rows, schema=CHECK_SCHEMA), line)["failing"].to_list()


def test_nobody_fails_on_a_few_checks_however_bad():
    assert stood((0, MIN_CHECKS - 1)) == [False]
    assert stood((0, MIN_CHECKS)) == [True]


def test_who_is_clearly_below_the_line_fails_and_may_come_back():
    assert stood((15, 5)) == [False]  # 75 %: below, and no proof
    assert stood((20, 20), (60, 2)) == [True, False]


def team(*pairs, day=0):
    """Standings of people from (one, other, agreed, differed), all of one day."""
    rows = [
        {"reviewer": who, "case_key": "a", "at": day * reviewer_checks.DAY + 5,
         "agrees": agrees, "against": against, "known": against is None}
        for one, other, agreed, differed in pairs
        for who, against in ([(one, other), (other, one)] if other else [(one, None)])
        for agrees in [True] * agreed + [False] * differed
    ]  # fmt: skip
    frame = compute_reliability(pl.DataFrame(rows, schema=CHECK_SCHEMA), 0.8)
    return set(frame.filter("failing")["reviewer"])


def test_who_reads_beside_a_careless_one_does_not_fail_with_them():
    assert team(("ana", "bo", 55, 5), ("ana", "cy", 25, 35), ("bo", "cy", 24, 36)) == {"cy"}
    assert team(("ana", "cy", 20, 40), ("bo", "cy", 50, 40)) == {"cy"}


def test_of_two_who_read_nothing_else_nobody_knows_who_errs_unless_cases_are_known():
    assert team(("ana", "cy", 20, 40)) == {"ana", "cy"}
    assert team(("ana", "cy", 20, 40), ("cy", None, 4, 8)) == {"cy"}


def test_two_careless_ones_both_fail():
    pairs = [
        ("ana", "bo", 55, 5),
        ("ana", "cy", 25, 35),
        ("bo", "di", 25, 35),
        ("cy", "di", 20, 40),
    ]
    assert team(*pairs) == {"cy", "di"}


def test_whoever_passes_on_all_checks_passes_on_the_rest_too():
    # two who err alike agree with each other; without these checks each would fail
    alike = [("ana", "di", 90, 0), ("ana", "bo", 2, 10)]
    assert team(*alike, ("di", "cy", 0, 200), ("bo", "cy", 100, 0)) == {"di"}


def test_a_line_of_nothing_fails_nobody_and_one_of_everything_whoever_differs():
    assert stood((0, 50), line=0) == [False]
    assert stood((50, 0), (0, 1), line=1) == [False, True]


def test_without_checks_nobody_stands_anywhere():
    assert compute_reliability(pl.DataFrame(schema=CHECK_SCHEMA), 0.8).is_empty()


def test_who_agrees_just_as_often_as_asked_is_ever_left_out_in_at_most_one_of_twenty_lives():
    rng = np.random.default_rng(5)
    lives, days, a_day = 400, 100, 10
    differed = rng.binomial(a_day, 0.2, (lives, days)).cumsum(axis=1)
    agreed = a_day * np.arange(1, days + 1) - differed
    shown = reviewer_checks.get_gate_threshold(
        round(1 - 0.8, 12), reviewer_checks.EXCLUSION_RISK
    ).are_met(differed, agreed)
    assert 0 < shown.any(axis=1).mean() <= reviewer_checks.EXCLUSION_RISK


# What is left out


def a_day_of(n=12):
    """Doubly read cases of one day, on all of which ana and bo differ."""
    at, keys = 1, [f"d{i}" for i in range(n)]
    said = [
        (key, label, {"reviewer": who, "at": at + 1, "seat": seat})
        for key in keys
        for seat, (who, label) in enumerate((("ana", "bear"), ("bo", "fox")), 1)
    ]
    return [(key, at) for key in keys], said


def with_checks(policy, case, verdict, *, model="bear", line=0.8):
    """One case of day 1 beside a day 0 on which bo and ana differed on all they read."""
    where, said = a_day_of()
    history = records(
        cases(*where, case), predictions((case[0], model)), decisions(*said, *verdict)
    )
    return resolved(history, evidence(policy, min_reviewer_agreement=line))


def test_a_failing_reviewers_unit_is_missing_for_gates_from_the_next_day_on():
    for at, decided in ((23.9, "bear"), (24.1, MISSING)):
        frame = with_checks(
            SEATED, ("x", at), [("x", "bear", {"reviewer": "ana", "seat": 1, "at": at})]
        )
        (row,) = (row for row in track(frame) if row["case_key"] == "x")
        assert (row["decided"], row["predicted"]) == (decided, "bear")
        assert row["reviewer"] == (None if decided == MISSING else "ana")
        assert row["excluded"] is None


def test_guards_look_at_every_verdict():
    (row,) = track(
        with_checks(SEATED, ("x", 30), [("x", "fox", {"reviewer": "ana", "seat": 1, "at": 31})]),
        "guard",
    )
    assert (row["decided"], row["predicted"], row["reviewer"]) == ("fox", "bear", "ana")


def test_the_other_reading_takes_no_failing_ones_place():
    verdict = [
        ("x", "bear", {"reviewer": "ana", "seat": 1, "at": 31}),
        ("x", "bear", {"reviewer": "cy", "seat": 2, "at": 31}),
    ]
    (row,) = track(with_checks(SEATED, ("x", 30), verdict))
    assert row["decided"] == MISSING
    (row,) = track(
        with_checks(
            SEATED, ("x", 30), [(*v[:2], {**v[2], "seat": 3 - v[2]["seat"]}) for v in verdict]
        )
    )
    assert (row["decided"], row["second"], row["reviewer"]) == ("bear", MISSING, "cy")


def test_of_three_a_failing_one_has_no_vote_and_the_majority_stays_that_of_three():
    def said(*labels):
        seats = zip(("ana", "cy", "di"), labels, strict=True)
        return [
            ("x", label, {"reviewer": who, "seat": n, "at": 31})
            for n, (who, label) in enumerate(seats, 1)
        ]

    policy = evidence(SEATED, verdicts=3)
    where, read = a_day_of()
    third = [(key, "none", {"reviewer": "ed", "seat": 3, "at": 2}) for key, _ in where]
    read = [(k, "fox" if m["reviewer"] == "ana" else "none", m) for k, _, m in read]
    for labels, decided in ((("bear", "bear", "fox"), MISSING), (("fox", "bear", "bear"), "bear")):
        history = records(
            cases(*where, ("x", 30)),
            predictions(("x", "bear")),
            decisions(*read, *third, *said(*labels)),
        )
        (row,) = track(resolved(history, evidence(policy, min_reviewer_agreement=0.8)))
        assert row["decided"] == decided


def test_without_the_key_nobody_is_left_out():
    where, said = a_day_of()
    late = ("x", "bear", {"reviewer": "ana", "seat": 1, "at": 31})
    history = records(cases(*where, ("x", 30)), predictions(("x", "bear")), decisions(*said, late))
    assert track(resolved(history, SEATED))[0]["decided"] == "bear"


def test_known_cases_fail_whoever_gets_them_wrong_and_nobody_else():
    where = [(f"k{i}", 1) for i in range(12)]
    rows = [(key, "fox", "bear", "ana", 2) for key, _ in where]
    rows += [(key, "bear", "bear", "bo", 2) for key, _ in where]
    late = [
        (key, "bear", {"reviewer": who, "seat": 1, "at": 31})
        for key, who in (("x", "ana"), ("y", "bo"))
    ]
    history = records(
        cases(*where, ("x", 30), ("y", 30)),
        predictions(("x", "bear"), ("y", "bear")),
        decisions(*late),
    )
    policy = evidence(SEATED, min_reviewer_agreement=0.8)
    frame = resolved(replace(history, gold_decisions=knowing(*rows)), policy)
    assert {row["case_key"]: row["decided"] for row in track(frame)} == {"x": MISSING, "y": "bear"}


def test_a_long_wait_counts_by_when_the_verdict_was_given():
    slow = evidence(SEATED, grace=timedelta(days=3))
    frame = with_checks(slow, ("x", 20), [("x", "bear", {"reviewer": "ana", "seat": 1, "at": 40})])
    (row,) = (row for row in track(frame) if row["case_key"] == "x")
    assert row["decided"] == MISSING
