"""Identity of a report: rollout, policy, versions, span, files, command."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from rollout.engine.events import PolicyApplied, VersionFirstUsed, VersionRenamed, select_events
from rollout.engine.ledger.ledger import build_ledger, derive_salts
from rollout.engine.words.formatting import (
    NO_BREAK_SPACE,
    format_percent,
    format_quantity,
    join_words,
)
from rollout.engine.words.rule_text import describe_familiar_cases
from rollout.features.reports.inputs.inputs import ReportInputs, SourceSummary
from rollout.kernel.calendar.instants import Window, format_duration
from rollout.kernel.calendar.opening_hours import is_always_open
from rollout.kernel.measures import ThresholdUnit, Watch
from rollout.kernel.policy.policy import Gate, Guard, Policy, describe_guard
from rollout.kernel.policy.stages import describe_share
from rollout.kernel.units import describe_objective


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One model version: when it was first used, and the number of its predictions.

    `other_names` are later names that declared the same content; it counts under `version`.
    """

    version: str
    first_seen: datetime
    predictions: int
    other_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerEnd:
    """Number of ledger entries, and the hash of the last one."""

    rows: int
    head: str


@dataclass(frozen=True, slots=True)
class PolicySummary:
    """The policy as text: one line for each gate, guard and limit, and the charter.

    `stages` are the names from shadow up, `stage_descriptions` explains each of them, and
    `model_shares` has the share of cases drawn for the model, None where humans decide.
    `cost_levels` are the costs that a unit can have, in the order of the counts of a cost reading.
    """

    objective: str
    affected: tuple[str, ...]
    if_it_works_very_well: str
    worst_case: str
    cost_in: str
    stages: tuple[str, ...]
    stage_descriptions: tuple[str, ...]
    model_shares: tuple[float | None, ...]
    unit: str
    gates: tuple[str, ...]
    guards: tuple[str, ...]
    limits: tuple[str, ...]
    sites: tuple[str, ...]
    windows: tuple[str, ...]
    external_decisions: str
    cost_levels: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportIdentity:
    """Identity of the report.

    Attributes:
        rollout, policy_hash, policy_number: the rollout and its policy.
        timezone, zones: of the rollout, and of each site.
        first, last: the span of the ledger's events.
        first_case, last_case: the span of the cases; None without a usable time.
        simulated: whether approvals were simulated; then no user has approved anything.
        versions: in order of first use.
        sources, command, product: input files, and how to reproduce the report.
        ledger: its length and last hash.
    """

    rollout: str
    policy_hash: str
    policy_number: int
    timezone: str
    zones: dict[str, str]
    first: datetime
    last: datetime
    first_case: datetime | None
    last_case: datetime | None
    simulated: bool
    versions: tuple[VersionSummary, ...]
    sources: tuple[SourceSummary, ...]
    command: str
    product: str
    ledger: LedgerEnd


def build_identity(inputs: ReportInputs) -> ReportIdentity:
    """Return the identity of the report."""
    occurred = inputs.cases["occurred_at"].drop_nulls()
    first, last = occurred.min(), occurred.max()
    rows = inputs.ledger_rows or tuple(
        build_ledger(inputs.policy.rollout, inputs.events, derive_salts(inputs.salt))
    )
    policies = select_events(inputs.events, PolicyApplied)
    return ReportIdentity(
        rollout=inputs.policy.rollout,
        policy_hash=inputs.policy.hash,
        policy_number=max((event.number for event in policies), default=0),
        timezone=inputs.policy.timezone,
        zones={site.id: site.timezone for site in inputs.policy.sites},
        first=inputs.first,
        last=inputs.last,
        first_case=first if isinstance(first, datetime) else None,
        last_case=last if isinstance(last, datetime) else None,
        simulated=inputs.is_simulated,
        versions=_summarize_versions(inputs),
        sources=inputs.sources,
        command=inputs.command,
        product=inputs.product,
        ledger=LedgerEnd(len(rows), rows[-1].hash if rows else ""),
    )


