"""Agreement of pairs of sets, and of pairs of numbers on the same cases.

Sets: the MASI distances of all pairs at once, and which pairs agree.

Numbers: bias, limits of agreement, concordance. Each interval comes from the influence of every
case on the figure, summed by unit: cases of one unit are alike. It assumes no distribution; prices
and their errors are seldom normal. With too few units there is no interval, and the method says
why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atanh, sqrt, tanh

import numpy as np
import scipy

from rollout.kernel.statistics.arrays import Floats, Ints
from rollout.kernel.statistics.intervals import (
    MIN_FREEDOM,
    NORMAL_QUANTILE,
    UPPER_QUANTILE,
    Estimate,
)
from rollout.kernel.units import SLACK, split_label_set


def compare_sets(texts: Sequence[str], overlap: float) -> tuple[Floats, Floats]:
    """Return the MASI distance of each pair of sets, and 1 where two agree, else 0.

    Both have the shape (sets, sets). The distance is 1 less overlap times monotonicity, which is 1
    for equal sets, 2/3 if one contains the other and 1/3 for other common labels; the other is
    what `do_sets_agree` says.

    Source: Passonneau, Proceedings of LREC (2006) 831.
    """
    sets = [split_label_set(text) for text in texts]
    labels = sorted(frozenset[str]().union(*sets))
    has_label = np.array([[label in labels_of for label in labels] for labels_of in sets], float)
    has_label = has_label.reshape(len(sets), len(labels))
    common, size = has_label @ has_label.T, has_label.sum(axis=1)
    either = size[:, None] + size[None, :] - common
    jaccard = np.where(either > 0, common / np.maximum(either, 1), 1.0)
    contains = common == np.minimum(size[:, None], size[None, :])
    monotonicity = np.where(common == either, 1.0, np.where(contains, 2 / 3, 1 / 3))
    return 1 - jaccard * monotonicity, (jaccard >= overlap - SLACK).astype(float)


MIN_UNITS = 100  # with fewer, intervals of limits and concordance of prices cover under 86 %
MANY_UNITS = 1000  # from which on they cover 90 to 95 %; benchmarks/README.md has the table
ROUNDING = 1e-12  # relative; a smaller spread is rounding

MEAN_METHOD = "mean, Student's t over units, 95 %"
LIMIT_METHOD = "Bland–Altman, mean ± 1.96 standard deviations; interval by influence over units"
CONCORDANCE_METHOD = "Lin's concordance; interval by influence over units on Fisher's scale"
FEW_UNITS = ", covers 86 to 95 % below 1,000 units"
NO_PAIRS = "no data"
SAME_GAP = "no interval: every pair has the same difference"
ONE_NUMBER = "no data: all numbers are equal"
CONSTANT_SIDE = "no interval: one side always gives the same number"


def compute_mean_estimate(values: Floats, units: Ints) -> Estimate:
    """Return the mean of the values; with one case a unit the usual t interval.

    Args:
        values: of each case, shape (cases,).
        units: number of each case's unit, from 0, shape (cases,).
    """
    if not len(values):
        return Estimate(None, None, None, 0, NO_PAIRS)
    mean = float(values.mean())
    error = _compute_error(values - mean, units, min_units=0)
    return _build_estimate(mean, error, len(values), MEAN_METHOD)


def compute_limits(differences: Floats, units: Ints) -> tuple[Estimate, Estimate]:
    """Return the lower and upper limit of agreement: 95 % of normal differences lie between.

    Arguments as for `compute_mean_estimate`.

    Source: Bland and Altman, Lancet 327 (1986) 307.
    """
    n = len(differences)
    if n < 2:
        nothing = Estimate(None, None, None, n, NO_PAIRS)
        return nothing, nothing
    gaps = differences - differences.mean()
    deviation = sqrt(float(np.sum(gaps**2)) / (n - 1))
    lower, upper = (
        _compute_limit(float(differences.mean()), gaps, deviation * sign, units)
        for sign in (-1.0, 1.0)
    )
    return lower, upper


def _compute_limit(mean: float, gaps: Floats, signed_deviation: float, units: Ints) -> Estimate:
    limit = mean + NORMAL_QUANTILE * signed_deviation
    if abs(signed_deviation) <= ROUNDING * abs(mean):
        return Estimate(mean, None, None, len(gaps), SAME_GAP)
    spread = (gaps**2 - signed_deviation**2) / (2 * signed_deviation)
    error = _compute_error(gaps + NORMAL_QUANTILE * spread, units, min_units=MIN_UNITS)
    return _build_estimate(limit, error, len(gaps), LIMIT_METHOD + error.caution)


def compute_concordance(human: Floats, model: Floats, units: Ints) -> Estimate:
    """Return Lin's concordance: 1 if all pairs are equal, 0 if unrelated.

    Unlike a correlation it falls with a bias, and with another scale.

    Source: Lin, Biometrics 45 (1989) 255; King and Chinchilli, Statistics in Medicine 20 (2001)
    2131, for the interval.
    """
    n = len(human)
    if not n:
        return Estimate(None, None, None, 0, NO_PAIRS)
    centre = float(human.mean())
    x, y = human - centre, model - centre
    bias = float(y.mean())
    y_gaps = y - bias
    covariance = float(np.mean(x * y_gaps))
    total = float(np.mean(x**2) + np.mean(y_gaps**2)) + bias**2
    if total <= (ROUNDING * centre) ** 2:
        return Estimate(None, None, None, n, ONE_NUMBER)
    value = 2 * covariance / total
    if not x.any() or not y_gaps.any():
        return Estimate(value, None, None, n, CONSTANT_SIDE)
    if 1 - abs(value) <= ROUNDING:
        return Estimate(value, None, None, n, SAME_GAP)
    total_influence = x**2 + y_gaps**2 + bias**2 + 2 * bias * (y_gaps - x) - total
    influence = (2 * (x * y_gaps - covariance) - value * total_influence) / total
    error = _compute_error(influence, units, min_units=MIN_UNITS)
    if error.half_width is None:
        return Estimate(value, None, None, n, error.refusal)
    half_width = error.half_width / (1 - value**2)
    ends = tanh(atanh(value) - half_width), tanh(atanh(value) + half_width)
    return Estimate(value, *ends, n, CONCORDANCE_METHOD + error.caution)


@dataclass(frozen=True, slots=True)
class _SamplingError:
    """Half the width of a 95 % interval, or why there is none.

    `caution` is how the coverage falls short with few units; empty if it doesn't.
    """

    half_width: float | None
    refusal: str = ""
    caution: str = ""


def _compute_error(influence: Floats, units: Ints, *, min_units: int) -> _SamplingError:
    """Return the sampling error of a figure from the influence of each case, of mean 0."""
    sizes = np.bincount(units)
    sizes = sizes[sizes > 0].astype(float)
    count = len(sizes)
    freedom = float(np.sum(sizes**2) ** 2 / np.sum(sizes**4)) - 1
    if count < min_units or freedom < MIN_FREEDOM:
        uneven = "" if count < max(min_units, MIN_FREEDOM) else ", of which a few hold most cases"
        return _SamplingError(None, f"too few units ({count}{uneven})")
    sums = np.bincount(units, influence)
    deviation = sqrt(count / (count - 1) * float(np.sum(sums**2))) / len(influence)
    half_width = float(scipy.special.stdtrit(freedom, UPPER_QUANTILE)) * deviation
    return _SamplingError(half_width, caution=FEW_UNITS if count < MANY_UNITS else "")


def _build_estimate(value: float, error: _SamplingError, n: int, method: str) -> Estimate:
    if error.half_width is None:
        return Estimate(value, None, None, n, error.refusal)
    return Estimate(value, value - error.half_width, value + error.half_width, n, method)
