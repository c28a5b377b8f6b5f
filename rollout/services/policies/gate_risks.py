"""What gates' risks add up to over all cells and over the releases of a year."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from rollout.core.calendar.instants import format_duration
from rollout.core.policy.confidence_floors import compute_gate_risk, list_floors
from rollout.core.policy.policy import DAY, Policy
from rollout.core.policy.risk_shares import compute_yearly_share
from rollout.reports.text.formatting import join_words
from rollout.reports.text.renewal_text import describe_renewal_errors, select_renewal_condition
from rollout.services.policies.gate_forecast import (
    EvidenceNeed,
    compute_evidence_need,
    multiply_rates,
)
from rollout.services.policies.gate_plans import (
    GateConditionPlan,
    GatePlan,
    format_expected_value,
    group_cells_by_gate_path,
)
from rollout.services.policies.traffic import RolloutTraffic

EXAMPLE_AUDITS: Final = 100
"""Audits of a grant where traffic is unknown."""
MONTHLY: Final = 12
"""Releases a year in the example of a policy that plans for none."""


def count_cells_by_gate(policy: Policy) -> dict[int, int]:
    """Return by a gate's index how many cells can pass it."""
    counts: Counter[int] = Counter()
    for gate_path, cells in group_cells_by_gate_path(policy).items():
        counts.update(dict.fromkeys(gate_path, len(cells)))
    return dict(counts)


def compute_expected_errors(policy: Policy) -> float:
    """Return the most wrong widenings a year to expect, over all gates with a risk and their cells.

    It is the expectation if every cell stood exactly at each gate's threshold.
    """
    return sum(policy.gates[gate].risk * n for gate, n in count_cells_by_gate(policy).items())


def describe_fleet_risk(policy: Policy) -> str:
    """Return what all gates' risks add up to in a year; "" if no cell can be widened."""
    expected = compute_expected_errors(policy)
    if not expected:
        return ""
    cells_by_risk: Counter[float] = Counter()
    for gate, cells in count_cells_by_gate(policy).items():
        cells_by_risk[policy.gates[gate].risk] += cells
    terms = [f"{cells:,} at {risk * 100:g} %" for risk, cells in cells_by_risk.items()]
    return (
        "Even if every cell stayed just short of each threshold, expect at most"
        f" {expected:.3g} wrong widenings a year (gates of cells: {join_words(terms)})."
    )


def format_risk(gate_plan: GatePlan) -> str:
    """Return the risk of a year and what it means for all cells; the larger number first."""
    risk, cells = gate_plan.gate.risk, len(gate_plan.cells)
    risk_text = f"risk {risk * 100:g} % per cell and year, for all versions together"
    expected = f"at most {risk * cells:.3g} wrong widenings a year"
    if cells == 1:
        return risk_text
    if risk * cells <= 1:
        return f"{risk_text}: if all {cells:,} cells stood exactly at the threshold, {expected}"
    return (
        f"{expected}, if all {cells:,} cells stood exactly at the threshold: {risk_text}; for at"
        f" most one in {cells:,} cells, write `risk: {100 / cells:.2g}%`"
    )


def format_renewal(gate_plan: GatePlan, policy: Policy, traffic: RolloutTraffic) -> Iterator[str]:
    """Yield both errors of a renewal with the audits of one grant; nothing without a share."""
    condition = select_renewal_condition(gate_plan.gate.require)
    if condition is None:
        return
    stage = policy.get_stage(policy.stage_ids.index(gate_plan.gate.to))
    cell_traffic = traffic.get_cell_traffic(gate_plan.busiest_cell)
    rate = cell_traffic.get_rate(condition).share
    per_day = multiply_rates(cell_traffic.units_per_day, stage.reviewed_share, rate)
    audits = EXAMPLE_AUDITS if per_day is None else round(per_day * (stage.lasts / DAY))
    if audits:
        length = format_duration(stage.lasts)
        yield f"renewal of its grant of {length}: {describe_renewal_errors(condition, audits)}"


def format_total_risk(gate_plans: Iterable[GatePlan]) -> Iterator[str]:
    """Yield the sum over gates, if there are several."""
    sizes = [gate_plan.gate.risk * len(gate_plan.cells) for gate_plan in gate_plans]
    if len(sizes) > 1:
        yield (
            f"all gates together: at most {sum(sizes):.3g} wrong widenings a year, if every cell"
            " stood exactly at each threshold"
        )


def format_releases(gate_plan: GatePlan, policy: Policy, traffic: RolloutTraffic) -> Iterator[str]:
    """Yield what the first and a later release of a year need; nothing if that is unknown."""
    condition_plan = _find_main_condition(gate_plan)
    if condition_plan.condition.population.has_gain:
        return
    releases = policy.evidence.releases or MONTHLY
    later = releases + 1 if policy.evidence.releases else releases
    cell_traffic = traffic.get_cell_traffic(gate_plan.busiest_cell)
    yearly_share = compute_yearly_share(later, policy.evidence.releases)
    share = compute_gate_risk(policy, gate_plan.gate, yearly_share)
    first = _get_records(condition_plan, condition_plan.evidence_need)
    last = _get_records(
        condition_plan,
        compute_evidence_need(condition_plan.condition, share, cell_traffic, policy),
    )
    if first is None or last is None:
        return
    rate = (
        "if all agree"
        if condition_plan.rate.value is None
        else f"at {format_expected_value(condition_plan)}"
    )
    others = f"attempt {later} of a year about {last:,}"
    if policy.evidence.releases:
        yield f"each of the year's {releases} planned attempts has an equal part of it; {others}"
    else:
        yield (
            f"at {releases} releases a year: the first needs about {first:,} decisions {rate}"
            f" ({condition_plan.condition.measure}), {others}"
        )


def format_floors(policy: Policy) -> Iterator[str]:
    """Yield what several confidence floors share; nothing with one."""
    floors = list_floors(policy.evidence)
    if len(floors) > 1:
        texts = join_words([f"{floor * 100:g} %" for floor in floors])
        yield (
            f"{len(floors)} confidence floors, {texts}, have a gate each: these records are needed"
            f" at or above a floor, since each has 1/{len(floors)} of the risk; the promise holds"
            " for all of them together, whatever the confidence is worth"
        )


def _find_main_condition(gate_plan: GatePlan) -> GateConditionPlan:
    """Return the condition that needs most, of those with an expected number."""
    natural_plans = (
        plan for plan in gate_plan.condition_plans if not plan.condition.population.is_planted
    )
    return max(
        natural_plans,
        key=lambda plan: (plan.evidence_need.expected_records is not None, plan.expected_records),
    )


def _get_records(condition_plan: GateConditionPlan, need: EvidenceNeed) -> int | None:
    return need.min_records if condition_plan.rate.value is None else need.expected_records
