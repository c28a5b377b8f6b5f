"""E-values and bounds from counts, for gates and reports.

An e-value is what a bet against "the share is below the threshold" would be worth by now, from a
stake of 1. The chance that it ever reaches 1/risk although the threshold is not reached is at most
the risk (Ville), however often it is looked at. All logarithms are natural. The functions take
counts, because the order of the records does not matter.

Every share's e-value is a mixture over the rates above the threshold:
`E(s, f) = ∫ (p/p0)^s ((1−p)/(1−p0))^f dW(p)`, where W is Beta(½, ½) cut to (p0, 1]. Written with
beta functions it cancels terms of size n against each other, which at a billion records leaves an
error of 1e-6 and lets E fall when one more record agrees. So it is computed here from pieces that
do not cancel: the deviance of the counts from the threshold, Stirling remainders, and one tail.

Sources: Ville 1939; Howard, Ramdas, McAuliffe, Sekhon 2021; Waudby-Smith and Ramdas 2024. The
mixture: Robbins, Ann. Math. Statist. 41 (1970) 1397; the deviance form is Loader's (2000); the
continued fraction of the tail is Didonato and Morris, ACM TOMS 18 (1992) 360.

`scipy.special` is always written out: SciPy then loads it at the first use, which saves 25 MiB in
a service that evaluates no gate. `from scipy.special import …` would load it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from math import log
from typing import TYPE_CHECKING

from rollout.kernel.arrays import Floats, Ints, np, scipy
from rollout.kernel.measures import Condition, Statistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from rollout.kernel.policy.gates import ConditionReading
    from rollout.kernel.policy.policy import Policy


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


# Concentrations of the Dirichlet mixture of a change in the action mix.
_CONCENTRATIONS = (4.0, 40.0, 400.0, 4000.0)

# Bounds are searched as log-odds; beyond these the rates round to 0 and 1.
_MIN_LOG_ODDS, _MAX_LOG_ODDS = -708.0, 36.7


def compute_log_e(agreed: int, disagreed: int, *, at_least: float) -> float:
    """Return the log e-value against "the share of agreement is below p0".

    Args:
        agreed: records in agreement, ≥ 0.
        disagreed: all others, ≥ 0; the caller adds missing units by its policy.
        at_least: the threshold p0, in the open interval (0, 1).

    Returns:
        A finite number, rising in `agreed`; 0.0 without records. A gate of risk α is met from
        ln(1/α) on.

    Raises:
        ValueError: a count is negative or no whole number, or the threshold lies outside (0, 1).

    >>> round(compute_log_e(245, 3, at_least=0.95), 9)
    4.271300069
    """
    _check_counts(agreed=agreed, disagreed=disagreed)
    check_inside_unit(at_least=at_least)
    return float(compute_log_mixture(agreed, disagreed, threshold=at_least)[0])


def compute_lower_bound(agreed: int, disagreed: int, *, alpha: float) -> float:
    """Return a lower bound on the share of agreement, valid at every look.

    Args:
        agreed: records in agreement, ≥ 0.
        disagreed: all others, ≥ 0.
        alpha: chance of ever overstating the share, in the open interval (0, 1).

    Returns:
        A share in [0, 1): the threshold at which `compute_log_e` is ln(1/alpha). 0.0 without
        agreement.

    Raises:
        ValueError: a count is negative or no whole number, or `alpha` lies outside (0, 1).

    >>> round(compute_lower_bound(98, 2, alpha=0.05), 9)
    0.914382957
    """
    _check_counts(agreed=agreed, disagreed=disagreed)
    return float(compute_lower_bounds([agreed], [disagreed], alpha=alpha)[0])


def compute_lower_bounds(agreed: ArrayLike, disagreed: ArrayLike, *, alpha: float) -> Floats:
    """Return the lower bounds of many cells at once.

    Counts of shape (n,) give shares of shape (n,). Newton's steps on the log-odds, in which log E
    is nearly linear, stay in a shrinking bracket.

    Raises:
        ValueError: `alpha` lies outside the open interval (0, 1), or a count is negative.
    """
    check_inside_unit(alpha=alpha)
    s, f = np.asarray(agreed, float), np.asarray(disagreed, float)
    _check_counts(agreed=s.min(initial=0), disagreed=f.min(initial=0))
    if s.size == 1:
        return np.full(s.shape, _compute_bound(s.item(), f.item(), -log(alpha)))
    has_agreements = s > 0
    bounds = np.zeros(s.shape)
    bounds[has_agreements] = _find_crossings(s[has_agreements], f[has_agreements], -log(alpha))
    return bounds


@lru_cache(maxsize=65_536)
def _compute_bound(s: float, f: float, required_log_e: float) -> float:
    """Return one bound, cached because cells repeat counts."""
    return _find_crossings(np.array([s]), np.array([f]), required_log_e).item() if s > 0 else 0.0


def _find_crossings(s: Floats, f: Floats, required_log_e: float) -> Floats:
    """Return the threshold at which log E(s, f) falls to `required_log_e`.

    `s` is above 0.
    """
    n = s + f
    low = np.full(s.shape, _MIN_LOG_ODDS)
    high = np.minimum(scipy.special.logit(s / n), _MAX_LOG_ODDS)
    odds = np.clip(_guess_log_odds(s, n, required_log_e), low, high)
    normalizer = compute_normalizer(s, f)
    for _ in range(200):
        threshold = scipy.special.expit(odds)
        log_e = compute_log_mixture(s, f, threshold=threshold, normalizer=normalizer)
        excess = log_e - required_log_e
        low, high = np.where(excess >= 0, odds, low), np.where(excess < 0, odds, high)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            step = odds - excess / _compute_slope(s, f, threshold, excess + required_log_e)
        odds = np.where((step >= low) & (step <= high), step, (low + high) / 2)
        if np.all(np.abs(scipy.special.expit(odds) - threshold) <= 1e-14 * threshold + 1e-15):
            break
    return scipy.special.expit(odds)


def _guess_log_odds(s: Floats, n: Floats, required_log_e: float) -> Floats:
    """Return a guess of the crossing, by the normal law if it applies.

    Otherwise by the law of a few agreements.
    """
    centre = (s + 0.5) / (n + 1)
    spread = np.sqrt(2 * centre * (1 - centre) / n * (required_log_e + np.log1p(n) / 2))
    small_sample_guess = log(0.5) + np.log(s / n) - required_log_e / s
    return np.where(
        centre > spread,
        scipy.special.logit(np.maximum(centre - spread, 1e-300)),
        small_sample_guess,
    )


def _compute_slope(s: Floats, f: Floats, threshold: Floats, log_e: Floats) -> Floats:
    """Return the derivative of log E by the log-odds of the threshold."""
    good, bad = np.sqrt(threshold), np.sqrt(1 - threshold)
    edge = good * bad / (2 * np.arctan2(bad, good))
    return np.asarray(f * threshold - s * (1 - threshold) - edge * np.expm1(-log_e))


def count_further_agreements(agreed: int, disagreed: int, *, at_least: float, alpha: float) -> int:
    """Return the records still needed if all of them agree.

    Args:
        agreed: records in agreement so far, ≥ 0.
        disagreed: all others, ≥ 0.
        at_least: the threshold p0, in the open interval (0, 1).
        alpha: the gate's risk, in the open interval (0, 1).

    Returns:
        The least k ≥ 0 with E(agreed + k, disagreed) ≥ 1/alpha; 0 if the gate is met already.

    Raises:
        ValueError: a count, the threshold or the risk lies outside its range.

    >>> count_further_agreements(0, 0, at_least=0.95, alpha=0.05)
    74
    """
    check_inside_unit(alpha=alpha)
    return _count_further(agreed, disagreed, at_least, alpha)


@lru_cache(maxsize=65_536)
def _count_further(agreed: int, disagreed: int, at_least: float, alpha: float) -> int:
    def is_enough(extra: int) -> bool:
        return compute_log_e(agreed + extra, disagreed, at_least=at_least) >= -log(alpha)

    too_few, enough = -1, 0
    while not is_enough(enough):
        too_few, enough = enough, 2 * enough + 1
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_enough(middle) else (middle, enough)
    return enough


def compute_cost_log_e(levels: Sequence[float], counts: Sequence[int], *, at_most: float) -> float:
    """Return the log e-value against "the mean cost is c0 or more".

    Args:
        levels: distinct costs as shares of the largest possible one, in [0, 1].
        counts: records at each level, ≥ 0, as many as levels.
        at_most: the threshold c0 on the same scale, in the open interval (0, 1).

    Returns:
        A finite number; 0.0 without records.

    Raises:
        ValueError: a level, a count or the threshold lies outside its range, or lengths differ.

    >>> round(compute_cost_log_e([0, 0.1, 0.3, 1], [180, 6, 3, 1], at_most=0.05), 9)
    4.110334237
    """
    check_levels("levels", levels, counts)
    gains = compute_cost_gains(levels, at_most=at_most)
    return float(compute_log_mean_bets(gains, np.asarray(counts, float)))


def compute_paired_log_e(model_only: int, human_only: int) -> float:
    """Return the log e-value against "model and humans act equally often".

    Both decide the same cases blind.

    Args:
        model_only: cases in which the model would act and the human did not, ≥ 0.
        human_only: the reverse, ≥ 0.

    Returns:
        A finite number, the same for exchanged counts; 0.0 without such cases.

    Raises:
        ValueError: a count is negative or no whole number.

    >>> round(compute_paired_log_e(40, 20), 9)
    1.785624583
    """
    _check_counts(model_only=model_only, human_only=human_only)
    b, c = np.array(float(model_only)), np.array(float(human_only))
    # ln B(2+b, 2+c) − ln B(2,2) + n ln 2, with b!c!/n! by remainders: large terms never cancel
    choices = (
        compute_factorial_remainder(b)
        + compute_factorial_remainder(c)
        - compute_factorial_remainder(b + c)
    )
    half, half_difference = (b + c) / 2, (b - c) / 2
    deviance_sum = compute_deviance(b, half, half_difference) + compute_deviance(
        c, half, -half_difference
    )
    edges = np.log1p(b) + np.log1p(c) - np.sum(np.log1p(b + c + np.arange(3.0))) + log(6)
    return float(choices + deviance_sum + edges)


def compute_action_mix_log_e(counts: Sequence[int], baseline: Sequence[float]) -> float:
    """Return the log e-value against "the action shares equal the baseline's".

    For reports only.

    Args:
        counts: how often each action was taken, ≥ 0.
        baseline: the manual process's share of each, above 0, in the same order; their sum is 1.

    Returns:
        A finite number; 0.0 without records.

    Raises:
        ValueError: a count or share lies outside its range, or lengths differ.

    >>> round(compute_action_mix_log_e((660, 240, 90, 10), (0.7, 0.2, 0.09, 0.01)), 9)
    0.648715811
    """
    _check_counts(**{f"counts[{i}]": n for i, n in enumerate(counts)})
    if len(counts) != len(baseline) or not all(share > 0 for share in baseline):
        raise ValueError(f"baseline is {list(baseline)}; give a share above 0 for each count")
    if not abs(sum(baseline) - 1) < 1e-6:
        raise ValueError(f"baseline adds up to {sum(baseline)}; its shares must add up to 1")
    n, q = np.asarray(counts, float), np.asarray(baseline, float)
    concentrations = np.array(_CONCENTRATIONS)
    prior = concentrations[:, None] * q
    gammaln = scipy.special.gammaln
    total_term = gammaln(concentrations) - gammaln(n.sum() + concentrations)
    mixture_terms = np.sum(gammaln(n + prior) - gammaln(prior) - scipy.special.xlogy(n, q), axis=1)
    return float(np.logaddexp.reduce(total_term + mixture_terms) - log(len(_CONCENTRATIONS)))


def compute_cost_gains(levels: Sequence[float], *, at_most: float) -> Floats:
    """Return the win of a whole bet on each cost level, per stake.

    Raises:
        ValueError: the threshold lies outside the open interval (0, 1).
    """
    check_inside_unit(at_most=at_most)
    return (at_most - np.asarray(levels, float)) / (1 - at_most)


@cache
def get_bets() -> Floats:
    """Return the bets on a bounded mean, θ_k = 1 − ((k+½)/32)².

    Most of them are near 1, where good records pay most.
    """
    return 1.0 - ((np.arange(32) + 0.5) / 32) ** 2


def compute_log_mean_bets(gains: Floats, counts: Floats) -> Floats:
    """Return the log of the mean over the bets of Π (1 + θ gain)^count.

    Args:
        gains: float64, shape (levels,), each ≥ −1.
        counts: float64, shape (…, levels).

    Returns:
        float64, shape (…).
    """
    logs = counts @ np.log1p(np.outer(gains, get_bets()))
    best = logs.max(axis=-1)
    return np.asarray(best + np.log(np.mean(np.exp(logs - best[..., None]), axis=-1)))


def check_inside_unit(**values: float) -> None:
    """Raise ValueError for the first argument outside the open interval (0, 1)."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}; give a number between 0 and 1, both excluded")


