"""Evidence of each cell and version, the state of its next gate, and its next step."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import log

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import EvidenceCounts
from rollout.core.policy.gates import (
    ConditionReading,
    compute_risk,
    list_unmet_requirements,
    read_gate,
)
from rollout.core.policy.policy import Policy
from rollout.core.scope.projection import apply_events
from rollout.core.scope.proposals import is_challenger
from rollout.core.scope.scope import CellState, ProposalState, Scope, compute_stage_level
from rollout.core.scope.waves import find_wave_hold
from rollout.core.statistics.forecast import forecast_gate
from rollout.reports.inputs.evidence_paths import EvidenceSeries, find_open_stage_level
from rollout.reports.inputs.gate_progress import StatePeriod
from rollout.reports.inputs.inputs import CellVersion, ReportInputs
from rollout.reports.statistics.bounds import compute_bounds, compute_estimates
from rollout.reports.text.formatting import format_count, format_percent, format_zoned_time
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.slots import find_slot_before

RATE_SPAN = timedelta(days=14)  # span of the rate of decisions
OFF_COURSE_CHANCE = 0.5  # above this chance to be below the threshold, no forecast is given


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    """One condition of a gate on the current evidence.

    Attributes:
        condition, measure, label, lever: what is measured.
        line, at_least: the threshold in the measure's unit, and its direction.
        n, counts: records, and their classes (agreeing and not; per cost level; parity classes).
        estimate: plain share or mean cost, None without records.
        bound: the deciding bound, valid at every look; None for parity and without records.
        log_e, needed: the evidence, and what opens the gate; natural logarithms.
        met: whether this condition is met.
        further: agreements still needed if all further records agree; None if none are needed, or
            the measure is no share.
        below: chance that the true share is below the threshold, given the counts.
        median, ninety: further records after which the condition is met with a chance of 50 % and
            90 % at the present share; None if that is not expected.
    """

    condition: str
    measure: str
    label: str | None
    lever: str | None
    line: float
    at_least: bool
    n: int
    counts: tuple[int, ...]
    estimate: float | None
    bound: float | None
    log_e: float
    needed: float
    met: bool
    further: int | None
    below: float | None
    median: int | None
    ninety: int | None


@dataclass(frozen=True, slots=True)
class GateFacts:
    """The state of a gate: its conditions, and other unmet requirements as text."""

    to: str
    risk: float
    met: bool
    lacks: tuple[str, ...]
    approvals: tuple[str, ...]
    conditions: tuple[ConditionFacts, ...]


@dataclass(frozen=True, slots=True)
class EvidenceFacts:
    """The evidence of one version in one cell at the end.

    Attributes:
        site, window, version: the cell and the version.
        stage: the version's stage at the end.
        acting: whether it is the acting version of the cell.
        since: when its state last changed.
        attempt, attempt_since: the attempt, and the first instant whose units count in it.
        closed, judged, missing: units of the attempt that the engine counted.
        per_day: decided units a day over the last two weeks; None without any.
        gate: the next gate; None if no gate leads further.
        decides_next: the next step as text.
        versions, attempts: versions ever tried in the cell, and the attempts of all of them.
        path: the evidence over time.
    """

    site: str
    window: str
    version: str
    stage: str
    acting: bool
    since: datetime
    attempt: int
    attempt_since: datetime
    closed: int
    judged: int
    missing: int
    per_day: float | None
    gate: GateFacts | None
    decides_next: str
    versions: int
    attempts: int
    path: tuple[EvidenceSeries, ...]


def compute_evidence_facts(
    inputs: ReportInputs,
    state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]],
    paths: Mapping[CellVersion, tuple[EvidenceSeries, ...]],
) -> tuple[EvidenceFacts, ...]:
    """Return the evidence of every cell and version, in the order of the policy's cells."""
    scope = apply_events(inputs.events)
    return tuple(
        _build_evidence_facts(key, state_periods, scope, inputs, paths[key])
        for key in inputs.cell_versions
        if state_periods[key]
    )


