"""What a plan says of guards by share and by silence."""

from datetime import timedelta

from rollout.core.calendar.instants import format_duration
from rollout.core.calendar.sites import Cell
from rollout.core.calendar.windows import compute_year_shares
from rollout.core.policy.measures import SITE_MEASURES, TESTED_MEASURES
from rollout.core.policy.policy import DAY, TIME_BETWEEN_FALSE_ALARMS, Guard, Policy
from rollout.core.statistics.forecast import estimate_detection_records
from rollout.core.statistics.share_detector import (
    MIN_BAD_RECORDS,
    SIGNS_MISSED,
    TRAFFIC_DAYS,
    compute_false_alarm_interval,
    estimate_silent_hours,
)
from rollout.services.policies.gate_forecast import format_days
from rollout.services.policies.traffic import RolloutTraffic
from rollout.tally.episode_series import get_limit
from rollout.tally.guard_series import MIN_AUDITS

DOUBLED_P95_SHARE = 0.17  # slow answers if p95 doubles and latency is log-normal
TROUBLE_FACTOR = 3  # times the limit


def describe_share_guard(guard: Guard, policy: Policy, traffic: RolloutTraffic) -> str:
    """Return how rarely a guard is wrong and how soon it is right; "" for other measures.

    The quietest place counts; without traffic the shortest interval is assumed.
    """
    if guard.condition.measure not in TESTED_MEASURES:
        return ""
    per_day = _find_quietest_rate(guard, policy, traffic)
    place = "site" if guard.condition.measure in SITE_MEASURES else "cell"
    interval, promise = guard.false_alarm_every, f"once in {guard.false_alarm_every:,.0f} records"
    if guard.false_alarm_span is not None:
        interval = compute_false_alarm_interval(per_day or 0.0, guard.false_alarm_span / DAY)
        promise = f"once in {format_duration(guard.false_alarm_span)}"
    trouble, share = _describe_trouble(guard)
    delays = [_describe_delay(guard, interval, value, per_day) for value in (share, 1.0)]
    return (
        f"expected to trip at a {place} exactly at this limit less than {promise};"
        f" {trouble} is noticed after about {delays[0]}, a total failure after {delays[1]}"
    )


def _describe_trouble(guard: Guard) -> tuple[str, float]:
    if guard.condition.measure == "latency_p95":
        return "p95 at twice the limit", DOUBLED_P95_SHARE
    share = min(TROUBLE_FACTOR * get_limit(guard), 0.95)
    return f"a share of {share * 100:.3g} %", share


def _describe_delay(guard: Guard, interval: float, share: float, per_day: float | None) -> str:
    limit = get_limit(guard)
    records = estimate_detection_records(1 - limit, interval, min(1 - share, 1 - 1.01 * limit))
    fewest = MIN_AUDITS if guard.condition.measure == "unaudited" else MIN_BAD_RECORDS
    records = max(round(records), fewest)
    days = f" ({format_days(records / per_day)})" if per_day else ""
    return f"{records:,} records{days}"


def _find_quietest_rate(guard: Guard, policy: Policy, traffic: RolloutTraffic) -> float | None:
    """Return the records a day of the quietest site or cell, None if one is unknown."""
    rates: dict[object, float] = {}
    for cell in policy.cells:
        if guard.where.fits(cell):
            units = traffic.get_cell_traffic(cell).units_per_day
            if units is None:
                return None
            place: object = cell.site if guard.condition.measure in SITE_MEASURES else cell
            rates[place] = rates.get(place, 0.0) + units * _get_audited_share(guard, policy)
    return min(rates.values(), default=None)


def _get_audited_share(guard: Guard, policy: Policy) -> float:
    if guard.condition.measure != "unaudited":
        return 1.0
    return min((stage.audit for stage in policy.stages if stage.audit), default=0.0)


def describe_silence_guard(guard: Guard, policy: Policy, traffic: RolloutTraffic) -> str:
    """Return after which silence a guard trips; "" for other measures.

    The cell with the slowest traffic counts.
    """
    if guard.condition.measure != "heartbeat":
        return ""
    limit = timedelta(seconds=guard.condition.line)
    cells = [cell for cell in policy.cells if guard.where.fits(cell)]
    delays = [_estimate_days(guard, policy, traffic, cell) for cell in cells]
    known_delays = [delay for delay in delays if delay is not None]
    slowest = max(known_delays, default=None) if len(known_delays) == len(delays) else None
    span = format_duration(guard.false_alarm_span or TIME_BETWEEN_FALSE_ALARMS)
    delay = "" if slowest is None else f" after about {format_days(max(slowest, limit / DAY))}"
    return (
        f"counts open time; by missing traffic alone silence is noticed{delay} (a false alarm less"
        f" than once in {span}), and not before {TRAFFIC_DAYS} days of records; send signs of life"
        f" to notice it after {format_duration(limit)}, or {SIGNS_MISSED} of their intervals"
    )


def _estimate_days(
    guard: Guard, policy: Policy, traffic: RolloutTraffic, cell: Cell
) -> float | None:
    """Return the days in which a cell's silence is noticed while it is open, or None."""
    units = traffic.get_cell_traffic(cell).units_per_day
    site_cells = [other for other in policy.cells if other.site == cell.site]
    site_units = [traffic.get_cell_traffic(other).units_per_day for other in site_cells]
    share = compute_year_shares(policy.sites_by_id[cell.site], policy.windows)[cell.window]
    if not units or not share:
        return None
    span = (guard.false_alarm_span or TIME_BETWEEN_FALSE_ALARMS) / DAY
    site_units_per_day = sum(number or 0.0 for number in site_units)
    per_hour = units / (24 * share)
    return estimate_silent_hours(per_hour, site_units_per_day, guard.quiet_days, span) / 24
