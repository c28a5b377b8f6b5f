"""Steps of a tick on proposals: void, expire, apply, raise."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

from rollout.core.calendar.sites import Cell
from rollout.core.errors import UnknownVersionError
from rollout.core.policy.cell_evidence import EvidenceCounts, VersionEvidence
from rollout.core.policy.confidence_floors import describe_floor, find_floor_index
from rollout.core.policy.gates import GateReading, is_gate_open, read_gate, read_renewal
from rollout.core.policy.policy import Gate, Policy
from rollout.core.policy.portfolios import PortfolioRank
from rollout.core.scope.commands import EvidenceByCell, Tick
from rollout.core.scope.event_base import ENGINE, CellEvent, LedgerEvent
from rollout.core.scope.events import (
    ProposalExpired,
    ProposalRaised,
    Renewed,
    Resumed,
    TakenOver,
    Widened,
)
from rollout.core.scope.floor_steps import (
    WideningStep,
    find_acting_index,
    list_met_floors,
    list_widening_steps,
    select_renewal_floor,
    select_takeover_floor,
)
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.portfolio_steps import (
    compute_place,
    find_openings,
    list_open_places,
    list_stale_proposals,
    rank_place,
    select_applicable,
    stands_alone,
)
from rollout.core.scope.proposal_holds import APPLIED_KINDS, has_alarm, list_own_holds
from rollout.core.scope.scope import (
    CellState,
    PortfolioPlace,
    ProposalState,
    Scope,
    Version,
    compute_held_level,
)
from rollout.core.scope.waves import find_wave_hold, get_wave

RENEWAL_SHARE = 5  # a renewal is due in the last fifth of a grant


def compute_gate_hash(policy: Policy, stage_level: int, cell: Cell) -> str:
    """Return the hash of the gate to `stage_level`; a changed gate voids proposals."""
    rule: tuple[object, ...] = (
        policy.find_gate(stage_level, cell),
        policy.list_conditions(stage_level, cell),
        policy.evidence.missing_at_most,
    )
    portfolio = policy.find_portfolio(stage_level, cell)
    if portfolio is not None:
        rule = (*rule, portfolio.digest)
    return sha256(repr(rule).encode()).hexdigest()[:16]


def update_open_proposals(pending: PendingEvents, tick: Tick) -> None:
    """Expire overdue proposals and void those whose evidence has turned."""
    for proposal in list(pending.scope.proposals.values()):
        if proposal.kind == "clock":
            continue  # it expires by the clock: `rollout.core.scope.clock_correction`
        if pending.at >= proposal.expires_at:
            pending.emit(ProposalExpired(at=pending.at, by=ENGINE, proposal=proposal.id))
        elif (reason := _find_void_reason(pending, tick, proposal)) is not None:
            pending.void_proposal(proposal.id, reason)


def _find_void_reason(pending: PendingEvents, tick: Tick, proposal: ProposalState) -> str | None:
    """Return why a cell's proposal is void, or None."""
    if proposal.cell is None:
        return None
    broken_rule = _find_broken_rule(pending, proposal, proposal.cell)
    if broken_rule is not None:
        return broken_rule
    stage_level = pending.policy.stage_ids.index(proposal.to)
    mismatch = _find_grant_mismatch(pending, proposal, stage_level)
    if mismatch is not None:
        return mismatch
    evidence = tick.evidence.get((proposal.cell, proposal.version))
    reading = (
        None if evidence is None else _read_proposal_gate(pending, proposal, stage_level, evidence)
    )
    return None if reading is None or not reading.has_turned else "the evidence has turned"


def _find_broken_rule(pending: PendingEvents, proposal: ProposalState, cell: Cell) -> str | None:
    """Return which rule no longer fits the proposal, or None."""
    policy = pending.policy
    stage_level = policy.stage_ids.index(proposal.to) if proposal.to in policy.stage_ids else 0
    if (
        cell not in policy.cell_set
        or stage_level == 0
        or policy.find_gate(stage_level, cell) is None
    ):
        return "the policy has no gate for it any more"
    if compute_gate_hash(policy, stage_level, cell) != proposal.gate:
        return "the policy's gate was edited"
    if policy.compute_planned_ceiling(cell, pending.at) < stage_level:
        return "it lies above the cell's ceiling now"
    return "the version is retired" if pending.scope.versions[proposal.version].retired else None


