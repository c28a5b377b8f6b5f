"""What `plan` writes about a heartbeat guard: how soon it notices a silent site."""

from datetime import timedelta

from rollout.core.calendar.instants import format_duration
from rollout.core.calendar.sites import Cell
from rollout.core.calendar.windows import compute_year_shares
from rollout.core.policy.policy import DAY, TIME_BETWEEN_FALSE_ALARMS, Guard, Policy
from rollout.core.statistics.silence import SIGNS_MISSED, TRAFFIC_DAYS, estimate_silent_hours
from rollout.services.policies.gate_forecast import format_days
from rollout.services.policies.traffic import RolloutTraffic


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
