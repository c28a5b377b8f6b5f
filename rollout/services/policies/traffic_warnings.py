"""Warnings that follow from traffic: too slow, too few, too late."""

from collections.abc import Iterator

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.services.policies.gate_forecast import (
    MONTH,
    YEAR,
    condition_text,
    days_text,
    listed,
    product,
    renewal_chance,
)
from rollout.services.policies.gate_plans import GatePlan, climbed, expected_text
from rollout.services.policies.guard_plans import GuardPlan
from rollout.services.policies.traffic import Flow, Traffic

LEAST_RENEWAL = 0.8
_DAY = 86400.0


def traffic_warnings(
    policy: Policy,
    traffic: Traffic,
    gates: tuple[GatePlan, ...],
    guards: tuple[GuardPlan, ...],
) -> Iterator[PolicyWarning]:
    """Yield what a policy's traffic makes doubtful; nothing where traffic is unknown."""
    yield from _slow_gates(policy, traffic, gates)
    yield from _short_grants(policy, traffic, gates)
    yield from _blind_guards(policy, guards)


def _slow_gates(
    policy: Policy, traffic: Traffic, gates: tuple[GatePlan, ...]
) -> Iterator[PolicyWarning]:
    for gate_plan in gates:
        slow_plans = {
            cell: cell_plan
            for cell, cell_plan in _climbs(policy, traffic, gate_plan)
            if _is_slow(cell_plan)
        }
        if slow_plans:
            slowest_plan = max(slow_plans.values(), key=lambda cell_plan: cell_plan.days or 0.0)
            location = _where(tuple(slow_plans), policy)
            yield PolicyWarning(
                f"gates[{policy.gates.index(gate_plan.gate)}]", _slow(slowest_plan) + location
            )


def _climbs(policy: Policy, traffic: Traffic, row: GatePlan) -> Iterator[tuple[Cell, GatePlan]]:
    """Yield each cell of the gate's kind with its own climb; equal traffic climbs once."""
    plans_by_traffic: dict[int, GatePlan] = {}
    for cell in row.cells:
        traffic_id = id(traffic.flow(cell))
        if traffic_id not in plans_by_traffic:
            plans_by_traffic[traffic_id] = climbed(
                policy, traffic, cell, _rung(policy, row), row.cells
            )
        yield cell, plans_by_traffic[traffic_id]


def _is_slow(climb: GatePlan) -> bool:
    return climb.days is not None and climb.days > YEAR


def _rung(policy: Policy, row: GatePlan) -> int:
    return policy.rungs.index(row.gate.to)


def _slow(row: GatePlan) -> str:
    unreachable_conditions = [
        condition_plan for condition_plan in row.asks if condition_plan.need.never
    ]
    if unreachable_conditions:
        condition_description, expected_value = (
            condition_text(unreachable_conditions[0].condition),
            expected_text(unreachable_conditions[0]),
        )
        return (
            f"{row.gate.to} is not expected to open: {condition_description}, expected"
            f" {expected_value}"
        )
    return f"{row.gate.to} needs {days_text(row.days or 0.0)}, over a year"


def _short_grants(
    policy: Policy, traffic: Traffic, gates: tuple[GatePlan, ...]
) -> Iterator[PolicyWarning]:
    for gate_plan in gates:
        for cell in gate_plan.cells:
            text = _short(policy, traffic.flow(cell), cell, gate_plan)
            if text:
                yield PolicyWarning(f"stages[{_rung(policy, gate_plan) - 1}]", text)
                break


def _short(policy: Policy, flow: Flow, cell: Cell, row: GatePlan) -> str:
    """Say why a grant of the gate's stage can't be counted on to be renewed; empty if it can."""
    stage_level = _rung(policy, row)
    stage = policy.stage(stage_level)
    grant_days = stage.lasts.total_seconds() / _DAY
    decisions_per_day = product(flow.units_per_day, stage.seen)
    if decisions_per_day is None:
        return ""
    expected_units, grant_text = decisions_per_day * grant_days, days_text(grant_days)
    if expected_units < row.gate.minimum.units:
        return (
            f"a grant of {stage.id} lasts {grant_text}: about {expected_units:.0f} judged units in"
            f" {cell}, and its renewal asks for {row.gate.minimum.units}; lengthen it, or look at"
            " more"
        )
    renewal_chances = (
        (candidate, _chance(policy, flow, candidate, expected_units))
        for candidate in policy.required(stage_level, cell)
    )
    weak_conditions = [
        (chance, candidate)
        for candidate, chance in renewal_chances
        if chance is not None and chance < LEAST_RENEWAL
    ]
    if not weak_conditions:
        return ""
    chance, condition = min(weak_conditions, key=lambda weak_condition: weak_condition[0])
    return (
        f"a grant of {stage.id} lasts {grant_text}: on about {expected_units:.0f} judged units in"
        f" {cell}, {condition} is renewed with a chance of {chance * 100:.0f} % only"
    )


def _chance(policy: Policy, flow: Flow, condition: Condition, units: float) -> float | None:
    share = flow.rate(condition).share
    return None if share is None else renewal_chance(condition, int(units * share), flow, policy)


def _blind_guards(policy: Policy, guards: tuple[GuardPlan, ...]) -> Iterator[PolicyWarning]:
    for guard_plan in guards:
        total_failure = next((drop for drop in guard_plan.falls if drop.to == 0.0), None)
        if (
            total_failure is not None
            and total_failure.days is not None
            and total_failure.days > MONTH
        ):
            condition_description, delay_text = (
                condition_text(guard_plan.guard.condition),
                days_text(total_failure.days),
            )
            text = (
                f"{condition_description}: a total failure at {guard_plan.stage.id} in"
                f" {guard_plan.cell} is seen after {delay_text} and about"
                f" {total_failure.wrong:,.0f} wrong answers; audit more there"
            )
            yield PolicyWarning(f"guards[{policy.guards.index(guard_plan.guard)}]", text)


def _where(cells: tuple[Cell, ...], policy: Policy) -> str:
    return "" if len(cells) == len(policy.cells) else f", in {listed(cells)}"
