"""E-values and bounds: the published vectors, the fairness of each bet, and its far ends."""

from itertools import pairwise, product
from math import acos, comb, exp, isfinite, log, prod, sqrt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollout.kernel.statistics import evidence
from rollout.kernel.statistics.evidence import (
    compute_action_mix_log_e,
    compute_cost_log_e,
    compute_log_e,
    compute_lower_bound,
    compute_lower_bounds,
    compute_paired_log_e,
    count_further_agreements,
)
from tests.properties import examples

BILLION = 10**9
counts = st.integers(0, BILLION) | st.integers(0, 300)
lines = st.floats(0.001, 0.999)


@pytest.mark.parametrize(
    ("agreed", "disagreed", "at_least", "expected"),
    [
        (0, 0, 0.95, 0.0),
        (1, 0, 0.95, 0.034370399),
        (0, 1, 0.95, -1.091805071),
        (19, 1, 0.95, -0.666001271),
        (73, 0, 0.95, 2.959923069),
        (74, 0, 0.95, 3.004777323),
        (190, 10, 0.95, -1.672017529),
        (245, 3, 0.95, 4.271300069),
        (970, 30, 0.95, 3.143107115),
        (940, 60, 0.95, -3.319145074),
        (36, 0, 0.9, 3.005216019),
        (95, 3, 0.9, 2.551719519),
        (1995, 5, 0.99, 6.843045519),
        (4990, 10, 0.99, 22.330721236),
        (19600, 400, 0.95, 239.622526612),
        (999000, 1000, 0.99, 6733.819497968),
    ],
)
def test_the_share_has_its_published_e_value(agreed, disagreed, at_least, expected):
    assert compute_log_e(agreed, disagreed, at_least=at_least) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("agreed", "disagreed", "at_least", "expected"),
    [
        (820, 770, 0.92, -7.21534990517114),
        (0, BILLION, 0.95, -21.3992568354685),
        (BILLION, BILLION, 0.95, -21.3451896142892),
        (BILLION, 0, 0.95, 51293285.3945111),
        (BILLION, BILLION, 0.5, -10.9339978615229),
        (949_972_432, 50_027_568, 0.95, -11.0065775929684),
        (950_027_569, 49_972_432, 0.95, -0.645131810162805),
    ],
)
def test_large_counts_have_the_e_value_of_fifty_digits(agreed, disagreed, at_least, expected):
    assert compute_log_e(agreed, disagreed, at_least=at_least) == pytest.approx(expected, rel=1e-10)


@examples(given(st.integers(0, 60), st.integers(0, 60), lines), fast=20, whole=100)
def test_the_share_s_e_value_is_the_mixture_that_it_says_it_is(agreed, disagreed, line):
    # p = sin²(angle) makes Beta(½, ½) flat
    nodes, weights = np.polynomial.legendre.leggauss(200)
    low = np.arcsin(np.sqrt(line))
    rate = np.sin(low + (np.pi / 2 - low) * (nodes + 1) / 2) ** 2
    bets = (rate / line) ** agreed * ((1 - rate) / (1 - line)) ** disagreed
    mean = log(float(bets @ weights / 2))
    assert compute_log_e(agreed, disagreed, at_least=line) == pytest.approx(mean, abs=1e-8)


@given(st.integers(0, 40), lines)
def test_at_the_line_the_share_s_bet_is_fair(records, line):
    values = [
        comb(records, s)
        * line**s
        * (1 - line) ** (records - s)
        * exp(compute_log_e(s, records - s, at_least=line))
        for s in range(records + 1)
    ]
    assert sum(values) == pytest.approx(1, abs=1e-9)


@given(counts, counts, lines)
@example(0, BILLION, 0.999)
@example(BILLION, BILLION, 0.95)
@example(949_972_432, 50_027_568, 0.95)
def test_one_more_agreement_never_lowers_the_e_value(agreed, disagreed, line):
    before = compute_log_e(agreed, disagreed, at_least=line)
    after = compute_log_e(agreed + 1, disagreed, at_least=line)
    assert isfinite(before)
    assert before <= after


