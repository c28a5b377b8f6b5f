"""Forecast of guards in days: false alarms, and errors before an alarm."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Guard, Policy
from rollout.core.policy.stages import Stage
from rollout.core.statistics.forecast import estimate_harm
from rollout.kernel.measures import Statistic, Watch
from rollout.services.policies.gate_forecast import (
    compute_days,
    compute_records_to_alarm,
    multiply_rates,
)
from rollout.services.policies.gate_plans import group_cells_by_gate_path
from rollout.services.policies.traffic import CellTraffic, RolloutTraffic

PLANNED_DROPS = (0.9, 0.5, 0.0)


@dataclass(frozen=True, slots=True)
class AgreementDrop:
    """Days until a guard alarms after agreement fell, and wrong actions by then."""

    agreement: float
    days: float | None
    wrong_actions: float


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """Forecast of a guard on one stage.

    `drops` is empty for guards on time spans, and computed for `quietest_cell`. `per_day` counts
    the
    guard's records over all cells.
    """

    guard: Guard
    stage: Stage
    quietest_cell: Cell
    per_day: float | None
    drops: tuple[AgreementDrop, ...]


def plan_guards(policy: Policy, traffic: RolloutTraffic) -> Iterator[GuardPlan]:
    """Yield each guard for each highest stage of its cells."""
    for guard in policy.guards:
        cells_by_top_level: dict[int, list[Cell]] = {}
        for gate_path, cells in group_cells_by_gate_path(policy).items():
            fitting = [cell for cell in cells if guard.where.fits(cell)]
            if fitting:
                cells_by_top_level.setdefault(len(gate_path), []).extend(fitting)
        for stage_level in sorted(cells_by_top_level):
            yield _plan_guard(policy, traffic, guard, stage_level, cells_by_top_level[stage_level])


def _plan_guard(
    policy: Policy, traffic: RolloutTraffic, guard: Guard, stage_level: int, cells: list[Cell]
) -> GuardPlan:
    stage = policy.get_stage(stage_level)
    rates = {
        cell: _compute_observed_rate(guard, stage, traffic.get_cell_traffic(cell)) for cell in cells
    }
    known_rates = {cell: rate for cell, rate in rates.items() if rate is not None}
    quietest = min(known_rates, key=lambda cell: known_rates[cell], default=cells[0])
    highest_rates = [
        _compute_max_observed_rate(policy, guard, stage_level, traffic.get_cell_traffic(cell))
        for cell in cells
    ]
    total = (
        None
        if any(rate is None for rate in highest_rates)
        else sum(rate or 0.0 for rate in highest_rates)
    )
    drops = tuple(
        _plan_drops(
            policy, guard, stage, traffic.get_cell_traffic(quietest), known_rates.get(quietest)
        )
    )
    return GuardPlan(guard, stage, quietest, total, drops)


def _compute_observed_rate(guard: Guard, stage: Stage, cell_traffic: CellTraffic) -> float | None:
    """Return the daily records of a guard in one cell at a stage."""
    measure = guard.condition.measure
    if measure.watch is not Watch.UNITS:
        return None
    share = cell_traffic.get_rate(guard.condition).share
    if measure.reads_assisted:
        return multiply_rates(cell_traffic.units_per_day, 1 - stage.blind)
    return multiply_rates(cell_traffic.units_per_day, stage.reviewed_share, share)


def _compute_max_observed_rate(
    policy: Policy, guard: Guard, stage_level: int, cell_traffic: CellTraffic
) -> float | None:
    """Return the largest visible share up to `stage_level`; 1 if unknown."""
    if not guard.condition.measure.counts_units:
        return None
    if cell_traffic.units_per_day is None:
        return None
    rates = [
        None  # every unit counts, not those of the rarest value alone
        if guard.condition.population.attribute or guard.condition.measure.watch is not Watch.UNITS
        else _compute_observed_rate(guard, policy.get_stage(level), cell_traffic)
        for level in range(1, stage_level + 1)
    ]
    return max(cell_traffic.units_per_day if rate is None else rate for rate in rates)


def _plan_drops(
    policy: Policy, guard: Guard, stage: Stage, cell_traffic: CellTraffic, per_day: float | None
) -> Iterator[AgreementDrop]:
    """Yield the cost of falls in agreement (statistics.md §15), for immediate decisions."""
    measure = guard.condition.measure
    share = 1 - stage.blind if measure.reads_assisted else stage.reviewed_share
    if measure.watch is not Watch.UNITS or measure.statistic is Statistic.EXCESS or share <= 0:
        return
    for agreement in PLANNED_DROPS:
        records = compute_records_to_alarm(guard, agreement, cell_traffic, policy)
        if records is not None:
            expected_wrong_actions = estimate_harm(
                agreement, records=records, audited=share, cases_per_hour=0, hours_late=0
            )
            yield AgreementDrop(
                agreement,
                compute_days(records, per_day),
                (1 - stage.blind) * expected_wrong_actions,
            )


def describe_false_alarms(guard: Guard) -> str:
    """Return how rarely a guard that counts units is wrong; "" for other measures."""
    if not guard.condition.measure.counts_units:
        return ""
    return (
        "expected to trip at a cell exactly at this limit less than once in"
        f" {guard.false_alarm_every:,.0f} units that it counts"
    )


def describe_slices(guard: Guard, traffic: RolloutTraffic) -> str:
    """Return how many slices a guard looks at; "" without any, or without records."""
    condition = guard.condition
    if not condition.population.attribute:
        return ""
    rates = (cell_traffic.get_rate(condition) for cell_traffic in traffic.cells.values())
    slices = max((rate.slices for rate in rates), default=0)
    return (
        f"looks at {slices} slices by {condition.population.attribute}, and names one"
        if slices > 1
        else ""
    )


def compute_false_alarms(guard_plans: tuple[GuardPlan, ...]) -> float | None:
    """Return the maximum false alarms expected per day, over all cells."""
    detecting_plans = [
        guard_plan for guard_plan in guard_plans if guard_plan.guard.condition.measure.counts_units
    ]
    if any(guard_plan.per_day is None for guard_plan in detecting_plans):
        return None
    return sum(
        (guard_plan.per_day or 0.0) / guard_plan.guard.false_alarm_every
        for guard_plan in detecting_plans
    )
