"""Evidence of each cell and version: its gate and next step in words, floors, planted cases.

A confidence floor has its evidence, and the agreement in the band up to the next floor.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import log

import numpy as np

from rollout.engine.decide.guards import describe_cell_attempt
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.proposals import is_challenger
from rollout.engine.decide.scope import CellState, ProposalState, Scope, compute_stage_level
from rollout.engine.decide.widening_steps import (
    find_acting_index,
    find_wave_hold,
    get_acting_floor,
)
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.unit_arrays import UnitArrays
from rollout.engine.words.evidence_text import describe_losses
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
from rollout.features.reports.inputs.evidence_inputs import (
    EvidenceInputs,
    StatePeriod,
    find_open_stage_level,
)
from rollout.kernel.arrays import Ints
from rollout.kernel.calendar.instants import Cell, CellVersion, find_slot_before
from rollout.kernel.facts import DAYS, REVIEWERS, UNITS, EvidenceSeries, UnmetRequirement
from rollout.kernel.measures import MEASURES, RECALL, Condition, Statistic
from rollout.kernel.policy.cell_evidence import (
    EvidenceCounts,
    compute_gate_risk,
    describe_floor_cases,
    find_floor_index,
    format_floor,
    list_floors,
)
from rollout.kernel.policy.gates import ConditionReading, read_gate
from rollout.kernel.policy.policy import DAY, Policy
from rollout.kernel.populations import ALL_UNITS, PLANTED_TERMS, PlantedUnits
from rollout.kernel.statistics.evidence import build_condition_evidence
from rollout.kernel.statistics.forecast import forecast_gate
from rollout.kernel.statistics.intervals import Share, compute_share
from rollout.kernel.words import say_requirement


@dataclass(frozen=True, slots=True)
class FloorEvidence:
    """The gate of a stage at one confidence floor.

    A floor's average can hide a bad band, so the band up to the next floor has its own figures.

    Attributes:
        cases: of which confidence.
        to: the stage of the gate: the one that the cell holds, or the first one.
        reached: decided units at or above the floor, and how many of them agree.
        band: the same of those below the next floor.
        log_e, log_e_needed: of the condition that is furthest from its threshold.
        state: `acting`, `met` or `not met`.
        undecided_units: units at or above the floor without a decision; gates count them as
            disagreements.
    """

    floor: str
    cases: str
    to: str
    reached: Share
    band: Share
    log_e: float
    log_e_needed: float
    state: str
    undecided_units: int = 0


def compute_floor_evidence(
    view: EvidenceView, state: CellState, stage_level: int, slot: int
) -> tuple[FloorEvidence, ...]:
    """Return the evidence at each floor up to a slot; () without several floors or a gate.

    `stage_level` is the one that the version holds, 0 for shadow.
    """
    policy, rules = view.policy, view.policy.evidence
    gate = policy.find_gate(max(stage_level, 1), view.cell)
    if not view.floor_views or gate is None:
        return ()
    acting_floor = get_acting_floor(state)
    counts = [*(_count_agreement(floor_view, slot) for floor_view in view.floor_views), (0, 0)]
    rows = []
    for i, floor in enumerate(list_floors(rules)):
        evidence = view.floor_views[i].read_evidence(slot)
        reading = read_gate(
            *(policy, view.cell, max(stage_level, 1), state.risk_share),
            *(evidence.attempt, evidence.entered),
        )
        log_e, needed = min(  # of the condition that is furthest from its threshold
            ((r.compute_log_e(policy), -float(np.log(r.risk))) for r in reading.readings),
            key=lambda pair: pair[0] - pair[1],
        )
        (agreed, judged), (agreed_above, judged_above) = counts[i], counts[i + 1]
        is_acting = bool(acting_floor) and find_floor_index(rules, acting_floor) == i
        rows.append(
            FloorEvidence(
                floor=format_floor(floor),
                cases=describe_floor_cases(format_floor(floor)),
                to=gate.to,
                reached=compute_share(agreed, judged),
                band=compute_share(agreed - agreed_above, judged - judged_above),
                log_e=log_e,
                log_e_needed=needed,
                state="acting" if is_acting else "met" if reading.is_met else "not met",
                undecided_units=evidence.attempt.missing,
            )
        )
    return tuple(rows)


def _count_agreement(view: EvidenceView, slot: int) -> tuple[int, int]:
    """Return the decided units of the attempt that agree, and all of them, up to a slot."""
    rows = view.gate_rows.select(view.gate_rows.slot <= slot)
    classes = view.unit_classes
    is_judged = classes.is_whole_unit & ~classes.is_missing
    agreed = (is_judged & classes.agrees)[rows.unit_class]
    return int(agreed.sum()), int(is_judged[rows.unit_class].sum())


@dataclass(frozen=True, slots=True)
class PlantedRecall:
    """The share of cases with a human label that a version labelled so, by population.

    Each counts as gates count it: a planted unit without a blind decision is a miss unless the
    version has the label, one that occurred is left out. How often cases are planted says nothing
    about how often they occur, so the two shares are never added.

    Attributes:
        lever, label: the human's label.
        planted: of the planted cases.
        natural: of the cases that occurred.
        missing: units in `planted` without a decision.
    """

    lever: str
    label: str
    planted: Share
    natural: Share
    missing: int = 0


def compute_planted_recall(view: EvidenceView, slot: int) -> tuple[PlantedRecall, ...]:
    """Return the recall of labels of planted cases, up to a slot; () without any.

    The labels are those that humans gave, and those that a gate requires.
    """
    if not len(view.planted_rows):
        return ()
    planted, natural = (
        rows.select(rows.slot <= slot) for rows in (view.planted_rows, view.gate_rows)
    )
    required = {c.label for c in view.conditions if c.population.is_planted}
    return tuple(
        recall
        for lever in view.policy.levers
        for label in lever.labels
        if (recall := _compare_recall(view, planted, natural, lever.id, label)).planted.n
        and (recall.planted.n > recall.missing or label in required)
    )


def _compare_recall(
    view: EvidenceView, planted: UnitArrays, natural: UnitArrays, lever: str, label: str
) -> PlantedRecall:
    planted_counts, natural_counts = (
        view.unit_classes.get_class_counts(Condition(RECALL, 0.5, label, lever, population=of))[
            rows.unit_class
        ]
        for of, rows in ((PlantedUnits(), planted), (ALL_UNITS, natural))
    )
    missing = planted_counts[view.unit_classes.is_missing[planted.unit_class]]
    return PlantedRecall(
        lever, label, _sum_share(planted_counts), _sum_share(natural_counts), int(missing.sum())
    )


def _sum_share(counts: Ints) -> Share:
    return compute_share(int(counts[:, 0].sum()), int(counts.sum()))


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
    needs = list(_describe_needs(gate, progress))
    if wave_hold is not None:
        needs.append(
            f"wave {wave_hold.wave} comes first; in this window {wave_hold.ready} of"
            f" {wave_hold.cells} of its cells have been {wave_hold.stage} for the required time"
        )
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


RATE_SPAN = timedelta(days=14)  # span of the rate of decisions


@dataclass(frozen=True, slots=True)
class EvidenceFacts(CellVersionFacts):
    """The evidence of one version in one cell at the end.

    Attributes:
        site, window, version: the cell and the version.
        stage: the version's stage at the end.
        acting: whether it is the acting version of the cell.
        since: when its state last changed.
        attempt, attempt_since: the version's own number, 1 plus how often its evidence restarted in
            the cell, and the first instant whose units count since.
        closed_units, decided_units, undecided_units: units of the attempt that the engine counted.
        decided_units_per_day: decided units a day over the last two weeks; None without any.
        gate: the next gate, at the acting confidence floor; None if no gate leads further, or a
            newer version acts here.
        next_step: the next step as text.
        versions, attempts: versions ever tried in the cell, and how many attempts of the year
            began there, over all versions.
        path: the evidence over time.
        missing_reasons: why units of the attempt have no counted decision; empty where records are
            not loaded, or where a stage asked for decisions on some units only.
        losses: why units of the attempt are missing, as they were counted.
        attempt_number: of the attempt in its cell's year, over all versions, as in the ledger; 0
            before its first unit.
        attempt_text: that number as text, or the one that the next attempt would get.
        planted: by label what the version did with planted cases, beside those that occurred.
        floors: at each confidence floor; () without several. The other fields but `gate` are of the
            lowest.
        successor: the newer version that acts in the cell; None without one.
        withheld: `stopped` or `suspended`; "" if the version's grants are in use.
        proposal: the one that needs approvals, if the cell isn't withheld.
    """

    stage: str
    acting: bool
    since: datetime
    attempt: int
    attempt_since: datetime
    closed_units: int
    decided_units: int
    undecided_units: int
    decided_units_per_day: float | None
    gate: GateFacts | None
    next_step: str
    versions: int
    attempts: int
    path: tuple[EvidenceSeries, ...]
    missing_reasons: dict[str, int] = field(default_factory=dict)
    losses: Mapping[str, int] = field(default_factory=dict)
    attempt_number: int = 0
    attempt_text: str = ""
    planted: tuple[PlantedRecall, ...] = ()
    floors: tuple[FloorEvidence, ...] = ()
    successor: str | None = None
    withheld: str = ""
    proposal: OpenProposal | None = None

    @property
    def losses_text(self) -> str:
        """Return how many units of the attempt counted, and why others are missing."""
        return describe_losses(self.closed_units, self.losses)


def compute_evidence_facts(
    inputs: EvidenceInputs,
    state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]],
    paths: Mapping[CellVersion, tuple[EvidenceSeries, ...]],
    missing_reasons: Mapping[CellVersion, dict[str, int]],
) -> tuple[EvidenceFacts, ...]:
    """Return the evidence of every cell and version, in the order of the policy's cells.

    Args:
        inputs: what was counted.
        state_periods, paths: by cell and version.
        missing_reasons: how many units have no counted decision, by reason; {} without records.
    """
    scope = apply_events(inputs.events)
    return tuple(
        _build_evidence_facts(
            key, state_periods, scope, inputs, paths[key], missing_reasons.get(key, {})
        )
        for key in inputs.cell_versions
        if state_periods[key]
    )


def _build_evidence_facts(
    key: CellVersion,
    state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]],
    scope: Scope,
    inputs: EvidenceInputs,
    path: tuple[EvidenceSeries, ...],
    reasons: dict[str, int],
) -> EvidenceFacts:
    (cell, version), policy = key, inputs.policy
    view = inputs.evidence_views[key]
    # another version's attempt changes the next share without a period of this one
    period = replace(state_periods[key][-1], state=scope.get_cell_state(cell, version))
    slot = find_slot_before(inputs.last, policy.tick)
    attempt = view.attempt_window.count_at(slot)
    successor = find_successor(scope, cell, version)
    # the next stage begins at the floor that acts, a takeover at the holder's
    holder_state = scope.get_cell_state(cell, scope.get_holder(cell) or version)
    acting_index = find_acting_index(policy, holder_state)
    gate_view = view.get_floor_view(acting_index)
    gate_counts = gate_view.attempt_window.count_at(slot)
    stage_evidence = gate_view.entered_window.count_at(slot)
    gate = None
    if successor is None:
        gate = _build_gate_facts(view, period, gate_counts, stage_evidence, policy)
    if gate is not None and acting_index:
        gate = replace(gate, cases=describe_floor_cases(get_acting_floor(holder_state)))
    per_day = compute_daily_rate(view, slot, policy)
    # after a restart, or above shadow, `reasons` has units that the attempt doesn't count
    reasons = reasons if sum(reasons.values()) == attempt.missing else {}
    is_newer = not period.other_stage_level and stage_evidence.decided < gate_counts.decided
    floors = compute_floor_evidence(view, period.state, period.stage_level, slot)
    progress = GateOutlook(
        gate,
        gate_counts,
        is_newer,
        compute_daily_rate(gate_view, slot, policy),
        {} if acting_index else reasons,
    )
    acts_on = (f"acts on {floor.cases}" for floor in floors if floor.state == "acting")
    next_step = describe_next_step(key, period, progress, scope, policy, inputs.last)
    return EvidenceFacts(
        site=cell.site,
        window=cell.window,
        version=version,
        stage=policy.stage_ids[compute_stage_level(scope, policy, cell, version, inputs.last)],
        acting=scope.get_holder(cell) == version,
        since=period.since,
        attempt=period.state.attempt,
        attempt_since=period.state.attempt_since,
        closed_units=attempt.closed,
        decided_units=attempt.decided,
        undecided_units=attempt.missing,
        losses=attempt.losses,
        decided_units_per_day=per_day,
        gate=gate,
        next_step="; ".join((*acts_on, next_step)),
        versions=sum(other_key[0] == cell for other_key in state_periods),
        attempts=scope.attempt_years[cell].count if cell in scope.attempt_years else 0,
        path=path,
        missing_reasons=reasons,
        attempt_number=period.state.number,
        attempt_text=describe_cell_attempt(scope, policy, cell, version, inputs.last),
        planted=compute_planted_recall(view, slot),
        floors=floors,
        successor=successor,
        withheld=scope.find_withholding(cell, version),
        proposal=find_open_proposal(key, scope, policy, inputs.last),
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
        policy, view.cell, stage_level, period.state.risk_share, attempt, gate_evidence
    )
    return GateFacts(
        to=gate.to,
        risk=compute_gate_risk(policy, gate, period.state.risk_share),
        met=reading.is_met,
        missing=tuple(map(say_requirement, reading.unmet_requirements)),
        unmet=reading.unmet_requirements,
        required_approvals=gate.approvals,
        conditions=tuple(
            _build_condition_facts(condition_reading, policy)
            for condition_reading in reading.readings
        ),
    )


def _build_condition_facts(reading: ConditionReading, policy: Policy) -> ConditionFacts:
    condition, evidence = reading.condition, build_condition_evidence(reading, policy)
    has_forecast = condition.measure.statistic is Statistic.SHARE and not reading.is_met
    outlook = (
        forecast_gate(*reading.counts, at_least=condition.share, alpha=reading.risk)
        if has_forecast
        else None
    )
    opening = None if outlook is None else outlook.opening
    return ConditionFacts(
        condition=str(condition),
        name=condition.name,
        unit=condition.find_unit(policy.charter.cost_in),
        measure=condition.measure.name,
        label=condition.label,
        lever=condition.lever,
        threshold=condition.threshold,
        at_least=condition.at_least,
        n=evidence.count,
        counts=evidence.counts,
        estimate=evidence.estimate,
        bound=evidence.bound,
        log_e=reading.compute_log_e(policy),
        log_e_needed=log(1 / reading.risk),
        met=reading.is_met,
        records_needed_min=None if outlook is None else outlook.if_all_agree,
        probability_below=None if outlook is None else outlook.probability_below,
        records_needed_p50=None if opening is None else opening.median,
        records_needed_p90=None if opening is None else opening.ninety,
        is_planted=condition.population.is_planted,
    )


def compute_daily_rate(view: EvidenceView, slot: int, policy: Policy) -> float | None:
    """Return decided units a day in the two weeks before `slot`."""
    span = view.attempt_window
    start_slot = slot - RATE_SPAN // policy.tick
    reviewed = span.count_at(slot).decided - span.count_at(start_slot).decided
    if not reviewed:
        return None
    first_slot = int(span.row_slots[0])
    days = min(slot - start_slot, max(slot - first_slot, 1)) * (policy.tick / timedelta(days=1))
    return reviewed / max(days, 1.0)