def _check_counts(**values: float) -> None:
    """Raise ValueError for the first argument that is no whole number ≥ 0."""
    for name, value in values.items():
        if not (value >= 0 and value == value // 1):
            raise ValueError(f"{name} is {value}; give a whole number of records, 0 or more")


def check_levels(name: str, levels: Sequence[float], counts: Sequence[int]) -> None:
    """Raise ValueError unless levels lie in [0, 1] and have counts ≥ 0."""
    if len(levels) != len(counts):
        raise ValueError(f"{name} has {len(levels)} entries and counts {len(counts)}; give as many")
    for level in levels:
        if not 0 <= level <= 1:
            raise ValueError(f"{name} has {level}; scale costs to [0, 1] by the largest possible")
    _check_counts(**{f"counts[{i}]": n for i, n in enumerate(counts)})


BISECTION_STEPS = 50


@dataclass(frozen=True, slots=True)
class ConditionEvidence:
    """One condition evaluated on counts.

    Attributes:
        counts: agreeing and disagreeing; one per cost level; or of a gain
            the units by the model, by people and without outcome.
        estimate: plain share or mean cost, None without records.
        bound: bound valid at every look; None for renewals and without records.
        is_met: whether the condition is met at its risk.
    """

    condition: Condition
    counts: tuple[int, ...]
    estimate: float | None
    bound: float | None
    is_met: bool

    @property
    def count(self) -> int:
        """Return the number of records."""
        return sum(self.counts)


def compute_bounds(condition: Condition, counts: Ints, risk: float, policy: Policy) -> Floats:
    """Return the bound that meets the condition's threshold exactly when the gate does.

    Args:
        condition: a condition of a gate.
        counts: cumulated counts as in the gate, shape (looks, width).
        risk: of the gate in its attempt.
        policy: gives the cost levels.

    Returns:
        Shape (looks,), in the measure's unit.
    """
    if condition.measure.statistic is Statistic.MEAN:
        return policy.largest_cost * compute_cost_bounds(counts, policy.cost_shares, alpha=risk)
    shares = compute_lower_bounds(counts[:, 0], counts[:, 1], alpha=risk)
    return condition.measure.from_share(shares)


def build_condition_evidence(reading: ConditionReading, policy: Policy) -> ConditionEvidence:
    """Return a condition with what its counts say."""
    condition, counts = reading.condition, reading.counts
    if (gain := reading.gain) is not None:
        return ConditionEvidence(condition, gain.counts, gain.estimate, gain.bound, gain.is_met)
    rows, n = np.array([counts], dtype=np.int64), sum(counts)
    has_bound = n > 0 and reading.risk < 1  # a renewal has none
    return ConditionEvidence(
        condition=condition,
        counts=counts,
        estimate=float(compute_estimates(condition, rows, policy)[0]) if n else None,
        bound=float(compute_bounds(condition, rows, reading.risk, policy)[0])
        if has_bound
        else None,
        is_met=reading.is_met,
    )


def compute_estimates(condition: Condition, counts: Ints, policy: Policy) -> Floats:
    """Return the plain share or mean cost at each look, NaN without records."""
    n = counts.sum(axis=1)
    is_mean = condition.measure.statistic is Statistic.MEAN
    total = counts @ np.array(policy.cost_levels) if is_mean else counts[:, 0].astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.asarray(np.where(n > 0, total / n, np.nan))
    return values if is_mean else condition.measure.from_share(values)


def compute_cost_bounds(counts: Ints, levels: Sequence[float], *, alpha: float) -> Floats:
    """Return the upper bound of a mean cost, valid at every look.

    It is the threshold at which the log e-value reaches ln(1/alpha). The gain of each bet grows
    with the threshold, so there is exactly one. The bound is wrong with a chance of at most alpha.

    Args:
        counts: records at each level, shape (looks, levels).
        levels: costs as shares of the largest, in [0, 1].
        alpha: in the open interval (0, 1).

    Returns:
        Shape (looks,), in [0, 1]; 1 without records.
    """
    low, high = np.zeros(len(counts)), np.ones(len(counts))
    for _ in range(BISECTION_STEPS):
        threshold = (low + high) / 2
        is_met = _compute_log_e(counts, np.asarray(levels, float), threshold) >= -np.log(alpha)
        low, high = np.where(is_met, low, threshold), np.where(is_met, threshold, high)
    return high


def _compute_log_e(counts: Ints, levels: Floats, threshold: Floats) -> Floats:
    """Return the log e-value of each row of counts at its own threshold."""
    gains = (threshold[:, None] - levels) / (1 - threshold[:, None])
    logs = np.einsum("nl,nlk->nk", counts, np.log1p(gains[:, :, None] * get_bets()))
    largest = logs.max(axis=1)
    return np.asarray(largest + np.log(np.mean(np.exp(logs - largest[:, None]), axis=1)))