def _summarize_versions(inputs: ReportInputs) -> tuple[VersionSummary, ...]:
    counts = dict(inputs.records.predictions.group_by("version").agg(pl.len()).iter_rows())
    renames = list(select_events(inputs.events, VersionRenamed))
    return tuple(
        VersionSummary(
            event.version,
            event.at,
            counts.get(event.version, 0),
            tuple(rename.version for rename in renames if rename.continues == event.version),
        )
        for event in select_events(inputs.events, VersionFirstUsed)
    )


def summarize_policy(policy: Policy) -> PolicySummary:
    """Return the policy as text."""
    charter = policy.charter
    return PolicySummary(
        objective=describe_objective(charter.objective, policy.outcomes),
        affected=charter.affected,
        if_it_works_very_well=charter.if_it_works_very_well,
        worst_case=charter.worst_case,
        cost_in=charter.cost_in,
        stages=policy.stage_ids,
        stage_descriptions=_describe_ladder(policy),
        model_shares=(None, *(stage.decided_share for stage in policy.stages)),
        unit=_describe_unit(policy),
        gates=tuple(_describe_gate(gate, policy) for gate in policy.gates),
        guards=tuple(_describe_guard(guard) for guard in policy.guards),
        limits=_describe_limits(policy),
        sites=tuple(f"{site.id} ({site.timezone})" for site in policy.sites),
        windows=tuple(
            f"{window.id}: {_describe_hours(window, is_first=number == 0)}"
            for number, window in enumerate(policy.windows)
        ),
        external_decisions="taken as blind, as the policy states"
        if policy.evidence.outside_blind
        else "not counted where the record does not state the exposure",
        cost_levels=policy.cost_levels,
    )


def _describe_ladder(policy: Policy) -> tuple[str, ...]:
    lines = ["shadow: humans decide, without seeing the model's answer"]
    for stage in policy.stages:
        if stage.audit is None:
            share = format_percent(stage.blind, 0)
            lines.append(f"{stage.id}: humans confirm or override; {share} are decided blind")
        else:
            share = format_percent(stage.audit, 0)
            decided = (
                "the model decides"
                if stage.share is None
                else describe_share("the model", stage.share)
            )
            lines.append(f"{stage.id}: {decided}; {share} of its decisions are audited")
    return tuple(lines)


def _describe_unit(policy: Policy) -> str:
    if policy.evidence.unit == "case":
        return "each case is counted once"
    span = policy.evidence.episode_span
    detail = f", cases of a site within {format_duration(span)} are one" if span else ""
    return f"one case of each episode is counted{detail}: bursts are not independent"


def _describe_where(sites: tuple[str, ...], windows: tuple[str, ...]) -> str:
    parts = [f"sites {', '.join(sites)}"] * bool(sites)
    parts += [f"windows {', '.join(windows)}"] * bool(windows)
    return f" ({'; '.join(parts)})" if parts else ""


def _describe_gate(gate: Gate, policy: Policy) -> str:
    minimum, missing = gate.minimum, policy.evidence.missing_at_most
    conditions = join_words([str(condition) for condition in gate.require])
    if lower := _list_lower_conditions(gate, policy):
        stages = list(dict.fromkeys(lower.values()))
        requires = "gate to {} requires" if len(stages) == 1 else "gates to {} require"
        conditions += (
            f" and, as the {requires.format(join_words(stages))}, {join_words(list(lower))}"
        )
    return (
        f"to {gate.to}{_describe_where(gate.where.sites, gate.where.windows)}: {conditions},"
        f" at a risk of {_format_risk(gate)}; since the present stage began at least"
        f" {format_quantity(minimum.units, 'unit')}, {format_quantity(minimum.days, 'day')},"
        f" {format_quantity(minimum.reviewers, 'reviewer')}; at most {missing * 100:g}\xa0% of"
        f" units without a decision; approved by {format_quantity(len(gate.approvals), 'user')}"
        f" ({', '.join(gate.approvals)})"
    )


