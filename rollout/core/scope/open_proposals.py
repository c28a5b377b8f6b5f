"""Steps of a tick on open proposals: void, expire, apply."""

from dataclasses import replace
from functools import partial
from typing import Any

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import EvidenceCounts, VersionEvidence
from rollout.core.policy.confidence_floors import find_floor_index
from rollout.core.policy.gates import GateReading, read_gate, read_renewal
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import Tick
from rollout.core.scope.events import (
    ENGINE,
    CellEvent,
    LedgerEvent,
    ProposalExpired,
    ProposalHeld,
    Renewed,
    Resumed,
    TakenOver,
    Widened,
)
from rollout.core.scope.floor_steps import (
    WideningStep,
    find_acting_index,
    list_widening_steps,
)
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.proposal_holds import (
    list_proposal_facts,
    list_proposal_holds,
)
from rollout.core.scope.proposals import compute_gate_hash, list_takeover_levels
from rollout.core.scope.scope import NOTHING_AGAINST, ProposalState, compute_held_level
from rollout.core.scope.waves import get_wave
from rollout.kernel.readings import (
    EDITED_GATE,
    LOST_GATE,
    LOST_STAGE,
    LOW_CEILING,
    NO_HOLDER,
    OTHER_FLOOR,
    OTHER_HOLDER_STAGE,
    OTHER_STEP,
    OTHER_VERSION,
    OWN_HOLDER,
    RAISED_FLOOR,
    REPLACED,
    RETIRED,
    SPOKEN_AGAINST,
    TURNED,
)


def update_open_proposals(pending: PendingEvents, tick: Tick) -> None:
    """Expire overdue proposals and void those whose evidence has turned."""
    for proposal in list(pending.scope.proposals.values()):
        if pending.at >= proposal.expires_at:
            pending.emit(ProposalExpired(at=pending.at, by=ENGINE, proposal=proposal.id))
        elif (cause := _find_void_cause(pending, tick, proposal)) is not None:
            pending.void_proposal(proposal.id, cause)
        elif incidents := _find_voiding_incidents(pending, proposal):
            pending.void_proposal(
                proposal.id, SPOKEN_AGAINST, proposal.version, incidents=incidents
            )


def _find_voiding_incidents(pending: PendingEvents, proposal: ProposalState) -> tuple[str, ...]:
    """Return the incidents that void a proposal whose approvals are not complete."""
    spoken = pending.scope.spoken_against.get(proposal.version)
    if spoken is None or proposal.is_approved or not proposal.unconfirmed:
        return ()
    earlier = pending.initial_scope.spoken_against.get(proposal.version, NOTHING_AGAINST)
    # of this tick's voids the first must not keep the others from theirs
    return replace(spoken, voided_at=earlier.voided_at).list_voiding(proposal.unconfirmed)


def _find_void_cause(pending: PendingEvents, tick: Tick, proposal: ProposalState) -> str | None:
    """Return why a cell's proposal is void, or None."""
    if proposal.cell is None:
        return None
    if cause := _find_broken_rule(pending, proposal, proposal.cell):
        return cause
    stage_level = pending.policy.stage_ids.index(proposal.to)
    if cause := _find_grant_mismatch(pending, proposal, stage_level):
        return cause
    evidence = tick.evidence.get((proposal.cell, proposal.version))
    reading = (
        None if evidence is None else _read_proposal_gate(pending, proposal, stage_level, evidence)
    )
    return None if reading is None or not reading.has_turned else TURNED


def _find_broken_rule(pending: PendingEvents, proposal: ProposalState, cell: Cell) -> str | None:
    """Return which rule no longer fits the proposal, or None."""
    policy = pending.policy
    stage_level = policy.stage_ids.index(proposal.to) if proposal.to in policy.stage_ids else 0
    if (
        cell not in policy.cell_set
        or stage_level == 0
        or policy.find_gate(stage_level, cell) is None
    ):
        return LOST_GATE
    if compute_gate_hash(policy, stage_level, cell) != proposal.gate:
        return EDITED_GATE
    if policy.compute_ceiling(cell, pending.at) < stage_level:
        return LOW_CEILING
    return RETIRED if pending.scope.versions[proposal.version].retired else None


def _find_grant_mismatch(
    pending: PendingEvents, proposal: ProposalState, stage_level: int
) -> str | None:
    """Return why the proposal no longer fits the grants that it builds on, or None."""
    assert proposal.cell is not None  # noqa: S101 - asked of cell proposals alone
    floor_index = find_floor_index(pending.policy.evidence, next(iter(proposal.floors), ""))
    step = WideningStep(stage_level, floor_index)
    if proposal.rules.replaces_version:
        return _find_holder_mismatch(pending, proposal.cell, proposal.version, step)
    state = pending.scope.get_cell_state(proposal.cell, proposal.version)
    if proposal.rules.extends_grant:
        fits = compute_held_level(pending.policy, state, pending.at) >= stage_level
        return None if fits else LOST_STAGE
    if pending.scope.get_holder(proposal.cell) not in (None, proposal.version):
        return OTHER_VERSION
    steps = list_widening_steps(pending.policy, state, pending.at)
    if any(other.stage_level == stage_level for other in steps):
        return None if step in steps else OTHER_FLOOR
    return OTHER_STEP


