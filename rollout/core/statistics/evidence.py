"""E-values, lower bounds and forecasts from counts: what gates weigh and reports show.

An e-value is the money that a bet against "the line is not reached" would have made by now, from 1.
The chance that it ever reaches 1/risk although the line is not reached is at most the risk (Ville),
however often anybody looks. All logarithms are natural. Each function takes counts alone, so a
tally is enough and the order of the records does not matter.

Sources: Ville 1939; Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021; Waudby-Smith and
Ramdas 2024.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import log
from typing import TypeAlias

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from rollout.core.statistics.truncated_beta import deviance, factorial_remainder, log_mixture

Floats: TypeAlias = NDArray[np.float64]

# Bets on a bounded mean: θ_k = 1 − ((k+½)/32)², most of them near 1, where good records pay most.
BETS: Floats = 1.0 - ((np.arange(32) + 0.5) / 32) ** 2

# Concentrations of the Dirichlet mixture that a change of the action mix is weighed by.
_CONCENTRATIONS = np.array([4.0, 40.0, 400.0, 4000.0])

# Bounds are sought as log-odds; the ends are the last doubles whose rates differ from 0 and 1.
_LEAST_LOG_ODDS, _MOST_LOG_ODDS = -708.0, 36.7


def log_e_value(agreed: int, disagreed: int, *, at_least: float) -> float:
    """Log e-value against "the share of agreement is below the line".

    Args:
        agreed: records in agreement, ≥ 0.
        disagreed: all others, ≥ 0; missing units are counted here by the caller's policy.
        at_least: the line p0, in the open interval (0, 1).

    Returns:
        A finite number, rising in `agreed`; 0.0 without records. The gate of risk α is met from
        ln(1/α) on.

    Raises:
        ValueError: a count is negative or no whole number, or the line lies outside (0, 1).

    >>> round(log_e_value(245, 3, at_least=0.95), 9)
    4.271300069
    """
    _check_counts(agreed=agreed, disagreed=disagreed)
    check_inside_unit(at_least=at_least)
    return float(log_mixture(agreed, disagreed, line=at_least)[0])


def lower_bound(agreed: int, disagreed: int, *, alpha: float) -> float:
    """Lower bound on the share of agreement that holds at every look, except with chance alpha.

    Args:
        agreed: records in agreement, ≥ 0.
        disagreed: all others, ≥ 0.
        alpha: chance of ever overstating the share, in the open interval (0, 1).

    Returns:
        A share in [0, 1): the line at which `log_e_value` is ln(1/alpha). 0.0 without agreement.

    Raises:
        ValueError: a count is negative or no whole number, or `alpha` lies outside (0, 1).

    >>> round(lower_bound(98, 2, alpha=0.05), 9)
    0.914382957
    """
    _check_counts(agreed=agreed, disagreed=disagreed)
    return float(lower_bounds([agreed], [disagreed], alpha=alpha)[0])


def lower_bounds(agreed: ArrayLike, disagreed: ArrayLike, *, alpha: float) -> Floats:
    """Lower bounds of many cells at once: counts of shape (n,) give shares of shape (n,).

    Newton's steps on the log-odds, where log E is all but straight, held in a shrinking bracket.

    Raises:
        ValueError: `alpha` lies outside the open interval (0, 1), or a count is negative.
    """
    check_inside_unit(alpha=alpha)
    s, f = np.asarray(agreed, float), np.asarray(disagreed, float)
    _check_counts(agreed=s.min(initial=0), disagreed=f.min(initial=0))
    if s.size == 1:
        return np.full(s.shape, _bound(s.item(), f.item(), -log(alpha)))
    has_agreements = s > 0
    bounds = np.zeros(s.shape)
    bounds[has_agreements] = _crossings(s[has_agreements], f[has_agreements], -log(alpha))
    return bounds


@lru_cache(maxsize=65_536)
def _bound(s: float, f: float, log_threshold: float) -> float:
    """Return one bound: whoever looks at a cell twice asks for the same counts again."""
    return _crossings(np.array([s]), np.array([f]), log_threshold).item() if s > 0 else 0.0


def _crossings(s: Floats, f: Floats, log_threshold: float) -> Floats:
    """Return the line at which log E(s, f) falls to the threshold; s > 0."""
    n = s + f
    low = np.full(s.shape, _LEAST_LOG_ODDS)
    high = np.minimum(scipy.special.logit(s / n), _MOST_LOG_ODDS)
    odds = np.clip(_log_odds_guess(s, n, log_threshold), low, high)
    for _ in range(200):
        threshold = scipy.special.expit(odds)
        excess = log_mixture(s, f, line=threshold) - log_threshold
        low, high = np.where(excess >= 0, odds, low), np.where(excess < 0, odds, high)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            step = odds - excess / _slope(s, f, threshold, excess + log_threshold)
        odds = np.where((step >= low) & (step <= high), step, (low + high) / 2)
        if np.all(np.abs(scipy.special.expit(odds) - threshold) <= 1e-14 * threshold + 1e-15):
            break
    return scipy.special.expit(odds)


def _log_odds_guess(s: Floats, n: Floats, log_threshold: float) -> Floats:
    """Guess the crossing: by the normal law, or by that of a few agreements if this gives none."""
    centre = (s + 0.5) / (n + 1)
    spread = np.sqrt(2 * centre * (1 - centre) / n * (log_threshold + np.log1p(n) / 2))
    small_sample_guess = log(0.5) + np.log(s / n) - log_threshold / s
    return np.where(
        centre > spread,
        scipy.special.logit(np.maximum(centre - spread, 1e-300)),
        small_sample_guess,
    )


def _slope(s: Floats, f: Floats, line: Floats, log_e: Floats) -> Floats:
    """Return the change of log E with the log-odds of the line."""
    good, bad = np.sqrt(line), np.sqrt(1 - line)
    edge = good * bad / (2 * np.arctan2(bad, good))
    return np.asarray(f * line - s * (1 - line) - edge * np.expm1(-log_e))


def further_agreements(agreed: int, disagreed: int, *, at_least: float, alpha: float) -> int:
    """Count the records that are still needed if all of them agree.

    Args:
        agreed: records in agreement so far, ≥ 0.
        disagreed: all others, ≥ 0.
        at_least: the line p0, in the open interval (0, 1).
        alpha: the gate's risk, in the open interval (0, 1).

    Returns:
        The least k ≥ 0 with E(agreed + k, disagreed) ≥ 1/alpha; 0 if the gate is met already.

    Raises:
        ValueError: a count, the line or the risk lies outside its range.

    >>> further_agreements(0, 0, at_least=0.95, alpha=0.05)
    74
    """
    check_inside_unit(alpha=alpha)
    return _further(agreed, disagreed, at_least, alpha)


@lru_cache(maxsize=65_536)
def _further(agreed: int, disagreed: int, at_least: float, alpha: float) -> int:
    def met(further: int) -> bool:
        return log_e_value(agreed + further, disagreed, at_least=at_least) >= -log(alpha)

    too_few, enough = -1, 0
    while not met(enough):
        too_few, enough = enough, 2 * enough + 1
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if met(middle) else (middle, enough)
    return enough


def log_e_cost(levels: Sequence[float], counts: Sequence[int], *, at_most: float) -> float:
    """Log e-value against "the mean cost is the line or more".

    Args:
        levels: distinct costs as shares of the largest possible one, in [0, 1].
        counts: records at each level, ≥ 0, as many as levels.
        at_most: the line c0 on the same scale, in the open interval (0, 1).

    Returns:
        A finite number; 0.0 without records.

    Raises:
        ValueError: a level, a count or the line lies outside its range, or lengths differ.

    >>> round(log_e_cost([0, 0.1, 0.3, 1], [180, 6, 3, 1], at_most=0.05), 9)
    4.110334237
    """
    check_levels("levels", levels, counts)
    gains = cost_gains(levels, at_most=at_most)
    return float(log_mean_bets(gains, np.asarray(counts, float)))


def log_e_audited(
    without_error: int, errors: Mapping[float, int], *, at_most: float, least_share: float
) -> float:
    """Log e-value against "the share of errors among all cases is the line or more", by audits.

    An error that was audited with probability π stands for 1/π errors; every other case, audited
    or not, for none. So cases of different audit shares may be mixed without bias.

    Args:
        without_error: cases in which no error was found, those not audited included, ≥ 0.
        errors: errors found, by the audit probability of their cases.
        at_most: the line ε0, in the open interval (0, 1).
        least_share: the policy's least audit probability (not the least seen), in (0, 1].

    Returns:
        A finite number; 0.0 without cases.

    Raises:
        ValueError: a count or share lies outside its range, or a probability in `errors` below
            `least_share`.

    >>> round(log_e_audited(250, {}, at_most=0.05, least_share=0.2), 9)
    1.907112145
    """
    check_inside_unit(at_most=at_most)
    _check_counts(
        without_error=without_error, **{f"errors[{share}]": n for share, n in errors.items()}
    )
    if not 0 < least_share <= 1:
        raise ValueError(f"least_share is {least_share}; give a probability in (0, 1]")
    if any(not least_share <= share <= 1 for share in errors):
        raise ValueError(f"errors has probabilities {list(errors)}; give {least_share} … 1")
    weighted_errors = np.array([0.0, *(1 / share for share in errors)])
    gains = (at_most - weighted_errors) / (1 / least_share - at_most)
    return float(log_mean_bets(gains, np.array([without_error, *errors.values()], float)))


def log_e_paired(model_only: int, human_only: int) -> float:
    """Log e-value against "model and people act equally often", from the same blind cases.

    Args:
        model_only: cases in which the model would act and the person did not, ≥ 0.
        human_only: the reverse, ≥ 0.

    Returns:
        A finite number, the same for exchanged counts; 0.0 without such cases.

    Raises:
        ValueError: a count is negative or no whole number.

    >>> round(log_e_paired(40, 20), 9)
    1.785624583
    """
    _check_counts(model_only=model_only, human_only=human_only)
    b, c = np.array(float(model_only)), np.array(float(human_only))
    # ln B(2+b, 2+c) − ln B(2,2) + n ln 2, with b!c!/n! by remainders: large terms never cancel
    choices = factorial_remainder(b) + factorial_remainder(c) - factorial_remainder(b + c)
    half, half_difference = (b + c) / 2, (b - c) / 2
    deviance_sum = deviance(b, half, half_difference) + deviance(c, half, -half_difference)
    edges = np.log1p(b) + np.log1p(c) - np.sum(np.log1p(b + c + np.arange(3.0))) + log(6)
    return float(choices + deviance_sum + edges)


def log_e_mix(counts: Sequence[int], baseline: Sequence[float]) -> float:
    """Log e-value against "actions are still taken in the baseline's shares"; for reports only.

    Args:
        counts: how often each action was taken, ≥ 0.
        baseline: the manual process's share of each, above 0, in the same order; their sum is 1.

    Returns:
        A finite number; 0.0 without records.

    Raises:
        ValueError: a count or share lies outside its range, or lengths differ.

    >>> round(log_e_mix((660, 240, 90, 10), (0.7, 0.2, 0.09, 0.01)), 9)
    0.648715811
    """
    _check_counts(**{f"counts[{i}]": n for i, n in enumerate(counts)})
    if len(counts) != len(baseline) or not all(share > 0 for share in baseline):
        raise ValueError(f"baseline is {list(baseline)}; give a share above 0 for each count")
    if not abs(sum(baseline) - 1) < 1e-6:
        raise ValueError(f"baseline adds up to {sum(baseline)}; its shares must add up to 1")
    n, q = np.asarray(counts, float), np.asarray(baseline, float)
    prior = _CONCENTRATIONS[:, None] * q
    gammaln = scipy.special.gammaln
    total_term = gammaln(_CONCENTRATIONS) - gammaln(n.sum() + _CONCENTRATIONS)
    mixture_terms = np.sum(gammaln(n + prior) - gammaln(prior) - scipy.special.xlogy(n, q), axis=1)
    return float(np.logaddexp.reduce(total_term + mixture_terms) - log(len(_CONCENTRATIONS)))


def log_e_parity(both: int, lone: int, split: int, none: int, *, margin: float) -> float:
    """Log e-value against "the model in a person's place costs the margin of agreement or more".

    Args:
        both: cases of two blind people in which all three agree, ≥ 0.
        lone: the people agree and the model stands alone, ≥ 0.
        split: the people differ and the model sides with one, ≥ 0.
        none: all three differ, ≥ 0.
        margin: what may be lost, δ in [0, 1).

    Returns:
        A finite number; 0.0 without cases.

    Raises:
        ValueError: a count or the margin lies outside its range.

    >>> round(log_e_parity(940, 20, 40, 0, margin=0.02), 9)
    3.572327557
    """
    _check_counts(both=both, lone=lone, split=split, none=none)
    counts = np.array([both, lone, split, none], float)
    return float(log_mean_bets(parity_gains(margin=margin), counts))


def cost_gains(levels: Sequence[float], *, at_most: float) -> Floats:
    """What a whole bet wins on each cost level, as a share of the stake: 1 at −1 loses all.

    Raises:
        ValueError: the line lies outside the open interval (0, 1).
    """
    check_inside_unit(at_most=at_most)
    return (at_most - np.asarray(levels, float)) / (1 - at_most)


def parity_gains(*, margin: float) -> Floats:
    """What a whole bet wins on both, lone, split, none.

    Raises:
        ValueError: the margin lies outside [0, 1).
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin is {margin}; give a share in [0, 1), such as 0.03")
    return (np.array([0.0, -1.0, 0.5, 0.0]) + margin) / (1 - margin)


