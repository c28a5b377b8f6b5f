import numpy as np
import polars as pl
import pytest
from statsmodels.stats.proportion import proportion_confint

from rollout.kernel.statistics.intervals import (
    clopper_pearson,
    compute_clustered_share,
    compute_difference_number,
    compute_mean_interval,
    compute_missing_bounds,
    compute_paired_change,
    compute_share,
    compute_unit_share,
    compute_upper_bound,
    compute_weighted_share,
)
from tests.features.reports.collects import count_collects


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    [
        (0, 299, 0.0, 0.012261596),
        (3, 299, 0.002073936, 0.029040381),
        (295, 300, 0.961536255, 0.994566795),
        (60, 200, 0.237389644, 0.368649875),
    ],
)
def test_shares_have_the_published_intervals(count, n, low, high):
    assert clopper_pearson(count, n) == pytest.approx((low, high), abs=5e-10)


def test_shares_agree_with_statsmodels():
    generator = np.random.default_rng(1)
    for n in generator.integers(1, 3000, 50):
        count = int(generator.integers(0, n + 1))
        theirs = proportion_confint(count, n, method="beta")
        assert clopper_pearson(count, int(n)) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(("n", "bound"), [(59, 0.05), (149, 0.02), (299, 0.01), (598, 0.005)])
def test_no_error_in_so_many_audits_bounds_the_rate(n, bound):
    assert compute_upper_bound(0, n) < bound < compute_upper_bound(0, n - 1) * 1.001


def test_no_cases_are_no_data_and_not_zero():
    for nothing in (
        compute_share(0, 0),
        compute_clustered_share([], []),
        compute_weighted_share([], []),
    ):
        assert (nothing.rate, nothing.low, nothing.high) == (None, None, None)
    assert compute_upper_bound(0, 0) is None
    assert compute_paired_change(0, 0, 0).per_100 is None
    assert compute_share(0, 10).rate == 0.0


@pytest.mark.parametrize(
    ("counts", "rate", "effective", "low", "high"),
    [
        ((90, 1, 0.02, 500, 150, 1.0), 0.04, 343.0041446, 0.02188384, 0.06653105),
        ((160, 1, 0.05, 400, 32, 0.5), 0.021, 560, 0.01081223, 0.03659203),
        ((160, 0, 0.05, 400, 0, 0.5), 0.0, 243.9024390, 0.0, 0.01501061),
    ],
)
def test_weighted_shares_have_the_published_values(counts, rate, effective, low, high):
    n1, e1, p1, n2, e2, p2 = counts
    errors = [1] * e1 + [0] * (n1 - e1) + [1] * e2 + [0] * (n2 - e2)
    found = compute_weighted_share(errors, [p1] * n1 + [p2] * n2)
    assert (found.rate, found.effective) == pytest.approx((rate, effective))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-7)


def test_mixed_review_needs_weights():
    """Ten per cent unsure cases all read, 70 % right; two per cent of the rest, 99 % right."""
    right = [1] * 7000 + [0] * 3000 + [1] * 1782 + [0] * 18
    chances = [1.0] * 10_000 + [0.02] * 1800
    assert sum(right) / len(right) == pytest.approx(0.744, abs=5e-4)
    assert compute_weighted_share(right, chances).rate == pytest.approx(0.961)


@pytest.mark.parametrize(
    ("b", "c", "n", "change", "low", "high"),
    [
        (12, 4, 1000, 0.798403, -0.006581, 1.603388),
        (1, 0, 500, 0.199203, -0.352675, 0.751081),
        (40, 20, 2000, 0.999001, 0.235628, 1.762374),
    ],
)
def test_changes_have_the_published_intervals(b, c, n, change, low, high):
    found = compute_paired_change(b, c, n)
    assert (found.per_100, found.low, found.high) == pytest.approx((change, low, high), abs=5e-7)


def test_single_cases_are_no_clusters():
    assert compute_clustered_share([1, 0, 1, 1], [1, 1, 1, 1]) == compute_share(3, 4)


def expand(*groups):
    """Return the counts and sizes of units, from (units, successes, size) each."""
    counts = np.repeat([count for _, count, _ in groups], [units for units, _, _ in groups])
    return counts, np.repeat([size for _, _, size in groups], [units for units, _, _ in groups])


