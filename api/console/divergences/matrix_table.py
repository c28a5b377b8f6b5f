"""Confusion and action matrices as tables: humans in rows, the model in columns."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rollout.reports.figures.confusion import ConfusionMatrix
from rollout.reports.text import formatting

MAX_LABELS: Final = 12
"""Most rows of a matrix; rarer labels are merged into the last one."""
OTHER_LABELS: Final = "all others"
AGREEMENT_SHADES, LOSS_SHADES = 2, 3
"""Agreement stays pale, so that differences stand out, in dark mode too."""
LOSS_LIMITS: Final = (0.01, 0.1)
"""Shares of a row from which a difference has the next shade."""


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One cell: its figure, a smaller figure below it, and its shade class."""

    text: str
    small: str
    shade: str


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One row: label, cells and the total at its end."""

    label: str
    cells: tuple[MatrixCell, ...]
    end: MatrixCell


@dataclass(frozen=True, slots=True)
class MatrixTable:
    """A matrix as a page shows it; `totals` is the last row, or empty."""

    columns: tuple[str, ...]
    rows: tuple[MatrixRow, ...]
    totals: tuple[str, ...]


def build_label_table(matrix: ConfusionMatrix) -> MatrixTable:
    r"""Return a matrix of labels: counts, each with its share of the row.

    >>> build_label_table(ConfusionMatrix(("bear", "none"), ((9, 1), (0, 0)))).rows[0].cells[
    ...     1
    ... ].small
    '10.0\xa0%'
    """
    merged = merge_rare_labels(matrix)
    rows = [
        MatrixRow(
            label,
            tuple(
                _build_count_cell(count, sum(counts), is_agreement=row == column)
                for column, count in enumerate(counts)
            ),
            MatrixCell(formatting.format_count(sum(counts)), "", ""),
        )
        for row, (label, counts) in enumerate(zip(merged.labels, merged.counts, strict=True))
    ]
    sums = [sum(counts) for counts in zip(*merged.counts, strict=True)]
    totals = tuple(formatting.format_count(count) for count in (*sums, sum(sums)))
    return MatrixTable(merged.labels, tuple(rows), totals)


def build_action_table(matrix: ConfusionMatrix) -> MatrixTable:
    """Return a matrix of actions per 100 cases, with costs.

    >>> table = build_action_table(
    ...     ConfusionMatrix(("ring", "wait"), ((3, 1), (0, 6)), ((0, 20), (1, 0)))
    ... )
    >>> table.rows[0].end.text, table.rows[0].cells[1]
    ('200.0', MatrixCell(text='10.0', small='20 each', shade='lo-3'))
    """
    costs, total = matrix.costs or (), sum(map(sum, matrix.counts))
    losses = [
        [count * cost for count, cost in zip(counts, row_costs, strict=True)]
        for counts, row_costs in zip(matrix.counts, costs, strict=True)
    ]
    max_loss = max((cost for row in losses for cost in row), default=0.0)
    rows = [
        MatrixRow(
            label,
            tuple(
                _build_action_cell(
                    count, total, costs[row][column], max_loss, is_agreement=row == column
                )
                for column, count in enumerate(matrix.counts[row])
            ),
            MatrixCell(formatting.format_decimal(100 * sum(losses[row]) / total, 1), "", ""),
        )
        for row, label in enumerate(matrix.labels)
    ]
    return MatrixTable(matrix.labels, tuple(rows), ())


def merge_rare_labels(matrix: ConfusionMatrix, limit: int = MAX_LABELS) -> ConfusionMatrix:
    """Merge the rarest labels, so that at most `limit` rows remain.

    >>> merge_rare_labels(ConfusionMatrix(("a", "b", "c"), ((5, 0, 0), (0, 1, 1), (0, 0, 2))), 2)
    ConfusionMatrix(labels=('a', 'all others'), counts=((5, 0), (0, 4)), costs=None)
    """
    if len(matrix.labels) <= limit:
        return matrix
    sums = [
        sum(row) + sum(column)
        for row, column in zip(matrix.counts, zip(*matrix.counts, strict=True), strict=True)
    ]
    common = sorted(range(len(sums)), key=lambda index: -sums[index])[: limit - 1]
    selected = sorted(common)
    groups = [
        *([index] for index in selected),
        [index_item for index_item in range(len(sums)) if index_item not in common],
    ]
    counts = tuple(
        tuple(_sum_counts(matrix, rows, columns) for columns in groups) for rows in groups
    )
    return ConfusionMatrix((*(matrix.labels[index] for index in selected), OTHER_LABELS), counts)


def _sum_counts(matrix: ConfusionMatrix, rows: Sequence[int], columns: Sequence[int]) -> int:
    return sum(matrix.counts[row][column] for row in rows for column in columns)


def _build_count_cell(count: int, total: int, *, is_agreement: bool) -> MatrixCell:
    if not count:
        return MatrixCell("0", "", "")
    shade = (
        _get_shade("sh", count, total, AGREEMENT_SHADES)
        if is_agreement
        else f"lo-{1 + bisect_right(LOSS_LIMITS, count / total)}"
    )
    return MatrixCell(
        formatting.format_count(count), formatting.format_percent(count / total), shade
    )


def _build_action_cell(
    count: int, total: int, unit_cost: float, max_loss: float, *, is_agreement: bool
) -> MatrixCell:
    text = formatting.format_decimal(100 * count / total, 1)
    if is_agreement:
        return MatrixCell(
            text, "", _get_shade("sh", count, total, AGREEMENT_SHADES) if count else ""
        )
    shade = (
        _get_shade("lo", count * unit_cost, max_loss, LOSS_SHADES) if count and unit_cost else ""
    )
    return MatrixCell(text if count else "0", f"{unit_cost:g} each", shade)


def _get_shade(kind: str, part: float, total: float, step_count: int) -> str:
    return f"{kind}-{min(step_count, 1 + int(step_count * part / total))}"
