"""Warnings that follow from traffic, and what guards by share and silence would say."""

from collections.abc import Iterator
from datetime import timedelta
from math import inf

from rollout.engine.evidence.site_series import get_limit
from rollout.engine.words.formatting import join_words
from rollout.features.policies.gate_forecast import (
    DAYS_PER_MONTH,
    DAYS_PER_YEAR,
    compute_renewal_chance,
    format_cells,
    format_condition,
    format_days,
)
from rollout.features.policies.gate_plans import (
    AgreementDrop,
    GatePlan,
    GuardPlan,
    format_expected_value,
    plan_gate,
)
from rollout.features.policies.traffic import CellTraffic, RolloutTraffic
from rollout.kernel.calendar.instants import Cell, format_duration
from rollout.kernel.calendar.windows import compute_year_shares
from rollout.kernel.measures import Condition, Watch
from rollout.kernel.policy.policy import DAY, TIME_BETWEEN_FALSE_ALARMS, Guard, Policy
from rollout.kernel.policy.policy_warnings import PolicyWarning
from rollout.kernel.statistics.detector import (
    MIN_BAD_RECORDS,
    QUIET_DAYS,
    SIGNS_MISSED,
    TRAFFIC_DAYS,
    compute_false_alarm_interval,
    estimate_silent_hours,
)
from rollout.kernel.statistics.forecast import estimate_detection_records

DOUBLED_P95_SHARE = 0.17  # slow answers if p95 doubles and latency is log-normal
TROUBLE_FACTOR = 3  # times the limit


def describe_share_guard(guard: Guard, policy: Policy, traffic: RolloutTraffic) -> str:
    """Return how rarely a guard is wrong and how soon it is right; "" for other measures.

    The quietest place counts; without traffic the shortest interval is assumed.
    """
    if guard.condition.measure.watch is not Watch.RECORDS:
        return ""
    per_day = _find_quietest_rate(guard, policy, traffic)
    place = "site" if guard.condition.measure.is_of_site else "cell"
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
    if guard.condition.measure.reads_latency:
        return "p95 at twice the limit", DOUBLED_P95_SHARE
    share = min(TROUBLE_FACTOR * get_limit(guard), 0.95)
    return f"a share of {share * 100:.3g} %", share


def _describe_delay(guard: Guard, interval: float, share: float, per_day: float | None) -> str:
    limit = get_limit(guard)
    records = estimate_detection_records(1 - limit, interval, min(1 - share, 1 - 1.01 * limit))
    records = max(round(records), guard.condition.measure.min_records or MIN_BAD_RECORDS)
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
            place: object = cell.site if guard.condition.measure.is_of_site else cell
            rates[place] = rates.get(place, 0.0) + units * _get_audited_share(guard, policy)
    return min(rates.values(), default=None)


def _get_audited_share(guard: Guard, policy: Policy) -> float:
    if not guard.condition.measure.reads_audits:
        return 1.0
    return min((stage.audit for stage in policy.stages if stage.audit), default=0.0)


def describe_silence_guard(guard: Guard, policy: Policy, traffic: RolloutTraffic) -> str:
    """Return after which silence a guard trips; "" for other measures.

    The cell with the slowest traffic counts.
    """
    if guard.condition.measure.watch is not Watch.SIGNS:
        return ""
    limit = timedelta(seconds=guard.condition.threshold)
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
    return estimate_silent_hours(per_hour, site_units_per_day, QUIET_DAYS, span) / 24


MIN_RENEWAL_CHANCE = 0.8
SECONDS_PER_DAY = 86400.0


def list_traffic_warnings(
    policy: Policy,
    traffic: RolloutTraffic,
    gate_plans: tuple[GatePlan, ...],
    guard_plans: tuple[GuardPlan, ...],
) -> Iterator[PolicyWarning]:
    """Yield warnings about a policy's traffic; nothing if traffic is unknown."""
    yield from _warn_missing_columns(traffic)
    yield from _warn_slow_gates(policy, traffic, gate_plans)
    yield from _warn_short_grants(policy, traffic, gate_plans)
    yield from _warn_late_guards(policy, guard_plans)