def _find_grant_mismatch(
    pending: PendingEvents, proposal: ProposalState, stage_level: int
) -> str | None:
    """Return why the proposal no longer fits the grants that it builds on, or None."""
    assert proposal.cell is not None  # noqa: S101 - asked of cell proposals alone
    floor_index = find_floor_index(pending.policy.evidence, next(iter(proposal.floors), ""))
    step = WideningStep(stage_level, floor_index)
    if proposal.kind == "takeover":
        return _find_holder_mismatch(pending, proposal.cell, proposal.version, step)
    state = pending.scope.get_cell_state(proposal.cell, proposal.version)
    if proposal.kind == "renewal":
        fits = compute_held_level(pending.policy, state, pending.at) >= stage_level
        return None if fits else "the cell no longer holds the stage"
    if pending.scope.get_holder(proposal.cell) not in (None, proposal.version):
        return "another version acts in the cell now"
    steps = list_widening_steps(pending.policy, state, pending.at)
    if any(other.stage_level == stage_level for other in steps):
        return None if step in steps else "the cell's confidence floor has changed"
    return "the cell's stage is no longer the one below"


def _find_holder_mismatch(
    pending: PendingEvents, cell: Cell, version: str, step: WideningStep
) -> str | None:
    """Return why a takeover no longer fits the acting version, or None."""
    scope, policy = pending.scope, pending.policy
    holder = scope.get_holder(cell)
    if holder is None:
        return "no version acts in the cell any more"
    if holder == version:
        return "the version acts in the cell already"
    holder_state = scope.get_cell_state(cell, holder)
    if step.floor_index < find_acting_index(policy, holder_state):
        return "an alarm raised the confidence floor of the acting version"
    fits = step.stage_level in list_takeover_levels(policy, holder_state, pending.at)
    return None if fits else "the acting version's stage has changed"


def _read_proposal_gate(
    pending: PendingEvents, proposal: ProposalState, stage_level: int, evidence: VersionEvidence
) -> GateReading | None:
    assert proposal.cell is not None  # noqa: S101 - asked of cell proposals alone
    state = pending.scope.get_cell_state(proposal.cell, proposal.version)
    policy, cell = pending.policy, proposal.cell
    evidence = evidence.get_floor(
        find_floor_index(policy.evidence, next(iter(proposal.floors), ""))
    )
    if proposal.kind == "renewal":
        counts = evidence.spans.get(proposal.to, EvidenceCounts())
        return read_renewal(policy, cell, stage_level, counts)
    counts_since_entry = evidence.attempt if proposal.kind == "takeover" else evidence.entered
    return read_gate(
        policy, cell, stage_level, state.risk_share, evidence.attempt, counts_since_entry
    )


def apply_approved_proposals(pending: PendingEvents) -> None:
    """Apply approved proposals that nothing holds back, earlier waves first.

    In an observing policy only the resume of a stop without grants is applied, so that a rehearsed
    stop can be ended.
    """
    approved_proposals = [
        candidate
        for candidate in pending.scope.proposals.values()
        if candidate.is_approved and candidate.kind in APPLIED_KINDS
    ]
    ordered_proposals = sorted(
        approved_proposals, key=lambda candidate: _get_wave(pending.policy, candidate)
    )
    for proposal in ordered_proposals:
        if proposal.place is None:
            _apply_unless_held(pending, proposal)
    # those of a portfolio count for each other, so what is to be applied is known before
    ready_proposals = (
        p
        for p in ordered_proposals
        if p.id in pending.scope.proposals and p.place is not None and not _is_held_back(pending, p)
    )
    for proposal in select_applicable(pending.scope, ready_proposals):
        _apply_proposal(pending, proposal)


def _apply_unless_held(pending: PendingEvents, proposal: ProposalState) -> None:
    if proposal.id in pending.scope.proposals and not _is_held_back(pending, proposal):
        _apply_proposal(pending, proposal)


def _apply_proposal(pending: PendingEvents, proposal: ProposalState) -> None:
    pending.emit(_build_applied_event(pending, proposal))
    _void_rival_proposals(pending, proposal)


def _get_wave(policy: Policy, proposal: ProposalState) -> int:
    """Return the proposal's wave, 0 without a cell."""
    return 0 if proposal.cell is None else get_wave(policy, proposal.cell)


def _is_held_back(pending: PendingEvents, proposal: ProposalState) -> bool:
    """Return whether this tick's narrowing or anything else holds it back."""
    has_narrowed = proposal.cell is not None and pending.has_narrowed(proposal.cell)
    holds = list_own_holds(pending.scope, pending.policy, proposal, pending.at)
    return has_narrowed or bool(holds)


