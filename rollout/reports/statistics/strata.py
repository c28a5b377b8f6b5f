"""Exact stratified test of one slice against the rest.

If the slice is like the rest of a stratum, its number of divergences is hypergeometric given the
margins. Strata are independent, so the tail chance is an exact sum, also for small numbers. A
stratum without a rest has no effect.

Source: Mantel and Haenszel, Journal of the National Cancer Institute 22 (1959) 719, whose
conditional distribution is used exactly, as in Gart, Biometrika 57 (1970) 471.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_EXACT_VALUES = 4000  # with more possible values, a bound is used
BISECTION_STEPS = 60
MAX_EXPONENT = 50.0  # of the exponential bound


@dataclass(frozen=True)
class StrataTable:
    """Counts of one slice in the strata that have a rest.

    Attributes:
        n, differ: units of the slice, and divergent ones, shape (strata,).
        all_n, all_differ: the same of slice and rest together.
    """

    n: Ints
    differ: Ints
    all_n: Ints
    all_differ: Ints

    @cached_property
    def differing_count(self) -> int:
        """Return the number of divergent units."""
        return int(self.differ.sum())

    @cached_property
    def unit_count(self) -> int:
        """Return the number of units."""
        return int(self.n.sum())

    @cached_property
    def expected_share(self) -> float:
        """Return the expected divergent share if the slice were like the rest.

        NaN without strata.
        """
        rest = (self.all_differ - self.differ) / (self.all_n - self.n)
        return float(np.sum(self.n * rest) / self.unit_count) if self.unit_count else float("nan")


def build_strata_table(n: Ints, differ: Ints, all_n: Ints, all_differ: Ints) -> StrataTable:
    """Return the strata in which both the slice and the rest have units."""
    comparable = (n > 0) & (all_n > n)
    return StrataTable(n[comparable], differ[comparable], all_n[comparable], all_differ[comparable])


def compute_z_scores(n: Ints, differ: Ints, all_n: Ints, all_differ: Ints) -> Floats:
    """Return the excess of each slice over its expectation, in standard deviations.

    Args:
        n: units of slices, shape (slices, strata).
        differ: those of them that differ, shape (slices, strata).
        all_n: units of slice and rest, shape (strata,).
        all_differ: those of them that differ, shape (strata,).

    A stratum without a rest adds nothing; a slice without any information gets 0.
    """
    total = np.maximum(all_n, 2).astype(float)
    rate = all_differ / np.maximum(all_n, 1)
    variance = n * rate * (1 - rate) * (all_n - n) / (total - 1)
    excess = np.where(all_n > n, differ - n * rate, 0.0).sum(axis=1)
    spread = np.sqrt(variance.sum(axis=1))
    return np.asarray(np.divide(excess, spread, out=np.zeros_like(excess), where=spread > 0))


def compute_tail_chance(table: StrataTable) -> float:
    """Return the chance of as many divergences if the slice were like the rest.

    Exact up to 4,000 possible values, an exponential upper bound above.

    >>> lady = build_strata_table(np.array([4]), np.array([4]), np.array([8]), np.array([4]))
    >>> round(compute_tail_chance(lady), 9) == round(1 / 70, 9)
    True
    """
    low, high = _find_support(table)
    if int((high - low).sum()) > MAX_EXACT_VALUES:
        return compute_tail_bound(table)
    distribution = np.ones(1)
    for first, last, *counts in zip(low, high, table.n, table.all_n, table.all_differ, strict=True):
        if last > first:
            distribution = np.convolve(
                distribution, _compute_hypergeometric(int(first), int(last), *map(int, counts))
            )
    return float(min(1.0, distribution[table.differing_count - int(low.sum()) :].sum()))


def compute_tail_bound(table: StrataTable) -> float:
    """Return an upper bound of the tail chance, at any size.

    A hypergeometric count has no larger exponential moments than the binomial one of the same
    mean; so the best of exp(−θx) times these moments bounds the tail.

    Source: Hoeffding, Journal of the American Statistical Association 58 (1963) 13, section 6.
    """
    share = table.all_differ / table.all_n
    if table.differing_count <= float(np.sum(table.n * share)):
        return 1.0
    low, high = 0.0, MAX_EXPONENT
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        tilted = share * np.exp(middle)
        mean = float(np.sum(table.n * tilted / (1 - share + tilted)))
        low, high = (middle, high) if mean < table.differing_count else (low, middle)
    moments = table.n * np.log1p(share * np.expm1(low))
    return float(min(1.0, np.exp(np.sum(moments) - low * table.differing_count)))


def _find_support(table: StrataTable) -> tuple[Ints, Ints]:
    low = np.maximum(0, table.n + table.all_differ - table.all_n)
    return low, np.minimum(table.n, table.all_differ)


def _compute_hypergeometric(low: int, high: int, n: int, all_n: int, all_differ: int) -> Floats:
    """Return the hypergeometric chances of low … high divergences among n of all_n."""
    x = np.arange(low, high + 1)
    logs = (
        _compute_log_binomial(all_differ, x)
        + _compute_log_binomial(all_n - all_differ, n - x)
        - _compute_log_binomial(all_n, np.array([n]))
    )
    return np.asarray(np.exp(logs))


def _compute_log_binomial(total: int, part: Ints) -> Floats:
    return np.asarray(
        scipy.special.gammaln(total + 1)
        - scipy.special.gammaln(part + 1)
        - scipy.special.gammaln(total - part + 1)
    )