def _warn_missing_columns(traffic: RolloutTraffic) -> Iterator[PolicyWarning]:
    remedies = {
        "windows": "its windows get no case; give the column, or leave `when` out",
        "slices": "the report compares nothing by it; give the column, or leave it out",
    }
    for section, names in traffic.missing_columns.items():
        columns = join_words([f"`{name}`" for name in names])
        noun = "a column" if len(names) == 1 else "the columns"
        yield PolicyWarning(section, f"no case has {noun} {columns}: {remedies[section]}")


def _warn_slow_gates(
    policy: Policy, traffic: RolloutTraffic, gate_plans: tuple[GatePlan, ...]
) -> Iterator[PolicyWarning]:
    for gate_plan in gate_plans:
        slow_plans = {
            cell: cell_plan
            for cell, cell_plan in _plan_each_cell(policy, traffic, gate_plan)
            if cell_plan.days is not None and cell_plan.days > DAYS_PER_YEAR
        }
        if slow_plans:
            slowest_plan = max(slow_plans.values(), key=lambda cell_plan: cell_plan.days or 0.0)
            is_everywhere = len(slow_plans) == len(policy.cells)
            yield PolicyWarning(
                f"gates[{policy.gates.index(gate_plan.gate)}]",
                _describe_slow_gate(slowest_plan)
                + ("" if is_everywhere else f", in {format_cells(tuple(slow_plans))}"),
            )


def _plan_each_cell(
    policy: Policy, traffic: RolloutTraffic, gate_plan: GatePlan
) -> Iterator[tuple[Cell, GatePlan]]:
    """Yield each cell with its plan at the floor that opens first, cached by traffic."""
    plans_by_traffic: dict[int, GatePlan] = {}
    level = _find_stage_level(policy, gate_plan)
    for cell in gate_plan.cells:
        traffic_id = id(traffic.get_cell_traffic(cell))
        if traffic_id not in plans_by_traffic:
            plans = [
                plan_gate(policy, at_floor, cell, level, gate_plan.cells)
                for at_floor in traffic.at_floors
            ]
            plans_by_traffic[traffic_id] = min(
                plans, key=lambda p: inf if p.days is None else p.days
            )
        yield cell, plans_by_traffic[traffic_id]


def _find_stage_level(policy: Policy, gate_plan: GatePlan) -> int:
    return policy.stage_ids.index(gate_plan.gate.to)


def _describe_slow_gate(gate_plan: GatePlan) -> str:
    unreachable_conditions = [
        condition_plan
        for condition_plan in gate_plan.condition_plans
        if condition_plan.evidence_need.is_unreachable
    ]
    if unreachable_conditions:
        condition_description = format_condition(unreachable_conditions[0].condition)
        expected_value = format_expected_value(unreachable_conditions[0])
        return (
            f"{gate_plan.gate.to} is not expected to open: {condition_description}, expected"
            f" {expected_value}"
        )
    return f"{gate_plan.gate.to} needs {format_days(gate_plan.days or 0.0)}, over a year"


def _warn_short_grants(
    policy: Policy, traffic: RolloutTraffic, gate_plans: tuple[GatePlan, ...]
) -> Iterator[PolicyWarning]:
    for gate_plan in gate_plans:
        for cell in gate_plan.cells:
            texts = [
                _describe_short_grant(policy, at_floor, cell, gate_plan)
                for at_floor in traffic.at_floors
            ]
            if all(texts):  # a grant at a stricter floor is renewed on the cases that reach it
                yield PolicyWarning(f"stages[{_find_stage_level(policy, gate_plan) - 1}]", texts[0])
                break