def _build_applied_event(pending: PendingEvents, proposal: ProposalState) -> LedgerEvent:
    at, cell, version = pending.at, proposal.cell, proposal.version
    if cell is None:
        return Resumed(at=at, by=ENGINE, proposal=proposal.id, stop=proposal.about)
    stage_level = pending.policy.stage_ids.index(proposal.to)
    until = at + pending.policy.get_stage(stage_level).lasts
    build_event = partial(
        _build_cell_event, at=at, by=ENGINE, proposal=proposal.id, cell=cell, version=version
    )
    if proposal.kind == "widening":
        floors = proposal.floors
        return build_event(Widened, to_stage=proposal.to, until=until, confidence_floors=floors)
    if proposal.kind == "renewal":
        return build_event(Renewed, stage=proposal.to, until=until)
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
    if applied_proposal.kind not in {"widening", "takeover"}:
        return
    for rival in list(pending.scope.proposals.values()):
        if rival.cell == applied_proposal.cell and rival.version != applied_proposal.version:
            pending.void_proposal(
                rival.id, f"{applied_proposal.version} replaced it by {applied_proposal.id}"
            )


def raise_due_proposals(pending: PendingEvents, tick: Tick) -> None:
    """Raise a proposal in each cell whose gate, takeover or renewal is met.

    A cell that this tick has changed waits for the next one: its evidence was counted for the stage
    before. Portfolios come last: which of their gates open depends on all of them.
    """
    for proposal, reason in list_stale_proposals(pending.scope):
        pending.void_proposal(proposal.id, reason)
    candidates: list[PortfolioCandidate] = []
    for cell, version in tick.evidence:
        if cell in pending.policy.cell_set and _can_raise(pending, cell, version):
            candidates += _raise_for_version(pending, cell, version, tick.evidence)
    _raise_candidates(pending, candidates)


class PortfolioCandidate(NamedTuple):
    """A gate of a portfolio that is met at the list's false share, which the list may not open."""

    kind: str
    stage_level: int
    reading: GateReading
    place: PortfolioPlace


def _raise_candidates(pending: PendingEvents, candidates: Iterable[PortfolioCandidate]) -> None:
    """Raise the proposals that their lists open, those with the most evidence first."""
    candidates_by_list: dict[str, list[PortfolioCandidate]] = defaultdict(list)
    for candidate in candidates:
        candidates_by_list[candidate.place.portfolio].append(candidate)
    for name, list_candidates in candidates_by_list.items():
        places = [candidate.place for candidate in list_candidates]
        openings = find_openings(pending.scope, [*list_open_places(pending.scope, name), *places])
        ranked = sorted(list_candidates, key=lambda c: (-c.place.score, c.place.question))
        scope = pending.scope  # the ranks are those of one look
        for kind, stage_level, reading, place in ranked:
            if place in openings.places:
                rank = rank_place(scope, pending.policy, place, stage_level, openings)
                ranked_reading = replace(reading, rank=rank)
                raise_proposal(
                    pending, kind, place.cell, place.version, stage_level, ranked_reading
                )


def _raise_or_list(
    pending: PendingEvents,
    kind: str,
    cell: Cell,
    version: str,
    stage_level: int,
    reading: GateReading,
) -> Iterator[PortfolioCandidate]:
    """Raise a proposal, or yield it as a candidate of the gate's portfolio."""
    place = compute_place(pending.scope, pending.policy, (cell, version), stage_level, reading)
    if place is None:
        raise_proposal(pending, kind, cell, version, stage_level, reading)
    else:
        yield PortfolioCandidate(kind, stage_level, reading, place)


def _can_raise(pending: PendingEvents, cell: Cell, version: str) -> bool:
    version_state = pending.scope.versions.get(version)
    if version_state is None or version_state.retired or pending.changes_evidence(cell, version):
        return False
    return not pending.scope.get_cell_state(cell, version).proposal and not find_obstacle(
        pending, cell, version
    )


def find_obstacle(pending: PendingEvents, cell: Cell, version: str) -> str:
    """Return why nothing may be raised for a version, or "".

    It applies to ticks and users alike: a rejection can't be undone by proposing again.
    """
    scope = pending.scope
    if scope.is_stopped(cell):
        return "the cell is stopped; ask for a resume first"
    if version in pending.policy.watched_versions:
        return "the policy only watches it; write `evidence: count` in its row"
    if cell in scope.evidence_pauses:
        return "the evidence of the cell is paused; resume it first"
    quiet_until = scope.get_cell_state(cell, version).quiet_until
    if quiet_until is not None and pending.at < quiet_until:
        return "it was rejected there lately; wait for its quiet time to end"
    start = pending.policy.find_start(cell, pending.at)
    if start is not None and start >= pending.at + pending.policy.open_for:
        return "its limits start only after a proposal would expire; wait until then"
    return "a guard is in alarm there; wait until it is clear" * has_alarm(scope, cell, version)


