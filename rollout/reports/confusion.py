"""Who said what: tables of labels and of actions, people in rows and the model in columns."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.levers import Lever
from rollout.reports.intervals import Share, clustered_share, share


@dataclass(frozen=True, slots=True)
class Matrix:
    """Counts of pairs: rows are what people said, columns what the model said.

    Labels that only one side gave stand in both; `costs` holds what one case of each pair costs,
    None for labels (their costs are those of their actions).
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    costs: tuple[tuple[float, ...], ...] | None = None

    @property
    def table(self) -> NDArray[np.float64]:
        """Return the counts as an array, shape (labels, labels)."""
        return np.array(self.counts, float).reshape(len(self.labels), len(self.labels))


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label: how often people and the model gave it, and how often both did.

    `recall` is of the cases whose person said it, `precision` of those whose model did.
    `recall_bounds` is what recall would be if every case without a verdict were of this label and
    missed, and if every one that the model gave it were right.
    """

    label: str
    human: int
    model: int
    both: int
    precision: Share
    recall: Share
    recall_bounds: tuple[float, float] | None


def matrix_of(pairs: pl.DataFrame, human: str, model: str, order: tuple[str, ...]) -> Matrix:
    """Return the table of two columns; labels stand in `order`, unlisted ones behind.

    Labels that nobody gave are left out.
    """
    cells = pairs.group_by(human, model).len()
    given = set(cells[human]) | set(cells[model])
    rest = sorted(given - set(order))
    labels = tuple(label for label in (*dict.fromkeys(order), *rest) if label in given)
    place = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)), dtype=int)
    for row, column, count in cells.iter_rows():
        table[place[row], place[column]] = count
    return Matrix(labels, tuple(tuple(int(n) for n in row) for row in table))


def action_matrix(pairs: pl.DataFrame, lever: Lever) -> Matrix:
    """Return the table of actions with what each pair of them costs."""
    found = matrix_of(pairs, "human_action", "model_action", lever.actions)
    known = set(lever.actions)

    def cost(did: str, right: str) -> float:
        return lever.cost(did, right) if {did, right} <= known else lever.largest_cost

    costs = tuple(tuple(cost(did, right) for did in found.labels) for right in found.labels)
    return Matrix(found.labels, found.counts, costs)


def label_figures(
    pairs: pl.DataFrame, matrix: Matrix, unjudged: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label in the table, the most frequent of people's first.

    Args:
        pairs: columns human, model, agrees, unit; intervals are over units.
        matrix: the table of these pairs.
        unjudged: per label of the model, the cases that no single verdict of people stands beside.
    """
    recalls, precisions = _shares(pairs, "human"), _shares(pairs, "model")
    rows = [
        _figures(label, precisions.get(label), recalls.get(label), unjudged)
        for label in matrix.labels
    ]
    return tuple(sorted(rows, key=lambda row: (-row.human, -row.model, row.label)))


def _shares(pairs: pl.DataFrame, side: str) -> dict[str, Share]:
    """Return per label of one side the share that agrees."""
    units = pairs.group_by(side, "unit").agg(pl.col("agrees").sum(), size=pl.len())
    parts = units.sort("unit").partition_by(side, as_dict=True)
    return {
        str(label): clustered_share(part["agrees"].to_numpy(), part["size"].to_numpy())
        for (label,), part in parts.items()
    }


def _figures(
    label: str, precision: Share | None, recall: Share | None, unjudged: dict[str, int]
) -> LabelFigures:
    precision, recall = precision or share(0, 0), recall or share(0, 0)
    both, missing_as = recall.count, unjudged.get(label, 0)
    missing = sum(unjudged.values())
    worst, best = recall.n + missing - missing_as, recall.n + missing_as
    bounds = (both / worst, (both + missing_as) / best) if worst and best else None
    return LabelFigures(label, recall.n, precision.n, both, precision, recall, bounds)