def _list_lower_conditions(gate: Gate, policy: Policy) -> dict[str, str]:
    """Return the conditions that a gate's cells must meet by the gates below, with their stages."""
    level = policy.stage_ids.index(gate.to)
    cells = [cell for cell in policy.cells if policy.find_gate(level, cell) is gate]
    return {
        f"{condition}{_describe_where(below.where.sites, below.where.windows)}": below.to
        for lower in range(1, level)
        for below in dict.fromkeys(policy.find_gate(lower, cell) for cell in cells)
        if below is not None
        for condition in below.require
        if condition not in gate.require
    }


def _describe_guard(guard: Guard) -> str:
    consequence = {
        "one-stage": "the cell is narrowed by one stage",
        "shadow": "the cell is narrowed to shadow",
        "suspend": "the cell is suspended until the measure recovers",
        "report": "an incident is opened",
    }[guard.then]
    suffix = ", added by default" if guard.added else ""
    selector_text = _describe_where(guard.where.sites, guard.where.windows)
    threshold_text = describe_guard(guard)
    if guard.condition.measure.watch is Watch.SIGNS:  # its threshold is in seconds
        longest = timedelta(seconds=guard.condition.threshold)
        threshold_text = f"heartbeat at most {format_duration(longest)}"
    elif guard.condition.measure.unit is ThresholdUnit.PER_HUNDRED:
        threshold_text += " in 100 cases"
    return f"{threshold_text}{selector_text}: otherwise {consequence}{suffix}"


def _describe_limits(policy: Policy) -> tuple[str, ...]:
    lines = []
    for limit in policy.limits:
        selector_text = _describe_where(limit.where.sites, limit.where.windows) or " everywhere"
        if limit.never_above is not None:
            lines.append(f"never above {limit.never_above}{selector_text}")
        if limit.ends is not None:
            lines.append(f"shadow after {limit.ends.isoformat()}{selector_text}")
    if policy.waves is not None:
        hold = format_duration(policy.waves.hold)
        lines.append(f"a wave begins once the one before was {policy.waves.stage} for {hold}")
        if policy.waves.at_once is not None:
            settle = format_duration(policy.waves.settle)
            lines.append(
                f"at most {format_quantity(policy.waves.at_once, 'cell')} widened within {settle}"
            )
    for freeze in policy.freezes:
        when = "on public holidays" if freeze.hours == "PH" else f"during {freeze.hours}"
        lines.append(f"nothing widens {when} ({freeze.reason})")
    return tuple(lines)


def _describe_hours(window: Window, *, is_first: bool) -> str:
    """Describe a window's hours; a case belongs to the first window that it fits."""
    if is_always_open(window.hours):
        return "at all times" if is_first else "all other times"
    return window.hours


def describe_promises(policy: Policy) -> tuple[str, ...]:
    """Return for each gate what it guarantees, and of which cases."""
    promises = [_describe_promise(gate, policy) for gate in policy.gates]
    return (*promises, *filter(None, [describe_familiar_cases(policy)]))


def _describe_promise(gate: Gate, policy: Policy) -> str:
    conditions = [*map(str, gate.require), *_list_lower_conditions(gate, policy)]
    return (
        f"If the true average of a cell's units so far does not meet “{join_words(conditions)}”,"
        f" the chance that the gate to {gate.to} ever opens there is at most {_format_risk(gate)}"
        " for all attempts that begin in the cell in a calendar year together, whatever versions"
        " they are of and at any number of looks."
        " The promise covers the time until the widening; guards watch the time after."
        f"{_describe_gain_terms(gate)}"
    )


def _describe_gain_terms(gate: Gate) -> str:
    """Return how a gate on gain compares the arms; "" without one."""
    gains = [condition for condition in gate.require if condition.population.has_gain]
    if not gains:
        return ""
    closed = join_words(
        [
            f"{g.population.outcome.id} after {format_duration(g.population.outcome.closes)}"
            f"{'' if g.population.outcome.more_is_better else ', less is better'}"
            for g in gains
        ]
    )
    return (
        " A gain is what the model's units bring on average beyond humans', sampled at random and"
        f" closed ({closed}); unknown outcomes count against the model."
    )


def _format_risk(gate: Gate) -> str:
    """Format the risk unrounded: a promise names its own number."""
    return f"{gate.risk * 100:g}{NO_BREAK_SPACE}%"