def get_version(scope: Scope, version_id: str) -> Version:
    """Return a version by id.

    Raises:
        UnknownVersionError: it was never used.
    """
    version = scope.versions.get(version_id)
    if version is None:
        version_ids = ", ".join(scope.versions) or "none"
        raise UnknownVersionError(
            f"no prediction of {version_id} was ever seen; versions: {version_ids}"
        )
    return version


def _raise_for_version(
    pending: PendingEvents, cell: Cell, version: str, evidence_by_cell: EvidenceByCell
) -> list[PortfolioCandidate]:
    """Raise what is due for a version; return what its portfolio may open."""
    holder = pending.scope.get_holder(cell)
    if holder is not None and holder != version:
        return [*_raise_takeover(pending, cell, version, holder, evidence_by_cell)]
    if _raise_renewal(pending, cell, version, evidence_by_cell):
        return []
    return _raise_widening(pending, cell, version, evidence_by_cell)


def _raise_widening(
    pending: PendingEvents, cell: Cell, version: str, evidence_by_cell: EvidenceByCell
) -> list[PortfolioCandidate]:
    state = pending.scope.get_cell_state(cell, version)
    for step in list_widening_steps(pending.policy, state, pending.at):
        reading = _read_step(pending, cell, version, step, evidence_by_cell[cell, version])
        if reading is not None:
            return [*_raise_or_list(pending, "widening", cell, version, step.stage_level, reading)]
    return []


def _read_step(
    pending: PendingEvents, cell: Cell, version: str, step: WideningStep, evidence: VersionEvidence
) -> GateReading | None:
    """Return the reading of a stage and confidence floor that may be opened, or None."""
    scope, policy, stage_level = pending.scope, pending.policy, step.stage_level
    if not policy.is_reachable(cell, stage_level, pending.at):
        return None
    if find_wave_hold(scope, policy, cell, stage_level, pending.at):
        return None
    share, at_floor = (
        scope.get_cell_state(cell, version).risk_share,
        evidence.get_floor(step.floor_index),
    )
    parts = (policy, cell, stage_level, share, at_floor.attempt, at_floor.entered)
    if not is_gate_open(*parts):
        return None
    floors = list_met_floors(policy, cell, step, share, evidence)
    return replace(read_gate(*parts), floors=floors)


def _raise_takeover(
    pending: PendingEvents, cell: Cell, version: str, holder: str, evidence_by_cell: EvidenceByCell
) -> Iterator[PortfolioCandidate]:
    """Raise a takeover at the holder's stage, on the challenger's evidence.

    Only by a version first used after the holder: an operator proposes the return to an older one,
    because two good versions would replace each other for ever.
    """
    scope, policy = pending.scope, pending.policy
    if not is_challenger(scope, version, holder):
        return
    stage_level = compute_held_level(policy, scope.get_cell_state(cell, holder), pending.at)
    if stage_level == 0 or not policy.is_reachable(cell, stage_level, pending.at):
        return
    state = scope.get_cell_state(cell, version)
    evidence, floors = select_takeover_floor(
        scope, policy, (cell, version), stage_level, evidence_by_cell[cell, version]
    )
    reading = read_gate(
        policy, cell, stage_level, state.risk_share, evidence.attempt, evidence.attempt
    )
    if reading.is_met and are_lower_gates_met(
        policy, cell, stage_level, state.risk_share, evidence
    ):
        reading = replace(reading, floors=floors)
        yield from _raise_or_list(pending, "takeover", cell, version, stage_level, reading)


def list_takeover_levels(policy: Policy, holder: CellState, at: datetime) -> range:
    """Return the stage levels that `takeover` allows a challenger."""
    held_level = compute_held_level(policy, holder, at)
    floor = held_level if policy.takeover_floor is None else min(policy.takeover_floor, held_level)
    return range(max(floor, 1), held_level + 1)


def is_challenger(scope: Scope, version: str, holder: str) -> bool:
    """Return whether `version` was first used after `holder`; ties go by id."""
    challenger, acting = scope.versions[version], scope.versions[holder]
    return (challenger.first_seen, challenger.id) > (acting.first_seen, acting.id)


