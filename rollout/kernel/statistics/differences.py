"""Differences of shares of different cases, tests of two groups, and of a slice against the rest.

Shares of different cases are those of two periods, for example; each side has its own effective
number of cases. For shares of the same cases see `compute_paired_change`. The adoption rate of
displayed answers follows from two such sides.

Concurrent groups, model and hold-out: units are split at random, so in every season, site and hour
the chance of the model's side is the same for every kind of unit, unless the kind depends on who
decided.

A slice against the rest, an exact stratified test: if the slice is like the rest of a stratum, its
number of divergences is hypergeometric given the margins. Strata are independent, so the tail
chance is an exact sum, also for small numbers. A stratum without a rest has no effect.

Source of the test: Mantel and Haenszel, Journal of the National Cancer Institute 22 (1959) 719,
whose conditional distribution is used exactly, as in Gart, Biometrika 57 (1970) 471.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isinf, log, sqrt

import numpy as np
import scipy
from numpy.typing import ArrayLike

from rollout.kernel.arrays import Floats, Ints
from rollout.kernel.statistics.intervals import (
    NO_DATA,
    NORMAL_QUANTILE,
    UPPER_QUANTILE,
    Share,
    WeightedShare,
    clopper_pearson,
    compute_freedom,
    compute_share,
)

INDEPENDENT_METHOD = "Agresti–Caffo, 95 % for these days"
DAILY_METHOD = "Agresti–Caffo at the effective number of cases, days as units, Student's t, 95 %"
DAILY_SHARE_METHOD = "Clopper–Pearson at the effective number of cases, days as units, 95 %"
EFFECTIVE_METHOD = "Agresti–Caffo at the effective number of cases, 95 % for these days"
ADOPTION_METHOD = "Clopper–Pearson of both shares, 97.5 % each"
MIN_DAYS = 3  # with fewer days there is no interval
MANY_DAYS = 6  # with fewer on both sides the added cases make up for Satterthwaite's freedom


@dataclass(frozen=True, slots=True)
class ShareDifference:
    """How many more cases in 100 the first side has than the second, on different cases.

    Attributes:
        first, second: the share of each side, None without cases.
        first_n, second_n: cases of each side.
        per_100: the difference, shrunk towards 0 like its interval.
        low, high: its interval; None if a side has no cases, or too few units or days.
        method: its name, or why there is no interval.
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
    """One side of a difference: `count` of `n` independent cases; both may be fractions.

    `refusal` says why the side has no interval, with too few units or days; else it is "".
    """

    count: float
    n: float
    cases: int
    degrees_of_freedom: float = float("inf")
    refusal: str = ""

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
    """Return the difference of two sides, one success and one failure added to each.

    Without an interval there is no difference either: its size would be read without it.
    """
    refusal = _find_refusal(first, second)
    gap, low, high = (None, None, None) if refusal else _compute_adjusted_difference(first, second)
    return ShareDifference(
        first=first.rate,
        second=second.rate,
        first_n=first.cases,
        second_n=second.cases,
        per_100=gap,
        low=low,
        high=high,
        method=refusal or method,
    )


def _find_refusal(first: ComparedSide, second: ComparedSide) -> str:
    """Return why two sides can't be compared, or ""."""
    return first.refusal or second.refusal if first.n and second.n else NO_DATA


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
    """Return the Student or normal quantile for the sum of two variances.

    With many days Satterthwaite's freedom is too large: 10 days against 30 would cover .944 to
    .948 where the days swing. The side with fewer days is then taken for the whole, as in Mickey
    and Brown, Annals of Mathematical Statistics 37 (1966) 639.
    """
    freedoms = [side.degrees_of_freedom for side in sides]
    if isinf(min(freedoms)):
        return NORMAL_QUANTILE
    if max(freedoms) >= MANY_DAYS - 1:
        return float(scipy.special.stdtrit(min(freedoms), UPPER_QUANTILE))
    slack = sum(
        variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True)
    )
    return float(scipy.special.stdtrit(sum(variances) ** 2 / slack, UPPER_QUANTILE))


def compute_difference_by_day(
    first: ArrayLike, first_n: ArrayLike, second: ArrayLike, second_n: ArrayLike
) -> ShareDifference:
    """Return the difference of two shares that can vary from day to day.

    Days are the units; with fewer than three on a side there is no interval.

    Args:
        first: cases of the first side that have it, by day, shape (days,).
        first_n: all its cases by day, shape (days,); empty days are ignored.
        second: the same of the second side, of as many days as it has.
        second_n: all its cases by day.

    Source: Agresti and Caffo as for `compute_period_difference`; Korn and Graubard for the
    effective number as for `compute_clustered_share`; Satterthwaite, Biometrics Bulletin 2 (1946)
    110, for the degrees of freedom of few days.
    """
    sides = (build_side_by_day(first, first_n), build_side_by_day(second, second_n))
    return compute_difference(*sides, method=DAILY_METHOD)


def build_side_by_day(counts: ArrayLike, sizes: ArrayLike) -> ComparedSide:
    """Return a side with its days as units; too few days have no interval.

    Days are the units also if they vary no more than by chance: a test for that misses so many
    moderate swings that intervals would cover 93 % (benchmarks/README.md).
    """
    s, m = np.asarray(counts, float), np.asarray(sizes, float)
    s, m = s[m > 0], m[m > 0]
    days = len(m)
    if days < MIN_DAYS:
        refusal = f"too few days ({days})" if days else ""
        return ComparedSide(float(s.sum()), float(m.sum()), int(m.sum()), refusal=refusal)
    return _build_daily_side(s, m)


