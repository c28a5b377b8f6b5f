"""`rollout plan`: what a policy will ask for, in cases and days, and what it will miss.

Figures are for a version that starts from nothing today. They are computed with the engine's own
functions; what nobody has said (traffic, agreement) is either assumed, and said to be, or left out.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

from rollout.core.calendar.sites import SHADOW
from rollout.core.policy.policy import Guard, Policy, duration_text
from rollout.core.policy.policy_warnings import PolicyWarning, warnings_of
from rollout.core.scope.quorum import Staff
from rollout.formats.policy.draft import draft_policy
from rollout.formats.records.column_map import DEFAULT, columns_from_flags, read_columns
from rollout.formats.records.files import Sources, read_records
from rollout.services.policies.approver_warnings import people_warnings
from rollout.services.policies.gate_forecast import condition_text, days_for, days_text, listed
from rollout.services.policies.gate_plans import Ask, GatePlan, expected_text, gate_plans
from rollout.services.policies.guard_plans import Fall, GuardPlan, false_alarms, guard_plans
from rollout.services.policies.traffic import Traffic, expected_traffic
from rollout.services.policies.traffic_warnings import traffic_warnings
from rollout.services.support.channels import channel_warnings

LEVER = "answer"  # the id under which a draft calls the one lever; the author renames it


def draft(
    sources: Sources,
    *,
    rollout: str,
    timezone: str,
    columns: Path | None = None,
    mapped: tuple[str, ...] = (),
) -> str:
    """Return the text of a policy for the records in `sources`, with comments that teach.

    Raises:
        ColumnFault: a column that is needed is missing; the text says how to map it.
        ValueError: the files hold no label or no site.
    """
    levers = [LEVER]
    base = DEFAULT if columns is None else read_columns(columns, levers=levers)
    records = read_records(
        sources,
        levers=levers,
        zones={},
        default_zone=timezone,
        columns=columns_from_flags(mapped, levers=levers, base=base),
    )
    return draft_policy(records, rollout=rollout, timezone=timezone)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `rollout plan` says, as figures; `plan_text` writes it."""

    policy: Policy
    traffic: Traffic
    gates: tuple[GatePlan, ...]
    guards: tuple[GuardPlan, ...]
    false_alarms_per_day: float | None
    warnings: tuple[PolicyWarning, ...]


def plan(
    policy: Policy,
    traffic: Traffic | None = None,
    *,
    channels: Collection[str] | None = None,
    staff: Staff | None = None,
) -> Plan:
    """Return what a policy will ask for and miss.

    Args:
        policy: a loaded policy.
        traffic: what its cells see; without it the policy's own `expect` stands in.
        channels: those that are configured; None where that is not known.
        staff: who stands where at its sites; None where people aren't known.
    """
    known_traffic = traffic or expected_traffic(policy)
    gate_plan_list = tuple(gate_plans(policy, known_traffic))
    guard_plan_list = tuple(guard_plans(policy, known_traffic))
    policy_warnings = warnings_of(policy, labels=known_traffic.labels)
    timing_warnings = tuple(
        traffic_warnings(policy, known_traffic, gate_plan_list, guard_plan_list)
    )
    channel_warning_list = tuple(channel_warnings(policy, channels))
    all_warnings = (
        *policy_warnings,
        *people_warnings(policy, staff),
        *timing_warnings,
        *channel_warning_list,
    )
    return Plan(
        policy,
        known_traffic,
        gate_plan_list,
        guard_plan_list,
        false_alarms(guard_plan_list),
        all_warnings,
    )


def plan_text(said: Plan) -> str:
    """Write a plan in plain words, for a terminal; no newline at the end."""
    return "\n".join([*_head(said), "", *_gates(said), "", *_guards(said), "", *_warned(said)])


def _head(said: Plan) -> Iterator[str]:
    policy, unit = said.policy, said.policy.evidence.unit
    yield f"Plan of {policy.rollout}: {len(policy.cells)} cells, {' → '.join(policy.rungs)}"
    flows = said.traffic.flows.values()
    rates = [
        cell_traffic.units_per_day
        for cell_traffic in flows
        if cell_traffic.units_per_day is not None
    ]
    if rates:
        lowest, highest = f"{min(rates):,.3g}", f"{max(rates):,.3g}"
        pace_text = lowest if lowest == highest else f"{lowest} to {highest}"
        yield f"By {said.traffic.source}: {pace_text} units a day in a cell; a unit is one {unit}."
    else:
        yield f"No traffic is known: write expect, or give records. A unit is one {unit}."


def _gates(said: Plan) -> Iterator[str]:
    yield "GATES: what each asks for, from the day a cell stands on the stage below"
    for gate_plan in said.gates:
        yield (
            f"  {gate_plan.below} → {gate_plan.gate.to}, {_cells(gate_plan, said)}:"
            f" {_when(gate_plan)}"
        )
        yield from (f"    {_ask(condition_plan)}" for condition_plan in gate_plan.asks)
        yield f"    {_minimum(gate_plan, said.policy)}"
        risk_text = f"risk {gate_plan.gate.risk * 100:g} % per cell and version"
        yield f"    {risk_text}; yes from {' and '.join(gate_plan.gate.approvals)}"
    shadow_cells = [
        cell
        for cell in said.policy.cells
        if not any(cell in gate_plan.cells for gate_plan in said.gates)
    ]
    if shadow_cells:
        yield f"  always shadow: {listed(tuple(shadow_cells))}"