def log_mean_bets(gains: Floats, counts: Floats) -> Floats:
    """Log of the mean over the bets of Π (1 + θ gain)^count.

    Args:
        gains: float64, shape (levels,), each ≥ −1.
        counts: float64, shape (…, levels).

    Returns:
        float64, shape (…).
    """
    logs = counts @ np.log1p(np.outer(gains, BETS))
    best = logs.max(axis=-1)
    return np.asarray(best + np.log(np.mean(np.exp(logs - best[..., None]), axis=-1)))


def check_inside_unit(**named: float) -> None:
    """Raise ValueError for the first argument that is not in the open interval (0, 1)."""
    for name, value in named.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}; give a number between 0 and 1, both excluded")


def _check_counts(**named: float) -> None:
    """Raise ValueError for the first argument that is not a whole number from 0 on."""
    for name, value in named.items():
        if not (value >= 0 and value == value // 1):
            raise ValueError(f"{name} is {value}; give a whole number of records, 0 or more")


def check_levels(name: str, levels: Sequence[float], counts: Sequence[int]) -> None:
    """Raise ValueError unless each level lies in [0, 1] and has a count from 0 on."""
    if len(levels) != len(counts):
        raise ValueError(f"{name} has {len(levels)} entries and counts {len(counts)}; give as many")
    for level in levels:
        if not 0 <= level <= 1:
            raise ValueError(f"{name} has {level}; scale costs to [0, 1] by the largest possible")
    _check_counts(**{f"counts[{i}]": n for i, n in enumerate(counts)})
