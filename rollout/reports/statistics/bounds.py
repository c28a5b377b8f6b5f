"""Bounds that hold at every look, for what decides: shares from below, mean costs from above."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.gates import scaled_levels
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy
from rollout.core.statistics.evidence import BETS, lower_bounds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HALVINGS = 50


def bounds_of(condition: Condition, counts: Ints, risk: float, policy: Policy) -> Floats | None:
    """Return the bound that meets the condition's line exactly when its gate does.

    Args:
        condition: a gate's.
        counts: cumulated counts as the gate takes them, shape (looks, width).
        risk: of the gate in its attempt.
        policy: for the cost levels.

    Returns:
        Shape (looks,), in the measure's unit; None for parity, which has no bound of its own.
    """
    if condition.measure == "parity":
        return None
    if condition.measure == "cost":
        return policy.largest_cost * cost_bounds(counts, scaled_levels(policy), alpha=risk)
    return lower_bounds(counts[:, 0], counts[:, 1], alpha=risk)


def estimates_of(condition: Condition, counts: Ints, policy: Policy) -> Floats:
    """Return the plain estimate at each look, NaN without records: a share, or a mean cost."""
    n = counts.sum(axis=1)
    if condition.measure == "cost":
        total = counts @ np.array(policy.cost_levels)
    elif condition.measure == "parity":
        total = counts @ np.array([0.0, -1.0, 0.5, 0.0])
    else:
        total = counts[:, 0].astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(n > 0, total / n, np.nan))


def cost_bounds(counts: Ints, levels: Sequence[float], *, alpha: float) -> Floats:
    """Return the upper bound of a mean cost that holds at every look, except with chance alpha.

    It is the line at which `log_e_cost` reaches ln(1/alpha): each bet wins more the higher the
    line, so there is one such line.

    Args:
        counts: records at each level, shape (looks, levels).
        levels: costs as shares of the largest, in [0, 1].
        alpha: in the open interval (0, 1).

    Returns:
        Shape (looks,), in [0, 1]; 1 without records: nothing is known.
    """
    low, high = np.zeros(len(counts)), np.ones(len(counts))
    for _ in range(HALVINGS):
        threshold = (low + high) / 2
        is_met = _log_e(counts, np.asarray(levels, float), threshold) >= -np.log(alpha)
        low, high = np.where(is_met, low, threshold), np.where(is_met, threshold, high)
    return high


def _log_e(counts: Ints, levels: Floats, line: Floats) -> Floats:
    """Return `log_e_cost` of each row of counts at its own line."""
    gains = (line[:, None] - levels) / (1 - line[:, None])
    logs = np.einsum("nl,nlk->nk", counts, np.log1p(gains[:, :, None] * BETS))
    largest = logs.max(axis=1)
    return np.asarray(largest + np.log(np.mean(np.exp(logs - largest[:, None]), axis=1)))
