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
    for row in gates:
        slow = {cell: climb for cell, climb in _climbs(policy, traffic, row) if _is_slow(climb)}
        if slow:
            worst = max(slow.values(), key=lambda climb: climb.days or 0.0)
            where = _where(tuple(slow), policy)
            yield PolicyWarning(f"gates[{policy.gates.index(row.gate)}]", _slow(worst) + where)


def _climbs(policy: Policy, traffic: Traffic, row: GatePlan) -> Iterator[tuple[Cell, GatePlan]]:
    """Yield each cell of the gate's kind with its own climb; equal traffic climbs once."""
    known: dict[int, GatePlan] = {}
    for cell in row.cells:
        flow = id(traffic.flow(cell))
        if flow not in known:
            known[flow] = climbed(policy, traffic, cell, _rung(policy, row), row.cells)
        yield cell, known[flow]


def _is_slow(climb: GatePlan) -> bool:
    return climb.days is not None and climb.days > YEAR


def _rung(policy: Policy, row: GatePlan) -> int:
    return policy.rungs.index(row.gate.to)


def _slow(row: GatePlan) -> str:
    lost = [ask for ask in row.asks if ask.need.never]
    if lost:
        line, value = condition_text(lost[0].condition), expected_text(lost[0])
        return f"{row.gate.to} is not expected to open: {line}, expected {value}"
    return f"{row.gate.to} needs {days_text(row.days or 0.0)}, over a year"


def _short_grants(
    policy: Policy, traffic: Traffic, gates: tuple[GatePlan, ...]
) -> Iterator[PolicyWarning]:
    for row in gates:
        for cell in row.cells:
            says = _short(policy, traffic.flow(cell), cell, row)
            if says:
                yield PolicyWarning(f"stages[{_rung(policy, row) - 1}]", says)
                break


def _short(policy: Policy, flow: Flow, cell: Cell, row: GatePlan) -> str:
    """Say why a grant of the gate's stage can't be counted on to be renewed; empty if it can."""
    rung = _rung(policy, row)
    stage = policy.stage(rung)
    lasts = stage.lasts.total_seconds() / _DAY
    judged = product(flow.units_per_day, stage.seen)
    if judged is None:
        return ""
    units, span = judged * lasts, days_text(lasts)
    if units < row.gate.minimum.units:
        return (
            f"a grant of {stage.id} lasts {span}: about {units:.0f} judged units in {cell}, "
            f"and its renewal asks for {row.gate.minimum.units}; lengthen it, or look at more"
        )
    chances = ((c, _chance(policy, flow, c, units)) for c in policy.required(rung, cell))
    weak = [(chance, c) for c, chance in chances if chance is not None and chance < LEAST_RENEWAL]
    if not weak:
        return ""
    chance, condition = min(weak, key=lambda pair: pair[0])
    return (
        f"a grant of {stage.id} lasts {span}: on about {units:.0f} judged units in {cell}, "
        f"{condition} is renewed with a chance of {chance * 100:.0f} % only"
    )


def _chance(policy: Policy, flow: Flow, condition: Condition, units: float) -> float | None:
    share = flow.rate(condition).share
    return None if share is None else renewal_chance(condition, int(units * share), flow, policy)


def _blind_guards(policy: Policy, guards: tuple[GuardPlan, ...]) -> Iterator[PolicyWarning]:
    for row in guards:
        total = next((fall for fall in row.falls if fall.to == 0.0), None)
        if total is not None and total.days is not None and total.days > MONTH:
            line, when = condition_text(row.guard.condition), days_text(total.days)
            says = (
                f"{line}: a total failure at {row.stage.id} in {row.cell} is seen after {when} "
                f"and about {total.wrong:,.0f} wrong answers; audit more there"
            )
            yield PolicyWarning(f"guards[{policy.guards.index(row.guard)}]", says)


def _where(cells: tuple[Cell, ...], policy: Policy) -> str:
    return "" if len(cells) == len(policy.cells) else f", in {listed(cells)}"
