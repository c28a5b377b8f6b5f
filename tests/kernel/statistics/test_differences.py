import numpy as np
import pytest
import scipy
from statsmodels.stats.proportion import confint_proportions_2indep

from rollout.kernel.statistics.differences import (
    DAILY_METHOD,
    ComparedSide,
    build_side,
    build_side_by_day,
    compute_adoption,
    compute_daily_share,
    compute_difference,
    compute_difference_by_day,
    compute_period_difference,
)
from rollout.kernel.statistics.intervals import (
    compute_clustered_share,
    compute_share,
    compute_weighted_share,
)


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


def test_days_that_swing_widen_the_interval_and_even_ones_hardly_do():
    generator = np.random.default_rng(2)
    size = np.full(40, 100)
    even = generator.binomial(100, 0.3, 40)
    swinging = generator.binomial(100, np.where(np.arange(40) % 2, 0.1, 0.5))
    found = compute_difference_by_day(swinging, size, even, size)
    plain = compute_period_difference(int(swinging.sum()), 4000, int(even.sum()), 4000)
    both_even = compute_difference_by_day(even, size, even, size)
    even_plain = compute_period_difference(int(even.sum()), 4000, int(even.sum()), 4000)
    assert both_even.high - both_even.low < 1.15 * (even_plain.high - even_plain.low)
    assert found.method == DAILY_METHOD
    assert found.high - found.low > 2 * (plain.high - plain.low)
    assert found.first_n == 4000


def test_days_have_the_computed_interval():
    found = compute_difference_by_day([90, 80, 95, 70], [100] * 4, [80, 82, 78, 81, 79], [100] * 5)
    assert (found.low, found.high) == pytest.approx((-14.654077, 19.476607), abs=5e-7)


@pytest.mark.parametrize(("days", "others", "freedom"), [(10, 30, 9), (3, 6, 2), (6, 6, 5)])
def test_with_many_days_the_side_with_fewer_gives_the_freedom(days, others, freedom):
    first, second = (
        build_side_by_day([20 + day % 5 for day in range(count)], [50] * count)
        for count in (days, others)
    )
    found = compute_difference(first, second)
    rates = [(side.count + 1) / (side.n + 2) for side in (first, second)]
    sides = zip(rates, (first, second), strict=True)
    error = sum(rate * (1 - rate) / (side.n + 2) for rate, side in sides) ** 0.5
    half_width = 100 * scipy.stats.t.ppf(0.975, freedom) * error
    assert (found.high - found.low) / 2 == pytest.approx(half_width)


def test_a_share_over_few_days_has_the_computed_interval():
    share = compute_daily_share([90, 80, 95, 70], [100] * 4)
    assert (share.count, share.n, share.rate) == (335, 400, 0.8375)
    assert share.effective == pytest.approx(16.798148272, rel=1e-9)
    assert (share.low, share.high) == pytest.approx((0.579850164, 0.968725408), abs=5e-10)
    few = compute_daily_share([90, 80], [100] * 2)
    assert (few.rate, few.low, few.method) == (0.85, None, "too few days (2)")
    assert compute_daily_share([], []).rate is None


def test_from_three_days_on_days_are_the_units():
    even = build_side_by_day([30, 31, 30], [100] * 3)
    assert (even.n, even.degrees_of_freedom) == (300, 2)
    assert build_side_by_day([0, 50, 0, 50], [50] * 4).n < 10


@pytest.mark.parametrize("days", [1, 2])
def test_fewer_days_have_no_interval_and_say_so(days):
    side = build_side_by_day([30] * days, [100] * days)
    found = compute_difference(side, build_side_by_day([30] * 5, [100] * 5))
    assert (found.first, found.per_100, found.low) == (0.3, None, None)
    assert found.method == f"too few days ({days})"
    adopted = compute_adoption(side, ComparedSide(80, 100, 100))
    assert (adopted.method, adopted.has_too_few) == (found.method, True)


def test_days_without_cases_are_no_days():
    assert build_side_by_day([0, 5, 0], [0, 10, 0]).refusal == "too few days (1)"


def test_a_share_of_too_few_units_has_no_difference():
    few = compute_clustered_share([5, 4], [5, 5])
    found = compute_difference(build_side(few), build_side(compute_share(80, 100)))
    assert (found.first, found.per_100, found.method) == (0.9, None, "too few units (2)")


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
    for unseen in (ComparedSide(10, 10, 10), ComparedSide(0, 0, 0)):
        adopted = compute_adoption(unseen, ComparedSide(9, 10, 10))
        assert (adopted.share, adopted.has_too_few) == (None, False)


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


def test_a_few_large_days_have_less_freedom_than_their_number_says():
    even, uneven = (
        build_side_by_day([size * 0.5 for size in sizes], sizes).degrees_of_freedom
        for sizes in ([100] * 8, [400, 340, 10, 10, 10, 10, 10, 10])
    )
    assert even == pytest.approx(7)
    assert uneven == 1  # of two days