@pytest.mark.parametrize(
    ("units", "rate", "effective", "low", "high"),
    [
        (expand((19, 10, 10), (1, 0, 10)), 0.95, 16.661010722, 0.722295599, 0.999333899),
        (
            expand((45, 1, 1), (4, 20, 20), (1, 0, 20)),
            0.862068966, 3.875850997, 0.264623830, 0.999803958,
        ),
        (expand((40, 5, 5)), 1.0, 37.557538713, 0.906449994, 1.0),
        (expand((170, 5, 5), (30, 4, 5)), 0.97, 329.291292600, 0.945331419, 0.985598712),
        (expand((97, 1, 1), (3, 0, 1)), 0.97, 100, 0.914823947, 0.993770028),
    ],
)  # fmt: skip
def test_shares_over_bursts_have_the_computed_values(units, rate, effective, low, high):
    share = compute_clustered_share(*units)
    assert (share.rate, share.effective) == pytest.approx((rate, effective), rel=1e-9)
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-10)


@pytest.mark.parametrize(
    ("errors", "chances", "units", "effective", "low", "high"),
    [
        (
            [0] * 20 + [1] * 4 + [0] * 6, [0.2] * 20 + [0.5] * 10, np.repeat(range(15), 2),
            12.076038586, 0.000774665, 0.361641728,
        ),
        ([0] * 90, [0.1] * 90, np.repeat(range(30), 3), 27.550740732, 0.0, 0.125317242),
        (
            [1] + [0] * 89 + [1] * 150 + [0] * 350, [0.02] * 90 + [1.0] * 500, range(590),
            343.004144633, 0.021883841, 0.066531050,
        ),
    ],
)  # fmt: skip
def test_audits_over_bursts_have_the_computed_values(errors, chances, units, effective, low, high):
    share = compute_weighted_share(errors, chances, units)
    assert share.effective == pytest.approx(effective, rel=1e-9)
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-10)


@pytest.mark.parametrize(
    ("units", "method"),
    [
        (expand((1, 19, 20)), "too few units (1)"),
        (expand((4, 5, 5)), "too few units (4)"),
        (
            expand((5, 1, 1), (1, 19, 20), (1, 9, 10)),
            "too few units (7, of which a few hold most cases)",
        ),
    ],
)
def test_too_few_units_have_a_share_and_no_interval(units, method):
    share = compute_clustered_share(*units)
    assert share.rate > 0.9
    assert (share.low, share.high, share.effective, share.method) == (None, None, None, method)
    errors = np.concatenate([[0] * good + [1] * (n - good) for good, n in zip(*units, strict=True)])
    weighted = compute_weighted_share(
        errors, np.full(len(errors), 0.2), np.repeat(range(len(units[1])), units[1])
    )
    assert (weighted.low, weighted.effective, weighted.method) == (None, None, method)


def test_copies_of_a_case_are_worth_at_most_their_units():
    alone = compute_share(90, 100)
    copied = compute_clustered_share([5] * 90 + [0] * 10, [5] * 100)
    assert copied.n == 500
    assert 94 < copied.effective < 100
    assert copied.low < alone.low
    assert copied.high > alone.high


def test_changes_over_copies_count_the_units():
    gaps, sizes = np.array([5] * 12 + [-5] * 4 + [0] * 984), np.full(1000, 5)
    number = compute_difference_number(gaps, sizes, np.abs(gaps))
    assert number.share == pytest.approx(1 / 5, rel=0.01)
    copied, alone = (
        compute_paired_change(60, 20, 5000, number),
        compute_paired_change(12, 4, 1000),
    )
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high), abs=0.01)


def test_unlike_cases_of_a_unit_are_worth_more_than_their_units():
    gaps = np.array([1] * 30 + [-1] * 30 + [0] * 140)
    number = compute_difference_number(gaps, np.full(200, 5), np.abs(gaps))
    assert 200 < number.value < 1000


def test_a_change_over_too_few_units_has_no_interval():
    number = compute_difference_number([3, 0, 0], [10, 10, 10], [3, 0, 0])
    change = compute_paired_change(3, 0, 30, number)
    assert change.per_100 == pytest.approx(10)
    assert (change.low, change.high, change.method) == (None, None, "too few units (3)")


