"""Figures against their lines: a bound never reads as if it met its line where it doesn't."""

from math import ceil, floor
from typing import Final

from rollout.reports.text.formatting import THIN, decimal, number, per_cent

COSTS: Final = frozenset({"cost"})


def bound_text(bound: float, line: float, *, at_least: bool = True) -> str:
    r"""Say a bound of a share, rounded to the side of doubt, with more digits beside its line.

    >>> bound_text(0.9556, 0.95), bound_text(0.94996, 0.95), bound_text(0.9504, 0.95)
    ('95.5\xa0%', '94.9\xa0%', '95.04\xa0%')
    >>> bound_text(0.0512, 0.05, at_least=False)
    '5.2\xa0%'
    """
    for digits in (1, 2, 3, 4):
        scale = 10**digits
        exact = round(bound * 100 * scale, 6)
        rounded = (floor(exact) if at_least else ceil(exact)) / scale
        if rounded != round(line * 100, 6) or bound == line:
            break
    return f"{rounded:.{digits}f}{THIN}%"


def line_text(line: float) -> str:
    r"""Say a line as the policy does.

    >>> line_text(0.95), line_text(0.925)
    ('95\xa0%', '92.5\xa0%')
    """
    return f"{round(line * 100, 6):g}{THIN}%"


def value_of(measure: str, value: float | None) -> str:
    """Say an estimate in its measure's unit."""
    return decimal(value) if measure in COSTS else per_cent(value)


def bound_of(measure: str, bound: float, line: float, *, at_least: bool) -> str:
    """Say a bound in its measure's unit, with the word that belongs to it.

    >>> bound_of("cost", 0.2111, 0.2, at_least=False)
    'at most 0.212'
    """
    side_text = "at least" if at_least else "at most"
    return f"{side_text} {bound_alone(measure, bound, line, at_least=at_least)}"


def bound_alone(measure: str, bound: float, line: float, *, at_least: bool) -> str:
    """Say a bound in its measure's unit."""
    if measure in COSTS:
        return _cost(bound, line)
    return bound_text(bound, line, at_least=at_least)


def _cost(bound: float, line: float) -> str:
    """Say a cost's bound, rounded up, with more digits where it would read as its line."""
    for digits in (3, 4, 5, 6):
        rounded = ceil(round(bound * 10**digits, 6)) / 10**digits
        if rounded != line or bound == line:
            break
    return decimal(rounded, digits)


def line_of(measure: str, line: float) -> str:
    """Say a line in its measure's unit."""
    return f"{line:g}" if measure in COSTS else line_text(line)


def counts_of(measure: str, counts: tuple[int, ...]) -> str:
    """Say what was counted: `418 of 426`, or how many there are where they fall otherwise.

    >>> counts_of("agreement", (418, 8)), counts_of("cost", (60, 3, 1))
    ('418 of 426', '64 counted')
    """
    total = sum(counts)
    if len(counts) == 2 and measure not in COSTS:
        return f"{number(counts[0])} of {number(total)}"
    return f"{number(total)} counted"
