import gzip
from pathlib import Path

import krippendorff
import numpy as np
import polars as pl
import pytest
import scipy
from sklearn.metrics import cohen_kappa_score

from rollout.features.reports.figures.ratings import compute_rater_agreement
from rollout.kernel.statistics.agreement import (
    compute_ac1,
    compute_kappa,
    compute_kappa_and_ac1,
    compute_kappa_with_interval,
    find_rare_labels,
)
from rollout.kernel.statistics.intervals import EffectiveNumber
from tests.features.reports.plain_coefficients import compute_alpha

CIFAR = Path(__file__).parents[4] / "shared/data/cifar10-humans"


def tables(seed, count=30):
    generator = np.random.default_rng(seed)
    for labels in generator.integers(2, 8, count):
        yield generator.poisson(generator.gamma(0.7, 12, (labels, labels))).astype(float) + 1


def test_kappa_is_scikit_learns():
    for table in tables(1):
        rows, columns = np.indices(table.shape)
        weights = table.ravel()
        theirs = cohen_kappa_score(rows.ravel(), columns.ravel(), sample_weight=weights)
        assert compute_kappa(table) == pytest.approx(theirs, abs=1e-12)


def test_ac1_is_what_the_paper_says_case_by_case():
    for table in tables(2, 10):
        n, labels = table.sum(), len(table)
        used = [(table[k].sum() + table[:, k].sum()) / (2 * n) for k in range(labels)]
        chance = sum(share * (1 - share) for share in used) / (labels - 1)
        seen = sum(table[k, k] for k in range(labels)) / n
        assert compute_ac1(table) == pytest.approx((seen - chance) / (1 - chance), abs=1e-12)


def test_alpha_is_krippendorffs_package():
    generator = np.random.default_rng(3)
    for values in generator.integers(2, 6, 20):
        counts = generator.multinomial(1, [1 / values] * values, (60, 4)).sum(axis=1)
        counts[::7] = 0
        counts[1::7] = np.minimum(counts[1::7], 1)
        theirs = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
        assert compute_alpha(counts) == pytest.approx(theirs, abs=1e-12)


def test_ten_bears_each_without_overlap_agree_worse_than_chance():
    table = np.array([[0.0, 10], [10, 980]])
    assert np.trace(table) / table.sum() == 0.98
    assert compute_kappa(table) == pytest.approx(-0.01, abs=5e-4)


def test_a_model_that_never_fires_has_no_kappa_to_show():
    assert compute_kappa(np.array([[0.0, 10], [0, 990]])) == 0.0


@pytest.mark.parametrize("table", [np.zeros((2, 2)), np.array([[7.0]])])
def test_without_cases_or_with_one_label_nothing_is_corrected(table):
    assert compute_kappa(table) is None
    assert compute_kappa_with_interval(table).value is None
    assert compute_ac1(table) is None


def test_intervals_hold_the_value_and_stay_the_same():
    for table in tables(4, 8):
        for found in compute_kappa_and_ac1(2 * table):  # enough of the rarer labels
            assert found.low < found.value < found.high
        assert compute_kappa_with_interval(table) == compute_kappa_with_interval(table)


@pytest.mark.parametrize(
    ("table", "labels", "reason"),
    [
        ([[290, 3], [2, 5]], ("no bear", "bear"), "7 of label bear"),
        ([[290, 0], [12, 5]], ("no bear", "bear"), "5 of label bear"),  # the model's side
        ([[80, 1, 0], [0, 4, 0], [0, 0, 3]], ("elk", "fox", "owl"), "7 of all labels but elk"),
        ([[7]], ("elk",), "0 of all labels but the commonest"),
    ],
)
def test_labels_too_rare_have_neither_kappa_nor_ac1(table, labels, reason):
    kappa, ac1 = compute_kappa_and_ac1(np.array(table, float), labels=labels)
    assert (kappa.value, kappa.low, ac1.value, ac1.low) == (None, None, None, None)
    assert (kappa.method, ac1.method) == (
        f"too few for kappa ({reason})",
        f"too few for AC1 ({reason})",
    )


def test_ten_cases_of_the_rarer_labels_are_enough():
    assert not find_rare_labels(np.array([[280.0, 5], [5, 5]]))
    assert compute_kappa_with_interval(np.array([[280.0, 5], [5, 5]])).low is not None


def test_ac1_needs_twenty_cases_of_the_rarer_labels():
    kappa, ac1 = compute_kappa_and_ac1(np.array([[280.0, 5], [5, 14]]), labels=("none", "bear"))
    assert kappa.low is not None
    assert (ac1.value, ac1.method) == (None, "too few for AC1 (19 of label bear)")
    _, ac1 = compute_kappa_and_ac1(np.array([[280.0, 5], [5, 15]]))
    assert ac1.low is not None
    bursts = compute_kappa_and_ac1(np.array([[280.0, 5], [5, 15]]), EffectiveNumber(305, 200.0))
    assert bursts[1].method.endswith(
        "20 of all labels but the commonest, worth 13.1 independent ones)"
    )


