"""Renewals that weigh audits: published vectors, weights of 1, and how a reading is written."""

from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.policy.audit_readings import (
    WeightedCounts,
    average_log_e_path,
    compute_weighted_mean,
    count_audits,
    find_audit_counts,
    format_audit_counts,
    parse_audit_counts,
    weighs_audits,
)
from rollout.core.policy.gates import read_condition, read_renewal
from rollout.core.policy.levers import CostRule, Lever
from rollout.core.policy.measures import Condition
from rollout.core.policy.planted_conditions import PlantedCondition
from rollout.core.policy.slice_conditions import SliceCondition
from rollout.core.statistics.evidence import compute_cost_log_e, compute_log_e
from tests.factories import AGREEMENT, CREEK, counted, policy

POLICY = policy()
LOOSE = Condition("agreement", 0.9, at_least=True)
LEVER = Lever("alarm", ("x", "y"), ("x", "y"), costs=(CostRule(10, did="x"), CostRule(1)))
COSTLY = policy(levers=(LEVER,))
COST = Condition("cost", 0.5, at_least=False)

# Each e-value alone as published: of the units of the least share, and of all audits by weight.
VECTORS = [
    (AGREEMENT, (74, 0), 3.004777323, [(1, 80, 0), (0.1, 0, 3)], 3.004876582),
    (AGREEMENT, (245, 3), 4.271300069, [(1, 160, 0), (0.1, 80, 6)], 6.846941134),
    (AGREEMENT, (19, 1), -0.666001271, [(0.4, 3, 1)], -0.271275722),
    (LOOSE, (95, 3), 2.551719519, [(1, 60, 1), (0.1, 30, 6)], 2.561352608),
]


@pytest.mark.parametrize(("condition", "counts", "uniform", "groups", "weighted"), VECTORS)
def test_a_reading_is_the_mean_of_both_published_e_values(
    condition, counts, uniform, groups, weighted
):
    audits = tuple(WeightedCounts(weight, pair) for weight, *pair in groups)
    reading = read_condition(condition, counts, 1.0, POLICY, audits=audits)
    expected = log((exp(uniform) + exp(weighted)) / 2)
    assert reading.compute_log_e(POLICY) == pytest.approx(expected, abs=1e-8)
    assert reading.is_met == (expected > 0) == (not reading.has_turned)
    rows = np.array([counts, counts]), np.array([weight for weight, *_ in groups])
    pairs = np.array([[pair for _, *pair in groups]] * 2)
    path = average_log_e_path(condition, *rows, pairs, POLICY)
    assert path == pytest.approx([reading.compute_log_e(POLICY)] * 2, abs=1e-12)


@given(st.lists(st.tuples(*[st.integers(0, 300)] * 3), min_size=1, max_size=4))
def test_costs_whose_audits_all_weigh_one_have_exactly_the_uniform_e_value(groups):
    counts = tuple(sum(column) for column in zip(*groups, strict=True))
    audits = tuple(WeightedCounts(1.0, group) for group in groups)
    plain = read_condition(COST, counts, 1.0, COSTLY)
    reading = read_condition(COST, counts, 1.0, COSTLY, audits=audits)
    value = plain.compute_log_e(COSTLY)
    assert reading.compute_log_e(COSTLY) == pytest.approx(value, rel=1e-12, abs=1e-12)
    if abs(value) > 1e-9:
        assert (reading.is_met, reading.has_turned) == (plain.is_met, plain.has_turned)


@given(st.integers(0, 3000), st.integers(0, 100))
def test_shares_whose_audits_all_weigh_one_lie_between_both_tests_of_the_same_units(s, f):
    """The weighted test bets on a grid, the uniform one on all shares: they differ slightly."""
    reading = read_condition(AGREEMENT, (s, f), 1.0, POLICY, audits=(WeightedCounts(1.0, (s, f)),))
    both = compute_log_e(s, f, at_least=0.95), compute_cost_log_e([0, 1], [s, f], at_most=0.05)
    assert min(both) - 1e-9 <= reading.compute_log_e(POLICY) <= max(both) + 1e-9


def test_no_records_are_no_evidence():
    assert read_condition(AGREEMENT, (0, 0), 1.0, POLICY).is_met
    empty = np.zeros((1, 2), dtype=np.int64), np.array([1, 0.1]), np.zeros((1, 2, 2))
    assert average_log_e_path(AGREEMENT, *empty, POLICY) == pytest.approx(0, abs=1e-12)
    none = np.zeros((1, 2), dtype=np.int64), np.zeros(0), np.zeros((1, 0, 2))
    assert average_log_e_path(AGREEMENT, *none, POLICY) == pytest.approx(0, abs=1e-12)


def test_a_renewal_counts_all_audits_and_asks_for_e_of_one():
    """The least share alone would have drawn 62 of them, which speak against the threshold."""
    audits = (WeightedCounts(1.0, (56, 0)), WeightedCounts(0.1, (45, 5)))
    seen = replace(counted(101, 5), counts={AGREEMENT.key: (58, 4)})
    assert read_renewal(POLICY, CREEK, 1, seen).has_turned
    reading = read_renewal(POLICY, CREEK, 1, replace(seen, audits={AGREEMENT.key: audits}))
    assert (reading.is_met, reading.has_turned) == (True, False)
    (line,) = (part.format(POLICY) for part in reading.readings)
    log_e = reading.readings[0].compute_log_e(POLICY)
    assert line == (
        f"agreement at least 95 %: 58 of 62, log E {log_e:.6f} of 0.000000"
        " over audits 1 56+0 0.1 45+5 (risk 1)"
    )
    assert find_audit_counts(line) == audits
    assert count_audits(audits) == 106
    assert compute_weighted_mean(audits, (1, 0)) == pytest.approx(60.5 / 61)
    few = replace(seen, closed=99, audits={AGREEMENT.key: audits})
    assert read_renewal(POLICY, CREEK, 1, few).unmet_requirements == ("99 of 100 decided units",)


def test_slices_and_planted_cases_are_not_weighed():
    assert weighs_audits(AGREEMENT)
    assert weighs_audits(COST)
    assert not weighs_audits(Condition("parity", -0.02, at_least=True))
    assert not weighs_audits(SliceCondition("agreement", 0.9, at_least=True, slice="form"))
    assert not weighs_audits(PlantedCondition("recall", 0.9, at_least=True, label="bear"))


@given(
    st.lists(
        st.tuples(st.floats(0.1, 1), st.lists(st.integers(0, 10**6), min_size=2, max_size=4)),
        min_size=1,
        max_size=5,
    )
)
def test_counts_by_weight_are_read_as_they_were_written(rows):
    audits = tuple(WeightedCounts(weight, tuple(counts)) for weight, counts in rows)
    text = format_audit_counts(audits)
    assert parse_audit_counts(text) == audits
    assert find_audit_counts(f"cost at most 1: 3 4, log E 0.1 of 0 over audits {text} (risk 1)")
