"""Figures with their intervals: shares at a fixed number of cases, weighted shares, changes.

benchmarks/README.md says how often each interval covers. Shares and changes on the same cases are
those of the days that they are from: where days differ by more than chance, the mean of other days
lies outside more often. `differences` compares periods, with days as units. Where too few units
leave the coverage open, there is no interval and the method says why. A figure without records is
None, never 0.

Cases of one unit (a burst, an episode) are alike, so a mean over them is less certain than its
number of cases says. The effective number of cases is the one with the same variance. It is capped
as if the cases of a unit were all alike while few units hold a case of the rarer kind: their
variance is then mostly luck.

Source: Korn and Graubard, Survey Methodology 24 (1998) 193, for the effective number and Student's
factor; Kish, Survey Sampling (1965), for the cap. The fading of the cap is measured in
benchmarks/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from rollout.kernel.arrays import Bools, Floats, Ints, np, scipy

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import ArrayLike


NORMAL_QUANTILE = 1.959963984540054  # of a two-sided 95 % interval
UPPER_QUANTILE = 0.975
MIN_UNITS = 2
MIN_FREEDOM = 4.0  # with less, Student's factor is larger than what is measured
FADING_UNITS = 30.0  # units of the rarer kind at which the cap counts half
SMALLEST_VARIANCE = 1e-14  # times 1 / n; below it is rounding


@dataclass(frozen=True, slots=True)
class EffectiveNumber:
    """How many independent cases `n` cases are worth.

    `value` is None if there are too few units for an interval; `refusal` then says so.
    """

    n: float
    value: float | None
    refusal: str = ""

    @property
    def share(self) -> float | None:
        """Return the share of the cases that counts as independent, in (0, 1]."""
        return None if self.value is None else min(1.0, self.value / self.n) if self.n else 1.0


@dataclass(frozen=True, slots=True)
class UnitSums:
    """Weighted sums that the effective number of a mean needs.

    Attributes:
        n: cases.
        case_variance: variance of one case; for a share `rate * (1 - rate)`.
        weights: weight of each unit, shape (units,).
        gaps: weighted sum of value minus mean in each unit, shape (units,).
        squared_weights: sum of the squared weights of all cases.
        squared_gaps: sum of squared weight times squared gap over all cases.
        is_rare: whether a unit holds a case of the rarer kind, shape (units,).
    """

    n: float
    case_variance: float
    weights: Floats
    gaps: Floats
    squared_weights: float
    squared_gaps: float
    is_rare: Bools


def compute_effective_number(sums: UnitSums) -> EffectiveNumber:
    """Return the effective number of cases; with one case a unit no cap applies."""
    total = float(sums.weights.sum())
    kish_number = min(total**2 / sums.squared_weights, sums.n)
    single_number = _divide_variance(sums, sums.squared_gaps / total**2, kish_number)
    units = len(sums.weights)
    if units == sums.n:
        return EffectiveNumber(sums.n, single_number)
    freedom = compute_freedom(sums.weights)
    if units < MIN_UNITS or freedom < MIN_FREEDOM:
        return EffectiveNumber(sums.n, None, describe_few_units(units, MIN_FREEDOM))
    variance = units / (units - 1) * float(np.sum(sums.gaps**2)) / total**2
    unit_number = _divide_variance(sums, variance, single_number)
    number = _fade_cap(sums, unit_number, single_number)
    student = float(scipy.special.stdtrit(freedom, UPPER_QUANTILE))
    return EffectiveNumber(sums.n, number * (NORMAL_QUANTILE / student) ** 2)


def _divide_variance(sums: UnitSums, variance: float, fallback: float) -> float:
    """Return the number of cases with this variance of their mean, at most n."""
    if variance <= SMALLEST_VARIANCE / sums.n:
        return fallback
    return min(sums.case_variance / variance, sums.n)


def compute_freedom(weights: Floats, times: Ints | None = None) -> float:
    """Return the degrees of freedom of a mean over units, each `times` there."""
    squares = weights**2
    counts = np.ones(len(weights)) if times is None else times.astype(float)
    return max(float((counts @ squares) ** 2 / (counts @ squares**2)) - 1, 1.0)


def describe_few_units(units: int, least_freedom: float) -> str:
    """Return why there is no interval: few units, or a few that hold most cases."""
    uneven = ", of which a few hold most cases" if units > least_freedom else ""
    return f"too few units ({units}{uneven})"


def _fade_cap(sums: UnitSums, unit_number: float, single_number: float) -> float:
    """Return the mean of capped and uncapped number by the units of the rarer kind."""
    squared_units = float(np.sum(sums.weights**2))
    capped = min(unit_number, single_number * sums.squared_weights / squared_units)
    rare_weights = sums.weights[sums.is_rare]
    rare_units = (
        float(rare_weights.sum() ** 2 / np.sum(rare_weights**2)) if len(rare_weights) else 0.0
    )
    fading = FADING_UNITS / (FADING_UNITS + rare_units)
    return 1 / (fading / capped + (1 - fading) / unit_number)


CONFIDENCE_LEVEL = 0.95

EXACT_METHOD = "Clopper–Pearson, 95 % for these days"
CLUSTERED_METHOD = (
    "Clopper–Pearson, 95 % for these days, at the effective number of cases (Korn–Graubard, by"
    " unit)"
)
ONE_SIDED_METHOD = "Clopper–Pearson, one-sided, 95 %"
WEIGHTED_METHOD = "Hájek estimate, Clopper–Pearson at the effective number of cases (Korn–Graubard)"
PAIRED_METHOD = "Agresti–Min, 95 % for these days"
PAIRED_CLUSTERED_METHOD = (
    "Agresti–Min, 95 % for these days, at the effective number of cases (by unit)"
)
NO_DATA = "no data"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of n values with its interval, which is None with too few of them.

    `value` is None without values, or if undefined; `method` says why.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
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

    def compute_ends(self, level: float) -> tuple[float, float]:
        """Return the exact interval at a level, of the effective number; (0, 1) without one."""
        effective = self.effective or 0.0
        return clopper_pearson((self.rate or 0.0) * effective, effective, level)


@dataclass(frozen=True, slots=True)
class Share(WeightedShare):
    """A count of n as a share with its interval; without cases all three are None.

    `effective` is the number of independent cases that the n are worth: less than n where cases
    come in bursts. With too few units it is None like the interval, and `method` says so.
    """

    count: int

    @property
    def effective_number(self) -> EffectiveNumber:
        """Return what the n cases are worth, for other figures of the same cases."""
        if self.rate is None or self.effective is not None:
            return EffectiveNumber(self.n, self.effective or 0.0)
        return EffectiveNumber(self.n, None, self.method)


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
        return Share(n, None, None, None, None, NO_DATA, count)
    low, high = clopper_pearson(count, n)
    return Share(n, count / n, low, high, float(n), EXACT_METHOD, count)


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
    number = _compute_share_number(sums, unit_sizes)
    if number.value is None:
        return Share(int(n), rate, None, None, None, number.refusal, int(total))
    low, high = clopper_pearson(rate * number.value, number.value)
    return Share(int(n), rate, low, high, number.value, CLUSTERED_METHOD, int(total))


def _compute_share_number(sums: Floats, unit_sizes: Floats) -> EffectiveNumber:
    """Return what the cases of units are worth for the mean of values in [0, 1]."""
    n = float(unit_sizes.sum())
    rate = float(sums.sum()) / n
    return compute_effective_number(
        UnitSums(
            n=n,
            case_variance=rate * (1 - rate),
            weights=unit_sizes,
            gaps=sums - rate * unit_sizes,
            squared_weights=n,
            squared_gaps=n * rate * (1 - rate),
            is_rare=sums > 0 if rate < 1 / 2 else sums < unit_sizes,
        )
    )


def compute_mean_interval(
    totals: ArrayLike, sizes: ArrayLike, *, largest: float
) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of bounded values, None without one.

    Of all values in [0, largest] with one mean, those at both ends alone vary most. The interval is
    that of a share of them, so it covers at least as often, and is above 0 without any cost.

    Args:
        totals: sum of the values of each unit, shape (units,).
        sizes: cases in each unit, shape (units,), at least 1 each.
        largest: possible value, above 0.

    >>> [round(end, 4) for end in compute_mean_interval([0] * 299, [1] * 299, largest=6)]
    [0.0, 0.0736]

    Source: Hoeffding, JASA 58 (1963) 13, for the comparison with shares.
    """
    sums, unit_sizes = np.asarray(totals, float) / largest, np.asarray(sizes, float)
    if not len(unit_sizes):
        return None
    n = float(unit_sizes.sum())
    number = n if unit_sizes.max() == 1 else _compute_share_number(sums, unit_sizes).value
    if number is None:
        return None
    low, high = clopper_pearson(float(sums.sum()) / n * number, number)
    return largest * low, largest * high


