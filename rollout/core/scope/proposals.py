"""Proposals as they are raised: of a tick whose gates are met, and of users."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from rollout.core.calendar.sites import Cell
from rollout.core.errors import UnknownVersionError
from rollout.core.policy.cell_evidence import EvidenceCounts, VersionEvidence
from rollout.core.policy.confidence_floors import (
    describe_floor,
    describe_floor_cases,
    find_floor_index,
    list_floor_texts,
)
from rollout.core.policy.gates import GateReading, is_gate_open, read_gate, read_renewal
from rollout.core.policy.policy import Gate, Policy
from rollout.core.policy.portfolios import PortfolioRank
from rollout.core.scope.commands import EvidenceByCell, Tick
from rollout.core.scope.event_base import ENGINE
from rollout.core.scope.events import (
    ProposalRaised,
)
from rollout.core.scope.floor_steps import (
    WideningStep,
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
    stands_alone,
)
from rollout.core.scope.proposal_holds import has_alarm
from rollout.core.scope.scope import (
    CellState,
    PortfolioPlace,
    Scope,
    Version,
    compute_held_level,
)
from rollout.core.scope.waves import find_wave_hold

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


def raise_due_proposals(pending: PendingEvents, tick: Tick) -> None:
    """Raise a proposal in each cell whose gate, takeover or renewal is met.

    A cell that this tick has changed waits for the next one: its evidence was counted for the stage
    before. Portfolios come last: which of their gates open depends on all of them.
    """
    for proposal, reason in list_stale_proposals(pending.scope):
        pending.void_proposal(proposal.id, reason)
    candidates: list[ProposalCandidate] = []
    for cell, version in tick.evidence:
        if cell in pending.policy.cell_set and _can_raise(pending, cell, version):
            candidates += _raise_for_version(pending, cell, version, tick.evidence)
    _raise_candidates(pending, candidates)


class ProposalCandidate(NamedTuple):
    """A met gate that may be raised, with the place that it would take in its portfolio, if any."""

    kind: str
    cell: Cell
    version: str
    step: WideningStep
    evidence: VersionEvidence
    reading: GateReading
    place: PortfolioPlace | None


def _raise_candidates(pending: PendingEvents, candidates: Iterable[ProposalCandidate]) -> None:
    """Raise what each list opens, and where it opens nothing what comes next in the cell.

    The next stage comes before lower confidence floors of the held one, so upper lists come first.
    """
    candidates_by_list: dict[tuple[int, str], list[ProposalCandidate]] = defaultdict(list)
    for candidate in candidates:
        name = "" if candidate.place is None else candidate.place.portfolio
        candidates_by_list[candidate.step.stage_level, name].append(candidate)
    for (_, name), list_candidates in sorted(
        candidates_by_list.items(), key=lambda item: item[0][0], reverse=True
    ):
        waiting = [c for c in list_candidates if not _has_proposal(pending, c)]
        if name:
            _raise_opened(pending, name, waiting)
        else:
            for candidate in waiting:
                _raise_candidate(pending, candidate)


def _has_proposal(pending: PendingEvents, candidate: ProposalCandidate) -> bool:
    state = pending.scope.get_cell_state(candidate.cell, candidate.version)
    return state.proposal is not None


def _raise_opened(
    pending: PendingEvents, portfolio: str, candidates: Iterable[ProposalCandidate]
) -> None:
    """Raise the candidates that their list opens, those with the most evidence first."""
    scope = pending.scope  # the ranks are those of one look
    candidates_by_place = {c.place: c for c in candidates if c.place is not None}
    places = [*list_open_places(scope, portfolio), *candidates_by_place]
    openings = find_openings(scope, places)
    opened = (place for place in openings.places if place in candidates_by_place)
    for place in sorted(opened, key=lambda place: (-place.score, place.question)):
        candidate = candidates_by_place[place]
        rank = rank_place(scope, pending.policy, place, candidate.step.stage_level, openings)
        reading = replace(candidate.reading, rank=rank)
        _raise_candidate(pending, candidate._replace(reading=reading))


def _build_candidate(
    pending: PendingEvents,
    kind: str,
    key: tuple[Cell, str],
    step: WideningStep,
    evidence: VersionEvidence,
    reading: GateReading,
) -> ProposalCandidate:
    """Return a candidate, whose reading names the step's confidence floor alone.

    Which stricter floors are met is asked of what is raised: most of a list waits at each tick.
    """
    floors = list_floor_texts(pending.policy.evidence)
    reading = replace(reading, floors=floors[step.floor_index :][:1])
    place = compute_place(pending.scope, pending.policy, key, step.stage_level, reading)
    return ProposalCandidate(kind, *key, step, evidence, reading, place)


def _raise_candidate(pending: PendingEvents, candidate: ProposalCandidate) -> None:
    """Raise a candidate with the confidence floors that are met."""
    kind, cell, version, step, evidence, reading, _ = candidate
    share = pending.scope.get_cell_state(cell, version).risk_share
    reading = replace(reading, floors=list_met_floors(pending.policy, cell, step, share, evidence))
    raise_proposal(pending, kind, cell, version, step.stage_level, reading)


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
) -> list[ProposalCandidate]:
    """Raise what is due for a version, unless it waits for a portfolio; return what does."""
    holder = pending.scope.get_holder(cell)
    if holder is not None and holder != version:
        candidates = _list_takeovers(pending, cell, version, holder, evidence_by_cell)
    elif _raise_renewal(pending, cell, version, evidence_by_cell):
        return []
    else:
        candidates = _list_widenings(pending, cell, version, evidence_by_cell)
    if candidates and candidates[0].place is None:
        _raise_candidate(pending, candidates[0])
        return []
    return candidates


def _list_widenings(
    pending: PendingEvents, cell: Cell, version: str, evidence_by_cell: EvidenceByCell
) -> list[ProposalCandidate]:
    """Return the met steps, in their order, up to the first that needs no portfolio."""
    state = pending.scope.get_cell_state(cell, version)
    key, candidates = (cell, version), list[ProposalCandidate]()
    for step in list_widening_steps(pending.policy, state, pending.at):
        evidence = evidence_by_cell[key]
        reading = _read_step(pending, cell, version, step, evidence)
        if reading is not None:
            candidates.append(_build_candidate(pending, "widening", key, step, evidence, reading))
            if candidates[-1].place is None:
                break
    return candidates


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
    return read_gate(*parts) if is_gate_open(*parts) else None


def _list_takeovers(
    pending: PendingEvents, cell: Cell, version: str, holder: str, evidence_by_cell: EvidenceByCell
) -> list[ProposalCandidate]:
    """Return the takeover at the holder's stage, if the challenger's evidence allows it.

    Only by a version first used after the holder: an operator proposes the return to an older one,
    because two good versions would replace each other for ever.
    """
    scope, policy = pending.scope, pending.policy
    if not is_challenger(scope, version, holder):
        return []
    stage_level = compute_held_level(policy, scope.get_cell_state(cell, holder), pending.at)
    if stage_level == 0 or not policy.is_reachable(cell, stage_level, pending.at):
        return []
    state = scope.get_cell_state(cell, version)
    evidence, floors = select_takeover_floor(
        scope, policy, (cell, version), stage_level, evidence_by_cell[cell, version]
    )
    reading = read_gate(
        policy, cell, stage_level, state.risk_share, evidence.attempt, evidence.attempt
    )
    if not reading.is_met or not are_lower_gates_met(
        policy, cell, stage_level, state.risk_share, evidence
    ):
        return []
    step = WideningStep(stage_level, find_floor_index(policy.evidence, next(iter(floors), "")))
    key = (cell, version)
    return [_build_candidate(pending, "takeover", key, step, evidence_by_cell[key], reading)]


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
    readings = format_readings(policy, gate, reading)
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


def format_readings(policy: Policy, gate: Gate, reading: GateReading) -> tuple[str, ...]:
    """Return a gate's readings as a proposal lists them, confidence floor and portfolio last."""
    readings = [item.format(policy) for item in reading.readings]
    if reading.floors and gate.has_portfolio:
        readings.append(describe_floor_cases(reading.floors[0]))
    elif reading.floors:
        readings.append(describe_floor(policy.evidence, reading.floors[0]))
    if reading.rank is not None:
        readings.append(reading.rank.format())
    return tuple(readings)


def _list_attempt_fields(state: CellState) -> dict[str, Any]:
    """Return the attempt's number in its year and its share of the risk; none without a number."""
    return {"attempt": state.number, "risk_weight": repr(state.risk_share)} if state.number else {}


def _list_portfolio_fields(rank: PortfolioRank | None) -> dict[str, Any]:
    """Return a proposal's place in its portfolio; none without one."""
    if rank is None:
        return {}
    return {
        "portfolio": rank.name,
        "portfolio_cells": rank.cells,
        "portfolio_opened": rank.opened,
        "portfolio_rank": rank.rank,
        "portfolio_score": rank.score,
        "portfolio_floors": rank.floors,
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