@pytest.mark.parametrize("line", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("records", [10_000, 1_000_000, 2 * BILLION])
def test_the_e_value_rises_across_the_seam_of_its_two_routes(records, line):
    seam = records * line - 4 * (records * line * (1 - line)) ** 0.5
    disagreed = records - int(seam)
    values = [compute_log_e(int(seam) + k, disagreed, at_least=line) for k in range(-8, 60)]
    assert all(low < high for low, high in pairwise(values))


@given(st.sampled_from([5e-324, 1e-300, 1e-9, 1 - 1e-9, 1 - 2**-53]), counts, counts)
@example(5e-324, BILLION, BILLION)
@example(1 - 2**-53, BILLION, BILLION)
def test_lines_next_to_zero_and_one_give_finite_e_values(line, agreed, disagreed):
    assert isfinite(compute_log_e(agreed, disagreed, at_least=line))


@pytest.mark.parametrize(
    ("agreed", "disagreed", "alpha", "expected"),
    [
        (10, 0, 0.05, 0.686197856),
        (74, 0, 0.05, 0.950132606),
        (98, 2, 0.05, 0.914382957),
        (990, 10, 0.05, 0.977746054),
        (990, 10, 0.01, 0.974923263),
        (485, 15, 0.05, 0.941394820),
        (19000, 1000, 0.01, 0.943635054),
        (0, 0, 0.05, 0.0),
        (0, 40, 0.05, 0.0),
    ],
)
def test_the_lower_bound_has_its_published_value(agreed, disagreed, alpha, expected):
    assert compute_lower_bound(agreed, disagreed, alpha=alpha) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("alpha", [0.5, 0.05, 1e-6])
def test_one_agreement_bounds_the_share_as_its_closed_form_says(alpha):
    bound = compute_lower_bound(1, 0, alpha=alpha)
    mean = (1 + sqrt(bound * (1 - bound)) / acos(sqrt(bound))) / 2
    assert mean / bound == pytest.approx(1 / alpha, rel=1e-8)


@given(st.integers(1, BILLION) | st.integers(1, 300), counts, st.floats(1e-6, 0.999))
@example(1, BILLION, 0.05)
@example(BILLION, 0, 0.999)
def test_a_line_below_the_lower_bound_is_met_and_one_above_is_not(agreed, disagreed, alpha):
    bound = compute_lower_bound(agreed, disagreed, alpha=alpha)
    assert 0 <= bound < 1
    below, above = bound - 1e-8 * bound * (1 - bound), bound + 1e-8 * bound * (1 - bound)
    if 0 < below < bound < above < 1:
        assert compute_log_e(agreed, disagreed, at_least=below) >= log(1 / alpha) - 1e-6
        assert compute_log_e(agreed, disagreed, at_least=above) <= log(1 / alpha) + 1e-6


@given(st.integers(1, 10_000), st.integers(0, 10_000), lines, st.floats(1e-6, 0.999))
def test_bound_above_line_and_gate_met_are_one_decision(agreed, disagreed, line, alpha):
    bound = compute_lower_bound(agreed, disagreed, alpha=alpha)
    if abs(bound - line) > 1e-9:
        met = compute_log_e(agreed, disagreed, at_least=line) >= log(1 / alpha)
        assert met == (bound >= line)


@given(st.lists(st.tuples(counts, counts), max_size=8), st.floats(1e-6, 0.999))
def test_many_bounds_at_once_are_the_single_ones(cells, alpha):
    agreed, disagreed = [s for s, _ in cells], [f for _, f in cells]
    single = [compute_lower_bound(s, f, alpha=alpha) for s, f in cells]
    assert compute_lower_bounds(agreed, disagreed, alpha=alpha) == pytest.approx(single, rel=1e-9)


@pytest.mark.parametrize(
    ("agreed", "disagreed", "at_least", "alpha", "expected"),
    [
        (0, 0, 0.95, 0.05, 74),
        (0, 1, 0.95, 0.05, 130),
        (73, 0, 0.95, 0.05, 1),
        (74, 0, 0.95, 0.05, 0),
        (98, 2, 0.95, 0.05, 74),
        (190, 10, 0.95, 0.05, 242),
        (940, 60, 0.95, 0.05, 746),
        (30, 1, 0.9, 0.05, 33),
        (980, 20, 0.99, 0.01, 3009),
        (19, 1, 0.95, 0.01, 150),
    ],
)
def test_the_further_agreements_are_those_published(agreed, disagreed, at_least, alpha, expected):
    assert count_further_agreements(agreed, disagreed, at_least=at_least, alpha=alpha) == expected


@given(st.integers(0, BILLION), st.integers(0, BILLION), lines, st.floats(1e-6, 0.999))
def test_with_the_further_agreements_the_gate_is_met_and_with_one_less_it_is_not(
    agreed, disagreed, line, alpha
):
    further = count_further_agreements(agreed, disagreed, at_least=line, alpha=alpha)
    assert compute_log_e(agreed + further, disagreed, at_least=line) >= -log(alpha)
    if further:
        assert compute_log_e(agreed + further - 1, disagreed, at_least=line) < -log(alpha)


@pytest.mark.parametrize(
    ("at_most", "levels", "counted", "expected"),
    [
        (0.05, [0, 1], [74, 0], 3.010090725),
        (0.05, [0, 1], [245, 3], 4.272730422),
        (0.05, [0, 0.1, 0.3, 1], [180, 6, 3, 1], 4.110334237),
        (0.02, [0, 0.25, 1], [900, 8, 2], 8.755422173),
        (0.1, [0, 0.5], [60, 5], 2.758462786),
        (0.1, [0, 0.5], [0, 0], 0.0),
    ],
)
def test_costs_have_their_published_e_value(at_most, levels, counted, expected):
    assert compute_cost_log_e(levels, counted, at_most=at_most) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 6), st.floats(0.01, 0.4))
