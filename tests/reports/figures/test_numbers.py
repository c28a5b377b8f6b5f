"""Levers with a number: every section compares within the tolerance, no table by number."""

import polars as pl
import pytest

from rollout.formats.policy.reader import parse_policy
from rollout.reports.figures.facts import compute_report_facts
from rollout.reports.inputs.pairs import compare_answers, compare_pairs
from tests.reports.alike_cases import FIVE
from tests.reports.conftest import BEARS

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


def test_columns_of_numbers_compare_as_single_ones_do():
    numbers = ["100", "100.0", "95", "94.9", "79", "151", "88", "500.1", "(failed)", "1e2", "0"]
    pairs = pl.DataFrame({"human": ["100", "0", "600"]}).join(
        pl.DataFrame({"model": numbers}), how="cross"
    )
    found = {row[:2]: row[2:] for row in compare_pairs(LEVER, pairs).iter_rows()}
    assert len(found) == 33
    assert found == {pair: compare_answers(LEVER, *pair) for pair in found}
    assert {cost for *_, cost in found.values()} == {0.0, 1.0, 3.0, 4.0}


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
    assert (found.people_right, found.model_right) == (1, 1)
    (correct,) = facts.correctness
    assert (correct.model.count, correct.people.count, correct.known) == (1, 1, 4)


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
    (ceiling,) = facts.people.ceilings
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
    assert ("person", "bo") in [name for found in search.found for name in found.names]
