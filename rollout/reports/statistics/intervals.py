"""Figures with their intervals: shares at a fixed number of cases, weighted shares, changes.

Every interval covers with at least 95 % unless its method says otherwise, and every figure without
records is None, never 0 (statistics.md §17).
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
NORMAL = 1.959963984540054  # the normal quantile of a two-sided interval of 95 %

EXACT = "Clopper–Pearson, 95 %"
CLUSTERED = "Clopper–Pearson, 95 %, at the effective number of cases (Korn–Graubard, by unit)"
ONE_SIDED = "Clopper–Pearson, one-sided, 95 %"
WEIGHTED = "Hájek estimate, Clopper–Pearson at the effective number of cases (Korn–Graubard)"
PAIRED = "Agresti–Min, 95 %"
PAIRED_CLUSTERED = "Agresti–Min, 95 %, at the effective number of cases (by unit)"
NO_DATA = "no data"


@dataclass(frozen=True, slots=True)
class Share:
    """A count of n as a share with its interval; without cases all three are None.

    `effective` is the number of independent cases that the n are worth: less than n where cases
    come in bursts.
    """

    count: int
    n: int
    rate: float | None
    low: float | None
    high: float | None
    effective: float | None
    method: str


@dataclass(frozen=True, slots=True)
class Weighted:
    """A share of all cases, estimated from a sample whose chances of being drawn are known."""

    n: int
    rate: float | None
    low: float | None
    high: float | None
    effective: float | None
    method: str


@dataclass(frozen=True, slots=True)
class Change:
    """How many more cases in 100 one side has than the other, on the same cases."""

    first_only: int
    second_only: int
    n: int
    per_100: float | None
    low: float | None
    high: float | None
    method: str


def clopper_pearson(count: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval that covers the true share with at least `level`.

    Args:
        count: successes, 0 ≤ count ≤ n; fractions come from effective numbers.
        n: trials; 0 gives (0, 1): nothing is known.
        level: coverage, in (0, 1).

    >>> [round(end, 9) for end in clopper_pearson(3, 299)]
    [0.002073936, 0.029040381]

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    tail = (1 - level) / 2
    low = 0.0 if count <= 0 else float(scipy.special.betaincinv(count, n - count + 1, tail))
    high = 1.0 if count >= n else float(scipy.special.betaincinv(count + 1, n - count, 1 - tail))
    return low, high


def at_most(count: int, n: int, level: float = LEVEL) -> float | None:
    """Return the one-sided upper bound of a share, None without trials.

    No error in 299 audits says "at most 1 in 100", if the number of audits was fixed beforehand.

    >>> round(at_most(0, 299), 4)
    0.01
    """
    if n == 0:
        return None
    return 1.0 if count >= n else float(scipy.special.betaincinv(count + 1, n - count, level))


def share(count: int, n: int) -> Share:
    """Return a share of n independent cases.

    >>> share(0, 0).rate is None
    True
    """
    if n == 0:
        return Share(count, n, None, None, None, None, NO_DATA)
    low, high = clopper_pearson(count, n)
    return Share(count, n, count / n, low, high, float(n), EXACT)


def clustered_share(counts: ArrayLike, sizes: ArrayLike) -> Share:
    """Return a share of cases that come in units: bursts of cases that are alike.

    Args:
        counts: successes in each unit, shape (units,).
        sizes: cases in each unit, shape (units,), at least 1 each.

    With one case in each unit this is `share`.

    Source: Korn and Graubard, Survey Methodology 24 (1998) 193.
    """
    sums, unit_sizes = np.asarray(counts, float), np.asarray(sizes, float)
    if not len(unit_sizes) or unit_sizes.max() == 1:
        return share(int(sums.sum()), int(unit_sizes.sum()))
    total, n = float(sums.sum()), float(unit_sizes.sum())
    rate = total / n
    variance = float(np.sum((sums - rate * unit_sizes) ** 2)) / n**2
    effective = _effective(rate, variance, n, fallback=n**2 / float(np.sum(unit_sizes**2)))
    low, high = clopper_pearson(rate * effective, effective)
    return Share(int(total), int(n), rate, low, high, effective, CLUSTERED)


def weighted_share(
    errors: ArrayLike, chances: ArrayLike, units: ArrayLike | None = None
) -> Weighted:
    """Return the share of errors among all cases, from cases drawn with known chances.

    Args:
        errors: 1 or 0 for each drawn case, shape (drawn,).
        chances: with which each was drawn, above 0, shape (drawn,); their ratios alone matter.
        units: number of each case's unit, shape (drawn,); None where each is its own.

    Ten per cent unsure cases all read and two per cent of the others: the plain rate among those
    read is far too high, the weighted one is right (statistics.md §5).

    >>> found = weighted_share([1] * 1 + [0] * 89 + [1] * 150 + [0] * 350, [0.02] * 90 + [1] * 500)
    >>> round(found.rate, 9), round(found.effective, 7)
    (0.04, 343.0041446)

    Source: Korn and Graubard, Survey Methodology 24 (1998) 193.
    """
    values, inverse_chances = np.asarray(errors, float), 1 / np.asarray(chances, float)
    if not len(values):
        return Weighted(0, None, None, None, None, NO_DATA)
    total = float(inverse_chances.sum())
    rate = min(float(np.sum(inverse_chances * values)) / total, 1.0)
    gaps, weights = inverse_chances * (values - rate), inverse_chances
    if units is not None:
        _, unit = np.unique(np.asarray(units), return_inverse=True)
        gaps, weights = (np.bincount(unit, part).astype(float) for part in (gaps, inverse_chances))
    variance = float(np.sum(gaps**2)) / total**2
    kish = total**2 / float(np.sum(weights**2))
    effective = _effective(rate, variance, len(values), fallback=kish)
    low, high = clopper_pearson(rate * effective, effective)
    return Weighted(len(values), rate, low, high, effective, WEIGHTED)


def _effective(rate: float, variance: float, n: float, fallback: float) -> float:
    """Return how many independent cases have the same variance, at most n."""
    if variance <= 0:
        return min(fallback, n)
    return min(rate * (1 - rate) / variance, n)


def paired_change(first_only: int, second_only: int, n: int, effective: float = 1.0) -> Change:
    """Return how many more of 100 cases the first side has than the second, on the same cases.

    Args:
        first_only: cases that the first alone has.
        second_only: cases that the second alone has.
        n: all cases that both looked at.
        effective: the share of n that counts as independent, in (0, 1].

    >>> change = paired_change(12, 4, 1000)
    >>> round(change.per_100, 6), round(change.low, 6), round(change.high, 6)
    (0.798403, -0.006581, 1.603388)

    Source: Agresti and Min, Statistics in Medicine 24 (2005) 729.
    """
    if n == 0:
        return Change(first_only, second_only, n, None, None, None, NO_DATA)
    first_adjusted, second_adjusted = first_only * effective + 0.5, second_only * effective + 0.5
    trials = n * effective + 2
    change = (first_adjusted - second_adjusted) / trials
    half_width = (
        NORMAL
        * sqrt(first_adjusted + second_adjusted - (first_adjusted - second_adjusted) ** 2 / trials)
        / trials
    )
    method = PAIRED if effective == 1 else PAIRED_CLUSTERED
    low, high = 100 * (change - half_width), 100 * (change + half_width)
    return Change(first_only, second_only, n, 100 * change, low, high, method)


def independent_share(gaps: ArrayLike, sizes: ArrayLike, squares: ArrayLike) -> float:
    """Return which share of the cases counts as independent, for a mean over units.

    Args:
        gaps: sum of the values in each unit, shape (units,).
        sizes: cases in each unit, shape (units,).
        squares: sum of the squared values in each unit, shape (units,).
    """
    sums, unit_sizes = np.asarray(gaps, float), np.asarray(sizes, float)
    n = float(unit_sizes.sum())
    if not n or unit_sizes.max() == 1:
        return 1.0
    mean = float(sums.sum()) / n
    independent = float(np.sum(np.asarray(squares, float))) - n * mean**2
    clustered = float(np.sum((sums - mean * unit_sizes) ** 2))
    return 1.0 if clustered <= independent or independent <= 0 else independent / clustered
