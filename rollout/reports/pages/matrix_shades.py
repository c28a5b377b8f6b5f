"""Shades of a matrix: agreement stays pale, differences stand out by share or cost."""

from bisect import bisect_right
from typing import Final

from rollout.reports.figures.confusion import ConfusionMatrix

AGREEMENT_SHADES, LOSS_SHADES = 2, 4
"""Classes of tokens.css. Agreement takes the pale ones, so that differences stand out when dark."""
LOSS_LIMITS: Final = (0.01, 0.03, 0.1)
"""Shares of a row from which a difference has the next shade."""


def choose_shades(matrix: ConfusionMatrix) -> list[list[str]]:
    """Return the shade class of each cell by row: labels by share of the row, actions by cost.

    Empty for zero counts and zero costs.

    >>> choose_shades(ConfusionMatrix(("ring", "wait"), ((3, 1), (0, 6)), ((0, 20), (1, 0))))
    [['', 'lo-4'], ['', '']]
    """
    if matrix.costs is None:
        return [
            [
                choose_count_shade(count, total, is_agreement=row == column)
                for column, count in enumerate(counts)
            ]
            for row, counts in enumerate(matrix.counts)
            for total in [sum(counts)]
        ]
    costs = [
        [count * cost for count, cost in zip(*rows, strict=True)]
        for rows in zip(matrix.counts, matrix.costs, strict=True)
    ]
    max_cost = max(map(max, costs))
    return [[choose_cost_shade(cost, max_cost) for cost in row] for row in costs]


def choose_count_shade(count: int, total: int, *, is_agreement: bool) -> str:
    """Return the shade class of a count of a row.

    >>> [choose_count_shade(count, 1000, is_agreement=False) for count in (0, 4, 12, 66, 171)]
    ['', 'lo-1', 'lo-2', 'lo-3', 'lo-4']
    >>> choose_count_shade(829, 1000, is_agreement=True)
    'sh-2'
    """
    if not count:
        return ""
    if is_agreement:
        return _choose_step("sh", count, total, AGREEMENT_SHADES)
    return f"lo-{1 + bisect_right(LOSS_LIMITS, count / total)}"


def choose_cost_shade(cost: float, max_cost: float) -> str:
    """Return the shade class of a cost, by its part of the largest one of the matrix."""
    return _choose_step("lo", cost, max_cost, LOSS_SHADES) if cost else ""


def _choose_step(kind: str, part: float, total: float, step_count: int) -> str:
    return f"{kind}-{min(step_count, 1 + int(step_count * part / total))}"
