"""What a condition needs before it opens a gate, and what a guard misses before it alarms.

Counts of records, whatever their pace; `planning` turns them into days. Shares are computed
exactly; costs and parity along their mean, which is close to the median.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from math import inf, log

import numpy as np
import scipy

from rollout.core.calendar.sites import Cell
from rollout.core.policy.gates import scaled_line
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Guard, Policy, duration_text
from rollout.core.statistics.evidence import (
    cost_gains,
    further_agreements,
    log_e_value,
    log_mean_bets,
    parity_gains,
)
from rollout.core.statistics.forecast import detection_records, opening
from rollout.services.policies.traffic import Flow, Rate

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
_MOST = 100_000_000  # records; what takes longer has no number


@dataclass(frozen=True, slots=True)
class Need:
    """Records that one condition needs, from none, to open its gate.

    Attributes:
        least: if all are as good as can be.
        typical: at the expected rate, half of all runs; None without a rate, or if never.
        never: whether the expected rate is on the wrong side of the line, or all but on it.
    """

    least: int
    typical: int | None
    never: bool = False


def need(condition: Condition, risk: float, flow: Flow, policy: Policy) -> Need:
    """Return what a condition of a gate needs at the gate's risk."""
    rate = flow.rate(condition)
    match condition.measure:
        case "cost":
            gains, class_shares = _cost_path(condition, rate, flow, policy)
            return _along(gains, class_shares, risk, best=0)
        case "parity":
            gains = parity_gains(margin=-condition.line)
            return _along(gains, np.array(rate.classes), risk, best=0)
        case _:
            return _of_share(condition.line, risk, rate.value)


@lru_cache(maxsize=4096)
def _of_share(line: float, risk: float, value: float | None) -> Need:
    min_records = further_agreements(0, 0, at_least=line, alpha=risk)
    if value is None:
        return Need(min_records, None)
    if value <= line:
        return Need(min_records, None, never=True)
    opening_law = opening(round(value, 4), at_least=line, alpha=risk)
    return Need(min_records, opening_law.median, never=opening_law.median is None)


def _cost_path(
    condition: Condition, rate: Rate, flow: Flow, policy: Policy
) -> tuple[Floats, Floats]:
    """Gains and shares of two kinds of unit: right, and wrong at the mean cost of a wrong one."""
    wrong_cost = min(flow.wrong_cost / policy.largest_cost, 1.0)
    gains = cost_gains((0.0, wrong_cost), at_most=scaled_line(condition, policy))
    if rate.value is None or flow.wrong_cost <= 0:
        return gains, np.array([])
    wrong_share = min(rate.value / flow.wrong_cost, 1.0)
    return gains, np.array([1 - wrong_share, wrong_share])


def _along(gains: Floats, shares: Floats, risk: float, *, best: int) -> Need:
    """Return what bets need along the mean of their records, and if each is of the best kind."""
    best_shares = np.zeros(len(gains))
    best_shares[best] = 1.0
    min_records = _first(gains, best_shares, risk)
    if not len(shares):
        return Need(min_records or _MOST, None)
    expected_records = _first(gains, shares, risk)
    return Need(min_records or _MOST, expected_records, never=expected_records is None)


def _first(gains: Floats, shares: Floats, risk: float) -> int | None:
    """Return the first count of records in these shares at which E reaches 1/risk."""
    high = 1
    while not _opened(gains, shares, risk, high):
        high *= 2
        if high > _MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _opened(gains, shares, risk, middle) else (middle, high)
    return high


def _opened(gains: Floats, shares: Floats, risk: float, records: int) -> bool:
    return float(log_mean_bets(gains, shares * records)) >= -log(risk)


def renewal_chance(condition: Condition, records: int, flow: Flow, policy: Policy) -> float | None:
    """Return the chance that `records` of one grant leave E at 1 or more; None without a rate.

    Parity is left out (None): its classes have no simple law.
    """
    rate = flow.rate(condition)
    if rate.value is None or condition.measure == "parity":
        return None
    if condition.measure == "cost":
        gains, shares = _cost_path(condition, rate, flow, policy)
        failure_rate = float(shares[1]) if len(shares) else 0.0
        max_failures = _most_failures(
            lambda failures: _cost_holds(gains, records, failures), records
        )
    else:
        failure_rate, threshold = 1 - rate.value, condition.line
        max_failures = _most_failures(
            lambda failures: log_e_value(records - failures, failures, at_least=threshold) >= 0,
            records,
        )
    return (
        float(scipy.special.bdtr(max_failures, records, failure_rate)) if max_failures >= 0 else 0.0
    )


def _cost_holds(gains: Floats, records: int, failures: int) -> bool:
    return float(log_mean_bets(gains, np.array([records - failures, failures], float))) >= 0


def _most_failures(holds: Callable[[int], bool], records: int) -> int:
    """Return the most failures of `records` with which `holds` is still true; -1 if none is."""
    low, high = -1, records + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def records_to_alarm(guard: Guard, fallen_to: float, flow: Flow, policy: Policy) -> float | None:
    """Return the mean records until a guard alarms after agreement fell; None if it never does.

    A cost guard sees the mean cost of a wrong action for each that is wrong; an override guard
    sees an override for each.
    """
    condition = guard.condition
    match condition.measure:
        case "cost":
            reference = 1 - scaled_line(condition, policy)
            wrong_cost = min(flow.wrong_cost / policy.largest_cost, 1.0)
            observed_level = 1 - (1 - fallen_to) * wrong_cost
        case "override":
            reference, observed_level = 1 - condition.line, fallen_to
        case _:
            reference, observed_level = condition.line, fallen_to
    if not 0 <= observed_level < reference:
        return None
    return _delay(round(reference, 6), guard.false_alarm_every, round(observed_level, 6))


@lru_cache(maxsize=4096)
def _delay(reference: float, false_alarm_every: float, seen: float) -> float:
    return detection_records(reference, false_alarm_every, seen)


YEAR, MONTH = 365.0, 30.0


def product(*factors: float | None) -> float | None:
    """Multiply rates and shares; None as soon as nobody said one of them."""
    result = 1.0
    for factor in factors:
        if factor is None:
            return None
        result *= factor
    return result


def days_for(records: float, per_day: float | None) -> float | None:
    """Return the days until so many records came."""
    if records <= 0:
        return 0.0
    if per_day is None:
        return None
    return records / per_day if per_day > 0 else inf


def days_text(days: float) -> str:
    """Say a span as people do.

    >>> days_text(0.2), days_text(3), days_text(98), days_text(900)
    ('5 hours', '3 days', '14 weeks', '2.5 years')
    """
    if days == inf:
        return "never"
    if days < 2:
        hours = max(1, round(days * 24))
        return f"{hours} hour{'s' if hours > 1 else ''}"
    if days < 21:
        return f"{days:.0f} days"
    return f"{days / 7:.0f} weeks" if days < YEAR else f"{days / YEAR:.1f} years"


def condition_text(condition: Condition) -> str:
    """Say a condition, a span of time in its own unit.

    >>> condition_text(Condition("heartbeat", 7200.0, at_least=False))
    'heartbeat at most 2h'
    """
    if condition.measure not in {"heartbeat", "latency_p95"}:
        return str(condition)
    text = duration_text(timedelta(seconds=condition.line))
    return str(condition).replace(condition.line_text, text)


def listed(cells: tuple[Cell, ...]) -> str:
    """Name the first cells and count the others."""
    more_text = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
    return ", ".join(str(cell) for cell in cells[:3]) + more_text