def compute_unit_share(rows: pl.DataFrame, success: str | pl.Expr = "agrees") -> Share:
    """Return the share of rows with `success`, with an interval over column unit."""
    successes = rows[success] if isinstance(success, str) else rows.select(success).to_series()
    codes = encode_units(rows["unit"])
    sizes = np.bincount(codes)
    if sizes.max(initial=0) <= 1:  # the usual case, at a tenth of the time
        return compute_share(int(successes.sum()), rows.height)
    if successes.null_count():
        successes = successes.fill_null(value=False)
    counts = np.bincount(codes, successes.to_numpy())
    return compute_clustered_share(counts[sizes > 0], sizes[sizes > 0])


def encode_units(units: pl.Series) -> Ints:
    """Return units as numbers in their order; integers are their own, null is 0."""
    codes = units if units.dtype.is_integer() else units.rank("dense")
    return (codes.fill_null(0) if codes.null_count() else codes).to_numpy().astype(np.int64)


def compute_missing_bounds(
    share: Share, failing: int, succeeding: int | None = None
) -> tuple[float, float] | None:
    """Return the interval of a share whatever cases without a decision would have said.

    Each end is a Clopper–Pearson bound at 97.5 %: the lower with `failing` more failures, the upper
    with `succeeding` more successes.

    Args:
        share: the cases with a decision.
        failing: cases without one that could be failures.
        succeeding: those that could be successes; by default the same.

    Returns:
        None without cases, or where the share has too few units.

    >>> [round(end, 9) for end in compute_missing_bounds(compute_share(930, 970), 30)]
    [0.912383767, 0.971272375]
    """
    effective = share.effective_number.share
    worst = share.n + failing
    successes = failing if succeeding is None else succeeding
    best = share.n + successes
    if effective is None or not worst or not best:
        return None
    low, _ = clopper_pearson(share.count * effective, worst * effective)
    _, high = clopper_pearson((share.count + successes) * effective, best * effective)
    return low, high


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
    rate = min(float(np.sum(inverse_chances * values)) / float(inverse_chances.sum()), 1.0)
    unit = np.arange(len(values)) if units is None else np.unique(units, return_inverse=True)[1]
    gaps = inverse_chances * (values - rate)
    number = compute_effective_number(
        UnitSums(
            n=len(values),
            case_variance=rate * (1 - rate),
            weights=np.bincount(unit, inverse_chances).astype(float),
            gaps=np.bincount(unit, gaps).astype(float),
            squared_weights=float(np.sum(inverse_chances**2)),
            squared_gaps=float(np.sum(gaps**2)),
            is_rare=np.bincount(unit, values > 0 if rate < 1 / 2 else values < 1) > 0,
        )
    )
    if number.value is None:
        return WeightedShare(len(values), rate, None, None, None, number.refusal)
    low, high = clopper_pearson(rate * number.value, number.value)
    return WeightedShare(len(values), rate, low, high, number.value, WEIGHTED_METHOD)


