"""Levers with a number: every section compares within the tolerance, no table by number."""

import numpy as np
import polars as pl
import pytest

from rollout.features.reports.figures.agreement import select_points
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.inputs.pairs import compare_answers, compare_pairs
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.number_charts import draw_difference_chart, draw_scatter_chart
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.intervals import NORMAL_QUANTILE as NORMAL
from tests.features.reports.alike_cases import FIVE
from tests.features.reports.collects import count_pattern_searches
from tests.features.reports.conftest import BEARS

pytestmark = pytest.mark.slow

PRICES = (
    BEARS.replace(
        "    labels: [bear, no-bear]\n", "    number: {in: EUR, from: 0, to: 500, tolerance: 5%}\n"
    )
    .replace("    actions: {bear: sound-alarm, no-bear: nothing}\n", "")
    .replace(
        "[{did: nothing, right: sound-alarm, cost: 20}, {cost: 1}]",
        "[{under: 20%, cost: 4}, {over: 50, cost: 3}, {off: 10%, cost: 1}]",
    )
)
POLICY = parse_policy(PRICES)
LEVER = POLICY.levers[0]


@pytest.fixture(name="facts_of")
def build_facts(replay_of, case):
    """Return a function from (humans, model, outcome) of each case to facts."""

    def compute(rows):
        cases = [
            case(f"c{n:03}", case("x").at + n * FIVE, human=human, model={"v1": model},
                 outcome=outcome)
            for n, (human, model, outcome) in enumerate(rows)
        ]  # fmt: skip
        return compute_report_facts(replay_of(cases, POLICY))

    return compute


def test_an_answer_that_is_no_number_ends_no_report(facts_of):
    humans = (("ana", "100"), ("bo", "a,b"), ("cy", "104"))
    odd = ["a,b", "\u0663", "NULL", " 5 ", "1e400", "501", "100"]
    facts = facts_of([(humans, model, None) for model in odd])
    model, human = sorted(facts.unknown_labels, key=lambda label: label.side, reverse=True)
    named = {text for text, _ in model.answers}
    assert (model.count, named) == (5, {"a,b", "\u0663", "NULL", "1e400", "501"})
    assert human.answers == (("a,b", len(odd)),)
    (ceiling,) = facts.reviewer_agreement.ceilings
    assert ceiling.reviewers.decisions == 2 * len(odd), "of the two who gave a number"


def test_columns_of_numbers_compare_as_single_ones_do():
    numbers = ["100", "100.0", "95", "94.9", "79", "151", "88", "500.1", "(failed)", "1e2", "0"]
    pairs = pl.DataFrame({"human": ["100", "0", "600"]}).join(
        pl.DataFrame({"model": numbers}), how="cross"
    )
    found = {row[:2]: row[2:] for row in compare_pairs(LEVER, pairs).iter_rows()}
    assert len(found) == 33
    assert found == {pair: compare_answers(LEVER, *pair) for pair in found}
    assert {cost for *_, cost in found.values()} == {0.0, 1.0, 3.0, 4.0}


def test_a_comparison_of_numbers_reads_each_side_once():
    pairs = pl.DataFrame({"human": ["20", "400"], "model": ["20.5", "500"]})
    assert count_pattern_searches(lambda: compare_pairs(LEVER, pairs)) == 2


def test_outcomes_count_as_right_within_the_tolerance(facts_of):
    facts = facts_of(
        [
            ("100", "110.01", "101.5"),  # humans are right
            ("100", "110.02", "109.99"),  # the model is right
            ("100", "130", "70"),  # nobody is
            ("100", "101", "400"),  # no divergence
        ]
    )
    found = facts.divergences
    assert (found.count, found.outcome_known) == (3, 3)
    assert (found.human_right, found.model_right) == (1, 1)
    (correct,) = facts.correctness
    assert (correct.model.count, correct.human.count, correct.known_cases) == (1, 1, 4)


def test_reviewers_within_the_tolerance_give_one_number(facts_of):
    facts = facts_of(
        [
            ([("ana", "100"), ("bo", "102"), ("cy", "101")], "106", None),
            ([("ana", "100"), ("bo", "102")], "105", "101"),  # the lower median counts
            ([("ana", "100"), ("bo", "120")], "100", "110"),  # too far apart
        ]
    )
    (agreement,) = facts.agreements
    assert (agreement.agreement.n, agreement.unjudged, agreement.agreement.count) == (2, 1, 2)
    (ceiling,) = facts.reviewer_agreement.ceilings
    assert (ceiling.majority.count, ceiling.majority.n) == (3, 3)
    assert (ceiling.majority_outcome.count, ceiling.majority_outcome.n) == (1, 2)


