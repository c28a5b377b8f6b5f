"""Figures with their intervals: shares at a fixed number of cases, weighted shares, changes.

Every interval covers with at least 95 % unless its method says otherwise, and every figure without
records is None, never 0.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np
import polars as pl
import scipy
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

CONFIDENCE_LEVEL = 0.95
NORMAL_QUANTILE = 1.959963984540054  # of a two-sided 95 % interval

EXACT_METHOD = "Clopper–Pearson, 95 %"
CLUSTERED_METHOD = (
    "Clopper–Pearson, 95 %, at the effective number of cases (Korn–Graubard, by unit)"
)
ONE_SIDED_METHOD = "Clopper–Pearson, one-sided, 95 %"
WEIGHTED_METHOD = "Hájek estimate, Clopper–Pearson at the effective number of cases (Korn–Graubard)"
PAIRED_METHOD = "Agresti–Min, 95 %"
PAIRED_CLUSTERED_METHOD = "Agresti–Min, 95 %, at the effective number of cases (by unit)"
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
class WeightedShare:
    """A share of all cases, estimated from a sample with known sampling chances."""

    n: int
    rate: float | None
    low: float | None
    high: float | None
    effective: float | None
    method: str


@dataclass(frozen=True, slots=True)
class PairedChange:
    """How many more cases in 100 one side has than the other, on the same cases."""

    first_only: int
    second_only: int
    n: int
    per_100: float | None
    low: float | None
    high: float | None
    method: str


def clopper_pearson(count: float, n: float, level: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """Return the interval that covers the true share with at least `level`.

    Args:
        count: successes, 0 ≤ count ≤ n; fractions come from effective numbers.
        n: trials; 0 gives (0, 1).
        level: coverage, in (0, 1).

    >>> [round(end, 9) for end in clopper_pearson(3, 299)]
    [0.002073936, 0.029040381]

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.
    """
    tail = (1 - level) / 2
    low = 0.0 if count <= 0 else float(scipy.special.betaincinv(count, n - count + 1, tail))
    high = 1.0 if count >= n else float(scipy.special.betaincinv(count + 1, n - count, 1 - tail))
    return low, high


def compute_upper_bound(count: int, n: int, level: float = CONFIDENCE_LEVEL) -> float | None:
    """Return the one-sided upper bound of a share, None without trials.

    No error in 299 audits means at most 1 in 100, if the number of audits was fixed beforehand.

    >>> round(compute_upper_bound(0, 299), 4)
    0.01
    """
    if n == 0:
        return None
    return 1.0 if count >= n else float(scipy.special.betaincinv(count + 1, n - count, level))


def compute_share(count: int, n: int) -> Share:
    """Return a share of n independent cases.

    >>> compute_share(0, 0).rate is None
    True
    """
    if n == 0:
        return Share(count, n, None, None, None, None, NO_DATA)
    low, high = clopper_pearson(count, n)
    return Share(count, n, count / n, low, high, float(n), EXACT_METHOD)


def compute_clustered_share(counts: ArrayLike, sizes: ArrayLike) -> Share:
    """Return a share of cases that come in units of similar cases.

    Args:
        counts: successes in each unit, shape (units,).
        sizes: cases in each unit, shape (units,), at least 1 each.

    With one case in each unit this is `compute_share`.

    Source: Korn and Graubard, Survey Methodology 24 (1998) 193.
    """
    sums, unit_sizes = np.asarray(counts, float), np.asarray(sizes, float)
    if not len(unit_sizes) or unit_sizes.max() == 1:
        return compute_share(int(sums.sum()), int(unit_sizes.sum()))
    total, n = float(sums.sum()), float(unit_sizes.sum())
    rate = total / n
    variance = float(np.sum((sums - rate * unit_sizes) ** 2)) / n**2
    effective = _compute_effective_size(
        rate, variance, n, fallback=n**2 / float(np.sum(unit_sizes**2))
    )
    low, high = clopper_pearson(rate * effective, effective)
    return Share(int(total), int(n), rate, low, high, effective, CLUSTERED_METHOD)


def compute_unit_share(rows: pl.DataFrame, success: str | pl.Expr = "agrees") -> Share:
    """Return the share of rows with `success`, with an interval over column unit."""
    is_success = pl.col(success) if isinstance(success, str) else success
    units = rows.group_by("unit").agg(count=is_success.sum(), size=pl.len()).sort("unit")
    return compute_clustered_share(units["count"].to_numpy(), units["size"].to_numpy())


def compute_weighted_share(
    errors: ArrayLike, chances: ArrayLike, units: ArrayLike | None = None
) -> WeightedShare:
    """Return the share of errors of all cases, from sampled cases.

    Args:
        errors: 1 or 0 for each sampled case, shape (sampled,).
        chances: sampling chances above 0, shape (sampled,); only their ratios matter.
        units: number of each case's unit, shape (sampled,); None if each is its own.

    Example: all of the 10 % unsure cases and 2 % of the others are sampled.

    >>> found = compute_weighted_share(
    ...     [1] * 1 + [0] * 89 + [1] * 150 + [0] * 350, [0.02] * 90 + [1] * 500
    ... )
    >>> round(found.rate, 9), round(found.effective, 7)
    (0.04, 343.0041446)

    Source: Korn and Graubard, Survey Methodology 24 (1998) 193.
    """
    values, inverse_chances = np.asarray(errors, float), 1 / np.asarray(chances, float)
    if not len(values):
        return WeightedShare(0, None, None, None, None, NO_DATA)
    total = float(inverse_chances.sum())
    rate = min(float(np.sum(inverse_chances * values)) / total, 1.0)
    gaps, weights = inverse_chances * (values - rate), inverse_chances
    if units is not None:
        _, unit = np.unique(np.asarray(units), return_inverse=True)
        gaps, weights = (np.bincount(unit, part).astype(float) for part in (gaps, inverse_chances))
    variance = float(np.sum(gaps**2)) / total**2
    kish = total**2 / float(np.sum(weights**2))
    effective = _compute_effective_size(rate, variance, len(values), fallback=kish)
    low, high = clopper_pearson(rate * effective, effective)
    return WeightedShare(len(values), rate, low, high, effective, WEIGHTED_METHOD)


def _compute_effective_size(rate: float, variance: float, n: float, fallback: float) -> float:
    """Return the number of independent cases with the same variance, at most n."""
    if variance <= 0:
        return min(fallback, n)
    return min(rate * (1 - rate) / variance, n)


def compute_paired_change(
    first_only: int, second_only: int, n: int, effective: float = 1.0
) -> PairedChange:
    """Return how many more of 100 cases the first side has than the second, on the same cases.

    Args:
        first_only: cases that the first alone has.
        second_only: cases that the second alone has.
        n: all common cases.
        effective: the share of n that counts as independent, in (0, 1].

    >>> change = compute_paired_change(12, 4, 1000)
    >>> round(change.per_100, 6), round(change.low, 6), round(change.high, 6)
    (0.798403, -0.006581, 1.603388)

    Source: Agresti and Min, Statistics in Medicine 24 (2005) 729.
    """
    if n == 0:
        return PairedChange(first_only, second_only, n, None, None, None, NO_DATA)
    first_adjusted, second_adjusted = first_only * effective + 0.5, second_only * effective + 0.5
    trials = n * effective + 2
    change = (first_adjusted - second_adjusted) / trials
    half_width = (
        NORMAL_QUANTILE
        * sqrt(first_adjusted + second_adjusted - (first_adjusted - second_adjusted) ** 2 / trials)
        / trials
    )
    method = PAIRED_METHOD if effective == 1 else PAIRED_CLUSTERED_METHOD
    low, high = 100 * (change - half_width), 100 * (change + half_width)
    return PairedChange(first_only, second_only, n, 100 * change, low, high, method)


def compute_independent_share(gaps: ArrayLike, sizes: ArrayLike, squares: ArrayLike) -> float:
    """Return the effective share of independent cases, for a mean over units.

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
