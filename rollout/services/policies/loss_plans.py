"""What `grace` and missing units cost a gate in days, by the gate's own law."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil, inf, isclose
from typing import Final

from rollout.core.calendar.instants import format_duration
from rollout.core.policy.policy import DAY, Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.core.statistics.forecast import estimate_fresh_records
from rollout.kernel.measures import MEANS, MeasureKey
from rollout.reports.text.renewal_text import select_renewal_condition
from rollout.services.policies.gate_forecast import format_cells, format_days
from rollout.services.policies.gate_plans import GatePlan, compute_first_risk, plan_gate
from rollout.services.policies.traffic import CellTraffic, MeasureRate, RolloutTraffic

LOST_SHARE: Final = 0.01
"""Share of units that is missing in the first example, unless fewer may be."""
RACING_SHARE: Final = 0.05
"""Share of predictions that come after the decision where services race, in the second."""


def format_losses(gate_plan: GatePlan, policy: Policy, traffic: RolloutTraffic) -> Iterator[str]:
    """Yield what grace and missing units cost; nothing where the gate has no date."""
    if gate_plan.days is None or gate_plan.days == inf:
        return
    fresh_days = compute_fresh_days(gate_plan, policy)
    until_fresh = (
        f", and about {format_days(fresh_days)} until the answers inside it agree too"
        if fresh_days
        else ""
    )
    yield f"grace costs {format_duration(policy.evidence.grace)}{until_fresh}"
    lost = min(LOST_SHARE, policy.evidence.missing_at_most) or LOST_SHARE
    yield (
        f"{lost * 100:g} % of units missing: {_describe_loss(gate_plan, policy, traffic, lost)};"
        f" {RACING_SHARE * 100:g} %, as where services race and aren't vouched for:"
        f" {_describe_loss(gate_plan, policy, traffic, RACING_SHARE)}"
    )


def compute_fresh_days(gate_plan: GatePlan, policy: Policy) -> float | None:
    """Return the median days until the answers inside grace meet the gate too.

    Returns None where the gate's first condition on a share is not what it waits for longest.
    """
    condition = select_renewal_condition(gate_plan.gate.require)
    plan = next((plan for plan in gate_plan.condition_plans if plan.condition == condition), None)
    if plan is None or plan.rate.value is None or not plan.per_day or gate_plan.days is None:
        return None
    grace = policy.evidence.grace / DAY
    if not isclose(plan.expected_records / plan.per_day + grace, gate_plan.days):
        return None
    records = estimate_fresh_records(
        plan.rate.value,
        ceil(plan.per_day * grace),
        at_least=plan.condition.share,
        alpha=compute_first_risk(gate_plan.gate, policy),
    )
    return None if records is None else records / plan.per_day


def _describe_loss(
    gate_plan: GatePlan, policy: Policy, traffic: RolloutTraffic, share: float
) -> str:
    if share > policy.evidence.missing_at_most:
        return f"never, as missing_at_most is {policy.evidence.missing_at_most * 100:g} %"
    days = compute_days_with_losses(gate_plan, policy, traffic, share)
    if days == inf:
        return "not expected to open"
    return f"median {gate_plan.days or 0.0:.0f} → {days:.0f} days"


def compute_days_with_losses(
    gate_plan: GatePlan, policy: Policy, traffic: RolloutTraffic, share: float
) -> float:
    """Return a gate's days if a share of its units is missing besides.

    A missing unit whose decision is known counts against the model in every measure.
    """
    cell_traffic = traffic.get_cell_traffic(gate_plan.busiest_cell)
    worse = replace(cell_traffic, rates=_lose_units(cell_traffic, share, policy.largest_cost))
    lossy = replace(traffic, cells={gate_plan.busiest_cell: worse})
    level = policy.stage_ids.index(gate_plan.gate.to)
    days = plan_gate(policy, lossy, gate_plan.busiest_cell, level, gate_plan.cells).days
    return inf if days is None else days


def _lose_units(
    cell_traffic: CellTraffic, share: float, largest: float
) -> Mapping[MeasureKey, MeasureRate]:
    """Return the rates if a share of units is a failure besides, at the `largest` cost."""
    return {
        key: rate
        if rate.value is None
        else replace(rate, value=rate.value * (1 - share) + (key[0] in MEANS) * share * largest)
        for key, rate in cell_traffic.rates.items()
    }


def list_loss_warnings(
    policy: Policy, traffic: RolloutTraffic, gate_plans: tuple[GatePlan, ...]
) -> Iterator[PolicyWarning]:
    """Yield a warning for each gate that missing units alone keep closed."""
    allowed = policy.evidence.missing_at_most
    for gate_plan in gate_plans:
        shares = {cell: traffic.get_cell_traffic(cell).missing_share for cell in gate_plan.cells}
        cells = tuple(cell for cell, share in shares.items() if share > allowed)
        if cells:
            most = max(shares.values()) * 100
            yield PolicyWarning(
                f"gates[{policy.gates.index(gate_plan.gate)}]",
                f"{gate_plan.gate.to} stays closed in {format_cells(cells)}: up to {most:.2g} % of"
                f" the recorded units are missing, missing_at_most is {allowed * 100:g} %;"
                " `rollout replay` names the reasons",
            )