def are_lower_gates_met(
    policy: Policy, cell: Cell, stage_level: int, risk_share: float, evidence: VersionEvidence
) -> bool:
    """Return whether the gates below are met at their own risks.

    One with a portfolio must be met whatever else its list opens: the proposal takes no place in
    it.
    """
    for lower_level in range(1, stage_level):
        if policy.find_gate(lower_level, cell) is not None:
            parts = (policy, cell, lower_level, risk_share, evidence.attempt, evidence.attempt)
            reading = read_gate(*parts)
            if not (reading.is_met and stands_alone(policy, cell, lower_level, reading)):
                return False
    return True


def _raise_renewal(
    pending: PendingEvents, cell: Cell, version: str, evidence_by_cell: EvidenceByCell
) -> bool:
    """Raise a renewal of the lowest due grant; return whether it did."""
    policy, state = pending.policy, pending.scope.get_cell_state(cell, version)
    for stage_level in range(1, compute_held_level(policy, state, pending.at) + 1):
        is_due = pending.at >= compute_renewal_start(policy, state, stage_level)
        if is_due and policy.find_gate(stage_level, cell) is not None:
            floors = state.grants[stage_level - 1].floors
            evidence = select_renewal_floor(policy, evidence_by_cell[cell, version], floors)
            counts = evidence.spans.get(policy.stage_ids[stage_level], EvidenceCounts())
            reading = read_renewal(policy, cell, stage_level, counts)
            if reading.is_met and stage_level <= policy.compute_ceiling(cell, pending.at):
                reading = replace(reading, floors=floors)
                raise_proposal(pending, "renewal", cell, version, stage_level, reading)
                return True
    return False


def compute_renewal_start(policy: Policy, state: CellState, stage_level: int) -> datetime:
    """Return when the last fifth of the grant of `stage_level` begins."""
    grant = next(g for g in state.grants if g.stage == policy.stage_ids[stage_level])
    return grant.until - (grant.until - grant.since) / RENEWAL_SHARE


def raise_proposal(
    pending: PendingEvents,
    kind: str,
    cell: Cell,
    version: str,
    stage_level: int,
    reading: GateReading,
    by: str = ENGINE,
) -> None:
    """Emit the proposal with its readings under one hash."""
    policy = pending.policy
    gate = policy.find_gate(stage_level, cell)
    assert isinstance(gate, Gate)  # noqa: S101 - a reading was made of it
    stage = policy.stage_ids[stage_level]
    readings = format_readings(policy, reading)
    pending.emit(
        replace(
            build_proposal(pending, kind, by, gate.approvals, readings),
            evidence_hash=compute_evidence_hash((f"{kind} {cell} {version} {stage}", *readings)),
            cell=cell,
            version=version,
            to_stage=stage,
            gate_hash=compute_gate_hash(policy, stage_level, cell),
            confidence_floor=next(iter(reading.floors), ""),
            stricter_floors=reading.floors[1:],
            **_list_attempt_fields(pending.scope.get_cell_state(cell, version)),
            **_list_portfolio_fields(reading.rank),
        )
    )


def format_readings(policy: Policy, reading: GateReading) -> tuple[str, ...]:
    """Return a gate's readings as a proposal lists them, confidence floor or portfolio last."""
    readings = tuple(item.format(policy) for item in reading.readings)
    if reading.rank is not None:
        return (*readings, reading.rank.format())
    if not reading.floors:
        return readings
    return (*readings, describe_floor(policy.evidence, reading.floors[0]))


def _list_attempt_fields(state: CellState) -> dict[str, Any]:
    """Return the attempt's number in its year and its share of the risk; none without a number."""
    return {"attempt": state.number, "risk_weight": repr(state.risk_share)} if state.number else {}


def _list_portfolio_fields(rank: PortfolioRank | None) -> dict[str, Any]:
    """Return a proposal's place in its portfolio; none without one."""
    if rank is None:
        return {}
    return {
        "portfolio": rank.name,
        "portfolio_cells": rank.size,
        "portfolio_opened": rank.opened,
        "portfolio_rank": rank.rank,
        "portfolio_score": rank.score,
    }


def build_proposal(
    pending: PendingEvents,
    kind: str,
    by: str,
    needs: tuple[str, ...],
    readings: tuple[str, ...],
    about: str = "",
) -> ProposalRaised:
    """Return a proposal without a cell, with its readings under one hash."""
    return ProposalRaised(
        at=pending.at,
        by=by,
        proposal=pending.next_proposal_id,
        kind=kind,
        expires_at=pending.at + pending.policy.open_for,
        needs=needs,
        evidence_hash=compute_evidence_hash(readings),
        about=about,
        readings=readings,
    )


def compute_evidence_hash(lines: tuple[str, ...]) -> str:
    """Return the SHA-256 of a proposal's subject and readings, one per line."""
    return sha256("\n".join(lines).encode()).hexdigest()
