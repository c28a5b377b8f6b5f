import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from rollout.reports.statistics.differences import (
    DAILY_METHOD,
    INDEPENDENT_METHOD,
    ComparedSide,
    build_side,
    build_side_by_day,
    compute_adoption,
    compute_difference,
    compute_difference_by_day,
    compute_period_difference,
)
from rollout.reports.statistics.intervals import compute_share, compute_weighted_share


def test_another_period_has_the_published_interval():
    found = compute_period_difference(12, 500, 20, 2000)
    assert (found.per_100, found.low, found.high) == pytest.approx(
        (1.540690, 0.081404, 2.999977), abs=5e-7
    )
    assert (found.first, found.second) == (0.024, 0.01)


def test_another_period_agrees_with_statsmodels():
    generator = np.random.default_rng(1)
    for _ in range(40):
        n = generator.integers(1, 2000, 2)
        count = generator.integers(0, n + 1)
        theirs = confint_proportions_2indep(
            count[0], n[0], count[1], n[1], method="agresti-caffo", compare="diff"
        )
        found = compute_period_difference(int(count[0]), int(n[0]), int(count[1]), int(n[1]))
        assert (found.low / 100, found.high / 100) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("sizes", [(0, 10), (10, 0), (0, 0)])
def test_a_side_without_cases_makes_no_difference_and_not_zero(sizes):
    found = compute_period_difference(0, sizes[0], 0, sizes[1])
    assert (found.per_100, found.low, found.high, found.method) == (None, None, None, "no data")


def test_the_difference_turns_its_sign_with_its_sides():
    one, other = (
        compute_period_difference(30, 200, 10, 300),
        compute_period_difference(10, 300, 30, 200),
    )
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_days_that_swing_widen_the_interval_and_even_ones_do_not():
    generator = np.random.default_rng(2)
    size = np.full(40, 100)
    even = generator.binomial(100, 0.3, 40)
    swinging = generator.binomial(100, np.where(np.arange(40) % 2, 0.1, 0.5))
    assert compute_difference_by_day(even, size, even, size).method == INDEPENDENT_METHOD
    found = compute_difference_by_day(swinging, size, even, size)
    plain = compute_period_difference(int(swinging.sum()), 4000, int(even.sum()), 4000)
    assert found.method == DAILY_METHOD
    assert found.high - found.low > 2 * (plain.high - plain.low)
    assert found.first_n == 4000


def test_four_days_say_nothing_of_swings():
    assert build_side_by_day([0, 50, 0, 50], [50] * 4) == ComparedSide(100, 200, 200)
    assert build_side_by_day([0, 50] * 3, [50] * 6).n < 10


def test_days_without_cases_are_no_days():
    assert build_side_by_day([0, 5, 0], [0, 10, 0]) == ComparedSide(5, 10, 10)


def test_a_weighted_share_counts_at_its_effective_number():
    weighed = compute_weighted_share([1] * 10 + [0] * 90, [0.1] * 50 + [1.0] * 50)
    side = build_side(weighed)
    assert (side.cases, side.rate) == (100, pytest.approx(weighed.rate))
    assert side.n < 100
    assert build_side(compute_share(0, 0)).rate is None


def test_measured_is_what_was_there_and_what_was_adopted():
    """A = .85, r = .35: 90.25 % is measured, and passes a gate of 90 % (statistics.md §8)."""
    unseen, seen = ComparedSide(8500, 10_000, 10_000), ComparedSide(9025, 10_000, 10_000)
    assert seen.rate == pytest.approx(0.85 + 0.15 * 0.35)
    assert seen.rate > 0.9 > unseen.rate
    found = compute_adoption(unseen, seen)
    assert found.share == pytest.approx(0.35)
    assert 0.26 < found.low < 0.35 < found.high < 0.43


def test_nothing_to_adopt_is_no_data():
    assert compute_adoption(ComparedSide(10, 10, 10), ComparedSide(9, 10, 10)).share is None
    assert compute_adoption(ComparedSide(0, 0, 0), ComparedSide(9, 10, 10)).share is None


def test_who_agrees_less_with_the_answer_in_sight_adopted_nothing():
    found = compute_adoption(ComparedSide(90, 100, 100), ComparedSide(70, 100, 100))
    assert (found.share, found.low) == (0.0, 0.0)
    assert found.high < 0.05


def test_few_conflicts_leave_the_adopted_share_open():
    found = compute_adoption(ComparedSide(3, 4, 4), ComparedSide(4, 4, 4))
    assert (found.share, found.low, found.high) == (1.0, 0.0, 1.0)


def test_sides_of_fractional_cases_are_compared_too():
    found = compute_difference(ComparedSide(8.5, 10.0, 30), ComparedSide(7.5, 10.0, 10))
    assert found.low < 10 * 100 * (9.5 - 8.5) / 120 < found.high
