"""Who said what: tables of labels and of actions, people in rows and the model in columns."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.reports.statistics.intervals import Share, clustered_share, share


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
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
    missed, and if every one that the model gave it were right; `precision_bounds` if all of these
    were wrong, and if all were right.
    """

    label: str
    human: int
    model: int
    both: int
    precision: Share
    recall: Share
    recall_bounds: tuple[float, float] | None
    precision_bounds: tuple[float, float] | None


def matrix_of(
    pairs: pl.DataFrame, human: str, model: str, order: tuple[str, ...]
) -> ConfusionMatrix:
    """Return the table of two columns; labels stand in `order`, unlisted ones behind.

    Labels that nobody gave are left out.
    """
    return counted_matrix(pairs.group_by(human, model).len(), order)


def counted_matrix(counts: pl.DataFrame, order: tuple[str, ...]) -> ConfusionMatrix:
    """Return the table of pairs that were counted; labels as in `matrix_of`.

    Args:
        counts: three columns: what people said, what the model said, how often. A pair may stand
            in several rows; none may be null.
        order: labels that come first.

    >>> rows = {"human": ["elk", "bear"], "model": ["bear", "bear"], "n": [2, 7]}
    >>> counted_matrix(pl.DataFrame(rows), ("bear",)).counts
    ((7, 0), (2, 0))
    """
    human, model, _ = counts.columns
    used = set(counts[human]) | set(counts[model])
    rest = sorted(used - set(order))
    labels = tuple(label for label in (*dict.fromkeys(order), *rest) if label in used)
    positions = {label: index for index, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)), dtype=int)
    for row, column, count in counts.iter_rows():
        table[positions[row], positions[column]] += count
    return ConfusionMatrix(labels, tuple(tuple(int(n) for n in row) for row in table))


def action_matrix(pairs: pl.DataFrame, lever: Lever) -> ConfusionMatrix:
    """Return the table of actions with what each pair of them costs."""
    return with_costs(matrix_of(pairs, "human_action", "model_action", lever.actions), lever)


def with_costs(found: ConfusionMatrix, lever: Lever) -> ConfusionMatrix:
    """Return a table of actions with what each pair of them costs."""
    actions = set(lever.actions)

    def cost(did: str, right: str) -> float:
        return lever.cost(did, right) if {did, right} <= actions else lever.largest_cost

    costs = tuple(
        tuple(cost(model_action, human_action) for model_action in found.labels)
        for human_action in found.labels
    )
    return ConfusionMatrix(found.labels, found.counts, costs)


def label_figures(
    pairs: pl.DataFrame, matrix: ConfusionMatrix, unjudged: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label in the table, the most frequent of people's first.

    Args:
        pairs: columns human, model, agrees, unit; intervals are over units.
        matrix: the table of these pairs.
        unjudged: per label of the model, the cases that no single verdict of people stands beside.
    """
    recalls, precisions = _shares(pairs, "human"), _shares(pairs, "model")
    return _in_order(
        _figures(label, precisions.get(label), recalls.get(label), unjudged)
        for label in matrix.labels
    )


def counted_label_figures(
    matrix: ConfusionMatrix, unjudged: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label in a table whose pairs are taken as independent.

    Args:
        matrix: the table.
        unjudged: as for `label_figures`.
    """
    both, rows, columns = matrix.table.diagonal(), matrix.table.sum(1), matrix.table.sum(0)
    return _in_order(
        _figures(
            label,
            share(int(both[index]), int(columns[index])),
            share(int(both[index]), int(rows[index])),
            unjudged,
        )
        for index, label in enumerate(matrix.labels)
    )


def _in_order(rows: Iterable[LabelFigures]) -> tuple[LabelFigures, ...]:
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
    total = precision.n + missing_as
    return LabelFigures(
        label=label,
        human=recall.n,
        model=precision.n,
        both=both,
        precision=precision,
        recall=recall,
        recall_bounds=(both / worst, (both + missing_as) / best) if worst and best else None,
        precision_bounds=(both / total, (both + missing_as) / total) if total else None,
    )
