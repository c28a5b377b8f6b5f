"""Bounds valid at every look: shares from below, mean costs from above."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollout.kernel.measures import Condition, Statistic
from rollout.kernel.policy.gates import ConditionReading
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.arrays import Floats, Ints
from rollout.kernel.statistics.evidence import compute_lower_bounds, get_bets

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


def compute_reading_bound(reading: ConditionReading, policy: Policy) -> float | None:
    """Return the bound of one reading; None without records and for a renewal."""
    if reading.risk >= 1 or not sum(reading.counts):
        return None
    counts = np.array([reading.counts], dtype=np.int64)
    return float(compute_bounds(reading.condition, counts, reading.risk, policy)[0])


def build_condition_evidence(reading: ConditionReading, policy: Policy) -> ConditionEvidence:
    """Return a condition with what its counts say."""
    condition, counts = reading.condition, reading.counts
    if (gain := reading.gain) is not None:
        return ConditionEvidence(condition, gain.counts, gain.estimate, gain.bound, gain.is_met)
    rows = np.array([counts], dtype=np.int64)
    return ConditionEvidence(
        condition=condition,
        counts=counts,
        estimate=float(compute_estimates(condition, rows, policy)[0]) if sum(counts) else None,
        bound=compute_reading_bound(reading, policy),
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