def _describe_short_grant(
    policy: Policy, traffic: RolloutTraffic, cell: Cell, gate_plan: GatePlan
) -> str:
    """Describe why a grant can't be renewed reliably; "" if it can."""
    stage_level = _find_stage_level(policy, gate_plan)
    stage, cell_traffic = policy.get_stage(stage_level), traffic.get_cell_traffic(cell)
    grant_days = stage.lasts.total_seconds() / SECONDS_PER_DAY
    if cell_traffic.units_per_day is None:
        return ""
    grant_units, grant_text = cell_traffic.units_per_day * grant_days, format_days(grant_days)
    expected_units = grant_units * stage.reviewed_share
    if expected_units < gate_plan.gate.minimum.units:
        return (
            f"a grant of {stage.id} lasts {grant_text}: about {expected_units:.0f} decided units in"
            f" {cell}, and its renewal needs {gate_plan.gate.minimum.units}; write a longer"
            " `lasts`, or a larger `blind` or `audit` share"
        )
    renewal_chances = (
        (candidate, _compute_renewal_chance(policy, cell_traffic, candidate, expected_units))
        for candidate in policy.list_conditions(stage_level, cell)
    )
    weak_conditions = [
        (chance, candidate)
        for candidate, chance in renewal_chances
        if chance is not None and chance < MIN_RENEWAL_CHANCE
    ]
    if not weak_conditions:
        return ""
    chance, condition = min(weak_conditions, key=lambda weak_condition: weak_condition[0])
    return (
        f"a grant of {stage.id} lasts {grant_text}, about {expected_units:.0f} decided units in"
        f" {cell}: the probability that they meet {condition} for a renewal is"
        f" {chance * 100:.0f} %"
    )


def _compute_renewal_chance(
    policy: Policy, cell_traffic: CellTraffic, condition: Condition, units: float
) -> float | None:
    share = cell_traffic.get_rate(condition).share
    return (
        None
        if share is None
        else compute_renewal_chance(condition, int(units * share), cell_traffic, policy)
    )


def _warn_late_guards(
    policy: Policy, guard_plans: tuple[GuardPlan, ...]
) -> Iterator[PolicyWarning]:
    for guard_plan in guard_plans:
        total_failure = _find_total_failure(guard_plan)
        if (
            total_failure is not None
            and total_failure.days is not None
            and total_failure.days > DAYS_PER_MONTH
            and not _is_covered(guard_plan, guard_plans, policy)
        ):
            condition_description = format_condition(guard_plan.guard.condition)
            delay_text = format_days(total_failure.days)
            text = (
                f"{condition_description}: a total failure at {guard_plan.stage.id} in"
                f" {guard_plan.quietest_cell} is seen after {delay_text} and about"
                f" {total_failure.wrong_actions:,.0f} wrong answers; audit more there"
            )
            if guard_plan.guard.added:
                yield PolicyWarning("guards", f"the added guard {text}")
            else:
                yield PolicyWarning(f"guards[{policy.guards.index(guard_plan.guard)}]", text)


def _find_total_failure(guard_plan: GuardPlan) -> AgreementDrop | None:
    return next((drop for drop in guard_plan.drops if drop.agreement == 0.0), None)


def _is_covered(guard_plan: GuardPlan, guard_plans: tuple[GuardPlan, ...], policy: Policy) -> bool:
    """Return whether another guard sees within a month what an added guard sees later.

    A model that is always wrong trips every guard of the lever; one that misses a whole label only
    those of that label's measure.
    """
    guard = guard_plan.guard
    if not guard.added or type(guard.condition) is not Condition:
        return False
    cells = [cell for cell in policy.cells if guard.where.fits(cell)]
    return any(
        other.stage == guard_plan.stage
        and type(other.guard.condition) is Condition
        and other.guard.condition.lever == guard.condition.lever
        and (guard.condition.label is None or other.guard.condition.key == guard.condition.key)
        and (failure := _find_total_failure(other)) is not None
        and failure.days is not None
        and failure.days <= DAYS_PER_MONTH
        and all(other.guard.where.fits(cell) for cell in cells)
        for other in guard_plans
    )