def _build_evidence_facts(
    key: CellVersion,
    state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]],
    scope: Scope,
    inputs: ReportInputs,
    path: tuple[EvidenceSeries, ...],
) -> EvidenceFacts:
    (cell, version), policy = key, inputs.policy
    view, period = inputs.evidence_views[key], state_periods[key][-1]
    slot = find_slot_before(inputs.last, policy.tick)
    attempt, stage_evidence = view.attempt_window.count_at(slot), view.entered_window.count_at(slot)
    gate = _build_gate_facts(view, period, attempt, stage_evidence, policy)
    per_day = _compute_daily_rate(view, slot, policy)
    return EvidenceFacts(
        site=cell.site,
        window=cell.window,
        version=version,
        stage=policy.stage_ids[compute_stage_level(scope, policy, cell, version, inputs.last)],
        acting=scope.get_holder(cell) == version,
        since=period.since,
        attempt=period.state.attempt,
        attempt_since=period.state.attempt_since,
        closed=attempt.closed,
        judged=attempt.decided,
        missing=attempt.missing,
        per_day=per_day,
        gate=gate,
        decides_next=describe_next_step(key, period, gate, per_day, scope, policy, inputs.last),
        versions=sum(other_key[0] == cell for other_key in state_periods),
        attempts=sum(
            periods[-1].state.attempt
            for other_key, periods in state_periods.items()
            if other_key[0] == cell and periods
        ),
        path=path,
    )


def _build_gate_facts(
    view: EvidenceView,
    period: StatePeriod,
    attempt: EvidenceCounts,
    stage_evidence: EvidenceCounts,
    policy: Policy,
) -> GateFacts | None:
    stage_level = find_open_stage_level(view.cell, period, policy)
    gate = policy.find_gate(stage_level, view.cell)
    if gate is None or stage_level == period.stage_level:
        return None
    gate_evidence = attempt if period.other_stage_level else stage_evidence
    reading = read_gate(
        policy, view.cell, stage_level, period.state.attempt, attempt, gate_evidence
    )
    return GateFacts(
        to=gate.to,
        risk=compute_risk(gate, period.state.attempt),
        met=reading.is_met,
        lacks=list_unmet_requirements(
            gate, attempt, gate_evidence, policy.evidence.missing_at_most
        ),
        approvals=gate.approvals,
        conditions=tuple(
            _build_condition_facts(condition_reading, policy)
            for condition_reading in reading.readings
        ),
    )


def _build_condition_facts(reading: ConditionReading, policy: Policy) -> ConditionFacts:
    condition, counts = reading.condition, np.array([reading.counts], dtype=np.int64)
    n = int(counts.sum())
    bound = compute_bounds(condition, counts, reading.risk, policy) if n else None
    is_share = len(reading.counts) == 2 and condition.measure != "cost"
    agreed, disagreed = reading.counts[:2]
    has_forecast = is_share and not reading.is_met
    outlook = (
        forecast_gate(agreed, disagreed, at_least=condition.line, alpha=reading.risk)
        if has_forecast
        else None
    )
    opening = None if outlook is None else outlook.opening
    return ConditionFacts(
        condition=str(condition),
        measure=condition.measure,
        label=condition.label,
        lever=condition.lever,
        line=condition.line,
        at_least=condition.at_least,
        n=n,
        counts=reading.counts,
        estimate=float(compute_estimates(condition, counts, policy)[0]) if n else None,
        bound=None if bound is None else float(bound[0]),
        log_e=reading.compute_log_e(policy),
        needed=log(1 / reading.risk),
        met=reading.is_met,
        further=None if outlook is None else outlook.if_all_agree,
        below=None if outlook is None else outlook.chance_below,
        median=None if opening is None else opening.median,
        ninety=None if opening is None else opening.ninety,
    )


def _compute_daily_rate(view: EvidenceView, slot: int, policy: Policy) -> float | None:
    """Return decided units a day in the two weeks before `slot`."""
    span = view.attempt_window
    start_slot = slot - RATE_SPAN // policy.tick
    reviewed = span.count_at(slot).decided - span.count_at(start_slot).decided
    if not reviewed:
        return None
    first_slot = int(span.slots[0])
    days = min(slot - start_slot, max(slot - first_slot, 1)) * (policy.tick / timedelta(days=1))
    return reviewed / max(days, 1.0)


