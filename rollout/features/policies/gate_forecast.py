"""Records that a gate's condition or a guard's alarm needs, and units that a gate on gain needs.

All results are numbers of records or units; `gate_plans` converts records to days. Shares are
computed exactly; costs along their mean, which is close to the median.

Gain: no record says beforehand what a model will bring. So the plan names the units for gains of 5,
10 and 20 % of the outcome's range above the threshold, with values that spread by a fifth of it.
Warnings name arms that are too small to tell.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from math import ceil, inf, log

import numpy as np
import scipy

from rollout.features.policies.traffic import CellTraffic, MeasureRate
from rollout.kernel.calendar.instants import Cell, format_duration
from rollout.kernel.measures import Condition, Statistic, ThresholdUnit
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.policy.policy_warnings import PolicyWarning
from rollout.kernel.policy.stages import Stage
from rollout.kernel.statistics.evidence import (
    compute_cost_gains,
    compute_log_e,
    compute_log_mean_bets,
    count_further_agreements,
)
from rollout.kernel.statistics.forecast import estimate_detection_records, forecast_opening
from rollout.kernel.units import OutcomeRule

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_MAX_RECORDS = 100_000_000  # beyond this no number is given


@dataclass(frozen=True, slots=True)
class EvidenceNeed:
    """Records that one condition needs, from none, to open its gate.

    Attributes:
        min_records: if all records are as good as possible.
        expected_records: at the expected rate, in half of all runs; None without a rate, or if
            never.
        is_unreachable: whether the expected rate is on the wrong side of the threshold or nearly
            equal to it.
    """

    min_records: int
    expected_records: int | None
    is_unreachable: bool = False

    def raise_to(self, minimum: int) -> "EvidenceNeed":
        """Return the need with at least `minimum` records."""
        expected = self.expected_records
        return replace(
            self,
            min_records=max(self.min_records, minimum),
            expected_records=None if expected is None else max(expected, minimum),
        )


def compute_evidence_need(
    condition: Condition, risk: float, cell_traffic: CellTraffic, policy: Policy
) -> EvidenceNeed:
    """Return the records a gate condition needs at the gate's risk."""
    rate = cell_traffic.get_rate(condition)
    match condition.measure.statistic:
        case Statistic.DIFFERENCE:
            return EvidenceNeed(0, None)  # `gain_plans` tells it
        case Statistic.MEAN:
            gains, class_shares = _compute_cost_path(condition, rate, cell_traffic, policy)
            return _compute_need_along_mean(gains, class_shares, risk)
        case _:
            return _compute_need_for_share(condition.share, risk, rate.value)


@lru_cache(maxsize=4096)
def _compute_need_for_share(threshold: float, risk: float, value: float | None) -> EvidenceNeed:
    min_records = count_further_agreements(0, 0, at_least=threshold, alpha=risk)
    if value is None:
        return EvidenceNeed(min_records, None)
    if value <= threshold:
        return EvidenceNeed(min_records, None, is_unreachable=True)
    opening_law = forecast_opening(round(value, 4), at_least=threshold, alpha=risk)
    return EvidenceNeed(min_records, opening_law.median, is_unreachable=opening_law.median is None)


def _compute_cost_path(
    condition: Condition, rate: MeasureRate, cell_traffic: CellTraffic, policy: Policy
) -> tuple[Floats, Floats]:
    """Return gains and shares of correct units and of wrong ones at mean cost."""
    wrong_cost = min(cell_traffic.wrong_cost / policy.largest_cost, 1.0)
    gains = compute_cost_gains((0.0, wrong_cost), at_most=policy.scale_cost(condition.threshold))
    if rate.value is None or cell_traffic.wrong_cost <= 0:
        return gains, np.array([])
    wrong_share = min(rate.value / cell_traffic.wrong_cost, 1.0)
    return gains, np.array([1 - wrong_share, wrong_share])


def _compute_need_along_mean(gains: Floats, shares: Floats, risk: float) -> EvidenceNeed:
    """Return the need along the mean gain, and the minimum at the best gain."""
    best_shares = np.zeros(len(gains))
    best_shares[0] = 1.0
    min_records = _find_first_opening(gains, best_shares, risk)
    if not len(shares):
        return EvidenceNeed(min_records or _MAX_RECORDS, None)
    expected_records = _find_first_opening(gains, shares, risk)
    return EvidenceNeed(
        min_records or _MAX_RECORDS, expected_records, is_unreachable=expected_records is None
    )


def _find_first_opening(gains: Floats, shares: Floats, risk: float) -> int | None:
    """Return the smallest number of records for which E reaches 1/risk."""
    high = 1
    while not _is_open_after(gains, shares, risk, high):
        high *= 2
        if high > _MAX_RECORDS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_open_after(gains, shares, risk, middle) else (middle, high)
    return high


