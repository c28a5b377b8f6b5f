"""Confusion matrices of labels and actions: humans in rows, the model in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollout.core.late_modules import LateModule
from rollout.kernel.label_sets import SEPARATOR
from rollout.reports.statistics.intervals import (
    Share,
    compute_missing_bounds,
    compute_share,
    compute_unit_share,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from rollout.core.policy.levers import Lever
else:
    np = LateModule("numpy")


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """Counts of pairs: rows are human answers, columns answers of the model.

    `labels` are those of either side; `costs` has the cost of one case of each pair, None for
    labels (their actions have the costs).
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
    """How often humans and the model gave one label, and how often both did.

    `recall` is over cases with this human label, `precision` over cases with this model label.
    The bounds are 95 % intervals whatever cases without a decision would have said:
    `recall_bounds` if all others had this label and were missed, and if all with this model label
    were right; `precision_bounds` if those were all wrong, and all right.
    """

    label: str
    human: int
    model: int
    both: int
    precision: Share
    recall: Share
    recall_bounds: tuple[float, float] | None
    precision_bounds: tuple[float, float] | None


def build_matrix(
    pairs: pl.DataFrame, human: str, model: str, order: tuple[str, ...]
) -> ConfusionMatrix:
    """Return the matrix of two columns: labels in `order`, then the others sorted.

    Labels without a case are excluded.
    """
    return build_matrix_from_counts(pairs.group_by(human, model).len(), order)


def build_matrix_from_counts(counts: pl.DataFrame, order: tuple[str, ...]) -> ConfusionMatrix:
    """Return the matrix of counted pairs; labels as in `build_matrix`.

    Args:
        counts: three columns without nulls: human answer, answer of the model, count. A pair may
            have several rows.
        order: labels that come first.

    >>> import polars as pl
    >>> rows = {"human": ["elk", "bear"], "model": ["bear", "bear"], "n": [2, 7]}
    >>> build_matrix_from_counts(pl.DataFrame(rows), ("bear",)).counts
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


def build_action_matrix(pairs: pl.DataFrame, lever: Lever) -> ConfusionMatrix:
    """Return the matrix of actions with the cost of each pair."""
    return add_costs(build_matrix(pairs, "human_action", "model_action", lever.actions), lever)


def add_costs(matrix: ConfusionMatrix, lever: Lever) -> ConfusionMatrix:
    """Return a matrix of actions with the cost of each pair."""
    actions = set(lever.actions)

    def find_cost(model_action: str, human_action: str) -> float:
        return (
            lever.compute_cost(model_action, human_action)
            if {model_action, human_action} <= actions
            else lever.largest_cost
        )

    costs = tuple(
        tuple(find_cost(model_action, human_action) for model_action in matrix.labels)
        for human_action in matrix.labels
    )
    return ConfusionMatrix(matrix.labels, matrix.counts, costs)


def compute_label_figures(
    pairs: pl.DataFrame, matrix: ConfusionMatrix, unreviewed: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label, the most frequent human label first.

    Args:
        pairs: columns human, model, agrees, unit; intervals are over units.
        matrix: the matrix of these pairs.
        unreviewed: by label of the model, the cases without a single human label.
    """
    recalls, precisions = _compute_shares(pairs, "human"), _compute_shares(pairs, "model")
    return _sort_by_frequency(
        _build_label_figures(label, precisions.get(label), recalls.get(label), unreviewed)
        for label in matrix.labels
    )


def compute_label_figures_from_counts(
    matrix: ConfusionMatrix, unreviewed: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label of independent pairs.

    `unreviewed` is as for `compute_label_figures`.
    """
    both, rows, columns = matrix.table.diagonal(), matrix.table.sum(1), matrix.table.sum(0)
    return _sort_by_frequency(
        _build_label_figures(
            label,
            compute_share(int(both[index]), int(columns[index])),
            compute_share(int(both[index]), int(rows[index])),
            unreviewed,
        )
        for index, label in enumerate(matrix.labels)
    )


def compute_set_label_figures(
    pairs: pl.DataFrame, order: tuple[str, ...], unreviewed: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label of sets, the most frequent human label first.

    Args:
        pairs: columns human and model, each the text of a set, and unit.
        order: the lever's labels; those without a case are excluded.
        unreviewed: by label of the model, the cases without a single human answer; "" has all.
    """
    import polars as pl

    sides = pairs.select(
        "unit", *(pl.col(name).str.split(SEPARATOR).alias(name) for name in ("human", "model"))
    )
    return _sort_by_frequency(
        row
        for label in order
        if (row := _compute_set_label(sides, label, unreviewed)).human or row.model
    )


def compute_set_label_figures_from_counts(
    counts: pl.DataFrame, order: tuple[str, ...], unreviewed: dict[str, int]
) -> tuple[LabelFigures, ...]:
    """Return the figures of every label of independent pairs of sets.

    Args:
        counts: columns human and model, each the text of a set, and n.
        order, unreviewed: as for `compute_set_label_figures`.
    """
    sides = [counts[name].str.split(SEPARATOR) for name in ("human", "model")]
    times, rows = counts["n"].to_numpy().astype(np.int64), []
    for label in order:
        has_human, has_model = (side.list.contains(label).to_numpy() for side in sides)
        human, model = (int(times[has_label].sum()) for has_label in (has_human, has_model))
        both = int(times[has_human & has_model].sum())
        if human or model:
            others = _split_unreviewed(label, unreviewed)
            precision, recall = compute_share(both, model), compute_share(both, human)
            rows.append(_build_label_figures(label, precision, recall, others))
    return _sort_by_frequency(rows)


def _split_unreviewed(label: str, unreviewed: dict[str, int]) -> dict[str, int]:
    """Return the cases without a decision by whether the model's set has the label."""
    missing_as = unreviewed.get(label, 0)
    return {label: missing_as, "": unreviewed.get("", 0) - missing_as}


def _compute_set_label(sides: pl.DataFrame, label: str, unreviewed: dict[str, int]) -> LabelFigures:
    import polars as pl

    has_human, has_model = (pl.col(side).list.contains(label) for side in ("human", "model"))
    precision, recall = (
        compute_unit_share(sides.filter(basis).select("unit", agrees=other))
        for basis, other in ((has_model, has_human), (has_human, has_model))
    )
    return _build_label_figures(label, precision, recall, _split_unreviewed(label, unreviewed))


def _sort_by_frequency(rows: Iterable[LabelFigures]) -> tuple[LabelFigures, ...]:
    return tuple(sorted(rows, key=lambda row: (-row.human, -row.model, row.label)))


def _compute_shares(pairs: pl.DataFrame, side: str) -> dict[str, Share]:
    """Return the share that agrees, by label of one side."""
    parts = pairs.select(side, "unit", "agrees").partition_by(side, as_dict=True)
    return {str(label): compute_unit_share(part) for (label,), part in parts.items()}


def _build_label_figures(
    label: str, precision: Share | None, recall: Share | None, unreviewed: dict[str, int]
) -> LabelFigures:
    precision, recall = precision or compute_share(0, 0), recall or compute_share(0, 0)
    missing_as, missing = unreviewed.get(label, 0), sum(unreviewed.values())
    return LabelFigures(
        label=label,
        human=recall.n,
        model=precision.n,
        both=recall.count,
        precision=precision,
        recall=recall,
        recall_bounds=compute_missing_bounds(recall, missing - missing_as, missing_as),
        precision_bounds=compute_missing_bounds(precision, missing_as),
    )
