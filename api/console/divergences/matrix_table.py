"""Matrices as tables: people in rows, the model in columns, shaded by share or by cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rollout.reports.figures.confusion import ConfusionMatrix
from rollout.reports.text import formatting

MOST: Final = 12
"""Rows of a matrix on a page; rarer labels stand together in the last one."""
OTHERS: Final = "all others"
SHADES, LOSSES = 4, 3


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One cell: its figure, what stands below it in small, and the class of its shade."""

    says: str
    small: str
    shade: str


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """One row: its label, its cells, and what stands at its end."""

    label: str
    cells: tuple[MatrixCell, ...]
    end: MatrixCell


@dataclass(frozen=True, slots=True)
class MatrixTable:
    """A matrix as a page shows it; `totals` is its last row, () for none."""

    columns: tuple[str, ...]
    rows: tuple[MatrixRow, ...]
    totals: tuple[str, ...]


def label_table(matrix: ConfusionMatrix) -> MatrixTable:
    r"""Return a matrix of labels: counts, with the share of their row.

    >>> label_table(Matrix(("bear", "none"), ((9, 1), (0, 0)))).rows[0].cells[1].small
    '10.0\xa0%'
    """
    merged = folded(matrix)
    rows = [
        MatrixRow(
            label,
            tuple(
                _counted(count, sum(counts), same=row == column)
                for column, count in enumerate(counts)
            ),
            MatrixCell(formatting.number(sum(counts)), "", ""),
        )
        for row, (label, counts) in enumerate(zip(merged.labels, merged.counts, strict=True))
    ]
    sums = [sum(counts) for counts in zip(*merged.counts, strict=True)]
    totals = tuple(formatting.number(count) for count in (*sums, sum(sums)))
    return MatrixTable(merged.labels, tuple(rows), totals)


def action_table(matrix: ConfusionMatrix) -> MatrixTable:
    """Return a matrix of actions: how many in 100 cases, and what they cost at the end of a row.

    >>> table = action_table(Matrix(("ring", "wait"), ((3, 1), (0, 6)), ((0, 20), (1, 0))))
    >>> table.rows[0].end.says, table.rows[0].cells[1]
    ('200.0', MatrixCell(says='10.0', small='20 each', shade='lo-3'))
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
                _done(count, total, costs[row][column], max_loss, same=row == column)
                for column, count in enumerate(matrix.counts[row])
            ),
            MatrixCell(formatting.decimal(100 * sum(losses[row]) / total, 1), "", ""),
        )
        for row, label in enumerate(matrix.labels)
    ]
    return MatrixTable(matrix.labels, tuple(rows), ())


def folded(matrix: ConfusionMatrix, most: int = MOST) -> ConfusionMatrix:
    """Return a matrix of at most so many labels: the rarest become one row and column.

    >>> folded(Matrix(("a", "b", "c"), ((5, 0, 0), (0, 1, 1), (0, 0, 2))), 2)
    Matrix(labels=('a', 'all others'), counts=((5, 0), (0, 4)), costs=None)
    """
    if len(matrix.labels) <= most:
        return matrix
    sums = [
        sum(row) + sum(column)
        for row, column in zip(matrix.counts, zip(*matrix.counts, strict=True), strict=True)
    ]
    common = sorted(range(len(sums)), key=lambda index: -sums[index])[: most - 1]
    selected = sorted(common)
    groups = [
        *([index] for index in selected),
        [index_item for index_item in range(len(sums)) if index_item not in common],
    ]
    counts = tuple(tuple(_sum(matrix, rows, columns) for columns in groups) for rows in groups)
    return ConfusionMatrix((*(matrix.labels[index] for index in selected), OTHERS), counts)


def _sum(matrix: ConfusionMatrix, rows: Sequence[int], columns: Sequence[int]) -> int:
    return sum(matrix.counts[row][column] for row in rows for column in columns)


def _counted(n: int, of: int, *, same: bool) -> MatrixCell:
    if not n:
        return MatrixCell("0", "", "")
    kind, steps = ("sh", SHADES) if same else ("lo", LOSSES)
    return MatrixCell(formatting.number(n), formatting.per_cent(n / of), _shade(kind, n, of, steps))


def _done(n: int, whole: int, each: float, dearest: float, *, same: bool) -> MatrixCell:
    text = formatting.decimal(100 * n / whole, 1)
    if same:
        return MatrixCell(text, "", _shade("sh", n, whole, SHADES) if n else "")
    shade = _shade("lo", n * each, dearest, LOSSES) if n and each else ""
    return MatrixCell(text if n else "0", f"{each:g} each", shade)


def _shade(kind: str, part: float, whole: float, steps: int) -> str:
    return f"{kind}-{min(steps, 1 + int(steps * part / whole))}"