def _is_open_after(gains: Floats, shares: Floats, risk: float, records: int) -> bool:
    return float(compute_log_mean_bets(gains, shares * records)) >= -log(risk)


def compute_renewal_chance(
    condition: Condition, records: int, cell_traffic: CellTraffic, policy: Policy
) -> float | None:
    """Return the chance that a grant's records keep E at 1 or more.

    Returns None without a rate, as for gain.
    """
    rate = cell_traffic.get_rate(condition)
    if rate.value is None or condition.measure.statistic is Statistic.DIFFERENCE:
        return None
    if condition.measure.statistic is Statistic.MEAN:
        gains, shares = _compute_cost_path(condition, rate, cell_traffic, policy)
        failure_rate = float(shares[1]) if len(shares) else 0.0
        max_failures = _find_max_failures(
            lambda failures: _is_cost_kept(gains, records, failures), records
        )
    else:
        failure_rate, threshold = 1 - rate.value, condition.share
        max_failures = _find_max_failures(
            lambda failures: compute_log_e(records - failures, failures, at_least=threshold) >= 0,
            records,
        )
    return (
        float(scipy.special.bdtr(max_failures, records, failure_rate)) if max_failures >= 0 else 0.0
    )


def _is_cost_kept(gains: Floats, records: int, failures: int) -> bool:
    return float(compute_log_mean_bets(gains, np.array([records - failures, failures], float))) >= 0


def _find_max_failures(is_kept: Callable[[int], bool], records: int) -> int:
    """Return the largest kept number of failures in `records`; -1 if none is."""
    low, high = -1, records + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_kept(middle) else (low, middle)
    return low


def compute_records_to_alarm(
    guard: Guard, fallen_agreement: float, cell_traffic: CellTraffic, policy: Policy
) -> float | None:
    """Return the mean records until a guard alarms after agreement fell.

    Returns None if it never alarms. For a cost guard each wrong action has the mean cost of a wrong
    action; for an override guard each one is overridden.
    """
    condition = guard.condition
    match condition.measure.statistic:
        case Statistic.MEAN:
            reference = 1 - policy.scale_cost(condition.threshold)
            wrong_cost = min(cell_traffic.wrong_cost / policy.largest_cost, 1.0)
            observed_level = 1 - (1 - fallen_agreement) * wrong_cost
        case _:
            reference = condition.share if condition.at_least else 1 - condition.share
            observed_level = condition.measure.expect(fallen_agreement, None).rate or 0.0
    if not 0 <= observed_level < reference:
        return None
    return _compute_alarm_delay(
        round(reference, 6), guard.false_alarm_every, round(observed_level, 6)
    )


_compute_alarm_delay = lru_cache(maxsize=4096)(estimate_detection_records)


DAYS_PER_YEAR, DAYS_PER_MONTH = 365.0, 30.0


def multiply_rates(*factors: float | None) -> float | None:
    """Multiply rates and shares; None if any is None."""
    result = 1.0
    for factor in factors:
        if factor is None:
            return None
        result *= factor
    return result


def compute_days(records: float, per_day: float | None) -> float | None:
    """Return the days until `records` arrive; None without a rate."""
    if records <= 0:
        return 0.0
    if per_day is None:
        return None
    return records / per_day if per_day > 0 else inf


def format_days(days: float) -> str:
    """Format a duration in a suitable unit.

    >>> format_days(0.2), format_days(3), format_days(98), format_days(900)
    ('5 hours', '3 days', '14 weeks', '2.5 years')
    """
    if days == inf:
        return "never"
    if days < 2:
        hours = max(1, round(days * 24))
        return f"{hours} hour{'s' if hours > 1 else ''}"
    if days < 21:
        return f"{days:.0f} days"
    return f"{days / 7:.0f} weeks" if days < DAYS_PER_YEAR else f"{days / DAYS_PER_YEAR:.1f} years"


def format_condition(condition: Condition) -> str:
    """Format a condition, with durations in their own unit.

    >>> from rollout.kernel.measures import MEASURES
    >>> format_condition(Condition(MEASURES["heartbeat"], 7200.0))
    'heartbeat at most 2h'
    """
    if condition.measure.unit is not ThresholdUnit.SECONDS:
        return str(condition)
    text = format_duration(timedelta(seconds=condition.threshold))
    return str(condition).replace(condition.threshold_text, text)


def format_cells(cells: tuple[Cell, ...]) -> str:
    """Format the first cells and count the others."""
    more_text = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
    return ", ".join(str(cell) for cell in cells[:3]) + more_text


PLANNED_GAINS = (0.05, 0.1, 0.2)  # shares of the outcome's range
PLANNED_SPREAD = 0.2  # standard deviation, as a share of the range
PRICE_OF_LOOKING = 2.2  # times the units of a t-test that is looked at once
POWER = 0.8
SMALL_ARM = 0.1