def _find_holder_mismatch(
    pending: PendingEvents, cell: Cell, version: str, step: WideningStep
) -> str | None:
    """Return why a takeover no longer fits the acting version, or None."""
    scope, policy = pending.scope, pending.policy
    holder = scope.get_holder(cell)
    if holder is None:
        return NO_HOLDER
    if holder == version:
        return OWN_HOLDER
    holder_state = scope.get_cell_state(cell, holder)
    if step.floor_index < find_acting_index(policy, holder_state):
        return RAISED_FLOOR
    fits = step.stage_level in list_takeover_levels(policy, holder_state, pending.at)
    return None if fits else OTHER_HOLDER_STAGE


def _read_proposal_gate(
    pending: PendingEvents, proposal: ProposalState, stage_level: int, evidence: VersionEvidence
) -> GateReading | None:
    assert proposal.cell is not None  # noqa: S101 - asked of cell proposals alone
    state = pending.scope.get_cell_state(proposal.cell, proposal.version)
    policy, cell = pending.policy, proposal.cell
    evidence = evidence.get_floor(
        find_floor_index(policy.evidence, next(iter(proposal.floors), ""))
    )
    if proposal.rules.extends_grant:
        counts = evidence.spans.get(proposal.to, EvidenceCounts())
        return read_renewal(policy, cell, stage_level, counts)
    counts_since_entry = evidence.attempt if proposal.rules.replaces_version else evidence.entered
    return read_gate(
        policy, cell, stage_level, state.risk_share, evidence.attempt, counts_since_entry
    )


def apply_approved_proposals(pending: PendingEvents, tick: Tick) -> None:
    """Apply approved proposals that nothing holds back, earlier waves first.

    In an observing policy only the resume of a stop without grants is applied, so that a rehearsed
    stop can be ended.
    """
    approved_proposals = [
        candidate
        for candidate in pending.scope.proposals.values()
        if candidate.is_approved and not candidate.rules.changes_policy
    ]
    ordered_proposals = sorted(
        approved_proposals, key=lambda candidate: _get_wave(pending.policy, candidate)
    )
    for proposal in ordered_proposals:
        if proposal.id in pending.scope.proposals and not _is_held_back(pending, tick, proposal):
            pending.emit(_build_applied_event(pending, proposal))
            _void_rival_proposals(pending, proposal)


def _get_wave(policy: Policy, proposal: ProposalState) -> int:
    """Return the proposal's wave, 0 without a cell."""
    return 0 if proposal.cell is None else get_wave(policy, proposal.cell)


def _is_held_back(pending: PendingEvents, tick: Tick, proposal: ProposalState) -> bool:
    """Return whether this tick's narrowing or anything else holds it back."""
    if proposal.cell is not None and pending.has_narrowed(proposal.cell):
        return True
    if list_proposal_holds(pending.scope, pending.policy, proposal, pending.at):
        return True
    if proposal.cell is None or not proposal.rules.gives_more:
        return False
    fresh = tick.fresh.get((proposal.cell, proposal.version))
    facts = () if fresh is None else list_proposal_facts(pending.policy, proposal, fresh)
    if facts and not proposal.is_held:
        pending.emit(
            ProposalHeld(
                at=pending.at,
                by=ENGINE,
                proposal=proposal.id,
                fresh_facts=facts,
            )
        )
    return bool(facts)


def _build_applied_event(pending: PendingEvents, proposal: ProposalState) -> LedgerEvent:
    at, cell, version = pending.at, proposal.cell, proposal.version
    if cell is None:
        return Resumed(at=at, by=ENGINE, proposal=proposal.id, stop=proposal.about)
    stage_level = pending.policy.stage_ids.index(proposal.to)
    until = at + pending.policy.get_stage(stage_level).lasts
    build_event = partial(
        _build_cell_event, at=at, by=ENGINE, proposal=proposal.id, cell=cell, version=version
    )
    if proposal.rules.extends_grant:
        return build_event(Renewed, stage=proposal.to, until=until)
    if not proposal.rules.replaces_version:
        floors = proposal.floors
        return build_event(Widened, to_stage=proposal.to, until=until, confidence_floors=floors)
    stages = pending.policy.stages[:stage_level]
    replaced = pending.scope.get_holder(cell)
    assert replaced is not None  # noqa: S101 - a takeover without a holder was voided before
    return build_event(
        TakenOver,
        replaced_version=replaced,
        to_stage=proposal.to,
        stages=tuple(stage.id for stage in stages),
        grant_ends=tuple(pending.at + stage.lasts for stage in stages),
        confidence_floors=proposal.floors,
    )


def _build_cell_event(kind: type[CellEvent], **fields: Any) -> LedgerEvent:
    return kind(**fields)


def _void_rival_proposals(pending: PendingEvents, applied_proposal: ProposalState) -> None:
    """Void other versions' proposals for the cell."""
    if not applied_proposal.rules.gives_more:
        return
    for rival in list(pending.scope.proposals.values()):
        if rival.cell == applied_proposal.cell and rival.version != applied_proposal.version:
            pending.void_proposal(rival.id, REPLACED, applied_proposal.id)
