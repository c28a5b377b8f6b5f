"""Forecasts of gates and guards in days, gates' risks over a year, and what missing units cost.

Gates are forecast for each kind of cell, starting from shadow. Evidence from lower stages continues
to count, so a higher gate mostly waits for its minimum. Time for approvals is not included. When a
gate is expected to open at each confidence floor follows from recorded confidence.

Gates' risks add up over all cells and over the releases of a year.

Guards: false alarms, and errors before an alarm.

What `grace` and missing units cost is computed by the gate's own law.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, inf, isclose
from typing import Final

from rollout.engine.words.formatting import (
    format_count,
    format_percent,
    format_quantity,
    join_words,
)
from rollout.engine.words.rule_text import describe_renewal_errors, select_renewal_condition
from rollout.features.policies.gate_forecast import (
    EvidenceNeed,
    compute_days,
    compute_evidence_need,
    compute_records_to_alarm,
    describe_gain_need,
    format_cells,
    format_days,
    multiply_rates,
)
from rollout.features.policies.traffic import CellTraffic, MeasureRate, RolloutTraffic
from rollout.features.replay.requests import Progress
from rollout.kernel.calendar.instants import Cell, format_duration
from rollout.kernel.measures import MEANS, Condition, MeasureKey, Statistic, Watch
from rollout.kernel.policy.cell_evidence import (
    compute_gate_risk,
    describe_floor_cases,
    format_floor,
    list_floors,
)
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.policy.policy import DAY, Gate, Guard, Policy
from rollout.kernel.policy.policy_warnings import PolicyWarning
from rollout.kernel.policy.stages import Stage
from rollout.kernel.statistics.forecast import estimate_fresh_records, estimate_harm
from rollout.kernel.units import group_pairs

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
    paths = ((find_gate_path(policy, cell), cell) for cell in policy.cells)
    return group_pairs((gate_path, cell) for gate_path, cell in paths if gate_path)


def plan_gates(
    policy: Policy, traffic: RolloutTraffic, on_step: Progress | None = None
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
