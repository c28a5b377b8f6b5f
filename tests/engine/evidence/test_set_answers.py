"""Units of sets of labels: what counts as equal, as overlapping, and as no set."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.evidence.unit_arrays import UnitClasses
from rollout.engine.evidence.units import UNLISTED
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.units import FAILED, LATE, MISSING, OUTSIDE, CostRule, Lever, UnitClass
from tests.engine.evidence.histories import (
    a_policy,
    cases,
    decisions,
    only,
    predictions,
    records,
    resolved,
)

LABELS = ("nike", "puma", "c++", "a", "ab")
LOGOS = Lever("logos", LABELS, LABELS, many=True, costs=(CostRule(3),))
LENIENT = replace(LOGOS, overlap=0.5)
NONE = "(none of them)"


def resolve_sets(predicted, decided, lever=LOGOS, **more):
    history = records(
        cases(("x", 10)),
        predictions(("x", predicted, more), levers=["logos"]),
        decisions(("x", decided, {"at": 11}), levers=["logos"]),
    )
    row = only(resolved(history, replace(a_policy(), levers=(lever,))))
    return row["decided"], row["predicted"], row["cost"]


@pytest.mark.parametrize(
    ("predicted", "decided", "found"),
    [
        ("a;nike", "a;nike", ("a;nike", "a;nike", 0)),
        (NONE, NONE, (NONE, NONE, 0)),
        ("a", "ab", ("ab", "a", 3)),
        ("ab;c++", "c++", ("c++", "ab;c++", 3)),
        ("nike;a", "a;nike", ("a;nike", OUTSIDE, 3)),
        ("a;a", "a", ("a", OUTSIDE, 3)),
        ("a;", "a", ("a", OUTSIDE, 3)),
        ("adidas", "a", ("a", OUTSIDE, 3)),
        ("a", "a;adidas", (UNLISTED, "a", 3)),
        (None, "a", ("a", FAILED, 3)),
        ("a", None, (MISSING, "a", 3)),
    ],
)
def test_sets_agree_if_they_are_equal(predicted, decided, found):
    assert resolve_sets(predicted, decided) == found


@pytest.mark.parametrize(
    ("predicted", "decided", "found"),
    [
        ("a", "a;nike", ("a;nike ≈ a", "a;nike ≈ a", 0)),
        ("a", "a;ab;nike", ("a;ab;nike", "a", 3)),
        ("c++;nike", "c++", ("c++ ≈ c++;nike", "c++ ≈ c++;nike", 0)),
        ("a", NONE, (NONE, "a", 3)),
        (NONE, NONE, (NONE, NONE, 0)),
        ("a;adidas", "a", ("a", OUTSIDE, 3)),
        ("a", None, (MISSING, "a", 3)),
        (None, "a", ("a", FAILED, 3)),
    ],
)
def test_sets_agree_from_their_overlap_on(predicted, decided, found):
    assert resolve_sets(predicted, decided, LENIENT) == found


def test_a_late_set_agrees_with_nothing():
    lever = replace(LENIENT, answer_within=timedelta(minutes=5), unanswered="a")
    assert resolve_sets("a", "a;nike", lever, at=11) == ("a;nike", LATE, 3)


@pytest.mark.slow
def test_units_and_reports_compare_alike():
    for lever in (LOGOS, LENIENT):
        for predicted in ("a", "a;nike", "ab;nike", NONE):
            for decided in ("a", "a;nike", "ab", NONE):
                cost = resolve_sets(predicted, decided, lever)[2]
                assert cost == lever.compute_cost(predicted, decided)


def test_a_label_of_sets_is_counted_by_itself():
    policy = replace(a_policy(), levers=(LENIENT,))
    pair = "a;nike ≈ a"
    classes = (
        UnitClass("logos", "a;puma", "nike;puma"),
        UnitClass("logos", pair, pair),
        UnitClass("logos", "nike", MISSING),
    )
    units = UnitClasses(classes, policy)
    found = [
        units.get_class_counts(Condition(MEASURES[measure], 0.9, label="nike")).tolist()
        for measure in ("recall", "precision")
    ]
    assert found == [[[0, 1], [0, 1], [0, 0]], [[0, 0], [0, 0], [0, 1]]]
