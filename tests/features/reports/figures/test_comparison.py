"""Figures from counted pairs are those of the pairs themselves, by other people's code too."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix, precision_recall_fscore_support

from rollout.features.reports.figures.agreement import compute_slice_kappa
from rollout.features.reports.figures.comparison import (
    build_matrix,
    compute_comparisons,
    compute_label_figures,
)
from rollout.features.reports.inputs.divergence_columns import KEY_COLUMNS
from rollout.features.reports.inputs.pairs import count_pairs
from rollout.features.reports.pages.text_report import render_comparison
from rollout.kernel.statistics.intervals import clopper_pearson, compute_unit_share
from rollout.kernel.units import FAILED, CostRule, Lever

LABELS = ("bear", "elk", "none")
COSTS = (CostRule(5.0, did="nothing", right="sound"), CostRule(1.0))
LEVER = Lever("alarm", LABELS, ("sound", "sound", "nothing"), costs=COSTS)
ODD = Lever(
    "alarm",
    LABELS,
    LABELS,
    costs=(CostRule(0.1, did="none"), CostRule(0.7, did="elk"), CostRule(1 / 3)),
)


def some_pairs(n=3000, seed=1):
    """Return pairs of two versions in six cells; the model errs now and then."""
    generator = np.random.default_rng(seed)
    human = generator.choice(LABELS, n, p=(0.2, 0.3, 0.5))
    wrong = generator.random(n) < 0.2
    return pl.DataFrame(
        {
            "case_key": [f"c{number}" for number in range(n)],
            "version": generator.choice(["v1", "v2"], n),
            "site": generator.choice(["creek", "lake", "ridge"], n),
            "window": generator.choice(["day", "night"], n),
            "human": human,
            "model": np.where(wrong, generator.choice(LABELS, n), human),
            "confidence": generator.random(n).round(3),
        }
    )


@pytest.fixture(scope="module")
def pairs():
    return some_pairs()


def compared(pairs, lever=None):
    return compute_comparisons(count_pairs(pairs.lazy(), lever).table, lever)


def of(pairs, version):
    return pairs.filter(pl.col("version") == version)


def test_there_is_a_comparison_of_each_version(pairs):
    found = compared(pairs)
    assert [one.version for one in found] == ["v1", "v2"]
    assert sum(one.agreement.n for one in found) == pairs.height


def test_confusion_and_labels_are_those_of_scikit_learn(pairs):
    (one, _), own = compared(pairs), of(pairs, "v1")
    human, model = own["human"].to_numpy(), own["model"].to_numpy()
    assert one.label_matrix.labels == LABELS
    assert one.label_matrix.table.tolist() == confusion_matrix(human, model).tolist()
    precision, recall, _, n = precision_recall_fscore_support(human, model, labels=LABELS)
    by_label = {figures.label: figures for figures in one.labels}
    for place, label in enumerate(LABELS):
        figures = by_label[label]
        assert (figures.recall.rate, figures.precision.rate, figures.human) == pytest.approx(
            (recall[place], precision[place], n[place])
        )


def test_they_are_those_that_a_report_makes_of_the_pairs_one_by_one(pairs):
    """A report knows units; where each case is its own unit both say the same."""
    (one, _), own = compared(pairs), of(pairs, "v1")
    known = own.with_columns(unit="case_key", agrees=pl.col("human") == pl.col("model"))
    matrix = build_matrix(known, ())
    assert one.label_matrix == matrix
    assert one.agreement.rate == compute_unit_share(known).rate
    in_report = compute_label_figures(known, matrix, {})
    assert [figures.label for figures in one.labels] == [figures.label for figures in in_report]
    for ours, theirs in zip(one.labels, in_report, strict=True):
        assert (ours.both, ours.human, ours.model) == (theirs.both, theirs.human, theirs.model)
        assert ours.recall.low == pytest.approx(theirs.recall.low)


def test_every_cell_has_its_own_agreement_and_kappa(pairs):
    (one, _), own = compared(pairs), of(pairs, "v1")
    assert len(one.cells) == 6
    for cell in one.cells:
        here = own.filter((pl.col("site") == cell.site) & (pl.col("window") == cell.window))
        human, model = here["human"].to_numpy(), here["model"].to_numpy()
        assert (cell.agreement.count, cell.agreement.n) == ((human == model).sum(), here.height)
        assert cell.kappa == pytest.approx(cohen_kappa_score(human, model))
        assert cell.kappa == pytest.approx(compute_slice_kappa(here))


def test_a_cell_in_which_only_one_label_is_given_has_no_kappa():
    (one,) = compared(pl.DataFrame({"site": ["creek"] * 3, "human": ["elk"] * 3, "model": "elk"}))
    ((cell),) = one.cells
    assert (cell.site, cell.window, cell.kappa, cell.agreement.rate) == ("creek", None, None, 1.0)


def test_a_lever_adds_costs_and_actions(pairs):
    (one, _), own = compared(pairs, LEVER), of(pairs, "v1")
    missed = own.filter((pl.col("human") != "none") & (pl.col("model") == "none")).height
    false = own.filter((pl.col("human") == "none") & (pl.col("model") != "none")).height
    assert one.cost == pytest.approx((5 * missed + false) / own.height)
    assert one.action_matrix.labels == ("sound", "nothing")
    assert one.action_matrix.counts[0][1] == missed
    cell, (site, window) = one.cells[0], ("creek", "day")
    here = own.filter((pl.col("site") == site) & (pl.col("window") == window))
    again = compared(here, LEVER)[0]
    assert (cell.site, cell.window, cell.cost) == (site, window, pytest.approx(again.cost))


@pytest.mark.parametrize("lever", [None, LEVER, ODD])
def test_in_whatever_order_pairs_were_counted_figures_are_the_same_to_the_last_digit(pairs, lever):
    table = count_pairs(pairs.lazy(), lever).table
    found = {
        repr(compute_comparisons(table.sample(fraction=1, shuffle=True, seed=n), lever))
        for n in range(9)
    }
    assert len(found) == 1


def test_without_a_lever_no_cost_is_made_up(pairs):
    one = compared(pairs)[0]
    assert (one.cost, one.action_matrix, one.cells[0].cost) == (None, None, None)


def test_cases_without_an_answer_by_people_are_in_no_pair_and_in_the_bounds():
    rows = {"human": ["elk", None, "", "elk"], "model": ["elk", "elk", "bear", "bear"]}
    (one,) = compared(pl.DataFrame(rows))
    assert (one.agreement.n, one.unjudged, one.bounds) == (
        2,
        2,
        (clopper_pearson(1, 4)[0], clopper_pearson(3, 4)[1]),
    )
    elk = next(figures for figures in one.labels if figures.label == "elk")
    assert elk.recall_bounds == (clopper_pearson(1, 3)[0], clopper_pearson(2, 3)[1])


def test_a_model_that_did_not_answer_is_wrong():
    (one,) = compared(pl.DataFrame({"human": ["elk", "elk"], "model": ["elk", None]}))
    assert one.agreement.rate == 0.5
    assert FAILED in one.label_matrix.labels


def test_of_nothing_nothing_is_said():
    assert compared(pl.DataFrame(schema={"human": pl.String, "model": pl.String})) == ()
    (one,) = compared(pl.DataFrame({"human": [None], "model": ["elk"]}, schema_overrides=TEXT))
    assert (one.agreement.rate, one.unjudged, one.kappa.value, one.labels) == (None, 1, None, ())
    assert "no data" in render_comparison(one)


TEXT = {"human": pl.String}


def test_answers_that_are_no_labels_have_shares_alone():
    table = pl.DataFrame(
        [
            ("v1", "heat", "creek", None, "agree", said, n)
            for said, n in (("agree", 8), ("over", 2))
        ],
        schema=[*KEY_COLUMNS, "n"],
        orient="row",
    )
    (one,) = compute_comparisons(table, has_labels=False)
    assert (one.agreement.rate, one.label_matrix, one.kappa, one.labels) == (0.8, None, None, ())
    assert one.cells[0].kappa is None


# The largest losses


def test_the_largest_losses_are_those_where_the_model_was_surest(pairs):
    found = count_pairs(pairs.lazy()).losses
    differ = pairs.filter(pl.col("human") != pl.col("model"))
    surest = differ.sort("confidence", "case_key", descending=[True, False]).head(20)
    assert found["case_key"].to_list() == surest["case_key"].to_list()
    assert found["loss"].to_list() == pytest.approx(-np.log(1 - surest["confidence"].to_numpy()))


def test_what_a_mistake_costs_weighs_its_loss():
    rows = {"case_key": ["a", "b"], "human": ["none", "bear"], "model": ["bear", "none"]}
    frame = pl.DataFrame({**rows, "confidence": [0.9, 0.6]}).lazy()
    assert count_pairs(frame).losses["case_key"].to_list() == ["a", "b"]
    assert count_pairs(frame, LEVER).losses["case_key"].to_list() == ["b", "a"]
    assert count_pairs(frame, LEVER).losses["cost"].to_list() == [5.0, 1.0]


def test_labels_that_the_lever_lacks_cost_the_most():
    frame = pl.LazyFrame({"case_key": ["a"], "human": ["fox"], "model": ["elk"], "confidence": 0.5})
    assert count_pairs(frame, LEVER).losses["cost"].to_list() == [5.0]


def test_of_equal_losses_the_cases_keys_decide_which_are_listed():
    keys = [f"c{number:02}" for number in range(50)]
    frame = pl.DataFrame({"case_key": keys[::-1], "human": "elk", "model": "bear"})
    found = count_pairs(frame.with_columns(confidence=0.7).lazy()).losses
    assert found["case_key"].to_list() == keys[:20]


def test_a_pair_without_confidence_or_answer_is_no_loss():
    rows = {"human": ["elk", "elk", None, ""], "model": ["bear", "", "elk", "elk"]}
    frame = pl.DataFrame({**rows, "case_key": "c", "confidence": [None, 0.9, 0.9, 0.9]})
    found = count_pairs(frame.lazy())
    assert (found.losses.height, found.confidence_count, found.max_confidence) == (0, 3, 0.9)


def test_without_confidences_no_loss_is_told(pairs):
    found = count_pairs(pairs.drop("confidence").lazy())
    assert (found.losses.height, found.confidence_count, found.min_confidence) == (0, 0, None)


def test_many_labels_are_told_by_the_pairs_most_often_confused():
    labels = [f"label-{number}" for number in range(12)]
    frame = pl.DataFrame({"human": labels + ["label-3"] * 4, "model": labels + ["label-7"] * 4})
    text = render_comparison(compared(frame)[0])
    assert "label-3  label-7  4" in text
