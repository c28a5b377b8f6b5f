"""Evaluation of a renewal's condition where audits follow confidence: the mean of two e-values.

One is of all audited units, each weighing the least share over its own; the other of those that the
least share alone would have sampled. The mean of e-values is one, and a wrong guess of which cases
are unsure costs a factor of two at most.
"""

from __future__ import annotations

import re
from math import log
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from rollout.core.late_modules import LateModule
from rollout.core.policy.measures import Condition
from rollout.core.statistics.evidence import compute_weighted_log_e
from rollout.core.statistics.gate_thresholds import (
    compute_cost_log_e_path,
    compute_weighted_log_e_path,
)
from rollout.core.statistics.truncated_beta import compute_log_mixture

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rollout.core.policy.policy import Policy
else:
    np = LateModule("numpy")

WEIGHTED_MEASURES: Final = frozenset({"agreement", "recall", "precision", "cost"})
_WEIGHTED_COUNTS: Final = r"\d+(?:\.\d+)? \d+(?:\+\d+)+"
AUDITS_PATTERN: Final = re.compile(
    rf" over audits (?P<audits>{_WEIGHTED_COUNTS}(?: {_WEIGHTED_COUNTS})*)", re.ASCII
)
"""The counts by weight in a reading, as `ConditionReading.format` writes them."""
ROUNDING: Final = 1e-12  # a mean of two e-values of 1 is 1 but for the last digits

Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"


class WeightedCounts(NamedTuple):
    """Counts of the audited units of one weight."""

    weight: float
    counts: tuple[int, ...]


AuditCounts: TypeAlias = tuple[WeightedCounts, ...]


def weighs_audits(condition: Condition) -> bool:
    """Return whether a renewal weighs the audits of a condition; slices and others don't."""
    return type(condition) is Condition and condition.measure in WEIGHTED_MEASURES


def average_log_e(
    condition: Condition, uniform_log_e: float, audits: AuditCounts, policy: Policy
) -> float:
    """Return ln of the mean of both e-values.

    Args:
        condition: a condition on a share or cost.
        uniform_log_e: ln E of the units that the least share alone would have sampled.
        audits: counts of all audited units.
        policy: gives the cost levels.
    """
    levels, at_most = _find_losses(condition, policy)
    weights = [part.weight for part in audits for _ in part.counts]
    counts = [count for part in audits for count in part.counts]
    weighted = compute_weighted_log_e(weights, [*levels] * len(audits), counts, at_most=at_most)
    return float(_average(np.array(uniform_log_e), np.array(weighted)))


def average_log_e_path(
    condition: Condition, counts: Ints, weights: Floats, audits: Ints, policy: Policy
) -> Floats:
    """Return `average_log_e` at several looks, shape (looks,).

    Args:
        condition: a condition on a share or cost.
        counts: of the units that the least share alone would have sampled, shape (looks, width).
        weights: distinct weights of all audited units, shape (groups,).
        audits: counts of all audited units, shape (looks, groups, width).
        policy: gives the cost levels.
    """
    levels, at_most = _find_losses(condition, policy)
    weighted = compute_weighted_log_e_path(
        audits.reshape(len(audits), -1),
        weights=np.repeat(weights, len(levels)),
        losses=[*levels] * len(weights),
        at_most=at_most,
    )
    return _average(_compute_log_e_rows(condition, counts, policy), weighted)


def _compute_log_e_rows(condition: Condition, rows: Ints, policy: Policy) -> Floats:
    """Return ln E of each row of counts."""
    if not len(rows):
        return np.zeros(0)
    if condition.measure == "cost":
        levels, at_most = policy.cost_shares, policy.scale_cost(condition.line)
        return compute_cost_log_e_path(rows, levels=levels, at_most=at_most)
    return compute_log_mixture(rows[:, 0], rows[:, 1], threshold=condition.line)


def _average(first: Floats, second: Floats) -> Floats:
    return np.asarray(np.logaddexp(first, second) - log(2))


def _find_losses(condition: Condition, policy: Policy) -> tuple[Sequence[float], float]:
    """Return the loss of each count, in [0, 1], and the mean loss that is allowed."""
    if condition.measure == "cost":
        return policy.cost_shares, policy.scale_cost(condition.line)
    return (0.0, 1.0), 1 - condition.line


def compute_weighted_mean(audits: AuditCounts, values: Sequence[float]) -> float:
    """Return the weighted mean of the values of all audited units; there are some.

    Args:
        audits: counts by weight.
        values: of each count, 1 and 0 of a share.

    >>> compute_weighted_mean((WeightedCounts(1, (3, 1)), WeightedCounts(0.5, (0, 8))), (1, 0))
    0.375
    """
    total = sum(part.weight * sum(part.counts) for part in audits)
    weighted_sum = sum(
        part.weight * count * value
        for part in audits
        for count, value in zip(part.counts, values, strict=True)
    )
    return weighted_sum / total


def count_audits(audits: AuditCounts) -> int:
    """Return the number of audited units that a condition counts."""
    return sum(sum(part.counts) for part in audits)


def format_audit_counts(audits: AuditCounts) -> str:
    """Return the counts of each weight as the ledger stores them.

    >>> format_audit_counts((WeightedCounts(1.0, (245, 3)), WeightedCounts(0.1, (40, 5))))
    '1 245+3 0.1 40+5'
    """
    return " ".join(
        f"{str(part.weight).removesuffix('.0')} {'+'.join(map(str, part.counts))}"
        for part in audits
    )


def find_audit_counts(reading: str) -> AuditCounts:
    """Return the counts by weight of a stored reading, () without any."""
    match = AUDITS_PATTERN.search(reading)
    return () if match is None else parse_audit_counts(match["audits"])


def parse_audit_counts(text: str) -> AuditCounts:
    """Return the counts that `format_audit_counts` wrote.

    >>> parse_audit_counts("1 245+3 0.1 40+5")
    (WeightedCounts(weight=1.0, counts=(245, 3)), WeightedCounts(weight=0.1, counts=(40, 5)))
    """
    words = text.split()
    return tuple(
        WeightedCounts(float(weight), tuple(map(int, counts.split("+"))))
        for weight, counts in zip(words[::2], words[1::2], strict=True)
    )
