"""Differences between shares of different cases, such as two periods.

For shares of the same cases see `compute_paired_change`. Each side has its own effective number of
cases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import scipy
from numpy.typing import ArrayLike

from rollout.reports.statistics.intervals import (
    NO_DATA,
    NORMAL_QUANTILE,
    Share,
    WeightedShare,
    clopper_pearson,
)

INDEPENDENT_METHOD = "Agresti–Caffo, 95 %"
DAILY_METHOD = "Agresti–Caffo at the effective number of cases, days as units, Student's t, 95 %"
EFFECTIVE_METHOD = "Agresti–Caffo at the effective number of cases, 95 %"
ADOPTION_METHOD = "Clopper–Pearson of both shares, 97.5 % each"
MAX_DISPERSION = 1.5  # times the binomial variance; above it, days are the units
MIN_DAYS = 5  # to estimate a variance between days
UPPER_QUANTILE = 0.975


@dataclass(frozen=True, slots=True)
class ShareDifference:
    """How many more cases in 100 the first side has than the second, on different cases.

    Attributes:
        first, second: the share of each side, None without cases.
        first_n, second_n: cases of each side.
        per_100: the difference, shrunk towards 0 like its interval.
        low, high: its interval; None if a side has no cases.
        method: its name.
    """

    first: float | None
    second: float | None
    first_n: int
    second_n: int
    per_100: float | None
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True, slots=True)
class ComparedSide:
    """One side of a difference: `count` of `n` independent cases; both may be fractions."""

    count: float
    n: float
    cases: int
    degrees_of_freedom: float = float("inf")

    @property
    def rate(self) -> float | None:
        """Return the share, None without cases."""
        return self.count / self.n if self.n else None


def compute_period_difference(
    first: int, first_n: int, second: int, second_n: int
) -> ShareDifference:
    """Return the difference of two shares of independent cases.

    Args:
        first: cases of the first side that have it, 0 ≤ first ≤ first_n.
        first_n: all its cases.
        second: the same of the second side.
        second_n: all its cases.

    >>> found = compute_period_difference(12, 500, 20, 2000)
    >>> round(found.per_100, 6), round(found.low, 6), round(found.high, 6)
    (1.54069, 0.081404, 2.999977)
    >>> compute_period_difference(0, 0, 20, 2000).per_100 is None
    True

    Source: Agresti and Caffo, The American Statistician 54 (2000) 280.
    """
    return compute_difference(
        ComparedSide(first, first_n, first_n),
        ComparedSide(second, second_n, second_n),
        method=INDEPENDENT_METHOD,
    )


def compute_difference(
    first: ComparedSide, second: ComparedSide, *, method: str = EFFECTIVE_METHOD
) -> ShareDifference:
    """Return the difference of two sides, one success and one failure added to each."""
    gap, low, high = (
        _compute_adjusted_difference(first, second) if first.n and second.n else (None, None, None)
    )
    return ShareDifference(
        first=first.rate,
        second=second.rate,
        first_n=first.cases,
        second_n=second.cases,
        per_100=gap,
        low=low,
        high=high,
        method=NO_DATA if gap is None else method,
    )


def _compute_adjusted_difference(
    first: ComparedSide, second: ComparedSide
) -> tuple[float, float, float]:
    """Return the difference per 100 cases with its interval."""
    rates = [(side.count + 1) / (side.n + 2) for side in (first, second)]
    parts = [
        rate * (1 - rate) / (side.n + 2) for rate, side in zip(rates, (first, second), strict=True)
    ]
    gap = rates[0] - rates[1]
    half_width = _compute_quantile(parts, (first, second)) * sqrt(sum(parts))
    return 100 * gap, 100 * (gap - half_width), 100 * (gap + half_width)


def _compute_quantile(variances: Sequence[float], sides: Sequence[ComparedSide]) -> float:
    """Return the Student or normal quantile for the sum of two variances."""
    slack = sum(
        variance**2 / side.degrees_of_freedom
        for variance, side in zip(variances, sides, strict=True)
    )
    return (
        float(scipy.special.stdtrit(sum(variances) ** 2 / slack, UPPER_QUANTILE))
        if slack
        else NORMAL_QUANTILE
    )


def compute_difference_by_day(
    first: ArrayLike, first_n: ArrayLike, second: ArrayLike, second_n: ArrayLike
) -> ShareDifference:
    """Return the difference of two shares that can vary from day to day.

    A side whose daily shares vary more than 1.5 times as much as by chance uses days as units. A
    side with fewer than five days uses cases.

    Args:
        first: cases of the first side that have it, by day, shape (days,).
        first_n: all its cases by day, shape (days,); empty days are ignored.
        second: the same of the second side, of as many days as it has.
        second_n: all its cases by day.

    Source: Agresti and Caffo as for `compute_period_difference`; Korn and Graubard for the
    effective number as for `compute_clustered_share`; Satterthwaite, Biometrics Bulletin 2 (1946)
    110, for the degrees of freedom.
    """
    sides = (build_side_by_day(first, first_n), build_side_by_day(second, second_n))
    is_independent = all(np.isinf(side.degrees_of_freedom) for side in sides)
    return compute_difference(*sides, method=INDEPENDENT_METHOD if is_independent else DAILY_METHOD)


def build_side_by_day(counts: ArrayLike, sizes: ArrayLike) -> ComparedSide:
    """Return a side, at its effective number of cases if days vary too much."""
    s, m = np.asarray(counts, float), np.asarray(sizes, float)
    s, m = s[m > 0], m[m > 0]
    total, n, days = float(s.sum()), float(m.sum()), len(m)
    independent = ComparedSide(total, n, int(n))
    if days < MIN_DAYS or not 0 < total < n:
        return independent
    rate = total / n
    binomial_variance = rate * (1 - rate)
    dispersion = float(np.sum((s - rate * m) ** 2 / (m * binomial_variance))) / (days - 1)
    if dispersion <= MAX_DISPERSION:
        return independent
    variance = float(np.sum((s - rate * m) ** 2)) / n**2 * days / (days - 1)
    effective = min(binomial_variance / variance, n)
    return ComparedSide(rate * effective, effective, int(n), degrees_of_freedom=days - 1)


def build_side(share: Share | WeightedShare) -> ComparedSide:
    """Return a share as a side at its effective number of cases."""
    if share.rate is None or share.effective is None:
        return ComparedSide(0.0, 0.0, share.n)
    return ComparedSide(share.rate * share.effective, share.effective, share.n)


@dataclass(frozen=True, slots=True)
class AdoptionRate:
    """Share of conflicts in which reviewers adopted the displayed answer, in [0, 1]."""

    share: float | None
    low: float | None
    high: float | None
    method: str


def compute_adoption(unassisted: ComparedSide, assisted: ComparedSide) -> AdoptionRate:
    """Return the adoption rate r of S = A + (1 − A)·r.

    A is the unassisted and S the assisted agreement, so r = 1 − (1−S)/(1−A). The interval covers
    with at least 95 %, because each share is covered with 97.5 %.

    Args:
        unassisted: agreement of unassisted decisions.
        assisted: agreement of assisted decisions.

    Returns:
        Shares clipped to [0, 1]; None if a side has no cases, or if unassisted decisions never
        differ.

    >>> found = compute_adoption(ComparedSide(850, 1000, 1000), ComparedSide(902.5, 1000, 1000))
    >>> round(found.share, 9)
    0.35
    """
    if not unassisted.n or not assisted.n or unassisted.count >= unassisted.n:
        return AdoptionRate(None, None, None, NO_DATA)
    unassisted_rate, unassisted_low, unassisted_high = _compute_disagreement(unassisted)
    assisted_rate, assisted_low, assisted_high = _compute_disagreement(assisted)
    share = _clip_share(1 - assisted_rate / unassisted_rate)
    low = _clip_share(1 - assisted_high / unassisted_low) if unassisted_low else 0.0
    return AdoptionRate(
        share, low, _clip_share(1 - assisted_low / unassisted_high), ADOPTION_METHOD
    )


def _clip_share(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _compute_disagreement(side: ComparedSide) -> tuple[float, float, float]:
    """Return the share that differs, with an interval of 97.5 %."""
    count = side.n - side.count
    return count / side.n, *clopper_pearson(count, side.n, UPPER_QUANTILE)