def _build_daily_side(s: Floats, m: Floats) -> ComparedSide:
    """Return a side with its days as units, at least two: counts and sizes by day.

    A few large days have less freedom than their number says: else days whose sizes differ
    threefold would cover .89 to .94 (benchmarks/README.md).
    """
    n, days = float(m.sum()), len(m)
    rate = float(s.sum()) / n
    variance = float(np.sum((s - rate * m) ** 2)) / n**2 * days / (days - 1)
    effective = min(rate * (1 - rate) / variance, n) if variance else n
    return ComparedSide(rate * effective, effective, int(n), degrees_of_freedom=compute_freedom(m))


def compute_daily_share(counts: ArrayLike, sizes: ArrayLike) -> Share:
    """Return a share of cases that can vary from day to day.

    Args:
        counts: cases that have it, by day, shape (days,).
        sizes: all cases by day; empty days are ignored.
    """
    side = build_side_by_day(counts, sizes)
    if side.rate is None:
        return compute_share(0, 0)
    count = int(np.sum(counts))
    rate = count / side.cases
    if side.refusal:
        return Share(side.cases, rate, None, None, None, side.refusal, count)
    student = float(scipy.special.stdtrit(side.degrees_of_freedom, UPPER_QUANTILE))
    effective = side.n * (NORMAL_QUANTILE / student) ** 2
    low, high = clopper_pearson(rate * effective, effective)
    return Share(side.cases, rate, low, high, effective, DAILY_SHARE_METHOD, count)


def build_side(share: WeightedShare) -> ComparedSide:
    """Return a share as a side at its effective number of cases."""
    if share.rate is None:
        return ComparedSide(0.0, 0.0, share.n)
    if share.effective is None:
        return ComparedSide(share.rate * share.n, share.n, share.n, refusal=share.method)
    return ComparedSide(share.rate * share.effective, share.effective, share.n)


@dataclass(frozen=True, slots=True)
class AdoptionRate:
    """Share of conflicts in which reviewers adopted the displayed answer, in [0, 1].

    `has_too_few` tells that units or days are too few; `method` then says which.
    """

    share: float | None
    low: float | None
    high: float | None
    method: str
    has_too_few: bool = False


def compute_adoption(unassisted: ComparedSide, assisted: ComparedSide) -> AdoptionRate:
    """Return the adoption rate r of S = A + (1 − A)·r.

    A is the unassisted and S the assisted agreement, so r = 1 − (1−S)/(1−A). The interval covers
    with at least 95 %, because each share is covered with 97.5 %.

    Args:
        unassisted: agreement of unassisted decisions.
        assisted: agreement of assisted decisions.

    Returns:
        Shares clipped to [0, 1]; None if a side has no cases or too few units, or if unassisted
        decisions never differ.

    >>> found = compute_adoption(ComparedSide(850, 1000, 1000), ComparedSide(902.5, 1000, 1000))
    >>> round(found.share, 9)
    0.35
    """
    refusal = _find_refusal(unassisted, assisted)
    if refusal or unassisted.count >= unassisted.n:
        has_too_few = bool(unassisted.n and assisted.n and refusal)
        return AdoptionRate(None, None, None, refusal or NO_DATA, has_too_few)
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


CONCENTRATIONS = np.array([2.0, 20.0, 200.0, 2000.0])


def compute_concurrent_log_e(model: Sequence[int], humans: Sequence[int], *, share: float) -> float:
    """Return the log e-value against equal distributions on both sides.

    Args:
        model: units of each kind on the model's side, ≥ 0.
        humans: units of the same kinds in the hold-out, ≥ 0.
        share: planned share of units on the model's side, in (0, 1).

    Returns:
        A finite number, valid at every look; 0.0 without units.

    Raises:
        ValueError: the lengths differ, a count is negative, or the share lies outside (0, 1).

    >>> round(compute_concurrent_log_e((600, 300, 100), (700, 210, 90), share=0.5), 9)
    6.350219072
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; give a number between 0 and 1, both excluded")
    model_counts, human_counts = _check_counts(model), _check_counts(humans)
    if len(model_counts) != len(human_counts):
        raise ValueError(
            f"{len(model_counts)} kinds on one side and {len(human_counts)} on the other; give the"
            " same"
        )
    model_prior = CONCENTRATIONS[:, None] * share
    human_prior = CONCENTRATIONS[:, None] * (1 - share)
    bets = (
        scipy.special.betaln(model_prior + model_counts, human_prior + human_counts)
        - scipy.special.betaln(model_prior, human_prior)
        - model_counts * log(share)
        - human_counts * log(1 - share)
    )
    return float(np.logaddexp.reduce(bets.sum(axis=1)) - log(len(CONCENTRATIONS)))


def _check_counts(values: Sequence[int]) -> Floats:
    counts = np.asarray(values, float)
    if counts.size and counts.min() < 0:
        raise ValueError(f"a count is {counts.min():g}; give counts from 0 on")
    return counts


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
