"""Differences between shares of different cases: one period against another, seen against unseen.

On the same cases the difference is `intervals.paired_change`; here the two sides have none in
common, and each brings its own number of independent cases (statistics.md §17).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import scipy
from numpy.typing import ArrayLike

from rollout.reports.statistics.intervals import NO_DATA, NORMAL, Share, Weighted, clopper_pearson

PERIODS = "Agresti–Caffo, 95 %"
BY_DAY = "Agresti–Caffo at the effective number of cases, days as units, Student's t, 95 %"
EFFECTIVE = "Agresti–Caffo at the effective number of cases, 95 %"
ADOPTED = "Clopper–Pearson of both shares, 97.5 % each"
OVER = 1.5  # times the binomial variance: from there on days are the units (statistics.md §16)
FEWEST_DAYS = 5  # from fewer no variance between days can be read
TAIL = 0.975


@dataclass(frozen=True, slots=True)
class Difference:
    """How many more cases in 100 the first side has than the second, on different cases.

    Attributes:
        first, second: the share of each side, None without cases.
        first_n, second_n: cases of each side.
        per_100: the difference, drawn a little towards nothing as its interval is.
        low, high: its interval; None where a side has no cases.
        method: in words.
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
class Side:
    """One side of a difference: `count` of `n` independent cases; both may be fractions."""

    count: float
    n: float
    cases: int
    freedom: float = float("inf")

    @property
    def rate(self) -> float | None:
        """Return the share, None without cases."""
        return self.count / self.n if self.n else None


def period_difference(first: int, first_n: int, second: int, second_n: int) -> Difference:
    """Return the difference of two shares of independent cases.

    Args:
        first: cases of the first side that have it, 0 ≤ first ≤ first_n.
        first_n: all its cases.
        second: the same of the second side.
        second_n: all its cases.

    >>> found = period_difference(12, 500, 20, 2000)
    >>> round(found.per_100, 6), round(found.low, 6), round(found.high, 6)
    (1.54069, 0.081404, 2.999977)
    >>> period_difference(0, 0, 20, 2000).per_100 is None
    True

    Source: Agresti and Caffo, The American Statistician 54 (2000) 280.
    """
    return difference(
        Side(first, first_n, first_n), Side(second, second_n, second_n), method=PERIODS
    )


def difference(first: Side, second: Side, *, method: str = EFFECTIVE) -> Difference:
    """Return the difference of two sides, one success and one failure added to each."""
    gap, low, high = _added(first, second) if first.n and second.n else (None, None, None)
    return Difference(
        first=first.rate,
        second=second.rate,
        first_n=first.cases,
        second_n=second.cases,
        per_100=gap,
        low=low,
        high=high,
        method=NO_DATA if gap is None else method,
    )


def _added(first: Side, second: Side) -> tuple[float, float, float]:
    """Return the difference of 100 cases with its ends."""
    rates = [(side.count + 1) / (side.n + 2) for side in (first, second)]
    parts = [
        rate * (1 - rate) / (side.n + 2) for rate, side in zip(rates, (first, second), strict=True)
    ]
    gap, half_width = rates[0] - rates[1], _reach(parts, (first, second)) * sqrt(sum(parts))
    return 100 * gap, 100 * (gap - half_width), 100 * (gap + half_width)


def _reach(variances: Sequence[float], sides: Sequence[Side]) -> float:
    """Return the quantile for a variance whose parts were read from few days."""
    slack = sum(variance**2 / side.freedom for variance, side in zip(variances, sides, strict=True))
    return float(scipy.special.stdtrit(sum(variances) ** 2 / slack, TAIL)) if slack else NORMAL


def difference_by_day(
    first: ArrayLike, first_n: ArrayLike, second: ArrayLike, second_n: ArrayLike
) -> Difference:
    """Return the difference of two shares that may swing from day to day.

    A side whose daily shares vary by more than 1.5 times what chance alone would do counts its
    days, not its cases. The other side, and any side of fewer than five days, counts its cases.

    Args:
        first: cases of the first side that have it, by day, shape (days,).
        first_n: all its cases by day, shape (days,); days without any say nothing.
        second: the same of the second side, of as many days as it has.
        second_n: all its cases by day.

    Source: Agresti and Caffo, as `period_difference`; Korn and Graubard for the effective number;
    Satterthwaite, Biometrics Bulletin 2 (1946) 110, for the degrees of freedom.
    """
    sides = (side_by_day(first, first_n), side_by_day(second, second_n))
    is_independent = all(np.isinf(side.freedom) for side in sides)
    return difference(*sides, method=PERIODS if is_independent else BY_DAY)


def side_by_day(counts: ArrayLike, sizes: ArrayLike) -> Side:
    """Return a side at its effective number of cases where its days differ too much."""
    s, m = np.asarray(counts, float), np.asarray(sizes, float)
    s, m = s[m > 0], m[m > 0]
    total, n, days = float(s.sum()), float(m.sum()), len(m)
    independent = Side(total, n, int(n))
    if days < FEWEST_DAYS or not 0 < total < n:
        return independent
    rate = total / n
    binomial_variance = rate * (1 - rate)
    dispersion = float(np.sum((s - rate * m) ** 2 / (m * binomial_variance))) / (days - 1)
    if dispersion <= OVER:
        return independent
    variance = float(np.sum((s - rate * m) ** 2)) / n**2 * days / (days - 1)
    effective = min(binomial_variance / variance, n)
    return Side(rate * effective, effective, int(n), freedom=days - 1)


def side_of(found: Share | Weighted) -> Side:
    """Return a share, or a weighted one, as a side at its effective number of cases."""
    if found.rate is None or found.effective is None:
        return Side(0.0, 0.0, found.n)
    return Side(found.rate * found.effective, found.effective, found.n)


@dataclass(frozen=True, slots=True)
class Adopted:
    """In which share of conflicts people took over what they were shown, in [0, 1]."""

    share: float | None
    low: float | None
    high: float | None
    method: str


def adopted(unseen: Side, seen: Side) -> Adopted:
    """Return r of "measured = A + (1 − A)·r": which share of the conflicts went over.

    With A the agreement of who saw nothing and S of who saw the answer, r = 1 − (1−S)/(1−A). Both
    ends hold together in at least 95 %: each share is covered with 97.5 %.

    Args:
        unseen: agreement of verdicts given without the answer in sight.
        seen: agreement of verdicts given with it.

    Returns:
        Shares cut to [0, 1], because there is no adoption below nothing; None where a side has no
        cases, or where unseen people never differed: then nothing could be adopted.

    >>> found = adopted(Side(850, 1000, 1000), Side(902.5, 1000, 1000))
    >>> round(found.share, 9)
    0.35
    """
    if not unseen.n or not seen.n or unseen.count >= unseen.n:
        return Adopted(None, None, None, NO_DATA)
    unassisted_rate, unassisted_low, unassisted_high = _differing(unseen)
    assisted_rate, assisted_low, assisted_high = _differing(seen)
    share = _cut(1 - assisted_rate / unassisted_rate)
    low = _cut(1 - assisted_high / unassisted_low) if unassisted_low else 0.0
    return Adopted(share, low, _cut(1 - assisted_low / unassisted_high), ADOPTED)


def _cut(share: float) -> float:
    return min(max(share, 0.0), 1.0)


def _differing(side: Side) -> tuple[float, float, float]:
    """Return the share that differs, with an interval of 97.5 %."""
    count = side.n - side.count
    return count / side.n, *clopper_pearson(count, side.n, TAIL)