@pytest.mark.parametrize(
    ("agreeing", "n", "missing", "low", "high"),
    [
        (45, 48, 2, 0.781864634, 0.987451412),
        (930, 970, 30, 0.912383767, 0.971272375),
        (50, 50, 0, 0.928878264, 1.0),
        (0, 10, 10, 0.0, 0.728042150),
    ],
)
def test_missing_decisions_widen_the_interval(agreeing, n, missing, low, high):
    bounds = compute_missing_bounds(compute_share(agreeing, n), missing)
    assert bounds == pytest.approx((low, high), abs=5e-10)


def test_missing_decisions_over_bursts_count_at_their_effective_number():
    bursts = compute_clustered_share([5] * 38 + [0] * 2, [5] * 40)
    low, high = compute_missing_bounds(bursts, 10)
    single_low, single_high = compute_missing_bounds(compute_share(190, 200), 10)
    assert low < single_low
    assert high > single_high
    assert compute_missing_bounds(compute_clustered_share([5, 5], [5, 5]), 3) is None


def test_copies_of_a_drawn_case_add_nothing_to_a_weighted_share():
    errors, chances = [0] * 92 + [1] * 8, [0.5] * 40 + [0.1] * 60
    alone = compute_weighted_share(errors, chances)
    copied = compute_weighted_share(
        np.repeat(errors, 4), np.repeat(chances, 4), np.repeat(range(100), 4)
    )
    assert copied.n == 400
    assert copied.rate == pytest.approx(alone.rate)
    assert 0.9 * alone.effective < copied.effective < alone.effective
    assert copied.low < alone.low
    assert copied.high > alone.high


def test_copies_without_an_error_add_nothing_to_a_weighted_share_either():
    chances = [0.5] * 40 + [0.1] * 60
    alone = compute_weighted_share([0] * 100, chances)
    copied = compute_weighted_share([0] * 400, np.repeat(chances, 4), np.repeat(range(100), 4))
    assert 0.9 * alone.effective < copied.effective < alone.effective
    assert copied.high > alone.high


def test_all_wrong_is_all_and_no_more():
    found = compute_weighted_share([1] * 7, [0.3, 0.7, 0.9, 0.11, 0.13, 0.17, 0.19])
    assert (found.rate, found.high) == (1.0, 1.0)


def test_a_mean_of_extreme_values_has_the_interval_of_their_share():
    low, high = clopper_pearson(3, 299)
    interval = compute_mean_interval([6] * 3 + [0] * 296, [1] * 299, largest=6)
    assert interval == pytest.approx((6 * low, 6 * high))


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says():
    stream, missed, runs = np.random.default_rng(5), 0, 400
    values, chances = np.array([0, 0.5, 1, 6]), np.array([0.9, 0.05, 0.03, 0.02])
    for costs in stream.choice(values, p=chances, size=(runs, 200)):
        low, high = compute_mean_interval(costs, np.ones(200), largest=6)
        missed += not low <= values @ chances <= high
    assert missed <= 0.05 * runs


def test_costs_that_come_in_bursts_are_known_less_well():
    single = compute_mean_interval([2, 0] * 100, [1] * 200, largest=2)
    bursts = compute_mean_interval([20, 0] * 10, [10] * 20, largest=2)
    assert bursts[1] - bursts[0] > 2 * (single[1] - single[0])
    assert compute_mean_interval([20, 0], [10, 10], largest=2) is None
    assert compute_mean_interval([], [], largest=2) is None


@pytest.mark.parametrize(
    "units", [(), ("a", "b", "c"), tuple("aabbbccddeeffgghhiijj"), (None, "a", "b")]
)
@pytest.mark.parametrize("success", ["agrees", pl.col("agrees")])
def test_rows_have_the_share_of_their_units_from_one_frame(units, success):
    agrees = [index % 3 > 0 for index in range(len(units))]
    rows = pl.DataFrame(
        {"unit": units, "agrees": agrees}, schema={"unit": pl.String, "agrees": pl.Boolean}
    )
    names = sorted({str(unit) for unit in units})
    in_unit = [[a for u, a in zip(units, agrees, strict=True) if str(u) == name] for name in names]
    expected = compute_clustered_share([sum(one) for one in in_unit], [len(one) for one in in_unit])
    numbered = rows.with_columns(pl.col("unit").rank("dense"))
    assert compute_unit_share(rows, success) == compute_unit_share(numbered, success) == expected
    numbered = numbered.drop_nulls()
    collects = count_collects(lambda: compute_unit_share(numbered, success))
    assert collects == (0 if isinstance(success, str) else 1)
