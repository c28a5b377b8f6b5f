"""The next step of a version in a cell, in words."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rollout.engine.decide.proposals import is_challenger
from rollout.engine.decide.scope import CellState, ProposalState, Scope
from rollout.engine.decide.widening_steps import WaveHold, find_wave_hold
from rollout.engine.words.formatting import (
    format_bound_value,
    format_count,
    format_decimal,
    format_percent,
    format_quantity,
    format_rounded_count,
    format_zoned_time,
)
from rollout.engine.words.rule_text import describe_renewal_errors, select_renewal_condition
from rollout.features.reports.inputs.cell_facts import CellVersionFacts, ConditionFacts, GateFacts
from rollout.features.reports.inputs.evidence_inputs import StatePeriod
from rollout.kernel.calendar.instants import Cell, CellVersion
from rollout.kernel.facts import (
    DAYS,
    REVIEWERS,
    UNITS,
    UnmetRequirement,
)
from rollout.kernel.measures import MEASURES, Statistic
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.policy.policy import DAY, Policy
from rollout.kernel.populations import PLANTED_TERMS
from rollout.kernel.words import say_requirement

OFF_COURSE_CHANCE = 0.5  # above this chance to be below the threshold, no forecast is given
NOTED_MISSING_SHARE = 0.05  # from here on the text says how missing decisions count
NO_COUNTED_DECISION = "no decision counts as evidence yet"


@dataclass(frozen=True, slots=True)
class GateOutlook:
    """What a version has and needs for the next gate.

    Attributes:
        gate: None if no gate leads further.
        counts: the units of the attempt.
        is_minimum_newer: whether the gate's minimum counts only units since the cell entered its
            stage, and the attempt has older ones.
        per_day: decided units a day; None without any.
        missing_reasons: why units have no counted decision; empty if unknown.
    """

    gate: GateFacts | None
    counts: EvidenceCounts = field(default_factory=EvidenceCounts)
    is_minimum_newer: bool = False
    per_day: float | None = None
    missing_reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenProposal(CellVersionFacts):
    """A proposal that needs `needed` more approvals until `until`, a formatted time."""

    kind: str
    stage: str
    proposal: str
    needed: int
    until: str


def find_open_proposal(
    key: CellVersion, scope: Scope, policy: Policy, at: datetime
) -> OpenProposal | None:
    """Return the proposal that needs approvals, None if a stop or guard withholds the cell."""
    (cell, version), state = key, scope.get_cell_state(*key)
    proposal = scope.proposals.get(state.proposal or "")
    if proposal is None or proposal.is_approved or scope.find_withholding(cell, version):
        return None
    return OpenProposal(
        *(cell.site, cell.window, version, proposal.kind, proposal.to, proposal.id),
        needed=len(proposal.needs) - len(proposal.approvals),
        until=format_zoned_time(proposal.expires_at, policy.get_timezone(cell.site), at),
    )


def describe_next_step(
    key: CellVersion,
    period: StatePeriod,
    progress: GateOutlook,
    scope: Scope,
    policy: Policy,
    at: datetime,
) -> str:
    """Describe what the next step of one version in one cell depends on."""
    cell, version = key
    state = scope.get_cell_state(cell, version)
    hold = _describe_hold(state, cell, scope, policy, at)
    if hold:
        return hold
    if state.proposal is not None:
        pending = find_open_proposal(key, scope, policy, at)
        return _describe_proposal(scope.proposals[state.proposal], pending)
    successor = find_successor(scope, cell, version)
    if successor is not None:
        return f"the newer {successor} acts here; only an operator can restore {version}"
    gate = progress.gate
    if gate is None:
        expiry = _describe_expiry(state, cell, policy, at, progress.per_day)
        return _describe_top_stage(period, cell, policy, at, expiry)
    wave_hold = find_wave_hold(scope, policy, cell, policy.stage_ids.index(gate.to), at)
    if wave_hold is None and gate.met:
        return f"the gate to {gate.to} is met"
    needs = [*_describe_needs(gate, progress), *_describe_wave(wave_hold)]
    return f"{gate.to}{f' for {gate.cases}' * bool(gate.cases)}: {'; '.join(needs)}"


def find_successor(scope: Scope, cell: Cell, version: str) -> str | None:
    """Return the newer version that acts in the cell, if any: no gate leads back from it."""
    holder = scope.get_holder(cell)
    if holder is None or holder == version or is_challenger(scope, version, holder):
        return None
    return holder


def describe_uncounted(reasons: Mapping[str, int]) -> str:
    """Describe units that are not evidence: `not counted: exposure unknown (9,617)`."""
    rows = sorted(reasons.items(), key=lambda row: (-row[1], row[0]))
    return f"not counted: {', '.join(f'{reason} ({format_count(n)})' for reason, n in rows)}"


def _describe_hold(state: CellState, cell: Cell, scope: Scope, policy: Policy, at: datetime) -> str:
    if scope.is_stopped(cell):
        return "stopped until a resume is approved"
    if state.suspended_by:
        guards = policy.describe_guards(state.suspended_by)
        return f"suspended until the guard is within its threshold again: {guards}"
    if state.quiet_until is not None and at < state.quiet_until:
        zone = policy.sites_by_id[cell.site].timezone
        quiet_until = format_zoned_time(state.quiet_until, zone, at)
        return (
            f"a proposal was rejected; the next one is raised after {quiet_until} at the earliest"
        )
    return ""


def _describe_proposal(proposal: ProposalState, pending: OpenProposal | None) -> str:
    subject = f"{proposal.kind} to {proposal.to} ({proposal.id})"
    if pending is None:
        return f"{subject} is approved; the engine applies it once nothing holds it"
    needs = format_quantity(pending.needed, "more approval")
    return f"{subject} needs {needs}; open until {pending.until}"


def _describe_expiry(
    state: CellState, cell: Cell, policy: Policy, at: datetime, per_day: float | None
) -> str:
    """Describe when the first grant ends, and both errors of its renewal; "" without a grant."""
    # the period's own state is that of its start: a renewal begins no period
    grants = [grant for grant in state.grants if grant.is_valid(at)]
    if not grants:
        return ""
    grant = min(grants, key=lambda grant: grant.until)
    until = format_zoned_time(grant.until, policy.sites_by_id[cell.site].timezone, at)
    gate = policy.find_gate(policy.stage_ids.index(grant.stage), cell)
    condition = None if gate is None else select_renewal_condition(gate.require)
    audits = round((per_day or 0.0) * ((grant.until - grant.since) / DAY))
    errors = f" ({describe_renewal_errors(condition, audits)})" if condition and audits else ""
    return f"; the grant ends {until} unless renewed{errors}"


def _describe_top_stage(
    period: StatePeriod, cell: Cell, policy: Policy, at: datetime, expiry: str
) -> str:
    ceiling = policy.compute_ceiling(cell, at)
    if period.other_stage_level:
        return "another version already acts here at the highest stage that is possible"
    if period.stage_level >= len(policy.stages):
        return f"this is the highest stage{expiry}"
    if period.stage_level >= ceiling:
        return f"the policy allows no more than {policy.stage_ids[ceiling]} here{expiry}"
    return f"the policy has no gate to {policy.stage_ids[period.stage_level + 1]}{expiry}"


def _describe_needs(gate: GateFacts, progress: GateOutlook) -> Iterator[str]:
    counts, reasons = progress.counts, progress.missing_reasons
    if counts.closed and not counts.decided:  # shares of nothing would read as 0 %
        yield NO_COUNTED_DECISION
        yield describe_uncounted(reasons or {"missing units": counts.missing})
        return
    yield from _describe_minimums(gate, progress)
    yield from (say_requirement(unmet) for unmet in gate.unmet if not unmet.is_minimum)
    is_noted = counts.missing > NOTED_MISSING_SHARE * counts.closed
    if is_noted and reasons:
        yield describe_uncounted(reasons)
    unmet = [condition for condition in gate.conditions if not condition.met]
    yield from (_describe_missing_evidence(condition, progress) for condition in unmet)
    if is_noted and any(MEASURES[condition.measure].counts_missing for condition in unmet):
        yield "missing units count as disagreements"


def _describe_minimums(gate: GateFacts, progress: GateOutlook) -> Iterator[str]:
    """Describe the unmet minimums, for units with the days to go."""
    minimums = [unmet for unmet in gate.unmet if unmet.is_minimum]
    if not minimums:
        return
    if progress.is_minimum_newer:
        # the conditions beside it count the whole attempt, so the other span is named
        yield from (_describe_stage_minimum(minimum, progress.per_day) for minimum in minimums)
        return
    yield ", ".join(
        f"{say_requirement(minimum)}{_format_rate(minimum, progress.per_day)}"
        for minimum in minimums
    )


def _describe_stage_minimum(minimum: UnmetRequirement, per_day: float | None) -> str:
    """Describe a minimum that counts from the stage's start: needed, and so far."""
    noun = {UNITS: "decided unit", REVIEWERS: "reviewer", DAYS: "day"}[minimum.kind]
    needed, so_far = format_quantity(minimum.needed, noun), format_count(minimum.actual)
    return f"needs {needed} at this stage, {so_far} so far{_format_rate(minimum, per_day)}"


