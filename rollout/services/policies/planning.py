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
    given = traffic or expected_traffic(policy)
    gates = tuple(gate_plans(policy, given))
    guards = tuple(guard_plans(policy, given))
    own = warnings_of(policy, labels=given.labels)
    late = tuple(traffic_warnings(policy, given, gates, guards))
    unheard = tuple(channel_warnings(policy, channels))
    warned = (*own, *people_warnings(policy, staff), *late, *unheard)
    return Plan(policy, given, gates, guards, false_alarms(guards), warned)


def plan_text(said: Plan) -> str:
    """Write a plan in plain words, for a terminal; no newline at the end."""
    return "\n".join([*_head(said), "", *_gates(said), "", *_guards(said), "", *_warned(said)])


def _head(said: Plan) -> Iterator[str]:
    policy, unit = said.policy, said.policy.evidence.unit
    yield f"Plan of {policy.rollout}: {len(policy.cells)} cells, {' → '.join(policy.rungs)}"
    flows = said.traffic.flows.values()
    rates = [flow.units_per_day for flow in flows if flow.units_per_day is not None]
    if rates:
        low, high = f"{min(rates):,.3g}", f"{max(rates):,.3g}"
        pace = low if low == high else f"{low} to {high}"
        yield f"By {said.traffic.source}: {pace} units a day in a cell; a unit is one {unit}."
    else:
        yield f"No traffic is known: write expect, or give records. A unit is one {unit}."


def _gates(said: Plan) -> Iterator[str]:
    yield "GATES: what each asks for, from the day a cell stands on the stage below"
    for row in said.gates:
        yield f"  {row.below} → {row.gate.to}, {_cells(row, said)}: {_when(row)}"
        yield from (f"    {_ask(ask)}" for ask in row.asks)
        yield f"    {_minimum(row, said.policy)}"
        risk = f"risk {row.gate.risk * 100:g} % per cell and version"
        yield f"    {risk}; yes from {' and '.join(row.gate.approvals)}"
    shadow = [c for c in said.policy.cells if not any(c in row.cells for row in said.gates)]
    if shadow:
        yield f"  always shadow: {listed(tuple(shadow))}"


def _cells(row: GatePlan, said: Plan) -> str:
    many = len(row.cells) == len(said.policy.cells)
    where = f"in all {len(row.cells)} cells" if many else f"in {listed(row.cells)}"
    paces = {said.traffic.flow(cell).units_per_day for cell in row.cells}
    return where if len(paces) == 1 else f"{where} (figures of {row.cell}, the busiest)"


def _when(row: GatePlan) -> str:
    if row.days is None:
        return "no date without traffic"
    if row.days == inf:
        return "not expected to open"
    more = "" if row.below == SHADOW else " more, as what was counted below counts on"
    return f"about {days_text(row.days)}{more}"


def _ask(ask: Ask) -> str:
    least = f"{ask.need.least:,}"
    if ask.rate.value is None:
        needs = f"{least} decisions{_of(ask)} if all are right"
    elif ask.need.never or ask.need.typical is None:
        needs = f"never at {expected_text(ask)}"
    else:
        days = days_for(ask.need.typical, ask.per_day)
        pace = "" if days is None else f", {days_text(days)}"
        needs = (
            f"about {ask.need.typical:,} decisions{_of(ask)}{pace}, at {expected_text(ask)} "
            f"({least} if all are right)"
        )
    assumed = f"\n      assumed: {ask.rate.assumed}" if ask.rate.assumed else ""
    return f"{condition_text(ask.condition)}: {needs}{assumed}"


def _of(ask: Ask) -> str:
    """Say which units such a decision is of, and how many units hold so many of them."""
    if ask.condition.measure == "parity":
        return " by two people"
    if ask.condition.label is None:
        return ""
    among = f" ({ask.records / ask.rate.share:,.0f} units)" if ask.rate.share else ""
    return f" on {ask.condition.label}{among}"


def _minimum(row: GatePlan, policy: Policy) -> str:
    least = row.gate.minimum
    wait = duration_text(policy.evidence.grace)
    return (
        f"at least {least.units:,} judged units, {least.days} days, {least.reviewers} "
        f"reviewer{'s' if least.reviewers != 1 else ''}; a unit counts after its grace, {wait}"
    )


def _guards(said: Plan) -> Iterator[str]:
    yield "GUARDS: what narrows, and what they miss before they do"
    for guard in said.policy.guards:
        rows = [row for row in said.guards if row.guard is guard]
        added = " (added: a gate asks for it)" if guard.added else ""
        span = f" over {duration_text(guard.over)}" if guard.over else ""
        yield f"  {condition_text(guard.condition)}{span}{_where(guard)}: {_does(guard)}{added}"
        yield from (f"    {_falls(row, said)}" for row in rows if row.falls)
    if said.false_alarms_per_day:
        every = days_text(1 / said.false_alarms_per_day)
        yield f"  false alarms: at most about one in {every}, over all cells and guards"


def _does(guard: Guard) -> str:
    what = {"one-stage": "one stage down", "shadow": "back to shadow"}.get(guard.then, guard.then)
    return what if guard.reach == "cell" else f"{what}, the whole {guard.reach}"


def _where(guard: Guard) -> str:
    named = (*guard.where.sites, *guard.where.windows)
    return f" at {', '.join(named)}" if named else ""


def _falls(row: GuardPlan, said: Plan) -> str:
    told = "; ".join(_fall(fall, row) for fall in row.falls)
    paces = {flow.units_per_day for flow in said.traffic.flows.values()}
    where = f" in {row.cell}, the quietest," if len(paces) > 1 else ""
    return f"{row.stage.id}:{where} {told}"


def _fall(fall: Fall, row: GuardPlan) -> str:
    wrong = "wrong actions" if row.stage.model_decides else "wrong proposals"
    when = "" if fall.days is None else f"{days_text(fall.days)} and "
    state = f"right in {fall.to * 100:.0f} %" if fall.to else "never right"
    return f"{state}: {when}about {fall.wrong:,.0f} {wrong}"


def _warned(said: Plan) -> Iterator[str]:
    yield f"WARNINGS: {len(said.warnings) or 'none'}"
    yield from (f"  {warning}" for warning in said.warnings)
