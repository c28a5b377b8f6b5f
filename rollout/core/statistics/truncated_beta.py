"""The mixture behind every share's e-value: Beta(½, ½) over the rates above a threshold.

`E(s, f) = ∫ (p/p0)^s ((1−p)/(1−p0))^f dW(p)`, where W is Beta(½, ½) cut to (p0, 1]. Written with
beta functions it cancels terms of size n against each other, which at a billion records leaves an
error of 1e-6 and lets E fall when one more record agrees. So it is computed here from pieces that
do not cancel: the deviance of the counts from the threshold, Stirling remainders, and one tail.

Source: Robbins, Ann. Math. Statist. 41 (1970) 1397; the deviance form is Loader's (2000); the
continued fraction of the tail is Didonato and Morris, ACM TOMS 18 (1992) 360.

`scipy.special` is always written out: SciPy then loads it at the first use, which saves 25 MiB in
a service that evaluates no gate. `from scipy.special import …` would load it at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rollout.core.late_modules import LateModule

if TYPE_CHECKING:
    import numpy as np
    import scipy
    from numpy.typing import ArrayLike, NDArray
else:
    np = LateModule("numpy")
    scipy = LateModule("scipy")

Floats: TypeAlias = "NDArray[np.float64]"

# From here on a Stirling series of five terms is exact in double precision.
_SERIES_FROM = 16.0
# Coefficients of 1/n, 1/n³, … in ln Γ(n+1) and in ln Γ(n+½).
_FACTORIAL_TERMS = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
_HALF_TERMS = (-1 / 24, 7 / 2880, -31 / 40320, 127 / 215040, -511 / 608256)

# From this many standard deviations below the threshold on, the tail is its continued fraction;
# this many terms are then enough for any counts (measured: at most 35 up to 2e9 records).
_FAR_BELOW = 4.0
_FRACTION_TERMS = 40


def compute_log_mixture(
    agreed: ArrayLike,
    disagreed: ArrayLike,
    *,
    threshold: ArrayLike,
    normalizer: Floats | None = None,
) -> Floats:
    """Return the log of the mixture E(agreed, disagreed; p0), elementwise.

    Args:
        agreed: counts ≥ 0, any shape.
        disagreed: counts ≥ 0, broadcast against `agreed`.
        threshold: p0 in the open interval (0, 1), broadcast too.
        normalizer: of the counts, where the caller tries many thresholds for the same ones.

    Returns:
        Finite float64; 0 without records. Relative error below 1e-10 up to 1e9 counts. Rises with
        `agreed`; never falls, even where the true step is below the last digit.
    """
    s, f, p = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(x, float)) for x in (agreed, disagreed, threshold))
    )
    n, q = s + f, 1.0 - p
    is_far_below = f * p - s * q > _FAR_BELOW * np.sqrt(n * p * q)
    log_e = np.zeros(n.shape)
    is_near = ~is_far_below
    if is_near.any():  # one count is in one part, and no values cost as much as one value
        near = s[is_near], f[is_near]
        remainders = compute_normalizer(*near) if normalizer is None else normalizer[is_near]
        log_e[is_near] = _compute_near_threshold(*near, p[is_near], remainders)
    if is_far_below.any():
        log_e[is_far_below] = _compute_far_below(s[is_far_below], f[is_far_below], p[is_far_below])
    log_e -= np.log(2.0 * np.arctan2(np.sqrt(q), np.sqrt(p)))  # the weight of (p0, 1] itself
    return np.where(n > 0, log_e, 0.0)


def compute_normalizer(s: Floats, f: Floats) -> Floats:
    """Return the Stirling remainders of counts, which no threshold changes."""
    factorial_remainder = compute_factorial_remainder(s + f)
    return compute_half_remainder(s) + compute_half_remainder(f) - factorial_remainder


def _compute_near_threshold(s: Floats, f: Floats, p: Floats, normalizer: Floats) -> Floats:
    """Return the log of the tail integral, not far below the threshold.

    The integral is ∫ t^(s−½) (1−t)^(f−½) dt over (p, 1], over p^s (1−p)^f.
    """
    n, excess = s + f, s * (1.0 - p) - f * p
    tail = np.log(scipy.special.betaincc(s + 0.5, f + 0.5, p))
    return (
        compute_deviance(s, n * p, excess)
        + compute_deviance(f, n * (1.0 - p), -excess)
        + normalizer
        + tail
    )


def _compute_far_below(s: Floats, f: Floats, p: Floats) -> Floats:
    """Return the log of the same integral if its tail may underflow."""
    q = 1.0 - p
    a, b = f + 0.5, s + 0.5
    m = np.arange(_FRACTION_TERMS + 1.0)[:, None]
    numerators = (a + m - 1) * (a + b + m - 1) * m * (b - m) * (q / (a + 2 * m - 1)) ** 2
    denominators = m + m * (b - m) * q / (a + 2 * m - 1)
    denominators += (a + m) * (a * p - b * q + 1 + m * (1 + p)) / (a + 2 * m + 1)
    fraction = np.zeros(s.shape)
    for term in range(_FRACTION_TERMS, 0, -1):
        fraction = numerators[term] / (denominators[term] + fraction)
    return np.asarray(0.5 * (np.log(p) + np.log(q)) - np.log(denominators[0] + fraction))


def compute_deviance(count: Floats, expected: Floats, excess: Floats) -> Floats:
    """Return `count·ln(count/expected) − excess`.

    `excess` is count − expected without rounding. The ratio is held finite, so that a threshold of
    1e-320 gives a finite, smaller and so safe value.
    """
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        ratio = np.where(expected > 0, np.minimum(excess / expected, 1e300), 0.0)
    return np.asarray(scipy.special.xlog1py(count, ratio) - excess)


def compute_factorial_remainder(n: Floats) -> Floats:
    """Return `ln n! − (n ln n − n)`; 0 for n = 0."""
    large = np.maximum(n, _SERIES_FROM)
    series = 0.5 * np.log(2 * np.pi * large) + _compute_odd_series(large, _FACTORIAL_TERMS)
    return _replace_small(n, series, 1.0)


def compute_half_remainder(n: Floats) -> Floats:
    """Return `ln Γ(n+½) − (n ln n − n)`; ½ ln π for n = 0."""
    large = np.maximum(n, _SERIES_FROM)
    series = 0.5 * np.log(2 * np.pi) + _compute_odd_series(large, _HALF_TERMS)
    return _replace_small(n, series, 0.5)


def _replace_small(n: Floats, series: Floats, offset: float) -> Floats:
    """Return the series with `ln Γ(n + offset) − (n ln n − n)` by its definition for small n."""
    remainder, counts = np.array(series), np.asarray(n)  # sums of single counts are no arrays
    is_small = counts < _SERIES_FROM
    if is_small.any():
        small = counts[is_small]
        gamma = scipy.special.gammaln(small + offset)
        remainder[is_small] = gamma - scipy.special.xlogy(small, small) + small
    return remainder


def _compute_odd_series(n: Floats, terms: tuple[float, ...]) -> Floats:
    square = 1.0 / (n * n)
    total = np.zeros(n.shape)
    for coefficient in reversed(terms):
        total = total * square + coefficient
    return total / n
