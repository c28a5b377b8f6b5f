"""Gate lines: the least successes for each number of failures, so that a tick only compares.

E rises with every success, so "E(s, f) ≥ 1/risk" says the same as "s ≥ least(f)" with a whole
number `least(f)`. A table of these numbers answers in well under a microsecond what the special
functions answer in a hundred. Costs and parity have no such line: here are their e-values over a
whole history at once.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import log

import numpy as np
from numpy.typing import NDArray

from rollout.core.statistics.evidence import (
    Floats,
    check_inside_unit,
    cost_gains,
    log_mean_bets,
    parity_gains,
)
from rollout.core.statistics.truncated_beta import log_mixture

# A table reaches so many failures; beyond it the e-value itself is asked. At 95 % this is half a
# million records in one cell.
_LONGEST_TABLE = 32_768
_FIRST_TABLE = 64

# Whole numbers above this have gaps in double precision.
_MOST_RECORDS = 2.0**53


def least_successes(
    failures: NDArray[np.int64], *, at_least: float, log_threshold: float
) -> NDArray[np.int64]:
    """Return the least s with log E(s, f) ≥ the threshold, for each number f of failures.

    Args:
        failures: int64, any shape, each ≥ 0.
        at_least: the line p0, in the open interval (0, 1).
        log_threshold: ln(1/risk) to open a gate, 0.0 for "has not turned"; ≥ 0.

    Returns:
        int64, the same shape; rising with `failures`.

    Raises:
        ValueError: an argument lies outside its range, or the line is so near 1 that it wants
            more records than a double can count.

    >>> least_successes(np.array([0, 1, 2]), at_least=0.95, log_threshold=log(20)).tolist()
    [74, 130, 172]
    """
    check_inside_unit(at_least=at_least)
    if not 0 <= log_threshold < np.inf:
        raise ValueError(f"log_threshold is {log_threshold}; give ln(1/risk), 0 or more")
    f = np.asarray(failures, float)
    if np.any(f < 0):
        raise ValueError(f"failures has {f.min():.0f}; counts are 0 or more")
    # at or below the line E is under 1, except without any record
    too_few = np.floor(f * at_least / (1 - at_least)) - (f == 0)
    enough = _met_from(too_few, f, at_least, log_threshold)
    return _between(too_few, enough, f, at_least, log_threshold).astype(np.int64)


def _met_from(short: Floats, f: Floats, at_least: float, log_threshold: float) -> Floats:
    """Go up from below the line in doubling steps to counts that meet it."""
    step, enough = 64.0, short + 64
    while np.any(unmet := log_mixture(enough, f, line=at_least) < log_threshold):
        step *= 2
        enough = np.where(unmet.reshape(f.shape), enough + step, enough)
        if enough.size and enough.max() > _MOST_RECORDS:
            raise ValueError(f"at_least is {at_least}; this line wants more than 2^53 records")
    return enough


def _between(
    short: Floats, enough: Floats, f: Floats, at_least: float, log_threshold: float
) -> Floats:
    """Halve the span from counts that fall short to counts that suffice."""
    while np.any(enough - short > 1):
        middle = np.ceil((short + enough) / 2)
        is_enough = (log_mixture(middle, f, line=at_least) >= log_threshold).reshape(f.shape)
        short, enough = np.where(is_enough, short, middle), np.where(is_enough, middle, enough)
    return enough


class GateLine:
    """The line of one gate at one risk; its table grows with the failures that are asked about.

    Args:
        at_least: the line p0, in the open interval (0, 1).
        risk: the attempt's risk α, in (0, 1]; 1 asks "has not turned", E ≥ 1.

    Raises:
        ValueError: an argument lies outside its range.

    >>> GateLine(0.95, 0.05).met(74, 0), GateLine(0.95, 0.05).met(73, 0)
    (True, False)
    """

    __slots__ = ("_least", "_table", "at_least", "log_threshold")

    def __init__(self, at_least: float, risk: float) -> None:
        check_inside_unit(at_least=at_least)
        if not 0 < risk <= 1:
            raise ValueError(f"risk is {risk}; give a chance in (0, 1], such as 0.05")
        self.at_least = at_least
        self.log_threshold = -log(risk)
        self._table = np.zeros(0, np.int64)
        self._least: list[int] = []

    def met(self, successes: int, failures: int) -> bool:
        """Say whether log E(successes, failures) ≥ ln(1/risk); counts are 0 or more."""
        if 0 <= successes * (1 - self.at_least) < failures * self.at_least:
            return False  # below the line E is at most 1, and needs no table
        if 0 <= failures < len(self._least):
            return successes >= self._least[failures]
        return bool(self.met_at(np.array([successes]), np.array([failures]))[0])

    def met_at(
        self, successes: NDArray[np.int64], failures: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Say it for arrays of counts of one shape.

        Raises:
            ValueError: a count is negative.
        """
        if successes.size and min(successes.min(), failures.min()) < 0:
            raise ValueError("successes and failures must be 0 or more")
        # at or below the line E is at most 1: those need no table
        met = successes * (1 - self.at_least) >= failures * self.at_least
        met_successes, met_failures = successes[met], failures[met]
        self._grow(int(met_failures.max(initial=-1)))
        table = self._table
        in_table = met_failures < len(table)
        above = np.empty(met_successes.shape, bool)
        above[in_table] = met_successes[in_table] >= table[met_failures[in_table]]
        log_e = log_mixture(met_successes[~in_table], met_failures[~in_table], line=self.at_least)
        above[~in_table] = log_e >= self.log_threshold
        met[met] = above
        return met

    def least_at(self, failures: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the least successes that meet the line with so many failures, each 0 or more."""
        self._grow(int(failures.max(initial=-1)))
        table = self._table
        least = np.empty(failures.shape, np.int64)
        in_table = failures < len(table)
        least[in_table] = table[failures[in_table]]
        least[~in_table] = self._lines(failures[~in_table])
        return least

    def _grow(self, failures: int) -> None:
        """Let the table reach `failures`, at least doubling it, up to its longest."""
        table = self._table
        if failures < len(table) or len(table) == _LONGEST_TABLE:
            return
        length = min(max(failures + 1, 2 * len(table), _FIRST_TABLE), _LONGEST_TABLE)
        longer = np.concatenate([table, self._lines(np.arange(len(table), length))])
        # both are replaced, never changed: another thread may be reading or growing them
        self._table, self._least = longer, longer.tolist()

    def _lines(self, failures: NDArray[np.int64]) -> NDArray[np.int64]:
        return least_successes(failures, at_least=self.at_least, log_threshold=self.log_threshold)


@lru_cache(maxsize=512)
def gate_line(at_least: float, risk: float) -> GateLine:
    """Return the one line of these values, with the table that it has grown so far."""
    return GateLine(at_least, risk)


def log_e_cost_path(
    counts: NDArray[np.int64], *, levels: Sequence[float], at_most: float
) -> Floats:
    """`log_e_cost` after each step of a history.

    Args:
        counts: shape (n, levels), cumulative: row i holds all records up to step i.
        levels: costs as shares of the largest, in [0, 1].
        at_most: the line on the same scale, in the open interval (0, 1).

    Returns:
        float64, shape (n,). Takes 256 bytes a row while it runs.

    Raises:
        ValueError: a level or the line lies outside its range, or the shapes do not fit.
    """
    if counts.shape[1:] != (len(levels),) or not all(0 <= level <= 1 for level in levels):
        raise ValueError(f"levels is {list(levels)}; give one in [0, 1] for each column of counts")
    return log_mean_bets(cost_gains(levels, at_most=at_most), np.asarray(counts, float))


def log_e_parity_path(counts: NDArray[np.int64], *, margin: float) -> Floats:
    """`log_e_parity` after each step of a history.

    Args:
        counts: shape (n, 4), cumulative: both, lone, split, none.
        margin: what may be lost, δ in [0, 1).

    Returns:
        float64, shape (n,).

    Raises:
        ValueError: the margin lies outside its range, or counts has not four columns.
    """
    if counts.shape[1:] != (4,):
        raise ValueError(f"counts has shape {counts.shape}; give (n, 4): both, lone, split, none")
    return log_mean_bets(parity_gains(margin=margin), np.asarray(counts, float))
