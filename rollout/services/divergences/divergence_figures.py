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
    count: Counter[Said] = Counter()
    cost: dict[Said, float] = {}
    for pair in pairs:
        said = (pair.human, pair.model)
        count[said] += 1
        cost[said] = cost.get(said, 0.0) + pair.cost
    dear = [said for said in cost if cost[said] > 0]
    if not dear:
        return None
    worst = min(dear, key=lambda said: (-cost[said], *said))
    return Worst(*worst, count[worst], cost[worst])


def label_matrix(looked: Looked) -> ConfusionMatrix:
    """Return who said what, as it was counted."""
    rows = [(*said, n) for said, n in looked.counts.items()]
    return counted_matrix(_counts(rows), looked.where.lever.labels)


def action_matrix(looked: Looked) -> ConfusionMatrix:
    """Return what was done with what each pair of actions costs, by the policy in force."""
    lever = looked.where.lever
    compared = ((compare(lever, *said), n) for said, n in looked.counts.items())
    rows = [(did[1], did[2], n) for did, n in compared]
    return with_costs(counted_matrix(_counts(rows), lever.actions), lever)


def _counts(rows: Sequence[tuple[str, str, int]]) -> pl.DataFrame:
    schema = {"human": pl.String(), "model": pl.String(), "n": pl.Int64()}
    return pl.DataFrame(rows, schema=schema, orient="row")
