"""Forecast of gates in days, for each kind of cell, starting from shadow.

Evidence from lower stages continues to count, so a higher gate mostly waits for its minimum. Time
for approvals is not included.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from rollout.core.calendar.sites import Cell
from rollout.core.policy.confidence_floors import compute_gate_risk
from rollout.core.policy.policy import Gate, Policy
from rollout.core.policy.risk_shares import compute_yearly_share
from rollout.kernel.measures import Condition, Statistic
from rollout.services.policies.gain_plans import describe_gain_need
from rollout.services.policies.gate_forecast import (
    EvidenceNeed,
    compute_days,
    compute_evidence_need,
    multiply_rates,
)
from rollout.services.policies.traffic import CellTraffic, MeasureRate, RolloutTraffic
from rollout.services.support.user_runs import StepCallback

SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class GateConditionPlan:
    """A gate condition with the records it needs and the daily records."""

    condition: Condition
    evidence_need: EvidenceNeed
    rate: MeasureRate
    per_day: float | None

    @property
    def expected_records(self) -> int:
        """Return the expected records needed, else the minimum."""
        return (
            self.evidence_need.min_records
            if self.evidence_need.expected_records is None
            else self.evidence_need.expected_records
        )


@dataclass(frozen=True, slots=True)
class GatePlan:
    """Forecast of a gate for one kind of cell.

    Attributes:
        gate: the gate; it leads away from `from_stage`.
        cells: the cells of this kind; the figures are for `busiest_cell`.
        condition_plans: conditions of this gate and of the gates below.
        days: from entering the stage below; None without traffic figures, infinite if the gate is
            not expected to open.
    """

    gate: Gate
    from_stage: str
    cells: tuple[Cell, ...]
    busiest_cell: Cell
    condition_plans: tuple[GateConditionPlan, ...]
    days: float | None


GatePath = tuple[int, ...]


def find_gate_path(policy: Policy, cell: Cell) -> GatePath:
    """Return the indexes of the gates that a cell passes within its limits."""
    stage_caps = [limit.never_above for limit in policy.limits if limit.where.fits(cell)]
    cap_levels = [policy.stage_ids.index(cap) for cap in stage_caps if cap is not None]
    gate_indexes: list[int] = []
    for stage_level in range(1, min(cap_levels, default=len(policy.stages)) + 1):
        gate = policy.find_gate(stage_level, cell)
        if gate is None:
            break
        gate_indexes.append(policy.gates.index(gate))
    return tuple(gate_indexes)


def group_cells_by_gate_path(policy: Policy) -> dict[GatePath, list[Cell]]:
    """Return the cells by gate path, without cells that stay in shadow."""
    cells_by_path: dict[GatePath, list[Cell]] = {}
    for cell in policy.cells:
        gate_path = find_gate_path(policy, cell)
        if gate_path:
            cells_by_path.setdefault(gate_path, []).append(cell)
    return cells_by_path


def plan_gates(
    policy: Policy, traffic: RolloutTraffic, on_step: StepCallback | None = None
) -> Iterator[GatePlan]:
    """Yield the gates by stage level, for the busiest cell of each kind.

    `on_step` is called before each.
    """
    cells_by_path: dict[tuple[int, ...], list[Cell]] = {}
    for gate_path, cells in group_cells_by_gate_path(policy).items():
        for length in range(1, len(gate_path) + 1):
            cells_by_path.setdefault(gate_path[:length], []).extend(cells)
    ordered_paths = sorted(cells_by_path, key=lambda gate_path: (len(gate_path), gate_path))
    for number, gate_path in enumerate(ordered_paths):
        if on_step is not None:
            on_step(f"a gate to {policy.stage_ids[len(gate_path)]}", number, len(ordered_paths))
        busiest = max(
            cells_by_path[gate_path],
            key=lambda cell: traffic.get_cell_traffic(cell).units_per_day or 0.0,
        )
        yield plan_gate(policy, traffic, busiest, len(gate_path), tuple(cells_by_path[gate_path]))


def plan_gate(
    policy: Policy, traffic: RolloutTraffic, cell: Cell, stage_level: int, cells: tuple[Cell, ...]
) -> GatePlan:
    """Forecast the gates up to `stage_level`, with the evidence of lower stages."""
    cell_traffic = traffic.get_cell_traffic(cell)
    evidence_records: dict[Condition, float] = {}
    days: float | None = 0.0
    for level in range(1, stage_level + 1):
        condition_plans = tuple(_plan_conditions(policy, cell_traffic, cell, level))
        waiting_days = _compute_days(
            policy, cell_traffic, cell, level, condition_plans, evidence_records
        )
        days = inf if days == inf else waiting_days
        for condition in policy.list_conditions(stage_level, cell):
            new_records = (
                multiply_rates(
                    days, _compute_records_per_day(policy, cell_traffic, condition, level)
                )
                or 0.0
            )
            evidence_records[condition] = evidence_records.get(condition, 0.0) + new_records
    gate = policy.find_gate(stage_level, cell)
    assert gate is not None  # noqa: S101 - the chain has it
    return GatePlan(
        gate,
        policy.stage_ids[stage_level - 1],
        cells,
        cell,
        condition_plans,
        days,
    )


def _compute_records_per_day(
    policy: Policy, cell_traffic: CellTraffic, condition: Condition, stage_level: int
) -> float | None:
    """Return a condition's daily records on the stage below `stage_level`."""
    return multiply_rates(
        cell_traffic.units_per_day,
        _find_blind_share(policy, stage_level - 1),
        cell_traffic.get_rate(condition).share,
    )