def test_at_the_line_the_bet_on_costs_is_fair(records, at_most):
    levels = [0.0, 0.5, 1.0]
    chances = [1 - at_most * 1.5, at_most, at_most / 2]
    expected = 0.0
    for drawn in product(range(3), repeat=records):
        counted = [drawn.count(level) for level in range(3)]
        chance = prod(chances[level] for level in drawn)
        expected += chance * exp(compute_cost_log_e(levels, counted, at_most=at_most))
    assert expected == pytest.approx(1, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1), counts), max_size=6), st.floats(1e-9, 1 - 1e-9))
def test_costs_have_finite_e_values(rows, at_most):
    levels, counted = [level for level, _ in rows], [n for _, n in rows]
    assert isfinite(compute_cost_log_e(levels, counted, at_most=at_most))


@given(counts, counts, counts, st.floats(0.001, 0.999))
def test_one_more_free_record_never_lowers_the_e_value_of_costs(free, half, whole, at_most):
    before = compute_cost_log_e([0, 0.5, 1], [free, half, whole], at_most=at_most)
    assert before <= compute_cost_log_e([0, 0.5, 1], [free + 1, half, whole], at_most=at_most)


@pytest.mark.parametrize(
    ("model_only", "human_only", "expected"),
    [
        (10, 0, 3.673375268),
        (10, 10, -0.947356796),
        (40, 20, 1.785624583),
        (20, 40, 1.785624583),
        (0, 0, 0.0),
        (BILLION, BILLION, -10.0769500488753),
        (500_000_000, 499_900_000, -4.72982641363249),
    ],
)
def test_paired_actions_have_their_published_e_value(model_only, human_only, expected):
    assert compute_paired_log_e(model_only, human_only) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 60))
def test_while_both_act_alike_the_paired_bet_is_fair(records):
    values = [
        comb(records, b) / 2**records * exp(compute_paired_log_e(b, records - b))
        for b in range(records + 1)
    ]
    assert sum(values) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ((70, 20, 9, 1), -0.793260433),
        ((660, 240, 90, 10), 0.648715811),
        ((600, 250, 120, 30), 22.619694870),
        ((0, 0, 0, 0), 0.0),
    ],
)
def test_the_action_mix_has_its_published_e_value(counted, expected):
    value = compute_action_mix_log_e(counted, (0.7, 0.2, 0.09, 0.01))
    assert value == pytest.approx(expected, abs=1e-9)