def test_numbers_have_no_kappa_and_no_table_in_any_section(facts_of):
    rows = [(f"{100 + n / 7:.2f}", f"{101 + n / 7:.2f}", None) for n in range(60)]
    facts = facts_of(rows)
    (found,) = facts.agreements
    assert (found.kappa, found.label_matrix, found.action_matrix, found.labels) == (None,) * 3 + (
        (),
    )
    slices = (*found.by_site, *found.by_window, *found.by_day_night)
    assert slices
    assert {row.kappa for row in slices} == {None}


def test_reviewers_of_numbers_are_compared_across_numbers(facts_of):
    """Bo is wrong in every case; were cases of equal numbers compared, nobody would see it."""
    rows = [
        ([("ana", f"{100 + n}")] if n % 3 else [("bo", f"{200 + n}")], f"{101 + n}", None)
        for n in range(240)
    ]
    (search,) = facts_of(rows).slice_searches
    assert ("person", "bo") in [name for found in search.slices for name in found.names]


# How far numbers differ


def test_figures_of_numbers_are_those_of_their_pairs(facts_of):
    generator = np.random.default_rng(4)
    human = generator.uniform(20, 200, 150).round(2)
    model = (human * generator.normal(1.02, 0.05, 150)).round(2)
    rows = [(str(x), str(y), None) for x, y in zip(human, model, strict=True)]
    broken = [("100", None, None), ("100", "501", None), ("900", "100", None)]
    (found,) = facts_of(rows + broken).number_agreements
    gaps = model - human
    assert (found.unit, found.tolerance, found.failed, found.outside) == ("EUR", "5 %", 1, 2)
    close = np.abs(gaps) <= 0.05 * human
    assert (found.within.count, found.within.n) == (close.sum(), 153)
    assert found.below.count == (~close & (gaps < 0)).sum()
    assert found.above.count == (~close & (gaps > 0)).sum()
    for figures, values in (
        (found.differences, gaps),
        (found.relative, 100 * gaps / human),
    ):
        spread = NORMAL * np.std(values, ddof=1)
        mean = values.mean()
        assert figures.bias.value == pytest.approx(mean)
        assert (figures.lower.value, figures.upper.value) == pytest.approx(
            (mean - spread, mean + spread)
        )
    squares = (human[:, None] - model[None, :]) ** 2  # as if humans and model were unrelated
    assert found.concordance.value == pytest.approx(1 - (gaps**2).mean() / squares.mean())


def test_mean_cost_is_the_sum_of_its_bands(facts_of):
    rows = [("100", str(y), None) for y in (79, 94, 89, 100, 104, 111, 151)] + [("100", None, None)]
    (found,) = facts_of(rows * 4).number_agreements
    bands = {band.name: (band.cost, band.share.count) for band in found.bands}
    assert bands == {
        "within the tolerance (5 %)": (0, 8),
        "more than 20 % below": (4, 4),
        "more than 50 EUR above": (3, 4),
        "more than 10 % off": (1, 8),
        "beyond the tolerance, in no row of the costs": (0, 4),
        "no number, or one out of range": (4, 4),
    }
    assert found.cost.value == pytest.approx(sum(band.per_case for band in found.bands))
    assert found.cost.value == pytest.approx((4 + 3 + 1 + 1 + 4) / 8)


def test_drawn_points_are_few_and_hold_the_extremes():
    human = np.linspace(1, 100, 5000)
    model = human * (1 + 0.001 * np.sin(np.arange(5000)))
    model[17], model[4000] = 400.0, 0.5
    points = {(p.human, p.model) for p in select_points(human, model, relative=False)}
    assert len(points) == 200
    assert {(human[17], 400.0), (human[4000], 0.5)} < points


def test_the_page_draws_numbers_and_names_no_kappa(facts_of):
    rows = [(f"{100 + n / 7:.2f}", f"{101 + n / 5:.2f}", "100") for n in range(120)]
    facts = facts_of(rows)
    page = render_html_report(facts, "engineer")
    assert page.count('<svg role="img"') >= 2
    assert 'aria-labelledby="pair0-title' in page
    assert 'aria-labelledby="gap0-title' in page
    assert "Lower limit of agreement" in page
    assert "Lin's concordance" in page
    assert "Cohen" not in page
    assert '<table class="matrix"' not in page
    numbers = {f"{100 + n / 7:.2f}" for n in range(1, 120)}
    assert len([text for text in numbers if f'<th scope="row">{text}<' in page]) == 0


def test_without_numbers_there_is_no_data_and_no_chart(facts_of):
    (found,) = facts_of([("100", None, None)]).number_agreements
    assert (found.failed, found.points, found.differences.bias.value) == (1, (), None)
    assert draw_scatter_chart(found, prefix="a") is draw_difference_chart(found, prefix="b") is None
    assert "no data" in render_html_report(facts_of([("100", None, None)]), "engineer")
