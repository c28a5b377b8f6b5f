"""When a gate is expected to open at each confidence floor, from recorded confidence."""

from collections.abc import Iterator
from math import inf

from rollout.core.policy.confidence_floors import describe_floor_cases, format_floor, list_floors
from rollout.core.policy.policy import Policy
from rollout.reports.text.formatting import format_count, format_percent, format_quantity
from rollout.services.policies.gate_forecast import format_days
from rollout.services.policies.gate_plans import GatePlan, plan_gate
from rollout.services.policies.traffic import RolloutTraffic


def format_floor_plans(
    gate_plan: GatePlan, policy: Policy, traffic: RolloutTraffic
) -> Iterator[str]:
    """Yield each floor's share of cases and first opening; nothing without recorded floors."""
    if not traffic.floor_cells:
        return
    floors, lowest = list_floors(policy.evidence), 0.0
    for i, at_floor in enumerate(traffic.at_floors):
        units = sum(at_floor.get_cell_traffic(c).units_per_day or 0.0 for c in gate_plan.cells)
        lowest = lowest or units
        share = f" ({format_percent(units / lowest, 0)} of these)" if i and lowest else ""
        yield (
            f"{describe_floor_cases(format_floor(floors[i]))}{share}:"
            f" {_describe_openings(gate_plan, policy, at_floor)}"
        )


def _describe_openings(gate_plan: GatePlan, policy: Policy, traffic: RolloutTraffic) -> str:
    """Describe in how many cells the gate is expected to open, and where first."""
    level = policy.stage_ids.index(gate_plan.gate.to)
    plans = [plan_gate(policy, traffic, cell, level, gate_plan.cells) for cell in gate_plan.cells]
    opening = [(plan.days, plan) for plan in plans if plan.days is not None and plan.days < inf]
    cells = format_quantity(len(plans), "cell")
    if not opening:
        return f"not expected to open in any of {cells}"
    days, first = min(opening, key=lambda pair: pair[0])
    records = max(condition_plan.expected_records for condition_plan in first.condition_plans)
    return (
        f"expected to open in {format_count(len(opening))} of {cells}, first in"
        f" {first.busiest_cell} after about {format_days(days)} and"
        f" {format_quantity(records, 'decision')} on them"
    )
