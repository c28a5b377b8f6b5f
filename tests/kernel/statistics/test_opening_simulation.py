"""Simulated times of openings against exact ones, and the cheapest effort by hand."""

import numpy as np
import pytest
import scipy

from rollout.kernel.statistics.forecast import (
    draw_class_shares,
    draw_units,
    find_cheapest_effort,
    forecast_opening,
    simulate_openings,
)
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold


def reads(at_least, risk):
    threshold = get_gate_threshold(at_least, risk)
    return lambda counts: threshold.are_met(counts[:, 0], counts[:, 1])


@pytest.mark.parametrize("rate", [0.97, 0.98, 0.99])
def test_at_a_fixed_share_times_are_those_of_the_exact_law(rate):
    shares = np.tile([rate, 1 - rate], (4096, 1))
    times = simulate_openings((0, 0), shares, reads(0.95, 0.05))
    exact = forecast_opening(rate, at_least=0.95, alpha=0.05)
    assert times.mean() == pytest.approx(exact.mean, rel=0.06)
    assert np.median(times) == pytest.approx(exact.median, rel=0.05)
    assert np.quantile(times, 0.9) == pytest.approx(exact.ninety, rel=0.06)


@pytest.mark.parametrize(
    ("agreed", "disagreed", "at_least"), [(98, 2, 0.95), (48, 2, 0.95), (20, 1, 0.9)]
)
def test_with_unknown_shares_chances_are_those_of_the_exact_law_over_the_posterior(
    agreed, disagreed, at_least
):
    counts = (agreed, disagreed)
    times = simulate_openings(counts, draw_class_shares(counts), reads(at_least, 0.05))
    quantiles = (np.arange(100) + 0.5) / 100
    rates = scipy.special.betaincinv(agreed + 0.5, disagreed + 0.5, quantiles)
    for horizon in (200, 1000):
        exact = [
            forecast_opening(
                float(rate),
                at_least=at_least,
                alpha=0.05,
                agreed=agreed,
                disagreed=disagreed,
                horizon=horizon,
            ).chance
            for rate in rates
        ]
        assert (times <= horizon).mean() == pytest.approx(np.mean(exact), abs=0.04)


def test_the_same_counts_give_the_same_times():
    counts = (30, 2, 1)
    shares = draw_class_shares(counts)
    assert (shares == draw_class_shares(counts)).all()
    is_met = lambda totals: totals[:, 0] >= 60  # noqa: E731
    first, again = (simulate_openings(counts, shares, is_met) for _ in range(2))
    assert (first == again).all()
    assert first.min() >= 30


def test_a_gate_that_is_met_needs_no_record_and_one_beyond_the_horizon_none_that_counts():
    shares = draw_class_shares((5, 5))
    assert (simulate_openings((5, 5), shares, lambda c: c[:, 0] >= 5) == 0).all()
    assert np.isinf(simulate_openings((5, 5), shares, lambda c: c[:, 0] < 0)).all()


def test_posterior_shares_have_the_mean_of_the_counts_and_the_prior():
    assert draw_class_shares((9, 0))[:, 0].mean() == pytest.approx(9.5 / 10, abs=0.002)
    three = draw_class_shares((20, 5, 5), runs=4000).mean(axis=0)
    assert three == pytest.approx(np.array([20 + 1 / 3, 5 + 1 / 3, 5 + 1 / 3]) / 31, abs=0.005)


@pytest.mark.parametrize("counts", [(3,), (3, -1), ()])
def test_counts_without_two_classes_are_refused(counts):
    with pytest.raises(ValueError, match="two or more, each 0 or above"):
        draw_class_shares(counts)


def test_a_rare_record_takes_as_many_units_as_its_share_says():
    times = np.array([10.0] * 5000 + [np.inf, 0.0])
    units = draw_units(times, 1000, 20_000)
    assert units[:5000].mean() == pytest.approx(200, rel=0.03)
    assert units[:5000].std() == pytest.approx(np.sqrt(10 * 0.95) / 0.05, rel=0.1)
    assert np.isinf(units[-2])
    assert units[-1] == 0
    assert (draw_units(times, 50, 50) == times).all()  # each unit brings one
    with pytest.raises(ValueError, match="1 record up to one a unit"):
        draw_units(times, 0, 50)


def test_the_cheapest_effort_is_that_of_every_effort_tried_by_hand():
    times = np.array([10.0, 20.0, 90.0, 400.0, np.inf, np.inf])
    tried = {
        effort: np.minimum(times, effort).mean() / (times <= effort).mean()
        for effort in (10, 20, 90, 400)
    }
    effort, spent = find_cheapest_effort(times)
    assert (effort, spent) == min(tried.items(), key=lambda item: item[1])
    assert find_cheapest_effort(np.array([np.inf])) == (np.inf, np.inf)
    assert find_cheapest_effort(np.array([0.0, 0.0])) == (0.0, 0.0)
