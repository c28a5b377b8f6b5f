"""Costs and comparisons of units: labels, numbers, several levers."""

from dataclasses import replace

import numpy as np
import pytest

from rollout.engine.evidence.units import UNLISTED
from rollout.kernel.units import FAILED, MISSING, OUTSIDE, CostRule, Lever, Margin, Number
from tests.engine.evidence.histories import (
    ALARM,
    a_policy,
    cases,
    decisions,
    evidence,
    only,
    predictions,
    records,
    resolve_case,
    resolved,
    track,
)

POLICY = a_policy()


COSTLY = replace(
    ALARM, costs=(CostRule(20, did="wait", right="ring"), CostRule(1, did="ring"), CostRule(3))
)


@pytest.mark.parametrize(
    ("said", "verdict", "cost"),
    [
        ("bear", "bear", 0),
        ("fox", "none", 0),
        ("fox", "bear", 20),
        ("bear", "none", 1),
        ("wolf", "bear", 20),
        ("bear", None, 20),
    ],
)
def test_a_cost_is_that_of_the_action_taken_for_the_right_one(said, verdict, cost):
    row = only(resolve_case(said, verdict, replace(POLICY, levers=(COSTLY,))))
    assert row["cost"] == cost
    assert row["level"] == {0: 0, 1: 1, 3: 2, 20: 3}[cost]


@pytest.mark.slow
def test_costs_agree_with_the_levers_own_table():
    policy = replace(POLICY, levers=(COSTLY,))
    for said in ALARM.labels:
        for verdict in ALARM.labels:
            expected = COSTLY.compute_cost(COSTLY.find_action(said), COSTLY.find_action(verdict))
            assert only(resolve_case(said, verdict, policy))["cost"] == expected


@pytest.mark.slow
def test_more_than_64_cost_levels_are_rounded_up():
    levers = tuple(
        Lever(f"l{i}", ("a", "b"), ("a", "b"), costs=(CostRule(2.0**i),)) for i in range(7)
    )
    policy = replace(POLICY, levers=levers)
    names = [lever.id for lever in levers]
    history = records(
        cases(("a", 10)),
        predictions(("a", ("b", "a", "b", "a", "a", "a", "a")), levers=names),
        decisions(("a", ("a",) * 7), levers=names),
    )
    row = next(r for r in track(resolved(history, policy)) if r["lever"] == "*")
    levels = policy.cost_levels
    assert (row["cost"], len(levels)) == (5, 64)
    assert levels[row["level"]] >= 5 > levels[row["level"] - 1]


PRICE = Lever(
    "price",
    number=Number("EUR", 0, 100, Margin(0.1, relative=True)),
    costs=(
        CostRule(9, over=Margin(0.5, relative=True)),
        CostRule(4, under=Margin(30)),
        CostRule(2, off=Margin(5)),
    ),
)


@pytest.mark.parametrize(
    ("said", "verdict", "predicted", "cost"),
    [
        ("55", "50", "agree", 0),
        ("55.5", "50", "over", 2),
        ("44.5", "50", "under", 2),
        ("76", "50", "over", 9),
        ("19", "50", "under", 4),
        ("5", "4", "over", 0),
        ("101", "99", OUTSIDE, 9),
        ("-1", "0", OUTSIDE, 9),
        (None, "50", FAILED, 9),
        ("cheap", "50", OUTSIDE, 9),
        (" 50 ", "5e1", "agree", 0),
    ],
)
def test_numbers_agree_within_their_tolerance(said, verdict, predicted, cost):
    row = only(number(said, verdict))
    assert (row["predicted"], row["cost"]) == (predicted, cost)


def number(said, verdict, lever=PRICE):
    names = [lever.id]
    history = records(
        cases(("a", 10)),
        predictions(("a", said), levers=names),
        decisions(("a", verdict), levers=names),
    )
    return resolved(history, replace(POLICY, levers=(lever,)))


def test_a_plain_tolerance_is_the_same_everywhere():
    lever = replace(PRICE, number=Number("EUR", 0, 100, Margin(2)), costs=(CostRule(1),))
    assert only(number("3", "1", lever))["predicted"] == "agree"
    assert only(number("99.5", "97", lever))["predicted"] == "over"


