"""Gates in days: what each asks for in each kind of cell, climbing from shadow.

Evidence of the stages below counts on, so a gate higher up mostly waits for its minimum. The time
of the approvals is not in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Gate, Policy
from rollout.services.policies.gate_forecast import Need, days_for, need, product
from rollout.services.policies.traffic import Flow, Rate, Traffic

_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One condition of a gate: what it needs, and how many such records come in a day."""

    condition: Condition
    need: Need
    rate: Rate
    per_day: float | None

    @property
    def records(self) -> int:
        """Return the records that it takes: at the expected rate, or the least."""
        return self.need.least if self.need.typical is None else self.need.typical


@dataclass(frozen=True, slots=True)
class GatePlan:
    """A gate in one kind of cell.

    Attributes:
        gate: the gate, and `below` the stage that it leads away from.
        cells: the cells of this kind; `cell` is the one that the figures are of.
        asks: its conditions with those of the gates below.
        days: from the day the cell enters the stage below; None where traffic is unknown,
            infinite where it is not expected to open.
    """

    gate: Gate
    below: str
    cells: tuple[Cell, ...]
    cell: Cell
    asks: tuple[Ask, ...]
    days: float | None


Chain = tuple[int, ...]


def chain_of(policy: Policy, cell: Cell) -> Chain:
    """Return which gates lead the cell up, as numbers in the policy, as far as its limits allow."""
    stage_caps = [limit.never_above for limit in policy.limits if limit.where.fits(cell)]
    cap_levels = [policy.rungs.index(cap) for cap in stage_caps if cap is not None]
    gate_indexes: list[int] = []
    for stage_level in range(1, min(cap_levels, default=len(policy.stages)) + 1):
        gate = policy.gate(stage_level, cell)
        if gate is None:
            break
        gate_indexes.append(policy.gates.index(gate))
    return tuple(gate_indexes)


def kinds(policy: Policy) -> dict[Chain, list[Cell]]:
    """Return the cells by the gates that lead them up; those that stay in shadow are left out."""
    cells_by_path: dict[Chain, list[Cell]] = {}
    for cell in policy.cells:
        gate_path = chain_of(policy, cell)
        if gate_path:
            cells_by_path.setdefault(gate_path, []).append(cell)
    return cells_by_path


def gate_plans(policy: Policy, traffic: Traffic) -> Iterator[GatePlan]:
    """Yield the gates in order of their rungs; each of the busiest cell of its kind."""
    cells_by_path: dict[tuple[int, ...], list[Cell]] = {}
    for gate_path, cells in kinds(policy).items():
        for length in range(1, len(gate_path) + 1):
            cells_by_path.setdefault(gate_path[:length], []).extend(cells)
    for gate_path in sorted(cells_by_path, key=lambda gate_path: (len(gate_path), gate_path)):
        busiest = max(
            cells_by_path[gate_path], key=lambda cell: traffic.flow(cell).units_per_day or 0.0
        )
        yield climbed(policy, traffic, busiest, len(gate_path), tuple(cells_by_path[gate_path]))


def climbed(
    policy: Policy, traffic: Traffic, cell: Cell, rung: int, cells: tuple[Cell, ...]
) -> GatePlan:
    """Climb the ladder to `rung`: evidence of the stages below counts on."""
    cell_traffic = traffic.flow(cell)
    evidence_records: dict[Condition, float] = {}
    days: float | None = 0.0
    for level in range(1, rung + 1):
        condition_plans = tuple(_asks(policy, cell_traffic, cell, level))
        waiting_days = _days(policy, cell_traffic, cell, level, condition_plans, evidence_records)
        days = inf if days == inf else waiting_days
        for condition in policy.required(rung, cell):
            new_records = product(days, _per_day(policy, cell_traffic, condition, level)) or 0.0
            evidence_records[condition] = evidence_records.get(condition, 0.0) + new_records
    gate = policy.gate(rung, cell)
    assert gate is not None  # noqa: S101 - the chain has it
    return GatePlan(gate, policy.rungs[rung - 1], cells, cell, condition_plans, days)


def _per_day(policy: Policy, flow: Flow, condition: Condition, rung: int) -> float | None:
    """Return the records of a condition that come in a day on the stage below `rung`."""
    return product(flow.units_per_day, _seen(policy, rung - 1), flow.rate(condition).share)


def _seen(policy: Policy, rung: int) -> float:
    """Return the share of units that get a blind verdict on a rung; shadow sees all."""
    return 1.0 if rung == 0 else policy.stage(rung).seen


def _asks(policy: Policy, flow: Flow, cell: Cell, rung: int) -> Iterator[Ask]:
    gate = policy.gate(rung, cell)
    assert gate is not None  # noqa: S101 - the chain has it
    for condition in policy.required(rung, cell):
        evidence_need = need(condition, gate.risk, flow, policy)
        per_day = _per_day(policy, flow, condition, rung)
        yield Ask(condition, evidence_need, flow.rate(condition), per_day)


def _days(
    policy: Policy,
    flow: Flow,
    cell: Cell,
    rung: int,
    asks: tuple[Ask, ...],
    gathered: dict[Condition, float],
) -> float | None:
    """Return the days on the rung below; infinite if some condition is never met."""
    gate = policy.gate(rung, cell)
    decisions_per_day = product(flow.units_per_day, _seen(policy, rung - 1))
    if gate is None or decisions_per_day is None:
        return None
    waiting_days = [
        days_for(
            condition_plan.records - gathered.get(condition_plan.condition, 0.0),
            condition_plan.per_day,
        )
        for condition_plan in asks
    ]
    if any(condition_plan.need.never for condition_plan in asks):
        return inf
    if any(days is None for days in waiting_days):
        return None
    days_with_a_unit = gate.minimum.days / min(1.0, decisions_per_day) if decisions_per_day else inf
    minimum_days = (days_for(gate.minimum.units, decisions_per_day) or 0.0, days_with_a_unit)
    grace = policy.evidence.grace.total_seconds() / _DAY
    return max(*(days or 0.0 for days in waiting_days), *minimum_days) + grace


def expected_text(ask: Ask) -> str:
    """Say what is expected of a condition's measure; for a rate that is known."""
    value = ask.rate.value or 0.0
    return f"{value:.3g}" if ask.condition.measure == "cost" else f"{value * 100:.3g} %"
