"""Figures of a proposal's evidence, frozen when raised and current, and what speaks against it.

Against a proposal speak track records, and answers that don't count yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.approvals import TrackRecord
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.proposals import list_proposal_facts
from rollout.engine.decide.scope import CellState, ProposalKind
from rollout.engine.events import ProposalRaised
from rollout.engine.words.rule_text import describe_renewal_errors, select_renewal_condition
from rollout.features.proposals.proposal_details import Proposal, load_track_records
from rollout.features.reports.figures.report_identity import describe_promises
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import FreshFact, StoredReading
from rollout.kernel.measures import Condition
from rollout.kernel.policy.cell_evidence import EvidenceCounts, VersionEvidence
from rollout.kernel.policy.gates import (
    ConditionReading,
    FreshEvidence,
    GateReading,
    read_condition,
    read_gate,
    read_renewal,
)
from rollout.kernel.policy.policy import Gate, Minimum, Policy
from rollout.kernel.statistics.evidence import ConditionEvidence, build_condition_evidence
from rollout.kernel.statistics.forecast import LAST_FIFTH
from rollout.kernel.words import say_reading, say_requirement
from rollout.live.evidence.evidence_reader import (
    load_cell_evidence,
    load_fresh_evidence,
)
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service


@dataclass(frozen=True, slots=True)
class ReadingComparison:
    """A frozen and a current reading of a condition.

    `stored` is None for what is no condition; the evidence where the policy has no such condition.
    """

    text: str
    stored: StoredReading | None
    frozen: ConditionEvidence | None
    current: ConditionEvidence | None


@dataclass(frozen=True, slots=True)
class GateMinimumProgress:
    """What a gate requires at least, and the counts now.

    `decided` has the units that the gate reads; `closed` those of which some are missing.
    """

    decided: EvidenceCounts
    closed: EvidenceCounts
    minimum: Minimum
    missing_at_most: float


@dataclass(frozen=True, slots=True)
class ProposalEvidence:
    """The evidence of a proposal.

    Attributes:
        readings: one per text of the proposal, in the same order.
        minimum_progress: current values; None if the policy no longer has the gate, or if the
            proposal concerns no cell.
        unmet_requirements: descriptions of what the gate lacks now.
        has_turned: whether the current evidence would void the proposal.
        risk: risk of the gate in this attempt.
        since: start of the attempt; units from then on count.
        promise: what the gate guarantees and what not, "" without a gate.
    """

    readings: tuple[ReadingComparison, ...]
    minimum_progress: GateMinimumProgress | None = None
    unmet_requirements: tuple[str, ...] = ()
    has_turned: bool = False
    risk: float | None = None
    since: datetime | None = None
    promise: str = ""


def load_proposal_evidence(
    service: Service, caller: Caller, rollout_name: str, proposal: Proposal
) -> ProposalEvidence:
    """Return the frozen and current figures of a proposal.

    Raises:
        NotAllowedError: the caller may not read its site.
    """
    require_permission(
        caller, Permission.READ, rollout_name, (proposal.site,) if proposal.site else ()
    )
    state = service.state_cache.reload_rollout(rollout_name).state
    cell = Cell(proposal.site, proposal.window)
    stage_ids = state.policy.stage_ids
    stage_level = stage_ids.index(proposal.to) if proposal.to in stage_ids else 0
    gate = (
        state.policy.find_gate(stage_level, cell)
        if stage_level and cell in state.policy.cell_set
        else None
    )
    if gate is None:
        return ProposalEvidence(
            tuple(ReadingComparison(text, None, None, None) for text in proposal.texts)
        )
    cell_evidence = load_cell_evidence(service.database, state, cell, proposal.version)
    return _build_proposal_evidence(state, proposal, cell, stage_level, gate, cell_evidence)


def find_proposal_by_evidence(
    service: Service, caller: Caller, rollout_name: str, evidence_hash: str
) -> ProposalRaised | None:
    """Return the proposal with an evidence hash, None if there is none.

    Raises:
        NotAllowedError: the caller may not read the rollout.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    with service.database.begin_read() as transaction:
        for raised in Ledger(transaction, state.rollout).list_of(ProposalRaised):
            site = "" if raised.cell is None else raised.cell.site
            if raised.evidence_hash == evidence_hash and caller.has_permission(
                Permission.READ, rollout_name, site
            ):
                return raised
    return None


def _build_proposal_evidence(
    state: RolloutState,
    proposal: Proposal,
    cell: Cell,
    stage_level: int,
    gate: Gate,
    cell_evidence: VersionEvidence,
) -> ProposalEvidence:
    policy, scope = state.policy, state.scope
    cell_state = scope.get_cell_state(cell, proposal.version)
    reading, evidence_counts = _read_gate(
        policy, proposal, cell, stage_level, cell_state.risk_share, cell_evidence
    )
    current_readings = {
        condition_reading.condition: condition_reading for condition_reading in reading.readings
    }
    unit_counts = evidence_counts if proposal.rules.extends_grant else cell_evidence.attempt
    return ProposalEvidence(
        readings=(
            *(_compare_reading(stored, current_readings, policy) for stored in proposal.readings),
            *(
                ReadingComparison(text, None, None, None)
                for text in proposal.texts[len(proposal.readings) :]
            ),
        ),
        minimum_progress=GateMinimumProgress(
            decided=evidence_counts,
            closed=unit_counts,
            minimum=gate.minimum,
            missing_at_most=policy.evidence.missing_at_most,
        ),
        unmet_requirements=tuple(map(say_requirement, reading.unmet_requirements)),
        has_turned=reading.has_turned,
        risk=reading.readings[0].risk if reading.readings else None,
        since=cell_state.attempt_since,
        promise=_describe_promise(policy, gate, cell_state, proposal.rules)
        + _describe_renewal(gate, reading, proposal.rules),
    )


