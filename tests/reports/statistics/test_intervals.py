import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from rollout.reports.statistics.intervals import (
    clopper_pearson,
    compute_clustered_share,
    compute_independent_share,
    compute_paired_change,
    compute_share,
    compute_upper_bound,
    compute_weighted_share,
)


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


def test_copies_of_a_case_add_nothing():
    alone = compute_share(90, 100)
    copied = compute_clustered_share([5] * 90 + [0] * 10, [5] * 100)
    assert copied.n == 500
    assert copied.effective == pytest.approx(100)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_copies_without_an_error_add_nothing_either():
    copied = compute_clustered_share([5] * 100, [5] * 100)
    assert copied.effective == pytest.approx(100)
    assert copied.low == pytest.approx(compute_share(100, 100).low)


def test_changes_over_copies_count_the_units():
    gaps, sizes = np.array([5] * 12 + [-5] * 4 + [0] * 984), np.full(1000, 5)
    effective = compute_independent_share(gaps, sizes, np.abs(gaps))
    assert effective == pytest.approx(1 / 5)
    copied, alone = (
        compute_paired_change(60, 20, 5000, effective),
        compute_paired_change(12, 4, 1000),
    )
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_unlike_cases_of_a_unit_are_as_good_as_alone():
    assert compute_independent_share([0] * 50, [2] * 50, [2] * 50) == 1.0


def test_copies_of_a_drawn_case_add_nothing_to_a_weighted_share():
    errors, chances = [0] * 92 + [1] * 8, [0.5] * 40 + [0.1] * 60
    alone = compute_weighted_share(errors, chances)
    copied = compute_weighted_share(
        np.repeat(errors, 4), np.repeat(chances, 4), np.repeat(range(100), 4)
    )
    assert copied.n == 400
    assert (copied.rate, copied.effective) == pytest.approx((alone.rate, alone.effective))
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))


def test_copies_without_an_error_add_nothing_to_a_weighted_share_either():
    chances = [0.5] * 40 + [0.1] * 60
    alone = compute_weighted_share([0] * 100, chances)
    copied = compute_weighted_share([0] * 400, np.repeat(chances, 4), np.repeat(range(100), 4))
    assert copied.effective == pytest.approx(alone.effective)
    assert copied.high == pytest.approx(alone.high)


def test_all_wrong_is_all_and_no_more():
    found = compute_weighted_share([1] * 7, [0.3, 0.7, 0.9, 0.11, 0.13, 0.17, 0.19])
    assert (found.rate, found.high) == (1.0, 1.0)
