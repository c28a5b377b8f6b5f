"""Warnings that follow from traffic: gates, renewals or alarms that take too long."""

from collections.abc import Iterator

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.reports.text.formatting import join_words
from rollout.services.policies.gate_forecast import (
    DAYS_PER_MONTH,
    DAYS_PER_YEAR,
    compute_renewal_chance,
    format_cells,
    format_condition,
    format_days,
    multiply_rates,
)
from rollout.services.policies.gate_plans import GatePlan, format_expected_value, plan_gate
from rollout.services.policies.guard_plans import AgreementDrop, GuardPlan
from rollout.services.policies.traffic import CellTraffic, RolloutTraffic

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
            if _is_slow(cell_plan)
        }
        if slow_plans:
            slowest_plan = max(slow_plans.values(), key=lambda cell_plan: cell_plan.days or 0.0)
            location = _describe_cells(tuple(slow_plans), policy)
            yield PolicyWarning(
                f"gates[{policy.gates.index(gate_plan.gate)}]",
                _describe_slow_gate(slowest_plan) + location,
            )


def _plan_each_cell(
    policy: Policy, traffic: RolloutTraffic, gate_plan: GatePlan
) -> Iterator[tuple[Cell, GatePlan]]:
    """Yield each cell of the gate's kind with its plan, cached by traffic."""
    plans_by_traffic: dict[int, GatePlan] = {}
    for cell in gate_plan.cells:
        traffic_id = id(traffic.get_cell_traffic(cell))
        if traffic_id not in plans_by_traffic:
            plans_by_traffic[traffic_id] = plan_gate(
                policy, traffic, cell, _find_stage_level(policy, gate_plan), gate_plan.cells
            )
        yield cell, plans_by_traffic[traffic_id]


def _is_slow(cell_plan: GatePlan) -> bool:
    return cell_plan.days is not None and cell_plan.days > DAYS_PER_YEAR


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
            text = _describe_short_grant(policy, traffic.get_cell_traffic(cell), cell, gate_plan)
            if text:
                yield PolicyWarning(f"stages[{_find_stage_level(policy, gate_plan) - 1}]", text)
                break


def _describe_short_grant(
    policy: Policy, cell_traffic: CellTraffic, cell: Cell, gate_plan: GatePlan
) -> str:
    """Describe why a grant can't be renewed reliably; "" if it can."""
    stage_level = _find_stage_level(policy, gate_plan)
    stage = policy.get_stage(stage_level)
    grant_days = stage.lasts.total_seconds() / SECONDS_PER_DAY
    decisions_per_day = multiply_rates(cell_traffic.units_per_day, stage.reviewed_share)
    if decisions_per_day is None:
        return ""
    expected_units, grant_text = decisions_per_day * grant_days, format_days(grant_days)
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


def _describe_cells(cells: tuple[Cell, ...], policy: Policy) -> str:
    return "" if len(cells) == len(policy.cells) else f", in {format_cells(cells)}"
