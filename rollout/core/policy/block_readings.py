"""Evaluation of a condition that forgets: e-values from each block's start, mixed into one."""

from __future__ import annotations

from functools import cache
from math import ceil, exp, log
from typing import TYPE_CHECKING, TypeAlias

from rollout.core.late_modules import LateModule
from rollout.core.statistics.evidence import count_further_agreements
from rollout.core.statistics.forgetting import (
    LATER_STARTS_WEIGHT,
    compute_log_weights,
    mix_log_e,
    sum_from_starts,
)
from rollout.core.statistics.gate_thresholds import (
    GateThreshold,
    compute_cost_log_e_path,
    compute_parity_log_e_path,
    get_gate_threshold,
)
from rollout.core.statistics.truncated_beta import compute_log_mixture

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rollout.core.policy.measures import Condition
    from rollout.core.policy.policy import Policy
else:
    np = LateModule("numpy")


def scale_cost_levels(policy: Policy) -> tuple[float, ...]:
    """Return the policy's cost levels as shares of its largest cost."""
    return tuple(level / policy.largest_cost for level in policy.cost_levels)


def scale_cost_threshold(condition: Condition, policy: Policy) -> float:
    """Return a cost threshold as a share of the policy's largest cost."""
    return condition.line / policy.largest_cost


Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"
Bools: TypeAlias = "NDArray[np.bool_]"
Blocks: TypeAlias = tuple[tuple[int, ...], ...]

_WITHOUT_TABLES = frozenset({"cost", "parity"})
_ROUNDING = 1e-12  # weights add up to 1 but for the last digits: M of no records is 1


def read_blocks(condition: Condition, blocks: Blocks, policy: Policy) -> float:
    """Return ln M of a condition on the counts of its blocks; 0 without any."""
    sums = sum_from_starts(np.array(blocks, dtype=np.int64))
    return float(compute_mixed_log_e(condition, sums, np.array([len(blocks)]), policy)[0])


def are_blocks_met(condition: Condition, blocks: Blocks, risk: float, policy: Policy) -> bool:
    """Return whether ln M of the counts of blocks reaches ln(1/risk).

    M is at most the largest E, and at least E from any start times its weight. These bounds decide
    most cells of a tick, in tables: a mixture takes five times as long.
    """
    if condition.measure not in _WITHOUT_TABLES:
        is_met = _find_by_tables(condition.line, blocks, risk)
        if is_met is not None:
            return is_met
    sums, starts = sum_from_starts(np.array(blocks, dtype=np.int64)), np.array([len(blocks)])
    return bool(find_mixtures_met(condition, sums, starts, risk, policy)[0])


def _find_by_tables(line: float, blocks: Blocks, risk: float) -> bool | None:
    """Return whether a share is met by the bounds of M; None if they leave it open."""
    threshold, is_reached = get_gate_threshold(line, risk), False
    agreed = disagreed = 0
    for number in range(len(blocks), 0, -1):
        agreed, disagreed = agreed + blocks[number - 1][0], disagreed + blocks[number - 1][1]
        if threshold.is_met(agreed, disagreed):
            is_reached = True
            part = _round_weight_down(number)
            if get_gate_threshold(line, risk * part).is_met(agreed, disagreed):
                return True
    return None if is_reached else False


@cache
def _round_weight_down(number: int) -> float:
    """Return a start's weight; after the first a power of 1/4, so that few tables are needed."""
    weight = exp(compute_log_weights(number)[-1])
    return weight if number == 1 else 4.0 ** -ceil(-log(weight, 4))


def compute_mixed_log_e(condition: Condition, sums: Ints, starts: Ints, policy: Policy) -> Floats:
    """Return ln M of a condition at several looks.

    Args:
        condition: a condition on a share, cost or parity.
        sums: counts from each start to its look, those of the first look first, shape (sum of
            `starts`, width).
        starts: number of blocks that have begun by each look, shape (looks,).
        policy: gives the cost levels.
    """
    return mix_log_e(compute_log_e_rows(condition, sums, policy), starts)


def find_mixtures_met(
    condition: Condition, sums: Ints, starts: Ints, risk: float, policy: Policy
) -> Bools:
    """Return at which looks ln M reaches ln(1/risk); arguments as in `compute_mixed_log_e`.

    Tables decide most looks of shares, as in `are_blocks_met`.
    """
    required = log(1 / risk) - _ROUNDING
    if condition.measure in _WITHOUT_TABLES or not len(sums):
        return compute_mixed_log_e(condition, sums, starts, policy) >= required
    looks = np.repeat(np.arange(len(starts)), starts)
    is_reached = get_gate_threshold(condition.line, risk).are_met(sums[:, 0], sums[:, 1])
    is_possible = np.zeros(len(starts), dtype=bool)
    is_possible[looks[is_reached]] = True
    whole = sums[(np.cumsum(starts) - starts)[starts > 0]]
    is_met: Bools = (starts == 0) & (required <= 0)
    is_met[starts > 0] = _get_first_threshold(condition, risk).are_met(whole[:, 0], whole[:, 1])
    is_open = is_possible & ~is_met
    if is_open.any():
        log_m = compute_mixed_log_e(condition, sums[is_open[looks]], starts[is_open], policy)
        is_met[is_open] = log_m >= required
    return is_met


def _get_first_threshold(condition: Condition, risk: float) -> GateThreshold:
    """Return the threshold of E from the first start alone, at its part of the risk."""
    return get_gate_threshold(condition.line, risk * (1 - LATER_STARTS_WEIGHT))


def compute_log_e_rows(condition: Condition, rows: Ints, policy: Policy) -> Floats:
    """Return ln E of each row of counts."""
    if not len(rows):
        return np.zeros(0)
    if condition.measure == "cost":
        levels, at_most = scale_cost_levels(policy), scale_cost_threshold(condition, policy)
        return compute_cost_log_e_path(rows, levels=levels, at_most=at_most)
    if condition.measure == "parity":
        return compute_parity_log_e_path(rows, margin=-condition.line)
    return compute_log_mixture(rows[:, 0], rows[:, 1], threshold=condition.line)


def find_best_start(blocks: Blocks, at_least: float, risk: float) -> tuple[tuple[int, int], float]:
    """Return a share's counts from the start that needs least, and its own part of the risk.

    Once E from there alone reaches 1 / that part, the gate is met: the other starts only help.
    """
    sums = sum_from_starts(np.array(blocks, dtype=np.int64)).tolist()
    risks = (risk * np.exp(compute_log_weights(len(blocks)))).tolist()
    needs = (
        count_further_agreements(agreed, disagreed, at_least=at_least, alpha=alpha)
        for (agreed, disagreed), alpha in zip(sums, risks, strict=True)
    )
    _, best = min((need, j) for j, need in enumerate(needs))
    agreed, disagreed = sums[best]
    return (agreed, disagreed), risks[best]


def format_blocks(blocks: Sequence[Sequence[int]]) -> str:
    """Return the counts of blocks as the ledger stores them.

    >>> format_blocks([(45, 5), (0, 0), (60, 0)])
    '45+5 0+0 60+0'
    """
    return " ".join("+".join(map(str, block)) for block in blocks)


def parse_blocks(text: str) -> Blocks:
    """Return the counts of blocks that `format_blocks` wrote.

    >>> parse_blocks("45+5 60+0")
    ((45, 5), (60, 0))
    """
    return tuple(tuple(map(int, block.split("+"))) for block in text.split())