def compute_paired_change(
    first_only: int, second_only: int, n: int, number: EffectiveNumber | None = None
) -> PairedChange:
    """Return how many more of 100 cases the first side has than the second, on the same cases.

    Args:
        first_only: cases that the first alone has.
        second_only: cases that the second alone has.
        n: all common cases.
        number: how many independent cases they are worth; None if each is its own unit.

    >>> change = compute_paired_change(12, 4, 1000)
    >>> round(change.per_100, 6), round(change.low, 6), round(change.high, 6)
    (0.798403, -0.006581, 1.603388)

    Source: Agresti and Min, Statistics in Medicine 24 (2005) 729.
    """
    if n == 0:
        return PairedChange(first_only, second_only, n, None, None, None, NO_DATA)
    effective = 1.0 if number is None else number.share
    if number is not None and effective is None:
        change = (first_only - second_only) / n
        return PairedChange(first_only, second_only, n, 100 * change, None, None, number.refusal)
    change, half_width = _compute_adjusted_change(first_only, second_only, n, effective or 1.0)
    method = PAIRED_METHOD if effective == 1 else PAIRED_CLUSTERED_METHOD
    low, high = 100 * (change - half_width), 100 * (change + half_width)
    return PairedChange(first_only, second_only, n, 100 * change, low, high, method)


def _compute_adjusted_change(
    first_only: int, second_only: int, n: int, effective: float
) -> tuple[float, float]:
    """Return the change with half a case added to each side, and its half width."""
    first_adjusted, second_adjusted = first_only * effective + 0.5, second_only * effective + 0.5
    trials = n * effective + 2
    difference = first_adjusted - second_adjusted
    variance = first_adjusted + second_adjusted - difference**2 / trials
    return difference / trials, NORMAL_QUANTILE * sqrt(variance) / trials


def compute_case_difference_number(units: pl.Series, differences: Ints) -> EffectiveNumber:
    """Return how many independent cases a mean difference of cases is worth.

    Args:
        units: of each case, shape (cases,).
        differences: −1, 0 or 1 for each case, shape (cases,).
    """
    codes = encode_units(units)
    sizes = np.bincount(codes)
    is_unit = sizes > 0
    gaps, squares = (
        np.bincount(codes, values)[is_unit] for values in (differences, differences**2)
    )
    return compute_difference_number(gaps, sizes[is_unit], squares)


def compute_difference_number(
    gaps: ArrayLike, sizes: ArrayLike, squares: ArrayLike
) -> EffectiveNumber:
    """Return how many independent cases a mean difference over units is worth.

    Args:
        gaps: sum of the differences (−1, 0 or 1 for each case) in each unit, shape (units,).
        sizes: cases in each unit, shape (units,).
        squares: number of cases that differ in each unit, shape (units,).
    """
    sums, unit_sizes = np.asarray(gaps, float), np.asarray(sizes, float)
    differing, n = np.asarray(squares, float), float(unit_sizes.sum())
    if not n or unit_sizes.max() == 1:
        return EffectiveNumber(n, n)
    mean = float(sums.sum()) / n
    case_variance = float(differing.sum()) / n - mean**2
    is_seldom = differing.sum() < n / 2
    return compute_effective_number(
        UnitSums(
            n=n,
            case_variance=case_variance,
            weights=unit_sizes,
            gaps=sums - mean * unit_sizes,
            squared_weights=n,
            squared_gaps=n * case_variance,
            is_rare=differing > 0 if is_seldom else differing < unit_sizes,
        )
    )