def _find_blind_share(policy: Policy, stage_level: int) -> float:
    """Return the share of units with a blind decision; 1 in shadow."""
    return 1.0 if stage_level == 0 else policy.get_stage(stage_level).reviewed_share


def _plan_conditions(
    policy: Policy, cell_traffic: CellTraffic, cell: Cell, stage_level: int
) -> Iterator[GateConditionPlan]:
    gate = policy.find_gate(stage_level, cell)
    assert gate is not None  # noqa: S101 - the chain has it
    first_risk = compute_first_risk(gate, policy)
    for condition in policy.list_conditions(stage_level, cell):
        evidence_need = compute_evidence_need(condition, first_risk, cell_traffic, policy)
        if condition.population.attribute:
            evidence_need = evidence_need.raise_to(condition.population.minimum)
        per_day = _compute_records_per_day(policy, cell_traffic, condition, stage_level)
        yield GateConditionPlan(condition, evidence_need, cell_traffic.get_rate(condition), per_day)


def compute_first_risk(gate: Gate, policy: Policy) -> float:
    """Return the risk of a cell's first attempt at a gate."""
    return compute_gate_risk(policy, gate, compute_yearly_share(1, policy.evidence.releases))


def describe_gate_gain(gate_plan: GatePlan, condition: Condition, policy: Policy) -> str:
    """Return the units that a gate's condition on gain needs in a first attempt."""
    risk = compute_first_risk(gate_plan.gate, policy)
    return describe_gain_need(policy, condition, gate_plan.gate.to, risk)


def _compute_days(
    policy: Policy,
    cell_traffic: CellTraffic,
    cell: Cell,
    stage_level: int,
    condition_plans: tuple[GateConditionPlan, ...],
    evidence_records: dict[Condition, float],
) -> float | None:
    """Return the days on the stage below; infinite if a condition is never met."""
    gate = policy.find_gate(stage_level, cell)
    decisions_per_day = multiply_rates(
        cell_traffic.units_per_day, _find_blind_share(policy, stage_level - 1)
    )
    if gate is None or decisions_per_day is None:
        return None
    waiting_days = [
        compute_days(
            condition_plan.expected_records - evidence_records.get(condition_plan.condition, 0.0),
            condition_plan.per_day,
        )
        for condition_plan in condition_plans
        if not condition_plan.condition.population.is_planted  # they come as users plant
    ]
    if any(plan.condition.population.has_gain for plan in condition_plans):
        return None
    if any(condition_plan.evidence_need.is_unreachable for condition_plan in condition_plans):
        return inf
    if any(days is None for days in waiting_days):
        return None
    days_with_a_unit = gate.minimum.days / min(1.0, decisions_per_day) if decisions_per_day else inf
    minimum_days = (compute_days(gate.minimum.units, decisions_per_day) or 0.0, days_with_a_unit)
    grace = policy.evidence.grace.total_seconds() / SECONDS_PER_DAY
    return max(*(days or 0.0 for days in waiting_days), *minimum_days) + grace


def format_expected_value(condition_plan: GateConditionPlan) -> str:
    """Format the expected value of a condition whose rate is known."""
    value = condition_plan.rate.value or 0.0
    measure = condition_plan.condition.measure
    if measure.statistic is Statistic.MEAN:
        return f"{value:.3g}"
    return f"{measure.from_share(value) * 100:.3g} %"
