"""Agreement of several people, against packages that others wrote, on random tables."""

import krippendorff
import numpy as np
import pytest
import scipy
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from rollout.features.reports.figures.ratings import (
    compute_model_agreement,
    compute_number_agreement,
    compute_pair_alpha,
    compute_rater_agreement,
    compute_set_agreement,
)
from rollout.kernel.statistics.agreement import BOOTSTRAP, NO_SPREAD
from tests.features.reports.plain_coefficients import compute_alpha, compute_masi_distance


def random_votes(seed, cases=60, people=4, values=4):
    """Return what each person said of each case, shape (cases, people)."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, values, (cases, 1))
    own = generator.integers(0, values, (cases, people))
    return np.where(generator.random((cases, people)) < 0.7, truth, own)


def counted(votes, values=4):
    return (votes[:, :, None] == np.arange(values)).sum(axis=1)


@pytest.mark.parametrize("seed", range(12))
def test_fleiss_is_that_of_statsmodels(seed):
    votes = random_votes(seed, people=2 + seed % 5)
    table, _ = aggregate_raters(votes)
    found = compute_rater_agreement(counted(votes), np.arange(len(votes)))
    assert found.fleiss.value == pytest.approx(fleiss_kappa(table, "fleiss"), abs=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_alpha_is_that_of_krippendorffs_package(seed):
    votes = random_votes(seed).astype(float)
    votes[np.random.default_rng(seed).random(votes.shape) < 0.4] = np.nan
    said = counted(votes)
    theirs = krippendorff.alpha(reliability_data=votes.T, level_of_measurement="nominal")
    assert compute_rater_agreement(said, np.arange(len(said))).alpha.value == pytest.approx(
        theirs, abs=1e-12
    )
    assert compute_alpha(said) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_alpha_of_numbers_is_that_of_krippendorffs_package(seed):
    generator = np.random.default_rng(seed)
    x = generator.normal(20, 5, (40, 1)) + generator.normal(0, 2, (40, 3))
    found = compute_number_agreement(
        np.full(40, 3), x.sum(axis=1), (x**2).sum(axis=1), np.zeros(40, int), np.arange(40)
    )
    theirs = krippendorff.alpha(reliability_data=x.T, level_of_measurement="interval")
    assert found.alpha.value == pytest.approx(theirs, abs=1e-9)
    assert (found.ac1, found.fleiss) == (None, None)


@pytest.mark.parametrize("seed", range(8))
def test_pairs_are_counted_as_one_would_by_hand(seed):
    votes = random_votes(seed, cases=30, people=5)
    found = compute_rater_agreement(counted(votes), np.arange(30))
    by_hand = [
        votes[case, one] == votes[case, other]
        for case in range(30) for one in range(5) for other in range(one)
    ]  # fmt: skip
    assert (found.pairs.count, found.pairs.n) == (sum(by_hand), len(by_hand))
    assert found.pairwise == pytest.approx(np.mean(by_hand))  # as many people on each case
    assert found.random.low < found.pairwise < found.random.high


def test_ac1_of_several_people_is_gwets_worked_out_by_hand():
    said = np.array([[3, 0], [2, 1], [0, 2], [4, 0]])
    seen = (1 + 1 / 3 + 1 + 1) / 4
    used = np.mean([1, 2 / 3, 0, 1])
    chance = 2 * used * (1 - used)
    found = compute_rater_agreement(said, np.arange(4))
    assert found.ac1.value == pytest.approx((seen - chance) / (1 - chance))
    assert found.pairwise == pytest.approx(seen)


@pytest.mark.parametrize("seed", range(6))
def test_alpha_of_two_sides_is_that_of_krippendorffs_package(seed):
    votes = random_votes(seed, cases=80, people=2)
    found = compute_pair_alpha(votes[:, 0], votes[:, 1], np.arange(80), 4)
    theirs = krippendorff.alpha(
        reliability_data=votes.T.astype(float), level_of_measurement="nominal"
    )
    assert found.value == pytest.approx(theirs, abs=1e-12)
    assert found.low < found.value < found.high
    kappa = cohen_kappa_score(votes[:, 0], votes[:, 1])
    assert found.value == pytest.approx(kappa, abs=0.05)  # two coefficients, close by nature


def test_pairs_in_bursts_have_the_same_alpha_and_a_wider_interval():
    one = random_votes(7, cases=100, people=2)
    burst = np.repeat(one, 5, axis=0)
    alone = compute_pair_alpha(burst[:, 0], burst[:, 1], np.arange(500), 4)
    units = compute_pair_alpha(burst[:, 0], burst[:, 1], np.repeat(np.arange(100), 5), 4)
    assert units.value == pytest.approx(alone.value)
    assert units.high - units.low > 1.8 * (alone.high - alone.low)


def test_the_model_against_one_person_drawn_at_random():
    """With two people on each case: half the agreement with either."""
    votes = random_votes(3, cases=200, people=3)
    said, model = counted(votes[:, :2]), votes[:, 2]
    found = compute_model_agreement(said, model, np.arange(200))
    same = (votes[:, :2] == votes[:, 2:]).mean()
    assert found.pairwise == pytest.approx(same)
    assert (found.pairs.count, found.pairs.n) == ((votes[:, :2] == votes[:, 2:]).sum(), 400)
    pairs = np.concatenate([votes[:, [0, 2]], votes[:, [1, 2]]]).astype(float)
    theirs = krippendorff.alpha(reliability_data=pairs.T, level_of_measurement="nominal")
    assert found.alpha.value == pytest.approx(theirs, abs=2e-3)  # n, not 2n, verdicts of the model
    assert found.fleiss.value == pytest.approx(
        fleiss_kappa(aggregate_raters(pairs.astype(int))[0]), abs=1e-12
    )


def test_a_model_that_says_what_nobody_says_is_far_below_chance():
    found = compute_model_agreement(
        np.array([[2, 0], [2, 0], [0, 2]]), np.array([1, 1, 0]), np.arange(3)
    )
    assert found.pairwise == 0.0
    assert found.alpha.value < 0


def test_an_interval_needs_thirty_units_of_one_size():
    votes = counted(random_votes(1, cases=60, people=3))
    thirty = compute_rater_agreement(votes, np.arange(60) // 2).alpha
    assert (thirty.method, thirty.n) == (BOOTSTRAP, 60)
    fewer = compute_rater_agreement(votes[:58], np.arange(58) // 2).alpha
    assert (fewer.low, fewer.high, fewer.method) == (None, None, "too few units (29)")
    assert fewer.value is not None
    uneven = compute_rater_agreement(votes, np.maximum(np.arange(60) - 20, 0)).alpha
    assert uneven.low is None
    assert uneven.method == "too few units (40, of which a few hold most cases)"


def test_an_interval_is_student_s_on_fisher_s_scale():
    """The standard error is also that of leaving out one unit at a time."""
    votes = counted(random_votes(3, cases=100, people=2))
    found = compute_rater_agreement(votes, np.arange(100)).alpha
    left_out = np.array([compute_alpha(np.delete(votes, case, axis=0)) for case in range(100)])
    error = np.sqrt(99 / 100 * np.sum((left_out - left_out.mean()) ** 2))
    half_width = scipy.stats.t.ppf(0.975, 99) * error / (1 - found.value**2)
    low, high = np.arctanh([found.low, found.high]) - np.arctanh(found.value)
    assert -low == pytest.approx(high)
    assert high == pytest.approx(half_width, rel=0.1)


def test_people_who_never_differ_have_figures_without_a_bootstrap_interval():
    found = compute_rater_agreement(np.array([[2, 0]] * 6 + [[0, 2]] * 6), np.arange(12))
    assert (found.alpha.value, found.alpha.low, found.alpha.method) == (1.0, None, NO_SPREAD)
    assert found.random.rate == 1.0
    assert 0.7 < found.random.low < 0.8


def test_nobody_twice_is_no_data():
    found = compute_rater_agreement(np.zeros((0, 3), int), np.zeros(0, int))
    assert (found.cases, found.pairwise, found.alpha.value, found.pairs.rate) == (
        0,
        None,
        None,
        None,
    )
    assert found.random.rate is None


def test_the_same_evidence_has_the_same_interval_whatever_its_order():
    votes = counted(random_votes(4, cases=300))
    turned = np.random.default_rng(1).permutation(300)
    one, other = (
        compute_rater_agreement(votes, np.arange(300)),
        compute_rater_agreement(votes[turned], np.arange(300)),
    )
    assert one == other


@pytest.mark.slow
def test_a_million_cases_are_few_different_ones():
    """The bootstrap draws kinds of units: else it would take 500 draws of a million."""
    generator = np.random.default_rng(8)
    human = generator.integers(0, 5, 1_000_000)
    model = np.where(generator.random(1_000_000) < 0.9, human, 0)
    found = compute_pair_alpha(human, model, np.arange(1_000_000), 5)
    assert found.high - found.low < 0.004


SETS_BY_CASE = (
    "ad ab a,ade ae ade,c ace c,ce ab ac,de bce bcde,acd acd ad,abd bd ab,ade abe de,z z bc,"
    "cde z ade,ac a c,ad acd ac"
)
"""The sets that three reviewers gave twelve cases, a letter for each label."""


def count_sets():
    """Return the sets, how often each was given to each case, and their MASI distances."""
    cases = [row.split() for row in SETS_BY_CASE.split(",")]
    names = sorted({name for row in cases for name in row})
    values = np.array([[row.count(name) for name in names] for row in cases])
    distances = np.array([[compute_masi_distance(a, b) for b in names] for a in names])
    return names, cases, values, distances


def test_alpha_of_sets_is_that_of_nltk_and_krippendorffs_package():
    names, cases, values, distances = count_sets()
    found = compute_set_agreement(values, distances, np.eye(len(names)), np.arange(len(cases)))
    # nltk 3.10.4: AnnotationTask(data, distance=masi_distance).alpha()
    assert found.alpha.value == pytest.approx(0.19125948278590765, abs=1e-12)
    codes = np.array([[names.index(name) for name in row] for row in cases], float).T
    theirs = krippendorff.alpha(
        reliability_data=codes,
        value_domain=np.arange(len(names)),
        level_of_measurement=lambda v1, v2, **_: distances[v1.astype(int), v2.astype(int)],
    )
    assert found.alpha.value == pytest.approx(theirs, abs=1e-12)
    assert (found.pairs.count, found.pairs.n, found.cases, found.decisions) == (4, 36, 12, 36)
    assert (found.ac1, found.fleiss) == (None, None)


def test_a_models_alpha_is_that_of_two_reviewers_when_each_case_has_one():
    names, cases, values, distances = count_sets()
    equal, units = np.eye(len(names)), np.arange(len(cases))
    first = np.array([names.index(row[0]) for row in cases])
    second = np.array([names.index(row[1]) for row in cases])
    one_each, both = np.eye(len(names), dtype=np.int64)[first], values * 0
    np.add.at(both, (units, first), 1)
    np.add.at(both, (units, second), 1)
    model = compute_model_agreement(one_each, second, units, (distances, equal))
    people = compute_set_agreement(both, distances, equal, units)
    assert model.alpha.value == pytest.approx(people.alpha.value, abs=1e-12)
    assert (model.pairs.count, model.pairs.n) == (people.pairs.count, people.pairs.n)


def test_sets_that_overlap_enough_are_pairs_that_agree():
    distances = np.array([[0.0, 0.5], [0.5, 0.0]])
    values, units = np.array([[1, 1], [2, 0]]), np.arange(2)
    strict = compute_set_agreement(values, distances, np.eye(2), units)
    lenient = compute_set_agreement(values, distances, np.ones((2, 2)), units)
    assert (strict.pairs.count, lenient.pairs.count) == (1, 2)
    assert strict.alpha.value == lenient.alpha.value
