"""One slice against the rest, stratum by stratum: how many differ, and how likely that is by luck.

Within a stratum, if the slice is like the rest, any units could as well have been the ones that
differ. So given how many there are of each, the number in the slice is hypergeometric, strata are
independent, and the chance of at least so many is a sum that can be written out. No large numbers
are needed, and a stratum in which there is nothing to compare with says nothing.

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

EXACT_UP_TO = 4000  # possible numbers of divergences in the slice; above, a bound is used
HALVINGS = 60
STEEPEST = 50.0  # of the exponential bound


@dataclass(frozen=True)
class Table:
    """Counts of one slice by stratum, of those strata alone in which there is a rest.

    Attributes:
        n, differ: units of the slice and those that differ, shape (strata,).
        all_n, all_differ: the same of slice and rest together.
    """

    n: Ints
    differ: Ints
    all_n: Ints
    all_differ: Ints

    @cached_property
    def seen(self) -> int:
        """Return how many of the slice differ."""
        return int(self.differ.sum())

    @cached_property
    def units(self) -> int:
        """Return how many units the slice has."""
        return int(self.n.sum())

    @cached_property
    def elsewhere(self) -> float:
        """Return the share that would differ if the slice were like the rest of each stratum.

        NaN without strata.
        """
        rest = (self.all_differ - self.differ) / (self.all_n - self.n)
        return float(np.sum(self.n * rest) / self.units) if self.units else float("nan")


def table(n: Ints, differ: Ints, all_n: Ints, all_differ: Ints) -> Table:
    """Return the strata in which both the slice and the rest have units."""
    comparable = (n > 0) & (all_n > n)
    return Table(n[comparable], differ[comparable], all_n[comparable], all_differ[comparable])


def z_scores(n: Ints, differ: Ints, all_n: Ints, all_differ: Ints) -> Floats:
    """Return how far each slice lies above what is expected, in standard deviations.

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


def tail(found: Table) -> float:
    """Return the chance of at least so many in the slice if it were like the rest.

    Exact where the counts are small enough to write it out; above 4,000 possible values an
    exponential bound, which is never too small.

    >>> lady = table(np.array([4]), np.array([4]), np.array([8]), np.array([4]))
    >>> round(tail(lady), 9) == round(1 / 70, 9)
    True
    """
    low, high = _support(found)
    if int((high - low).sum()) > EXACT_UP_TO:
        return bound(found)
    distribution = np.ones(1)
    for first, last, *counts in zip(low, high, found.n, found.all_n, found.all_differ, strict=True):
        if last > first:
            distribution = np.convolve(
                distribution, _chances(int(first), int(last), *map(int, counts))
            )
    return float(min(1.0, distribution[found.seen - int(low.sum()) :].sum()))


def bound(found: Table) -> float:
    """Return an upper bound of that chance, at any size.

    A hypergeometric count has no larger exponential moments than the binomial one of the same
    mean; so the best of exp(−θx) times these moments bounds the tail.

    Source: Hoeffding, Journal of the American Statistical Association 58 (1963) 13, section 6.
    """
    share = found.all_differ / found.all_n
    if found.seen <= float(np.sum(found.n * share)):
        return 1.0
    low, high = 0.0, STEEPEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        tilted = share * np.exp(middle)
        mean = float(np.sum(found.n * tilted / (1 - share + tilted)))
        low, high = (middle, high) if mean < found.seen else (low, middle)
    moments = found.n * np.log1p(share * np.expm1(low))
    return float(min(1.0, np.exp(np.sum(moments) - low * found.seen)))


def _support(found: Table) -> tuple[Ints, Ints]:
    low = np.maximum(0, found.n + found.all_differ - found.all_n)
    return low, np.minimum(found.n, found.all_differ)


def _chances(low: int, high: int, n: int, all_n: int, all_differ: int) -> Floats:
    """Return the hypergeometric chances of low … high divergences among n of all_n."""
    x = np.arange(low, high + 1)
    logs = (
        _choose(all_differ, x) + _choose(all_n - all_differ, n - x) - _choose(all_n, np.array([n]))
    )
    return np.asarray(np.exp(logs))


def _choose(total: int, part: Ints) -> Floats:
    return np.asarray(
        scipy.special.gammaln(total + 1)
        - scipy.special.gammaln(part + 1)
        - scipy.special.gammaln(total - part + 1)
    )
