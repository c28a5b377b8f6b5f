"""Figures of sets of labels: recall and precision by label, against scikit-learn."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import jaccard_score, precision_recall_fscore_support

from rollout.features.reports.figures.agreement import (
    compute_set_pair_alpha,
    compute_set_unit_alpha,
)
from rollout.features.reports.figures.comparison import compute_set_label_figures
from rollout.kernel.statistics.agreement import compare_sets
from rollout.kernel.units import (
    EMPTY_SET,
    FAILED,
    compute_overlap,
    do_sets_agree,
    format_label_set,
    split_label_set,
)
from tests.features.reports.plain_coefficients import compute_masi_distance

LOGOS = tuple(f"logo {letter}" for letter in "abcdefghij")


def random_sets(seed, cases=300):
    """Return the labels of humans and model as ones and zeros, shape (cases, 10)."""
    generator = np.random.default_rng(seed)
    human = generator.random((cases, 10)) < np.linspace(0.05, 0.5, 10)
    model = human ^ (generator.random((cases, 10)) < 0.08)
    return human.astype(int), model.astype(int)


def format_rows(rows):
    return [format_label_set(np.array(LOGOS)[row == 1].tolist()) for row in rows]


def test_recall_precision_and_overlap_are_those_of_scikit_learn():
    human, model = random_sets(16)
    pairs = pl.DataFrame(
        {
            "human": format_rows(human),
            "model": format_rows(model),
            "unit": [f"c{i}" for i in range(300)],
        }
    )
    rows = {row.label: row for row in compute_set_label_figures(pairs, LOGOS, {})}
    precision, recall, _, support = precision_recall_fscore_support(human, model)
    for index, label in enumerate(LOGOS):
        assert rows[label].precision.rate == pytest.approx(precision[index], abs=1e-12)
        assert rows[label].recall.rate == pytest.approx(recall[index], abs=1e-12)
        assert rows[label].human == support[index]
    overlaps = [
        compute_overlap(split_label_set(x), split_label_set(y))
        for x, y in zip(pairs["human"], pairs["model"], strict=True)
    ]
    theirs = jaccard_score(human, model, average="samples", zero_division=1)
    assert np.mean(overlaps) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("overlap", [1.0, 0.8, 0.5])
def test_all_pairs_of_sets_compare_as_single_ones_do(overlap):
    texts = [*dict.fromkeys(format_rows(random_sets(4, cases=40)[0])), EMPTY_SET, FAILED]
    distances, agreements = compare_sets(texts, overlap)
    sets = [split_label_set(text) for text in texts]
    expected = [[compute_masi_distance(x, y) for y in sets] for x in sets]
    assert distances == pytest.approx(np.array(expected), abs=1e-12)
    assert agreements.tolist() == [[do_sets_agree(x, y, overlap) for y in texts] for x in texts]


def test_cases_without_a_decision_widen_the_bounds_of_their_labels():
    pairs = pl.DataFrame(
        {"human": ["logo a"] * 20, "model": ["logo a"] * 19 + [FAILED], "unit": list(range(20))}
    )
    (row,) = compute_set_label_figures(pairs, LOGOS, {"logo a": 3, "": 8})
    assert (row.recall.count, row.recall.n, row.precision.n) == (19, 20, 19)
    (complete,) = compute_set_label_figures(pairs, LOGOS, {"logo a": 0, "": 0})
    assert row.recall_bounds[0] < complete.recall_bounds[0]
    assert row.precision_bounds[0] < complete.precision_bounds[0]


def test_units_are_resampled_whole_and_leave_alpha_as_it_is():
    human, model = map(format_rows, random_sets(8, cases=60))
    pairs = pl.DataFrame({"human": human, "model": model, "unit": range(60)})
    counts = pairs.group_by("human", "model").agg(n=pl.len()).sort("human", "model")
    alone = compute_set_unit_alpha(pairs)
    assert alone == compute_set_pair_alpha(counts)
    twice = pl.concat([pairs, pairs])
    bursts = compute_set_unit_alpha(twice)
    assert bursts.n == 120
    assert bursts.high - bursts.low == pytest.approx(alone.high - alone.low, rel=0.2)
    as_cases = compute_set_unit_alpha(twice.with_columns(unit=pl.int_range(120)))
    assert as_cases.value == pytest.approx(bursts.value, abs=1e-12)
    assert as_cases.high - as_cases.low < 0.85 * (bursts.high - bursts.low)
    assert compute_set_unit_alpha(pairs.clear()).value is None
