"""Bias, limits of agreement and concordance: published data, other routes, refusals."""

import numpy as np
import pytest

from rollout.kernel.statistics.agreement import (
    CONSTANT_SIDE,
    ONE_NUMBER,
    SAME_GAP,
    compute_concordance,
    compute_limits,
    compute_mean_estimate,
)

WRIGHT = np.array(
    [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427], float
)
MINI = np.array(
    [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451], float
)
"""Peak flow of 17 people by two meters: Bland and Altman, Lancet 327 (1986) 307, table 1."""


def alone(values):
    return np.arange(len(values))


def draw_pairs(n, seed=3):
    generator = np.random.default_rng(seed)
    human = generator.lognormal(4, 0.6, n)
    return human, human * generator.normal(1.01, 0.05, n)


def test_peak_flow_has_the_published_bias_and_limits():
    gaps = WRIGHT - MINI
    bias = compute_mean_estimate(gaps, alone(gaps))
    lower, upper = compute_limits(gaps, alone(gaps))
    assert (round(bias.value, 1), round(bias.low, 1), round(bias.high, 1)) == (-2.1, -22.0, 17.8)
    # the paper takes 2 standard deviations of 38.8: -79.7 and 75.5
    assert np.std(gaps, ddof=1) == pytest.approx(38.8, abs=0.05)
    assert (lower.value, upper.value) == pytest.approx(
        (-2.1 - 1.96 * 38.8, -2.1 + 1.96 * 38.8), abs=0.15
    )
    assert (lower.low, upper.high) == (None, None)
    assert lower.method == "too few units (17)"


def test_limits_of_normal_differences_have_the_intervals_of_the_paper():
    gaps = np.random.default_rng(5).normal(3, 2, 40_000)
    n, deviation = len(gaps), np.std(gaps, ddof=1)
    error = 1.96 * deviation * np.sqrt(1 / n + 1.96**2 / (2 * (n - 1)))
    for limit in compute_limits(gaps, alone(gaps)):
        assert (limit.high - limit.low) / 2 == pytest.approx(error, rel=0.03)
        assert (limit.high + limit.low) / 2 == pytest.approx(limit.value)


def test_concordance_is_one_less_the_ratio_of_squares():
    human, model = WRIGHT, MINI
    unrelated = ((human[:, None] - model[None, :]) ** 2).mean()
    found = compute_concordance(human, model, alone(human))
    assert found.value == pytest.approx(1 - ((human - model) ** 2).mean() / unrelated)
    assert found.low is None


@pytest.mark.parametrize("seed", [1, 2])
def test_intervals_are_those_of_a_bootstrap_over_units(seed):
    """Two other routes to one spread: influence of each unit, and units drawn again."""
    generator = np.random.default_rng(seed)
    units = np.repeat(np.arange(300), generator.integers(1, 6, 300))
    human = generator.normal(60, 15, 300)[units] + generator.normal(0, 2, len(units))
    model = human + generator.normal(1, 3, 300)[units] + generator.normal(0, 1, len(units))
    cases = [np.flatnonzero(units == unit) for unit in range(300)]
    drawn = np.array(
        [
            describe(human[rows], model[rows])
            for _ in range(400)
            if (rows := np.concatenate([cases[i] for i in generator.integers(0, 300, 300)])).size
        ]
    )
    gaps = model - human
    lower, upper = compute_limits(gaps, units)
    found = (
        compute_mean_estimate(gaps, units),
        lower,
        upper,
        compute_concordance(human, model, units),
    )
    for index, estimate in enumerate(found):
        width = 2 * 1.96 * drawn[:, index].std()
        assert estimate.high - estimate.low == pytest.approx(width, rel=0.15)


def describe(human, model):
    gaps = model - human
    spread = 1.96 * gaps.std(ddof=1)
    total = human.var() + model.var() + gaps.mean() ** 2
    covariance = np.mean((human - human.mean()) * (model - model.mean()))
    return gaps.mean(), gaps.mean() - spread, gaps.mean() + spread, 2 * covariance / total


def test_a_shift_and_a_scale_lower_concordance_and_no_correlation_does():
    human, model = draw_pairs(2000)
    same = compute_concordance(human, model, alone(human)).value
    shifted = compute_concordance(human, model + 40, alone(human)).value
    scaled = compute_concordance(human, 2 * model, alone(human)).value
    assert same > 0.98
    assert max(shifted, scaled) < 0.8
    assert np.corrcoef(human, 2 * model)[0, 1] > 0.98


def test_cases_of_one_unit_are_worth_less_than_as_many_units():
    human, model = draw_pairs(400)
    repeated = np.repeat(model - human, 5)
    single = compute_mean_estimate(repeated, alone(repeated))
    clustered = compute_mean_estimate(repeated, np.repeat(np.arange(400), 5))
    assert clustered.value == single.value
    width = (clustered.high - clustered.low) / (single.high - single.low)
    assert width == pytest.approx(5**0.5, rel=0.02)


@pytest.mark.parametrize(
    ("human", "model", "value", "method"),
    [
        ([5.0] * 120, [5.0] * 120, None, ONE_NUMBER),
        ([5.0] * 120, list(range(120)), 0.0, CONSTANT_SIDE),
        (list(range(120)), list(range(120)), 1.0, SAME_GAP),
        (list(range(99)), list(range(1, 100)), 0.999, "too few units (99)"),
        ([], [], None, "no data"),
    ],
)
def test_concordance_is_refused_with_the_reason(human, model, value, method):
    x, y = np.array(human, float), np.array(model, float)
    found = compute_concordance(x, y, alone(x))
    assert (found.value is None) == (value is None)
    assert value is None or found.value == pytest.approx(value, abs=1e-3)
    assert (found.low, found.high, found.method) == (None, None, method)


def test_equal_differences_and_single_pairs_have_no_interval():
    same = compute_limits(np.full(200, 2.5), np.arange(200))
    assert {(limit.value, limit.low, limit.method) for limit in same} == {(2.5, None, SAME_GAP)}
    assert {limit.value for limit in compute_limits(np.array([2.5]), np.array([0]))} == {None}
    few = compute_mean_estimate(np.array([1.0, 2.0]), np.array([0, 1]))
    assert (few.value, few.low, few.method) == (1.5, None, "too few units (2)")
    uneven = np.array([0] * 900 + list(range(1, 120)))
    found = compute_mean_estimate(np.arange(len(uneven), dtype=float), uneven)
    assert found.method == "too few units (120, of which a few hold most cases)"
