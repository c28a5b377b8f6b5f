"""The figures that stand above a list of divergences."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.reports.figures.confusion import ConfusionMatrix, counted_matrix, with_costs
from rollout.reports.inputs.pairs import compare
from rollout.services.divergences.closed_units import Looked, Pair

if TYPE_CHECKING:
    from rollout.store.counting.closed_units import Said


@dataclass(frozen=True, slots=True)
class Worst:
    """The dearest kind of divergence: how many, and what they cost together."""

    human: str
    model: str
    count: int
    cost: float


def worst_of(pairs: Iterable[Pair]) -> Worst | None:
    """Return the two answers that cost most together; None where none costs anything."""
    counts: Counter[Said] = Counter()
    costs: dict[Said, float] = {}
    for pair in pairs:
        answers = (pair.human, pair.model)
        counts[answers] += 1
        costs[answers] = costs.get(answers, 0.0) + pair.cost
    costly_answers = [answers for answers in costs if costs[answers] > 0]
    if not costly_answers:
        return None
    costliest = min(costly_answers, key=lambda answers: (-costs[answers], *answers))
    return Worst(*costliest, counts[costliest], costs[costliest])


def label_matrix(looked: Looked) -> ConfusionMatrix:
    """Return who said what, as it was counted."""
    rows = [(*answers, count) for answers, count in looked.counts.items()]
    return counted_matrix(_counts(rows), looked.where.lever.labels)


def action_matrix(looked: Looked) -> ConfusionMatrix:
    """Return what was done with what each pair of actions costs, by the policy in force."""
    lever = looked.where.lever
    comparisons = ((compare(lever, *answers), count) for answers, count in looked.counts.items())
    rows = [(comparison[1], comparison[2], count) for comparison, count in comparisons]
    return with_costs(counted_matrix(_counts(rows), lever.actions), lever)


def _counts(rows: Sequence[tuple[str, str, int]]) -> pl.DataFrame:
    schema = {"human": pl.String(), "model": pl.String(), "n": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")
