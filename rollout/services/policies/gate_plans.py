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
    caps = [row.never_above for row in policy.limits if row.where.fits(cell)]
    rungs = [policy.rungs.index(cap) for cap in caps if cap is not None]
    found: list[int] = []
    for rung in range(1, min(rungs, default=len(policy.stages)) + 1):
        gate = policy.gate(rung, cell)
        if gate is None:
            break
        found.append(policy.gates.index(gate))
    return tuple(found)


def kinds(policy: Policy) -> dict[Chain, list[Cell]]:
    """Return the cells by the gates that lead them up; those that stay in shadow are left out."""
    found: dict[Chain, list[Cell]] = {}
    for cell in policy.cells:
        chain = chain_of(policy, cell)
        if chain:
            found.setdefault(chain, []).append(cell)
    return found


def gate_plans(policy: Policy, traffic: Traffic) -> Iterator[GatePlan]:
    """Yield the gates in order of their rungs; each of the busiest cell of its kind."""
    seen: dict[tuple[int, ...], list[Cell]] = {}
    for chain, cells in kinds(policy).items():
        for length in range(1, len(chain) + 1):
            seen.setdefault(chain[:length], []).extend(cells)
    for chain in sorted(seen, key=lambda chain: (len(chain), chain)):
        busiest = max(seen[chain], key=lambda cell: traffic.flow(cell).units_per_day or 0.0)
        yield climbed(policy, traffic, busiest, len(chain), tuple(seen[chain]))


def climbed(
    policy: Policy, traffic: Traffic, cell: Cell, rung: int, cells: tuple[Cell, ...]
) -> GatePlan:
    """Climb the ladder to `rung`: evidence of the stages below counts on."""
    flow = traffic.flow(cell)
    gathered: dict[Condition, float] = {}
    days: float | None = 0.0
    for step in range(1, rung + 1):
        asks = tuple(_asks(policy, flow, cell, step))
        waited = _days(policy, flow, cell, step, asks, gathered)
        days = inf if days == inf else waited
        for condition in policy.required(rung, cell):
            came = product(days, _per_day(policy, flow, condition, step)) or 0.0
            gathered[condition] = gathered.get(condition, 0.0) + came
    gate = policy.gate(rung, cell)
    assert gate is not None  # noqa: S101 - the chain has it
    return GatePlan(gate, policy.rungs[rung - 1], cells, cell, asks, days)


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
        asked = need(condition, gate.risk, flow, policy)
        per_day = _per_day(policy, flow, condition, rung)
        yield Ask(condition, asked, flow.rate(condition), per_day)


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
    judged = product(flow.units_per_day, _seen(policy, rung - 1))
    if gate is None or judged is None:
        return None
    waits = [days_for(ask.records - gathered.get(ask.condition, 0.0), ask.per_day) for ask in asks]
    if any(ask.need.never for ask in asks):
        return inf
    if any(wait is None for wait in waits):
        return None
    days_with_a_unit = gate.minimum.days / min(1.0, judged) if judged else inf
    least = (days_for(gate.minimum.units, judged) or 0.0, days_with_a_unit)
    grace = policy.evidence.grace.total_seconds() / _DAY
    return max(*(wait or 0.0 for wait in waits), *least) + grace


def expected_text(ask: Ask) -> str:
    """Say what is expected of a condition's measure; for a rate that is known."""
    value = ask.rate.value or 0.0
    return f"{value:.3g}" if ask.condition.measure == "cost" else f"{value * 100:.3g} %"