def _format_rate(minimum: UnmetRequirement, per_day: float | None) -> str:
    if minimum.kind != UNITS or not per_day:
        return ""
    return f" ({_format_days((minimum.needed - minimum.actual) / per_day)} at the present rate)"


def _describe_wave(hold: WaveHold | None) -> Iterator[str]:
    """Describe which wave must come first."""
    if hold is not None:
        yield (
            f"wave {hold.wave} comes first; in this window {hold.ready} of {hold.cells} of its"
            f" cells have been {hold.stage} for the required time"
        )


def _describe_missing_evidence(condition: ConditionFacts, progress: GateOutlook) -> str:
    """Describe what a condition still needs."""
    if condition.n == 0:
        return f"{condition.condition}: no data yet"
    statistic = MEASURES[condition.measure].statistic
    if statistic is Statistic.MEAN and condition.bound is not None:
        bound = format_bound_value(
            condition.measure, condition.bound, condition.threshold, at_least=False
        )
        return (
            f"{condition.condition}: mean {format_decimal(condition.estimate)}, upper bound {bound}"
        )
    is_share_without_forecast = (
        len(condition.counts) == 2 and condition.probability_below is None
    )  # a wave's
    if statistic is Statistic.DIFFERENCE or is_share_without_forecast:
        return (
            f"{condition.condition}: log e-value {condition.log_e:.1f}, needed"
            f" {condition.log_e_needed:.1f}"
        )
    counts = (
        f"{condition.condition}: {format_count(condition.counts[0])} of"
        f" {format_count(condition.n)} ({format_percent(condition.estimate)})"
    )
    if condition.probability_below is not None and condition.probability_below > OFF_COURSE_CHANCE:
        is_early = condition.estimate is not None and condition.estimate >= condition.threshold
        return f"{counts}, {'too few to tell' if is_early else 'below the threshold'}"
    return f"{counts}, {_describe_remaining(condition, progress)}"