@pytest.mark.parametrize("verdict", ["120", "-3", "dear", "nan"])
def test_a_persons_number_outside_is_a_disagreement_at_the_largest_cost(verdict):
    row = only(number("99", verdict))
    assert (row["decided"], row["cost"]) == (UNLISTED, 9)


def test_number_costs_agree_with_the_levers_own():
    said, verdicts = np.random.default_rng(4).uniform(0, 100, (2, 60)).round(1)
    names, keys = [PRICE.id], [f"c{i}" for i in range(60)]
    history = records(
        cases(*((key, 10) for key in keys)),
        predictions(*zip(keys, map(str, said), strict=True), levers=names),
        decisions(*zip(keys, map(str, verdicts), strict=True), levers=names),
    )
    rows = track(resolved(history, replace(POLICY, levers=(PRICE,))))
    found = {row["case_key"]: row["cost"] for row in rows}
    costs = [PRICE.compute_number_cost(*pair) for pair in zip(said, verdicts, strict=True)]
    assert found == dict(zip(keys, costs, strict=True))


TWO = replace(POLICY, levers=(COSTLY, Lever("gate", ("open", "shut"), ("open", "shut"))))
NAMES = ("alarm", "gate")


def two(said, *verdicts, policy=TWO):
    given = [("a", v, {"reviewer": f"r{i}", "at": 10 + i / 9}) for i, v in enumerate(verdicts)]
    history = records(
        cases(("a", 10)),
        predictions(("a", said), levers=NAMES),
        decisions(*given, levers=NAMES),
    )
    return {row["lever"]: row for row in track(resolved(history, policy))}


def test_several_levers_count_each_for_itself_and_once_together():
    rows = two(("fox", "open"), ("bear", "open"))
    assert {k: (r["predicted"], r["decided"]) for k, r in rows.items()} == {
        "alarm": ("fox", "bear"),
        "gate": ("open", "open"),
        "*": ("differ", "agree"),
    }
    assert {k: r["cost"] for k, r in rows.items()} == {"alarm": 20, "gate": 0, "*": 20}


def test_costs_of_levers_add_up():
    assert two(("fox", "shut"), ("bear", "open"))["*"]["cost"] == 21


def test_a_unit_with_one_lever_undecided_is_missing_at_the_largest_cost():
    policy = evidence(TWO, verdicts=3)
    verdicts = (("fox", "open"), ("bear", "open"), ("none", "open"))
    rows = two(("fox", "open"), *verdicts, policy=policy)
    assert rows["gate"]["decided"] == "open"
    assert (rows["*"]["decided"], rows["*"]["cost"]) == (MISSING, 21)


@pytest.mark.parametrize(
    ("second", "stands"),
    [
        (("bear", "open"), "agree"),
        (("fox", "open"), "differ"),
        (("none", "open"), "other"),
        ((None, None), MISSING),
    ],
)
def test_a_second_person_stands_with_the_first_the_model_or_nobody(second, stands):
    assert two(("fox", "open"), ("bear", "open"), second)["*"]["second"] == stands


def test_a_second_label_outside_the_lever_is_unlisted_like_the_first():
    given = decisions(
        ("a", "wolf", {"reviewer": "ana", "at": 10.1}),
        ("a", "wolf", {"reviewer": "bo", "at": 10.2}),
    )
    row = only(resolved(records(cases(("a", 10)), predictions(("a", "bear")), given), POLICY))
    assert row["decided"] == row["second"] == UNLISTED


def test_a_label_that_looks_like_a_number_stays_text():
    lever = Lever("digit", ("0", "07"), ("north", "south"))
    policy = replace(POLICY, levers=(lever,))
    history = records(
        cases(("1", 10)),
        predictions(("1", "07"), levers=("digit",)),
        decisions(("1", "0"), levers=("digit",)),
    )
    row = only(resolved(history, policy))
    assert (row["predicted"], row["decided"]) == ("07", "0")