@given(counts, counts, counts)
@example(BILLION, BILLION, BILLION)
def test_every_other_e_value_is_finite(one, two, three):
    assert isfinite(compute_paired_log_e(one, two))
    assert isfinite(compute_action_mix_log_e([one, two, three], [0.98, 0.019, 0.001]))


@pytest.mark.parametrize(
    ("named", "ask"),
    [
        ("agreed", lambda: compute_log_e(-1, 0, at_least=0.9)),
        ("disagreed", lambda: compute_log_e(1, 0.5, at_least=0.9)),
        ("disagreed", lambda: compute_log_e(1, float("nan"), at_least=0.9)),
        ("at_least", lambda: compute_log_e(1, 0, at_least=95)),
        ("at_least", lambda: compute_log_e(1, 0, at_least=1.0)),
        ("at_least", lambda: compute_log_e(1, 0, at_least=float("nan"))),
        ("alpha", lambda: compute_lower_bound(1, 0, alpha=0.0)),
        ("agreed", lambda: compute_lower_bound(-1, 0, alpha=0.05)),
        ("disagreed", lambda: compute_lower_bounds([3, 3], [1, -1], alpha=0.05)),
        ("alpha", lambda: count_further_agreements(1, 0, at_least=0.9, alpha=1.0)),
        ("at_least", lambda: count_further_agreements(1, 0, at_least=0.0, alpha=0.05)),
        ("levels", lambda: compute_cost_log_e([0, 20], [3, 1], at_most=0.1)),
        ("levels", lambda: compute_cost_log_e([0, 1], [3], at_most=0.1)),
        ("counts", lambda: compute_cost_log_e([0, 1], [3, -1], at_most=0.1)),
        ("at_most", lambda: compute_cost_log_e([0, 1], [3, 1], at_most=0.0)),
        ("human_only", lambda: compute_paired_log_e(1, -1)),
        ("baseline", lambda: compute_action_mix_log_e([1, 2], [0.5, 0.4])),
        ("baseline", lambda: compute_action_mix_log_e([1, 2], [1.0, 0.0])),
        ("baseline", lambda: compute_action_mix_log_e([1, 2], [1.0])),
        ("counts", lambda: compute_action_mix_log_e([1, -2], [0.5, 0.5])),
    ],
)
def test_an_argument_out_of_its_range_is_named(named, ask):
    with pytest.raises(ValueError, match=f"^{named}"):
        ask()


@pytest.mark.parametrize(("agreed", "disagreed"), [(0, 0), (0, 5), (3, 0), (98, 2), (4000, 91)])
def test_a_bound_alone_is_the_same_as_among_many(agreed, disagreed):
    among = compute_lower_bounds([agreed, 7, 50], [disagreed, 1, 9], alpha=0.05)
    assert compute_lower_bounds([agreed], [disagreed], alpha=0.05)[0] == pytest.approx(
        among[0], abs=1e-12
    )
    assert compute_lower_bounds(
        np.array([[agreed]]), np.array([[disagreed]]), alpha=0.05
    ).shape == (1, 1)


def test_bounds_of_many_cells_need_the_remainders_of_their_counts_once(monkeypatch):
    """A threshold changes no factorial, and each bound is sought over several thresholds."""
    calls = []
    compute = evidence.compute_factorial_remainder

    def count(n):
        calls.append(n)
        return compute(n)

    agreed, disagreed = np.array([5, 90, 4_000]), np.array([0, 10, 37])
    single = [compute_lower_bound(s, f, alpha=0.05) for s, f in zip(agreed, disagreed, strict=True)]
    monkeypatch.setattr(evidence, "compute_factorial_remainder", count)
    assert compute_lower_bounds(agreed, disagreed, alpha=0.05) == pytest.approx(single, rel=1e-13)
    assert len(calls) == 1