@dataclass(frozen=True, slots=True)
class GainNeed:
    """Units until a gate opens, for a gain above its threshold in the outcome's unit."""

    gain: float
    units: int


def count_needed_units(gain: float, share: float, risk: float, spread: float) -> int:
    """Return the units of both arms until a gate on gain is likely to open.

    Args:
        gain: above the threshold, as a share of the range.
        share: probability of the model's arm.
        risk: of the gate.
        spread: standard deviation of the outcome, as a share of the range.

    >>> count_needed_units(0.1, 0.5, 0.05, 0.2)
    218
    """
    quantiles = float(scipy.special.ndtri(1 - risk) + scipy.special.ndtri(POWER))
    once = (quantiles * spread / gain) ** 2 / (share * (1 - share))
    return ceil(PRICE_OF_LOOKING * once)


def find_measuring_stage(policy: Policy, condition: Condition, stage_level: int) -> Stage | None:
    """Return the highest stage below a gate whose arms its gain is measured with."""
    lower_stages = policy.stages[: stage_level - 1]
    measuring = [s for s in lower_stages if s.model_share and s.arm == condition.population.arm]
    return measuring[-1] if measuring else None


def list_gain_needs(stage: Stage, condition: Condition, risk: float) -> tuple[GainNeed, ...]:
    """Return the units for each planned gain."""
    share = stage.model_share or 0.5
    return tuple(
        GainNeed(
            condition.threshold + gain * condition.population.outcome.span,
            count_needed_units(gain, share, risk, PLANNED_SPREAD),
        )
        for gain in PLANNED_GAINS
    )


def describe_gain_need(policy: Policy, condition: Condition, to: str, risk: float) -> str:
    """Return the units that a condition needs, as text."""
    stage = find_measuring_stage(policy, condition, policy.stage_ids.index(to))
    if stage is None:
        return "no stage below measures it"
    outcome, share = condition.population.outcome, (stage.model_share or 0.0) * 100
    needs = ", ".join(
        f"{need.units:,} for {outcome.format_amount(need.gain)}"
        for need in list_gain_needs(stage, condition, risk)
    )
    spread = f"{PLANNED_SPREAD * outcome.span:g} {outcome.unit}".rstrip()
    return (
        f"units at {stage.id}, {share:g} % of them by the model: about"
        f" {needs}, if values spread by"
        f" {spread} (standard deviation){_describe_binary_need(outcome)}a unit counts"
        f" {format_duration(outcome.closes)} after its case"
    )


def _describe_binary_need(outcome: OutcomeRule) -> str:
    """Return how many more units values of 0 and 1 need, with a separator."""
    if (outcome.low, outcome.high) != (0, 1):
        return "; "
    factor = (0.5 / PLANNED_SPREAD) ** 2  # 0.5: the widest spread of such values
    return f", up to {factor:.0f} times as many if each is 0 or 1; "


def _list_takeover_warnings(policy: Policy) -> Iterator[PolicyWarning]:
    """Yield a warning if no challenger can take over from a stage that asks for a gain."""
    levels = {
        policy.stage_ids.index(gate.to)
        for gate in policy.gates
        for condition in gate.require
        if condition.population.has_gain and gate.to in policy.stage_ids
    }
    if not levels:
        return
    level, floor = min(levels), policy.takeover_floor
    if floor is not None and floor < level:
        return
    text = (
        "before it acts, a newer version has no units in the model's arm: it never meets the gate"
        f" to {policy.stage_ids[level]}, and can't take over a cell that holds this"
        f" stage; with takeover: {policy.stage_ids[level - 1]} operators may propose it there"
    )
    yield PolicyWarning("takeover", text)


def list_gain_warnings(policy: Policy) -> Iterator[PolicyWarning]:
    """Yield a warning for each small arm, where a gain is asked for."""
    conditions = [
        *(condition for gate in policy.gates for condition in gate.require),
        *(guard.condition for guard in policy.guards),
    ]
    if not any(condition.population.has_gain for condition in conditions):
        return
    for index, stage in enumerate(policy.stages):
        share = stage.model_share
        if share is not None and round(min(share, 1 - share), 12) < SMALL_ARM:
            arm = "the model's" if share < SMALL_ARM else "the humans'"
            text = (
                f"{arm} arm has {min(share, 1 - share) * 100:g} % of units, so a gain or loss is"
                " found slowly; write 10% or more of each"
            )
            yield PolicyWarning(f"stages[{index}]", text)
    yield from _list_takeover_warnings(policy)
    if not policy.charter.objective:
        yield PolicyWarning("charter", "lacks the objective that the outcomes measure")