def describe_next_step(
    key: CellVersion,
    period: StatePeriod,
    gate: GateFacts | None,
    per_day: float | None,
    scope: Scope,
    policy: Policy,
    at: datetime,
) -> str:
    """Describe what the next step of one version in one cell depends on."""
    cell, version = key
    zone, state = policy.sites_by_id[cell.site].timezone, scope.get_cell_state(cell, version)
    hold = _describe_hold(state, cell, scope, zone, at)
    if hold:
        return hold
    if state.proposal is not None:
        return _describe_proposal(scope.proposals[state.proposal], zone, at)
    acting_version = scope.get_holder(cell)
    if acting_version not in (None, version) and not is_challenger(
        scope, version, str(acting_version)
    ):
        return f"{acting_version}, seen later, acts here; only an operator brings {version} back"
    if gate is None:
        return _describe_top_stage(period, cell, policy, at, zone)
    wave_hold = find_wave_hold(scope, policy, cell, policy.stage_ids.index(gate.to), at)
    if gate.met and wave_hold is None:
        return f"everything that the gate to {gate.to} asks for is there"
    missing = [
        *gate.lacks,
        *(describe_missing_evidence(c, per_day) for c in gate.conditions if not c.met),
    ]
    return f"{gate.to}: " + "; ".join([*missing, *([wave_hold] if wave_hold else [])])


def _describe_hold(state: CellState, cell: Cell, scope: Scope, zone: str, at: datetime) -> str:
    if scope.is_stopped(cell):
        return "stopped by a person until a resume is approved"
    if state.suspended_by:
        return f"suspended until this is good again: {', '.join(sorted(state.suspended_by))}"
    if state.quiet_until is not None and at < state.quiet_until:
        quiet_until = format_zoned_time(state.quiet_until, zone, at)
        return f"a proposal was rejected: nothing is raised before {quiet_until}"
    return ""


def _describe_proposal(proposal: ProposalState, zone: str, at: datetime) -> str:
    subject = f"{proposal.kind} to {proposal.to} ({proposal.id})"
    if proposal.is_approved:
        return f"{subject} is approved and waits for its time"
    approvals = f"{len(proposal.approvals)} of {len(proposal.needs)} approvals"
    return (
        f"{subject} waits for people: {approvals}, open until"
        f" {format_zoned_time(proposal.expires_at, zone, at)}"
    )


def _describe_top_stage(
    period: StatePeriod, cell: Cell, policy: Policy, at: datetime, zone: str
) -> str:
    ceiling = policy.compute_ceiling(cell, at)
    ends = [grant.until for grant in period.state.grants if grant.is_valid(at)]
    expiry = (
        f"; the grant ends {format_zoned_time(min(ends), zone, at)} unless renewed" if ends else ""
    )
    if period.other_stage_level:
        return "another version acts here at the highest stage that this one could ask for"
    if period.stage_level >= len(policy.stages):
        return f"nothing above this stage{expiry}"
    if period.stage_level >= ceiling:
        return f"the policy allows no more than {policy.stage_ids[ceiling]} here{expiry}"
    return f"no gate leads to {policy.stage_ids[period.stage_level + 1]}{expiry}"


def describe_missing_evidence(condition: ConditionFacts, per_day: float | None) -> str:
    """Describe what a condition still needs."""
    if condition.n == 0:
        return f"{condition.condition}: no data yet"
    if condition.measure == "cost":
        return (
            f"{condition.condition}: {condition.estimate:.3g} so far, "
            f"known to be at most {condition.bound:.3g}"
        )
    if condition.measure == "parity":
        return f"{condition.condition}: evidence {condition.log_e:.1f} of {condition.needed:.1f}"
    counts = f"{format_count(condition.counts[0])} of {format_count(condition.n)}"
    if condition.below is not None and condition.below > OFF_COURSE_CHANCE:
        is_early = condition.estimate is not None and condition.estimate >= condition.line
        status = "is too early to tell" if is_early else "is not on course"
        return f"{condition.condition} {status}: {counts}, {format_percent(condition.estimate)}"
    return (
        f"{condition.condition}: {counts}, about {_describe_remaining(condition, per_day)} if all"
        " agree"
    )


def _describe_remaining(condition: ConditionFacts, per_day: float | None) -> str:
    further = condition.further or 0
    text = f"{format_count(further)} more agreement{'' if further == 1 else 's'}"
    if not per_day or condition.measure != "agreement":
        return text
    days = further / per_day
    return f"{text}, {'a day' if days < 1.5 else f'{days:.0f} days'}"