def _describe_promise(policy: Policy, gate: Gate, cell_state: CellState, kind: ProposalKind) -> str:
    """Return what the gate guarantees and, of a numbered attempt, its part of the risk."""
    promise = describe_promises(policy)[policy.gates.index(gate)]
    if not cell_state.number or kind.extends_grant:
        return promise
    risk = gate.risk * cell_state.risk_share * 100
    return (
        f"{promise} This is attempt {cell_state.number} of the year; its part of that risk is"
        f" {risk:.3g} %."
    )


def _describe_renewal(gate: Gate, reading: GateReading, kind: ProposalKind) -> str:
    """Return both errors of a renewal with its grant's audits, after the promise; "" of others.

    It is raised when the last fifth begins, so a quarter more audits are to come.
    """
    condition = select_renewal_condition(gate.require)
    if not kind.extends_grant or condition is None:
        return ""
    counts = next((sum(r.counts) for r in reading.readings if r.condition == condition), 0)
    return (
        f" Renewal: {describe_renewal_errors(condition, ceil(counts / LAST_FIFTH))}."
        if counts
        else ""
    )


def _read_gate(
    policy: Policy,
    proposal: Proposal,
    cell: Cell,
    stage_level: int,
    risk_share: float,
    cell_evidence: VersionEvidence,
) -> tuple[GateReading, EvidenceCounts]:
    """Return the gate's reading for a tick now, with the counts for its minimum."""
    if proposal.rules.extends_grant:
        renewal_counts = cell_evidence.spans.get(proposal.to, EvidenceCounts())
        return read_renewal(policy, cell, stage_level, renewal_counts), renewal_counts
    counts = cell_evidence.attempt if proposal.rules.replaces_version else cell_evidence.entered
    return read_gate(policy, cell, stage_level, risk_share, cell_evidence.attempt, counts), counts


def _compare_reading(
    stored: StoredReading, current_readings: Mapping[Condition, ConditionReading], policy: Policy
) -> ReadingComparison:
    condition = stored.parse_condition()
    reading = current_readings.get(condition)
    if reading is None:
        return ReadingComparison(say_reading(stored), stored, None, None)
    frozen = _build_frozen_evidence(stored, condition, policy)
    current = build_condition_evidence(reading, policy)
    return ReadingComparison(say_reading(stored), stored, frozen, current)


def _build_frozen_evidence(
    stored: StoredReading, condition: Condition, policy: Policy
) -> ConditionEvidence | None:
    """Return what a proposal froze; None if its counts don't fit the policy's cost levels."""
    if condition.population.has_gain:
        return ConditionEvidence(
            condition,
            stored.counts,
            float(stored.estimate) if stored.estimate else None,
            float(stored.bound) if stored.bound else None,
            stored.is_enough,
        )
    if len(stored.counts) != condition.measure.get_width(len(policy.cost_levels)):
        return None
    reading = read_condition(condition, stored.counts, float(stored.risk), policy)
    return build_condition_evidence(reading, policy)


@dataclass(frozen=True, slots=True)
class CounterEvidence:
    """What an approver must know beside the evidence.

    Attributes:
        records: of the version, and then of the one that acts where it would; of a resume those of
            all versions that act in the cells.
        fresh: evidence with answers that don't count yet; None where they hold nothing.
        fresh_facts: what of them holds the proposal now.
    """

    records: tuple[TrackRecord, ...] = ()
    fresh: FreshEvidence | None = None
    fresh_facts: tuple[FreshFact, ...] = ()


def load_counter_evidence(
    service: Service, caller: Caller, rollout_name: str, proposal: Proposal, at: datetime
) -> CounterEvidence:
    """Return what speaks against a proposal, up to its end.

    Raises:
        NotAllowedError: the caller may not read its site.
    """
    sites = (proposal.site,) if proposal.site else ()
    state = service.load_permitted_state(caller, Permission.READ, rollout_name, sites)
    (records,) = load_track_records(service, state, [proposal], at)
    open_proposal = state.scope.proposals.get(proposal.id)
    cell = Cell(proposal.site, proposal.window)
    is_for_cell = proposal.rules.gives_more and cell in state.policy.cell_set
    if open_proposal is None or not is_for_cell:
        return CounterEvidence(records)
    fresh = load_fresh_evidence(service.database, state, cell, proposal.version, at)
    facts = list_proposal_facts(state.policy, open_proposal, fresh)
    return CounterEvidence(records, fresh, facts)
