"""Tables of gate thresholds, and e-values of costs over a history.

A table has the least successes for each number of failures. E rises with every success, so
"E(s, f) ≥ 1/risk" equals "s ≥ least(f)" with a whole number `least(f)`. Its table takes well under
a microsecond, the special functions a hundred. Costs have no such table: here are their e-values
over a whole history at once.
"""

from __future__ import annotations

from functools import lru_cache
from math import log
from typing import TYPE_CHECKING

from rollout.kernel.arrays import Bools, Floats, Ints, np
from rollout.kernel.statistics.evidence import (
    check_inside_unit,
    compute_cost_gains,
    compute_log_mean_bets,
    compute_log_mixture,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


# Failures in a table; beyond them the e-value is computed. At 95 % this is half a million records
# in one cell.
_MAX_TABLE_LENGTH = 32_768
_MIN_TABLE_LENGTH = 64

# Tangents followed before bisection; from 1e-6 to 0.999999 at most seven are needed (measured).
_TANGENT_ROUNDS = 8
_LEAST_SLOPE = 1e-12

# Whole numbers above this have gaps in double precision.
_MAX_RECORDS = 2.0**53


def compute_least_successes(failures: Ints, *, at_least: float, required_log_e: float) -> Ints:
    """Return the least s with log E(s, f) ≥ `required_log_e`, for each f.

    Args:
        failures: int64, any shape, each ≥ 0.
        at_least: the threshold p0, in the open interval (0, 1).
        required_log_e: ln(1/risk) to open a gate, 0.0 for "has not turned"; ≥ 0.

    Returns:
        int64, the same shape; rising with `failures`.

    Raises:
        ValueError: an argument lies outside its range, or the threshold is so near 1 that it needs
            more records than a double can count.

    >>> compute_least_successes(np.array([0, 1, 2]), at_least=0.95, required_log_e=log(20)).tolist()
    [74, 130, 172]
    """
    check_inside_unit(at_least=at_least)
    if not 0 <= required_log_e < np.inf:
        raise ValueError(f"required_log_e is {required_log_e}; give ln(1/risk), 0 or more")
    f = np.asarray(failures, float)
    if np.any(f < 0):
        raise ValueError(f"failures has {f.min():.0f}; counts are 0 or more")
    # at or below the threshold E is under 1, except without any record
    too_few = np.floor(f * at_least / (1 - at_least)) - (f == 0)
    return _search_least(too_few, f, at_least, required_log_e).astype(np.int64)


def _search_least(too_few: Floats, f: Floats, at_least: float, required_log_e: float) -> Floats:
    """Return the least counts that suffice, each between one tried and one proven.

    log E is nearly quadratic in the excess over the threshold, so a tangent lands beside the
    least count at once. Doubling and halving only bound how often a poor tangent is followed.
    """
    low, high = too_few.ravel().copy(), np.full(f.size, np.inf)
    f, open_rows = f.ravel(), np.arange(f.size)
    # where the deviance alone reaches the threshold, were it quadratic
    spread = np.sqrt(2 * (required_log_e + 1) * (low + f + 1) * at_least / (1 - at_least))
    guess, rounds = np.maximum(low, 0) + spread, 0
    while open_rows.size:
        lows, highs = low[open_rows], high[open_rows]
        if rounds >= _TANGENT_ROUNDS:
            step = 64.0 * 2 ** (rounds - _TANGENT_ROUNDS)
            guess = np.where(np.isinf(highs), lows + step, (lows + highs) / 2)
        tried = np.clip(np.ceil(guess), lows + 1, highs - 1)
        if tried.max() > _MAX_RECORDS:
            raise ValueError(f"at_least is {at_least}; this threshold needs more than 2^53 records")
        missing = required_log_e - compute_log_mixture(tried, f[open_rows], threshold=at_least)
        low[open_rows] = np.where(missing > 0, tried, lows)
        high[open_rows] = np.where(missing > 0, highs, tried)
        some = np.maximum(tried, 1)  # without any record there is no share
        slope = np.log(some / ((some + f[open_rows]) * at_least))
        rest = high[open_rows] - low[open_rows] > 1
        guess = (tried + missing / np.maximum(slope, _LEAST_SLOPE))[rest]
        open_rows, rounds = open_rows[rest], rounds + 1
    return high.reshape(too_few.shape)


class GateThreshold:
    """A gate's threshold at one risk, with a table that grows as needed.

    Args:
        at_least: the threshold p0, in the open interval (0, 1).
        risk: the attempt's risk α, in (0, 1]; 1 tests "has not turned", E ≥ 1.

    Raises:
        ValueError: an argument lies outside its range.

    >>> GateThreshold(0.95, 0.05).is_met(74, 0), GateThreshold(0.95, 0.05).is_met(73, 0)
    (True, False)
    """

    __slots__ = ("_least", "_table", "at_least", "required_log_e")

    def __init__(self, at_least: float, risk: float) -> None:
        check_inside_unit(at_least=at_least)
        if not 0 < risk <= 1:
            raise ValueError(f"risk is {risk}; give a chance in (0, 1], such as 0.05")
        self.at_least = at_least
        self.required_log_e = -log(risk)
        self._table = np.zeros(0, np.int64)
        self._least: list[int] = []

    def is_met(self, successes: int, failures: int) -> bool:
        """Return whether log E(successes, failures) ≥ ln(1/risk); counts ≥ 0."""
        if 0 <= successes * (1 - self.at_least) < failures * self.at_least:
            return False  # below the threshold E is at most 1, without any table
        if 0 <= failures < len(self._least):
            return successes >= self._least[failures]
        return bool(self.are_met(np.array([successes]), np.array([failures]))[0])

    def are_met(self, successes: Ints, failures: Ints) -> Bools:
        """Return `is_met` for arrays of counts of one shape.

        Raises:
            ValueError: a count is negative.
        """
        if successes.size and min(successes.min(), failures.min()) < 0:
            raise ValueError("successes and failures must be 0 or more")
        # at or below the threshold E is at most 1: those need no table
        met = successes * (1 - self.at_least) >= failures * self.at_least
        met_successes, met_failures = successes[met], failures[met]
        self._grow_table(int(met_failures.max(initial=-1)))
        table = self._table
        in_table = met_failures < len(table)
        if in_table.all():
            met[met] = met_successes >= table[met_failures]
            return met
        above = np.empty(met_successes.shape, bool)
        above[in_table] = met_successes[in_table] >= table[met_failures[in_table]]
        log_e = compute_log_mixture(
            met_successes[~in_table], met_failures[~in_table], threshold=self.at_least
        )
        above[~in_table] = log_e >= self.required_log_e
        met[met] = above
        return met

    def find_least_successes(self, failures: Ints) -> Ints:
        """Return the least successes for each number of failures ≥ 0."""
        self._grow_table(int(failures.max(initial=-1)))
        table = self._table
        least = np.empty(failures.shape, np.int64)
        in_table = failures < len(table)
        least[in_table] = table[failures[in_table]]
        least[~in_table] = self._compute_least(failures[~in_table])
        return least

    def _grow_table(self, failures: int) -> None:
        """Extend the table to `failures`, at least doubling it, up to its maximum."""
        table = self._table
        if failures < len(table) or len(table) == _MAX_TABLE_LENGTH:
            return
        length = min(max(failures + 1, 2 * len(table), _MIN_TABLE_LENGTH), _MAX_TABLE_LENGTH)
        longer = np.concatenate([table, self._compute_least(np.arange(len(table), length))])
        # both are replaced, never changed: another thread may be reading or growing them
        self._table, self._least = longer, longer.tolist()

    def _compute_least(self, failures: Ints) -> Ints:
        return compute_least_successes(
            failures, at_least=self.at_least, required_log_e=self.required_log_e
        )


@lru_cache(maxsize=512)
def get_gate_threshold(at_least: float, risk: float) -> GateThreshold:
    """Return the cached threshold of these values."""
    return GateThreshold(at_least, risk)


def compute_cost_log_e_path(counts: Ints, *, levels: Sequence[float], at_most: float) -> Floats:
    """Return `compute_cost_log_e` after each step of a history.

    Args:
        counts: shape (n, levels), cumulative: row i holds all records up to step i.
        levels: costs as shares of the largest, in [0, 1].
        at_most: the threshold on the same scale, in the open interval (0, 1).

    Returns:
        float64, shape (n,). Takes 256 bytes a row while it runs.

    Raises:
        ValueError: a level or the threshold lies outside its range, or the shapes do not fit.
    """
    if counts.shape[1:] != (len(levels),) or not all(0 <= level <= 1 for level in levels):
        raise ValueError(f"levels is {list(levels)}; give one in [0, 1] for each column of counts")
    return compute_log_mean_bets(
        compute_cost_gains(levels, at_most=at_most), np.asarray(counts, float)
    )