def _describe_remaining(condition: ConditionFacts, progress: GateOutlook) -> str:
    """Describe records and days to go, at the present share if a forecast exists."""
    noun = "such decision" if condition.label else "decision"  # of a label, not of all cases
    if condition.records_needed_p50 is None:
        count = condition.records_needed_min or 0
        needed = format_quantity(count, f"more {noun}")
        text = f"at least {needed}, if the model is right in {'all' if count > 1 else 'it'}"
    else:
        count = condition.records_needed_p50
        needed = f"{format_rounded_count(count)} more {noun if count == 1 else f'{noun}s'}"
        text = f"about {needed}"
    rate = _compute_condition_rate(condition, progress)
    return f"{text}, {_format_days(count / rate)} at the present rate" if rate else text


def _compute_condition_rate(condition: ConditionFacts, progress: GateOutlook) -> float:
    """Return the condition's records a day; 0 if unknown, as for planted cases."""
    if condition.is_planted:
        return 0.0
    share = min(condition.n / progress.counts.closed, 1.0) if progress.counts.closed else 0.0
    return (progress.per_day or 0.0) * share


def _format_days(days: float) -> str:
    return "a day" if days < 1.5 else f"{format_rounded_count(round(days))} days"


def explain_conditions(gates: Iterable[GateFacts | None]) -> str:
    """Return what the words of the gates' conditions mean, "" without such words."""
    conditions = (condition for gate in gates if gate is not None for condition in gate.conditions)
    return PLANTED_TERMS if any(condition.is_planted for condition in conditions) else ""
