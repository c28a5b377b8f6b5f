"""How many independent cases the cases of units are worth.

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
from typing import TYPE_CHECKING, TypeAlias

from rollout.core.late_modules import LateModule

if TYPE_CHECKING:
    import numpy as np
    import scipy
    from numpy.typing import NDArray
else:
    np = LateModule("numpy")
    scipy = LateModule("scipy")

Floats: TypeAlias = "NDArray[np.float64]"

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
    is_rare: NDArray[np.bool_]


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


def compute_freedom(weights: Floats, times: NDArray[np.int64] | None = None) -> float:
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