def _cells(row: GatePlan, said: Plan) -> str:
    is_every_cell = len(row.cells) == len(said.policy.cells)
    location = f"in all {len(row.cells)} cells" if is_every_cell else f"in {listed(row.cells)}"
    daily_rates = {said.traffic.flow(cell).units_per_day for cell in row.cells}
    return location if len(daily_rates) == 1 else f"{location} (figures of {row.cell}, the busiest)"


def _when(row: GatePlan) -> str:
    if row.days is None:
        return "no date without traffic"
    if row.days == inf:
        return "not expected to open"
    addition = "" if row.below == SHADOW else " more, as what was counted below counts on"
    return f"about {days_text(row.days)}{addition}"


def _ask(ask: Ask) -> str:
    minimum_text = f"{ask.need.least:,}"
    if ask.rate.value is None:
        need_text = f"{minimum_text} decisions{_of(ask)} if all are right"
    elif ask.need.never or ask.need.typical is None:
        need_text = f"never at {expected_text(ask)}"
    else:
        days = days_for(ask.need.typical, ask.per_day)
        pace_text = "" if days is None else f", {days_text(days)}"
        need_text = (
            f"about {ask.need.typical:,} decisions{_of(ask)}{pace_text}, at {expected_text(ask)} "
            f"({minimum_text} if all are right)"
        )
    assumption_text = f"\n      assumed: {ask.rate.assumed}" if ask.rate.assumed else ""
    return f"{condition_text(ask.condition)}: {need_text}{assumption_text}"


def _of(ask: Ask) -> str:
    """Say which units such a decision is of, and how many units hold so many of them."""
    if ask.condition.measure == "parity":
        return " by two people"
    if ask.condition.label is None:
        return ""
    unit_text = f" ({ask.records / ask.rate.share:,.0f} units)" if ask.rate.share else ""
    return f" on {ask.condition.label}{unit_text}"


def _minimum(row: GatePlan, policy: Policy) -> str:
    minimum = row.gate.minimum
    grace_text = duration_text(policy.evidence.grace)
    return (
        f"at least {minimum.units:,} judged units, {minimum.days} days, {minimum.reviewers}"
        f" reviewer{'s' if minimum.reviewers != 1 else ''}; a unit counts after its grace,"
        f" {grace_text}"
    )


def _guards(said: Plan) -> Iterator[str]:
    yield "GUARDS: what narrows, and what they miss before they do"
    for guard in said.policy.guards:
        guard_plans_of_guard = [
            guard_plan for guard_plan in said.guards if guard_plan.guard is guard
        ]
        added_text = " (added: a gate asks for it)" if guard.added else ""
        period_text = f" over {duration_text(guard.over)}" if guard.over else ""
        yield (
            f"  {condition_text(guard.condition)}{period_text}{_where(guard)}:"
            f" {_does(guard)}{added_text}"
        )
        yield from (
            f"    {_falls(guard_plan, said)}"
            for guard_plan in guard_plans_of_guard
            if guard_plan.falls
        )
    if said.false_alarms_per_day:
        interval_text = days_text(1 / said.false_alarms_per_day)
        yield f"  false alarms: at most about one in {interval_text}, over all cells and guards"


def _does(guard: Guard) -> str:
    effect_text = {"one-stage": "one stage down", "shadow": "back to shadow"}.get(
        guard.then, guard.then
    )
    return effect_text if guard.reach == "cell" else f"{effect_text}, the whole {guard.reach}"


def _where(guard: Guard) -> str:
    names = (*guard.where.sites, *guard.where.windows)
    return f" at {', '.join(names)}" if names else ""


def _falls(row: GuardPlan, said: Plan) -> str:
    drop_texts = "; ".join(_fall(drop, row) for drop in row.falls)
    daily_rates = {cell_traffic.units_per_day for cell_traffic in said.traffic.flows.values()}
    location = f" in {row.cell}, the quietest," if len(daily_rates) > 1 else ""
    return f"{row.stage.id}:{location} {drop_texts}"


def _fall(fall: Fall, row: GuardPlan) -> str:
    error_name = "wrong actions" if row.stage.model_decides else "wrong proposals"
    delay_text = "" if fall.days is None else f"{days_text(fall.days)} and "
    agreement_text = f"right in {fall.to * 100:.0f} %" if fall.to else "never right"
    return f"{agreement_text}: {delay_text}about {fall.wrong:,.0f} {error_name}"


def _warned(said: Plan) -> Iterator[str]:
    yield f"WARNINGS: {len(said.warnings) or 'none'}"
    yield from (f"  {warning}" for warning in said.warnings)
