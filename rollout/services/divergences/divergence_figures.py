"""Figures above the list of divergences."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.reports.figures.confusion import ConfusionMatrix, add_costs, build_matrix_from_counts
from rollout.reports.figures.number_sides import NumberSides, compute_number_sides
from rollout.reports.inputs.pairs import compare_answers
from rollout.services.divergences.closed_units import ComparedUnits, DifferingPair

if TYPE_CHECKING:
    from rollout.store.counting.closed_units import AnswerPair


@dataclass(frozen=True, slots=True)
class CostliestKind:
    """The costliest kind of divergence: its count and total cost.

    Of numbers the kind is the side: `human` is empty, `model` is below or above the tolerance.
    """

    human: str
    model: str
    count: int
    cost: float


def find_costliest_kind(pairs: Iterable[DifferingPair], lever: Lever) -> CostliestKind | None:
    """Return the kind of divergence with the largest total cost, or None."""
    counts: Counter[AnswerPair] = Counter()
    costs: dict[AnswerPair, float] = {}
    for pair in pairs:
        answers = (pair.human, pair.model) if lever.number is None else ("", _find_side(pair))
        counts[answers] += 1
        costs[answers] = costs.get(answers, 0.0) + pair.cost
    costly_answers = [answers for answers in costs if costs[answers] > 0]
    if not costly_answers:
        return None
    costliest = min(costly_answers, key=lambda answers: (-costs[answers], *answers))
    return CostliestKind(*costliest, counts[costliest], costs[costliest])


def _find_side(pair: DifferingPair) -> str:
    """Return on which side of the human's number the model's lies."""
    try:
        is_below = float(pair.model) < float(pair.human)
    except ValueError:
        return "without a number"
    return f"{'below' if is_below else 'above'} the tolerance"


def build_number_sides(compared_units: ComparedUnits) -> NumberSides:
    """Return how many numbers lie within, below and above the tolerance, as counted."""
    return compute_number_sides(
        (*answers, count) for answers, count in compared_units.counts.items()
    )


def build_label_matrix(compared_units: ComparedUnits) -> ConfusionMatrix:
    """Return the confusion matrix of the labels, as counted."""
    rows = [(*answers, count) for answers, count in compared_units.counts.items()]
    return build_matrix_from_counts(
        _build_count_frame(rows), compared_units.unit_filter.lever.labels
    )


def build_action_matrix(compared_units: ComparedUnits) -> ConfusionMatrix:
    """Return the confusion matrix of the actions, at the current policy's costs."""
    lever = compared_units.unit_filter.lever
    comparisons = (
        (compare_answers(lever, *answers), count)
        for answers, count in compared_units.counts.items()
    )
    rows = [(comparison[1], comparison[2], count) for comparison, count in comparisons]
    return add_costs(build_matrix_from_counts(_build_count_frame(rows), lever.actions), lever)


def _build_count_frame(rows: Sequence[tuple[str, str, int]]) -> pl.DataFrame:
    schema = {"human": pl.String(), "model": pl.String(), "n": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")
