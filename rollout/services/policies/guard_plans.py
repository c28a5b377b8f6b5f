"""Guards in days: how often they alarm falsely, what they miss before they alarm."""

from collections.abc import Iterator
from dataclasses import dataclass

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import DETECTED
from rollout.core.policy.policy import Guard, Policy, Stage
from rollout.core.statistics.forecast import expected_harm
from rollout.services.policies.gate_forecast import days_for, product, records_to_alarm
from rollout.services.policies.gate_plans import kinds
from rollout.services.policies.traffic import Flow, Traffic

FALLS = (0.9, 0.5, 0.0)


@dataclass(frozen=True, slots=True)
class Fall:
    """What a guard does after agreement fell: days until it alarms, wrong actions by then."""

    to: float
    days: float | None
    wrong: float


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """A guard on one stage: how often it alarms falsely, how soon it sees a fall.

    `falls` is empty for guards that look at spans of time; `per_day` counts, over all cells, the
    records that it looks at. The falls are those of `cell`, the quietest.
    """

    guard: Guard
    stage: Stage
    cell: Cell
    per_day: float | None
    falls: tuple[Fall, ...]


def guard_plans(policy: Policy, traffic: Traffic) -> Iterator[GuardPlan]:
    """Yield each guard once for each highest stage that its cells may reach."""
    for guard in policy.guards:
        cells_by_top_level: dict[int, list[Cell]] = {}
        for gate_path, cells in kinds(policy).items():
            fitting = [cell for cell in cells if guard.where.fits(cell)]
            if fitting:
                cells_by_top_level.setdefault(len(gate_path), []).extend(fitting)
        for stage_level in sorted(cells_by_top_level):
            yield _guard(policy, traffic, guard, stage_level, cells_by_top_level[stage_level])


def _guard(
    policy: Policy, traffic: Traffic, guard: Guard, rung: int, cells: list[Cell]
) -> GuardPlan:
    stage = policy.stage(rung)
    rates = {cell: _watched(guard, stage, traffic.flow(cell)) for cell in cells}
    known_rates = {cell: rate for cell, rate in rates.items() if rate is not None}
    quietest = min(known_rates, key=lambda cell: known_rates[cell], default=cells[0])
    highest_rates = [_most_watched(policy, guard, rung, traffic.flow(cell)) for cell in cells]
    total = (
        None
        if any(rate is None for rate in highest_rates)
        else sum(rate or 0.0 for rate in highest_rates)
    )
    drops = tuple(_falls(policy, guard, stage, traffic.flow(quietest), known_rates.get(quietest)))
    return GuardPlan(guard, stage, quietest, total, drops)


def _watched(guard: Guard, stage: Stage, flow: Flow) -> float | None:
    """Return the records that a guard looks at in a day of one cell at a stage."""
    if guard.condition.measure not in DETECTED:
        return None
    share = 1.0 if guard.condition.measure == "override" else flow.rate(guard.condition).share
    stage_share = 1 - stage.blind if guard.condition.measure == "override" else stage.seen
    return product(flow.units_per_day, stage_share, share)


def _most_watched(policy: Policy, guard: Guard, rung: int, flow: Flow) -> float | None:
    """Return the same at the stage, of those up to `rung`, that shows it most; all if unknown."""
    if guard.condition.measure not in DETECTED:
        return None
    if flow.units_per_day is None:
        return None
    rates = [_watched(guard, policy.stage(level), flow) for level in range(1, rung + 1)]
    return max(flow.units_per_day if rate is None else rate for rate in rates)


def _falls(
    policy: Policy, guard: Guard, stage: Stage, flow: Flow, per_day: float | None
) -> Iterator[Fall]:
    """Yield what falls cost (statistics.md §15), for verdicts that come at once."""
    share = 1 - stage.blind if guard.condition.measure == "override" else stage.seen
    if guard.condition.measure not in DETECTED - {"action_change"} or share <= 0:
        return
    for agreement in FALLS:
        records = records_to_alarm(guard, agreement, flow, policy)
        if records is not None:
            expected_wrong_actions = expected_harm(
                agreement, records=records, audited=share, cases_per_hour=0, hours_late=0
            )
            yield Fall(
                agreement, days_for(records, per_day), (1 - stage.blind) * expected_wrong_actions
            )


def false_alarms(guards: tuple[GuardPlan, ...]) -> float | None:
    """Return the most false alarms to expect in a day, over all cells and detectors."""
    detecting_plans = [
        guard_plan for guard_plan in guards if guard_plan.guard.condition.measure in DETECTED
    ]
    if any(guard_plan.per_day is None for guard_plan in detecting_plans):
        return None
    return sum(
        (guard_plan.per_day or 0.0) / guard_plan.guard.false_alarm_every
        for guard_plan in detecting_plans
    )
