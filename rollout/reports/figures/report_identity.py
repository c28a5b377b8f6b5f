"""What a report is of: rollout, policy, versions, span, files, and how to make it again."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from rollout.core.ledger.ledger import chain
from rollout.core.ledger.ledger_texts import derive_salts
from rollout.core.policy.policy import Gate, Guard, Policy, duration_text
from rollout.core.scope.events import PolicyApplied, VersionFirstUsed
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.text.formatting import listed, per_cent, several


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """One model version: when it was first seen, and how many cases it was asked about."""

    version: str
    first_seen: datetime
    predictions: int


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A file that went in, with the SHA-256 of its bytes."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The ledger's end: how many rows it has, and the hash of the last one."""

    rows: int
    head: str


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy in words, one line for each gate, guard and limit, and the charter.

    `stages` are the ladder's names from shadow up, `ladder` says what each of them means.
    """

    objective: str
    affected: tuple[str, ...]
    if_it_works_very_well: str
    worst_case: str
    cost_in: str
    stages: tuple[str, ...]
    ladder: tuple[str, ...]
    unit: str
    gates: tuple[str, ...]
    guards: tuple[str, ...]
    limits: tuple[str, ...]
    sites: tuple[str, ...]
    windows: tuple[str, ...]
    verdicts_from_outside: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What the report is of.

    Attributes:
        rollout, policy_hash, policy_number: whose, under which policy.
        timezone, zones: of the rollout, and of each site: times are told in the site's own.
        first, last: the span that was decided over.
        first_case, last_case: the span in which cases occurred; None without a usable time.
        simulated: whether approvals were made up; then no person has allowed anything.
        versions: in the order in which they were seen.
        sources, command, product: what went in, and how to make the same report again.
        ledger: where its chain ends.
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
    versions: tuple[VersionFacts, ...]
    sources: tuple[SourceFacts, ...]
    command: str
    product: str
    ledger: Chain


def identity_of(inputs: Inputs) -> Identity:
    """Return what the report is of."""
    occurred = inputs.cases["occurred_at"].drop_nulls()
    first, last = occurred.min(), occurred.max()
    rows = inputs.rows or tuple(
        chain(inputs.policy.rollout, inputs.events, derive_salts(inputs.salt))
    )
    return Identity(
        rollout=inputs.policy.rollout,
        policy_hash=inputs.policy.hash,
        policy_number=_policy_number(inputs),
        timezone=inputs.policy.timezone,
        zones={site.id: site.timezone for site in inputs.policy.sites},
        first=inputs.first,
        last=inputs.last,
        first_case=first if isinstance(first, datetime) else None,
        last_case=last if isinstance(last, datetime) else None,
        simulated=inputs.simulated,
        versions=_versions(inputs),
        sources=tuple(SourceFacts(source.name, source.sha256) for source in inputs.sources),
        command=inputs.command,
        product=inputs.product,
        ledger=Chain(len(rows), rows[-1].hash if rows else ""),
    )


def _policy_number(inputs: Inputs) -> int:
    return max(
        (event.number for event in inputs.events if isinstance(event, PolicyApplied)), default=0
    )


def _versions(inputs: Inputs) -> tuple[VersionFacts, ...]:
    counts = dict(inputs.records.predictions.group_by("version").agg(pl.len()).iter_rows())
    return tuple(
        VersionFacts(event.version, event.at, counts.get(event.version, 0))
        for event in inputs.events
        if isinstance(event, VersionFirstUsed)
    )


def rules_of(policy: Policy) -> Rules:
    """Return the policy in words."""
    charter = policy.charter
    return Rules(
        objective=charter.objective,
        affected=charter.affected,
        if_it_works_very_well=charter.if_it_works_very_well,
        worst_case=charter.worst_case,
        cost_in=charter.cost_in,
        stages=policy.rungs,
        ladder=_ladder(policy),
        unit=_unit(policy),
        gates=tuple(_gate(gate) for gate in policy.gates),
        guards=tuple(_guard(guard) for guard in policy.guards),
        limits=_limits(policy),
        sites=tuple(f"{site.id} ({site.timezone})" for site in policy.sites),
        windows=tuple(
            f"{window.id}: {window.hours or 'at all times'}" for window in policy.windows
        ),
        verdicts_from_outside=_outside(policy),
    )


def _ladder(policy: Policy) -> tuple[str, ...]:
    lines = ["shadow: people decide, and do not see what the model says"]
    for stage in policy.stages:
        if stage.audit is None:
            share = per_cent(stage.blind, 0)
            lines.append(f"{stage.id}: people confirm or override; {share} they decide unseen")
        else:
            share = per_cent(stage.audit, 0)
            lines.append(f"{stage.id}: the model decides; {share} of it is judged afterwards")
    return tuple(lines)


def _unit(policy: Policy) -> str:
    if policy.evidence.unit == "case":
        return "each case is counted once"
    span = policy.evidence.episode_span
    detail = f", cases of a site within {duration_text(span)} are one" if span else ""
    return f"one case of each episode is counted{detail}: bursts are not independent"


def _outside(policy: Policy) -> str:
    if policy.evidence.outside_blind:
        return "taken as given without sight of the model's answer, on the policy's word"
    return "taken as no evidence where the record does not say how they were given"


def _where(sites: tuple[str, ...], windows: tuple[str, ...]) -> str:
    parts = [f"sites {', '.join(sites)}"] * bool(sites)
    parts += [f"windows {', '.join(windows)}"] * bool(windows)
    return f" ({'; '.join(parts)})" if parts else ""


def _gate(gate: Gate) -> str:
    minimum = gate.minimum
    conditions = listed([str(condition) for condition in gate.require])
    return (
        f"to {gate.to}{_where(gate.where.sites, gate.where.windows)}: {conditions}, at a risk of "
        f"{per_cent(gate.risk, 0)}; at least {several(minimum.units, 'unit')}, "
        f"{several(minimum.days, 'day')}, {several(minimum.reviewers, 'person', 'people')}; "
        f"approved by {several(len(gate.approvals), 'person', 'people')} "
        f"({', '.join(gate.approvals)})"
    )


def _guard(guard: Guard) -> str:
    consequence = {
        "one-stage": "goes down one stage",
        "shadow": "goes down to shadow",
        "suspend": "is suspended until it is good again",
        "report": "is reported",
    }[guard.then]
    period = f" over {duration_text(guard.over)}" if guard.over else ""
    suffix = ", added by default" if guard.added else ""
    selector_text = _where(guard.where.sites, guard.where.windows)
    return f"{guard.condition}{period}{selector_text}: else the cell {consequence}{suffix}"


def _limits(policy: Policy) -> tuple[str, ...]:
    lines = []
    for limit in policy.limits:
        selector_text = _where(limit.where.sites, limit.where.windows) or " everywhere"
        if limit.never_above is not None:
            lines.append(f"never above {limit.never_above}{selector_text}")
        if limit.ends is not None:
            lines.append(f"shadow after {limit.ends.isoformat()}{selector_text}")
    if policy.waves is not None:
        hold = duration_text(policy.waves.hold)
        lines.append(f"a wave may follow when the one before has held {policy.waves.stage} {hold}")
        if policy.waves.at_once is not None:
            settle = duration_text(policy.waves.settle)
            lines.append(f"at most {several(policy.waves.at_once, 'cell')} widened within {settle}")
    lines += [
        f"nothing widens during {freeze.hours} ({freeze.reason})" for freeze in policy.freezes
    ]
    return tuple(lines)


def promise(policy: Policy) -> tuple[str, ...]:
    """Return for each gate the sentence that says what it promises, and what not."""
    return tuple(_promise(gate) for gate in policy.gates)


def _promise(gate: Gate) -> str:
    conditions = listed([str(condition) for condition in gate.require])
    risk = per_cent(gate.risk, 0)
    return (
        f"If in a cell the average so far did not meet “{conditions}”, the chance that the gate to "
        f"{gate.to} would ever have opened there is at most {risk} for each version, however often "
        "anybody looked (with restarts at most half as much again). It says nothing about the time "
        "after: guards watch that."
    )