def test_rare_labels_in_bursts_count_at_what_they_are_worth():
    table = np.array([[280.0, 5], [5, 15]])
    assert compute_kappa_with_interval(table, EffectiveNumber(305, 305.0)).low is not None
    bursts = compute_kappa_with_interval(table, EffectiveNumber(305, 61.0), ("none", "bear"))
    assert bursts.method == "too few for kappa (20 of label bear, worth 4.0 independent ones)"


def test_too_few_units_leave_kappa_without_an_interval():
    table, number = (
        np.array([[80.0, 12], [9, 200]]),
        EffectiveNumber(301, None, "too few units (3)"),
    )
    kappa, ac1 = compute_kappa_and_ac1(table, number)
    assert kappa.value == compute_kappa(table)
    assert (kappa.low, kappa.method, ac1.high) == (None, "too few units (3)", None)


def test_fewer_independent_cases_widen_the_interval():
    table = np.array([[80.0, 12], [9, 200]])
    whole, bursts = (
        compute_kappa_with_interval(table),
        compute_kappa_with_interval(table, EffectiveNumber(301, 0.2 * 301)),
    )
    assert bursts.high - bursts.low > 1.8 * (whole.high - whole.low)


def test_the_interval_is_the_central_96_5_percent_of_the_posterior():
    """With even labels AC1 is twice the agreement less 1, and that has a beta posterior."""
    _, ac1 = compute_kappa_and_ac1(np.array([[230.0, 20], [20, 230]]))
    low, high = 2 * scipy.stats.beta.ppf([0.0175, 0.9825], 461, 41) - 1
    assert (ac1.low, ac1.high) == pytest.approx((low, high), abs=0.003)
    assert ac1.high - ac1.low == pytest.approx(high - low, rel=0.03)


def test_an_interval_names_the_independent_cases_that_it_stands_for():
    table = np.array([[250.0, 10], [11, 30]])
    plain, bursts = (
        compute_kappa_and_ac1(table, number) for number in (None, EffectiveNumber(301, 150.5))
    )
    assert [found.effective for found in plain] == [301, 301]
    assert [found.effective for found in bursts] == pytest.approx([150.5, 150.5])


@pytest.mark.slow
def test_the_interval_covers_with_many_labels_and_a_rare_one():
    """Half a case in every cell as prior would cover in .58 here (statistics.md §17)."""
    generator = np.random.default_rng(5)
    often = np.array([0.01, *[0.2475] * 4])
    truth = np.outer(often, np.full(5, 0.05 / 4))
    np.fill_diagonal(truth, often * 0.95)
    drawn = generator.multinomial(1000, truth.ravel(), 150).reshape(-1, 5, 5)
    found = [compute_kappa_with_interval(table.astype(float)) for table in drawn]
    assert np.mean([f.low <= compute_kappa(truth) <= f.high for f in found]) > 0.9


def test_a_case_that_one_person_judged_says_nothing_of_people():
    found = compute_rater_agreement(np.array([[1, 0], [0, 1]]), np.array([0, 1]))
    assert (found.cases, found.pairwise, found.alpha.value) == (0, None, None)


def test_people_who_always_say_the_same_have_no_alpha():
    found = compute_rater_agreement(np.array([[2, 0], [2, 0]]), np.array([0, 1]))
    assert found.pairwise == 1.0
    assert (found.alpha.value, found.alpha.low) == (None, None)


def test_resampling_units_widens_the_interval_of_bursts():
    generator = np.random.default_rng(6)
    one = generator.multinomial(1, [0.5, 0.5], (80, 2)).sum(axis=1)
    burst = np.repeat(one, 6, axis=0)
    alone = compute_rater_agreement(burst, np.arange(len(burst))).alpha
    together = compute_rater_agreement(burst, np.repeat(np.arange(80), 6)).alpha
    assert together.high - together.low > 1.8 * (alone.high - alone.low)


@pytest.mark.skipif(not CIFAR.exists(), reason="shared records are not on this machine")
def test_the_golden_agreement_of_annotators_comes_out():
    with gzip.open(CIFAR / "human_counts.csv.gz") as file:
        frame = pl.read_csv(file.read())
    counts = frame.drop("case_key").to_numpy().astype(np.int64)
    found = compute_rater_agreement(counts, np.arange(len(counts)))
    assert compute_alpha(counts) == pytest.approx(0.915055, abs=5e-7)
    assert found.pairwise == pytest.approx(0.923530, abs=5e-7)
    assert found.decisions == 511_000
