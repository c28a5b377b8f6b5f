"""The tick's steps on proposals: void, expire, apply what is approved, raise what is met."""

from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any

from rollout.core.calendar.sites import Cell
from rollout.core.errors import UnknownVersion
from rollout.core.policy.cell_evidence import Counted, Known
from rollout.core.policy.gates import GateReading, gate_opens, read_gate, read_renewal
from rollout.core.policy.policy import Gate, Policy
from rollout.core.scope.commands import Evidence, Tick
from rollout.core.scope.events import (
    CellEvent,
    Event,
    ProposalExpired,
    ProposalRaised,
    ProposalVoided,
    Renewed,
    Resumed,
    TakenOver,
    Widened,
)
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.scope import ENGINE, CellState, Proposal, Scope, Version, held_rung
from rollout.core.scope.waves import settling, wave_holds, wave_of

RENEWAL_SHARE = 5  # a renewal is due in the last fifth of a grant
APPLIED = frozenset({"widening", "renewal", "takeover", "resume"})  # policies and clocks go first


def gate_hash(policy: Policy, rung: int, cell: Cell) -> str:
    """Return the name of what a widening to `rung` is judged by: an edit of it voids proposals."""
    rule = (policy.gate(rung, cell), policy.required(rung, cell), policy.evidence.missing_at_most)
    return sha256(repr(rule).encode()).hexdigest()[:16]


def open_ones(draft: Draft, tick: Tick) -> None:
    """Expire proposals that are out of time and void those whose evidence has turned."""
    for proposal in list(draft.scope.proposals.values()):
        if proposal.kind == "clock":
            continue  # it lives by the clock: `rollout.core.scope.clock_correction`
        if draft.at >= proposal.expires_at:
            draft.emit(ProposalExpired(at=draft.at, by=ENGINE, proposal=proposal.id))
        elif (reason := _turned(draft, tick, proposal)) is not None:
            _void(draft, proposal, reason)


def _void(draft: Draft, proposal: Proposal, because: str) -> None:
    draft.emit(ProposalVoided(at=draft.at, by=ENGINE, proposal=proposal.id, reason=because))


def _turned(draft: Draft, tick: Tick, proposal: Proposal) -> str | None:
    """Say why a proposal about a cell has lost its ground, None where it stands."""
    if proposal.cell is None:
        return None
    broken_rule = _outruled(draft, proposal, proposal.cell)
    if broken_rule is not None:
        return broken_rule
    stage_level = draft.policy.rungs.index(proposal.to)
    if not _stands_right(draft, proposal, stage_level):
        return "the cell's stage is no longer the one below"
    evidence = tick.evidence.get((proposal.cell, proposal.version))
    reading = None if evidence is None else _reading(draft, proposal, stage_level, evidence)
    return None if reading is None or not reading.turned else "the evidence has turned"


def _outruled(draft: Draft, proposal: Proposal, cell: Cell) -> str | None:
    """Say which rule has gone or come since a proposal was raised, None where none has."""
    policy = draft.policy
    stage_level = policy.rungs.index(proposal.to) if proposal.to in policy.rungs else 0
    if cell not in policy.known or stage_level == 0 or policy.gate(stage_level, cell) is None:
        return "the policy has no gate for it any more"
    if gate_hash(policy, stage_level, cell) != proposal.gate:
        return "the policy's gate was edited"
    if policy.ceiling(cell, draft.at) < stage_level:
        return "it lies above the cell's ceiling now"
    return "the version is retired" if draft.scope.versions[proposal.version].retired else None


def _stands_right(draft: Draft, proposal: Proposal, rung: int) -> bool:
    """Say whether the proposal still fits the grants that it builds on."""
    assert proposal.cell is not None  # noqa: S101 - asked of cell proposals alone
    cell, scope, policy = proposal.cell, draft.scope, draft.policy
    holder = scope.holder(cell)
    held_level = held_rung(policy, scope.state(cell, proposal.version), draft.at)
    match proposal.kind:
        case "widening":
            return holder in (None, proposal.version) and held_level == rung - 1
        case "renewal":
            return held_level >= rung
    if holder is None or holder == proposal.version:
        return False
    return rung in takeover_rungs(policy, scope.state(cell, holder), draft.at)


def _reading(draft: Draft, proposal: Proposal, rung: int, known: Known) -> GateReading | None:
    assert proposal.cell is not None  # noqa: S101 - asked of cell proposals alone
    state = draft.scope.state(proposal.cell, proposal.version)
    policy, cell = draft.policy, proposal.cell
    if proposal.kind == "renewal":
        counts = known.spans.get(proposal.to, Counted())
        return read_renewal(policy, cell, rung, counts)
    counts_since_entry = known.attempt if proposal.kind == "takeover" else known.entered
    return read_gate(policy, cell, rung, state.attempt, known.attempt, counts_since_entry)


def approved_ones(draft: Draft) -> None:
    """Apply approved proposals whose time has come, earlier waves first, within the limits.

    Where the policy only observes none is, but for a resume that gives nothing back: a stop
    that was rehearsed can be ended.
    """
    approved_proposals = [
        candidate
        for candidate in draft.scope.proposals.values()
        if candidate.approved and candidate.kind in APPLIED
    ]
    if draft.policy.observe:
        approved_proposals = [
            candidate for candidate in approved_proposals if _gives_nothing(draft.scope, candidate)
        ]
    for proposal in sorted(
        approved_proposals, key=lambda candidate: _turn(draft.policy, candidate)
    ):
        if proposal.id in draft.scope.proposals and not _held_back(draft, proposal):
            draft.emit(_applied(draft, proposal))
            _void_rivals(draft, proposal)


def _gives_nothing(scope: Scope, proposal: Proposal) -> bool:
    """Say whether a proposal is the resume of a stop in whose cells nothing was ever granted."""
    stop = scope.stops.get(proposal.about) if proposal.kind == "resume" else None
    return stop is not None and all(scope.holder(cell) is None for cell in stop.cells)


def _turn(policy: Policy, proposal: Proposal) -> int:
    """Return the proposal's wave; within one they stand in the order in which they were raised."""
    return 0 if proposal.cell is None else wave_of(policy, proposal.cell)


def _held_back(draft: Draft, proposal: Proposal) -> bool:
    """Say whether freeze, stop, suspension, wave or settling limit keeps it waiting."""
    cell, scope, policy = proposal.cell, draft.scope, draft.policy
    if cell is None:  # a resume gives back only what was granted: no wave, no settling
        cells = scope.stops[proposal.about].cells if proposal.about in scope.stops else ()
        return any(
            cell_in_stop in policy.known and policy.frozen(cell_in_stop, draft.at)
            for cell_in_stop in cells
        )
    if scope.stopped(cell) or policy.frozen(cell, draft.at) is not None:
        return True
    if alarmed(scope, cell, proposal.version) or draft.narrowed(cell):
        return True
    if proposal.kind == "renewal":
        return False
    stage_level = policy.rungs.index(proposal.to)
    wave_reason = proposal.kind == "widening" and wave_holds(
        scope, policy, cell, stage_level, draft.at
    )
    return bool(wave_reason) or settling(scope, policy, draft.at)


def _applied(draft: Draft, proposal: Proposal) -> Event:
    at, cell, version = draft.at, proposal.cell, proposal.version
    if cell is None:
        return Resumed(at=at, by=ENGINE, proposal=proposal.id, stop=proposal.about)
    stage_level = draft.policy.rungs.index(proposal.to)
    until = at + draft.policy.stage(stage_level).lasts
    build_event = partial(
        _of_cell, at=at, by=ENGINE, proposal=proposal.id, cell=cell, version=version
    )
    if proposal.kind == "widening":
        return build_event(Widened, to_stage=proposal.to, until=until)
    if proposal.kind == "renewal":
        return build_event(Renewed, stage=proposal.to, until=until)
    stages = draft.policy.stages[:stage_level]
    replaced = draft.scope.holder(cell)
    assert replaced is not None  # noqa: S101 - a takeover without a holder was voided before
    return build_event(
        TakenOver,
        replaced_version=replaced,
        to_stage=proposal.to,
        stages=tuple(stage.id for stage in stages),
        grant_ends=tuple(draft.at + stage.lasts for stage in stages),
    )


def _of_cell(kind: type[CellEvent], **fields: Any) -> Event:
    return kind(**fields)


def _void_rivals(draft: Draft, applied: Proposal) -> None:
    """Void what other versions had proposed for the place that is taken now."""
    if applied.kind not in {"widening", "takeover"}:
        return
    for rival in list(draft.scope.proposals.values()):
        if rival.cell == applied.cell and rival.version != applied.version:
            _void(draft, rival, f"{applied.version} was given the place by {applied.id}")


def raise_met(draft: Draft, tick: Tick) -> None:
    """Raise a proposal in each cell whose gate, takeover or renewal is met.

    A cell that this tick has changed waits for the next one: its evidence was counted for the
    stage before.
    """
    for cell, version in tick.evidence:
        if cell in draft.policy.known and _may_raise(draft, cell, version):
            _raise_for(draft, cell, version, tick.evidence)


def _may_raise(draft: Draft, cell: Cell, version: str) -> bool:
    version_state = draft.scope.versions.get(version)
    if version_state is None or version_state.retired or draft.moved(cell, version):
        return False
    return not draft.scope.state(cell, version).proposal and not hindrance(draft, cell, version)


def hindrance(draft: Draft, cell: Cell, version: str) -> str:
    """Say why nothing is raised for a version in a cell, "" where nothing hinders it.

    It holds for the tick and for people alike: a rejection is not undone by asking again.
    """
    scope = draft.scope
    if scope.stopped(cell):
        return "the cell is stopped; ask for a resume first"
    quiet_until = scope.state(cell, version).quiet_until
    if quiet_until is not None and draft.at < quiet_until:
        return "it was rejected there lately; wait for its quiet time to end"
    return "a guard is in alarm there; wait until it is clear" * alarmed(scope, cell, version)


def version_of(scope: Scope, version: str) -> Version:
    """Return a version that was seen.

    Raises:
        UnknownVersion: it never was.
    """
    found = scope.versions.get(version)
    if found is None:
        version_ids = ", ".join(scope.versions) or "none"
        raise UnknownVersion(f"no prediction of {version} was ever seen; versions: {version_ids}")
    return found


def alarmed(scope: Scope, cell: Cell, version: str) -> bool:
    """Say whether a guard is in alarm on `version` or on the one acting in `cell`.

    An alarm that narrows starts its guard anew, so what is left are those that withhold grants
    and those that are only reported.
    """
    version_ids = {version, scope.holder(cell) or version}
    states = [scope.state(cell, version_id) for version_id in version_ids]
    return any(state.suspended_by or state.reported for state in states)


def _raise_for(draft: Draft, cell: Cell, version: str, evidence: Evidence) -> None:
    holder = draft.scope.holder(cell)
    if holder is not None and holder != version:
        _raise_takeover(draft, cell, version, holder, evidence)
    elif not _raise_renewal(draft, cell, version, evidence):
        _raise_widening(draft, cell, version, evidence)


def _raise_widening(draft: Draft, cell: Cell, version: str, evidence: Evidence) -> None:
    scope, policy = draft.scope, draft.policy
    state = scope.state(cell, version)
    stage_level = held_rung(policy, state, draft.at) + 1
    if stage_level > policy.ceiling(cell, draft.at) or policy.gate(stage_level, cell) is None:
        return
    if wave_holds(scope, policy, cell, stage_level, draft.at):
        return
    known = evidence[cell, version]
    if gate_opens(policy, cell, stage_level, state.attempt, known.attempt, known.entered):
        reading = read_gate(policy, cell, stage_level, state.attempt, known.attempt, known.entered)
        raise_proposal(draft, "widening", cell, version, stage_level, reading)


def _raise_takeover(
    draft: Draft, cell: Cell, version: str, holder: str, evidence: Evidence
) -> None:
    """Raise a takeover at the stage that the acting version holds, on the challenger's evidence.

    Only by a version seen after the acting one: going back to an older one is an operator's
    proposal, or two good versions would replace each other for ever.
    """
    scope, policy = draft.scope, draft.policy
    if not is_challenger(scope, version, holder):
        return
    stage_level = held_rung(policy, scope.state(cell, holder), draft.at)
    if stage_level == 0 or stage_level > policy.ceiling(cell, draft.at):
        return
    state, known = scope.state(cell, version), evidence[cell, version]
    reading = read_gate(policy, cell, stage_level, state.attempt, known.attempt, known.attempt)
    if reading.met and reads_every_gate(policy, cell, stage_level, state.attempt, known):
        raise_proposal(draft, "takeover", cell, version, stage_level, reading)


def takeover_rungs(policy: Policy, holder: CellState, at: datetime) -> range:
    """Return the rungs to which a challenger may take over, as far as `takeover` allows."""
    held_level = held_rung(policy, holder, at)
    floor = held_level if policy.takeover_floor is None else min(policy.takeover_floor, held_level)
    return range(max(floor, 1), held_level + 1)


def is_challenger(scope: Scope, version: str, holder: str) -> bool:
    """Say whether `version` was seen after `holder`; of two seen at once, the later name."""
    challenger, acting = scope.versions[version], scope.versions[holder]
    return (challenger.first_seen, challenger.id) > (acting.first_seen, acting.id)


def reads_every_gate(policy: Policy, cell: Cell, rung: int, attempt: int, known: Known) -> bool:
    """Say whether the gates below `rung` are met too, each at its own risk and minimum."""
    return all(
        read_gate(policy, cell, lower_level, attempt, known.attempt, known.attempt).met
        for lower_level in range(1, rung)
        if policy.gate(lower_level, cell) is not None
    )


def _raise_renewal(draft: Draft, cell: Cell, version: str, evidence: Evidence) -> bool:
    """Raise a renewal of the lowest grant in its last fifth; say whether one was raised."""
    policy, state = draft.policy, draft.scope.state(cell, version)
    for stage_level in range(1, held_rung(policy, state, draft.at) + 1):
        is_due = draft.at >= renewal_starts(policy, state, stage_level)
        if is_due and policy.gate(stage_level, cell) is not None:
            counts = evidence[cell, version].spans.get(policy.rungs[stage_level], Counted())
            reading = read_renewal(policy, cell, stage_level, counts)
            if reading.met and stage_level <= policy.ceiling(cell, draft.at):
                raise_proposal(draft, "renewal", cell, version, stage_level, reading)
                return True
    return False


def renewal_starts(policy: Policy, state: CellState, rung: int) -> datetime:
    """Return when the last fifth of the grant of `rung` begins."""
    grant = next(g for g in state.grants if g.stage == policy.rungs[rung])
    return grant.until - (grant.until - grant.since) / RENEWAL_SHARE


def raise_proposal(
    draft: Draft,
    kind: str,
    cell: Cell,
    version: str,
    rung: int,
    reading: GateReading,
    by: str = ENGINE,
) -> None:
    """Emit the proposal with its readings frozen under one hash."""
    policy = draft.policy
    gate = policy.gate(rung, cell)
    assert isinstance(gate, Gate)  # noqa: S101 - a reading was made of it
    reading_lines = tuple(condition_reading.text(policy) for condition_reading in reading.readings)
    draft.emit(
        ProposalRaised(
            at=draft.at,
            by=by,
            proposal=f"P-{draft.scope.raised + 1}",
            kind=kind,
            expires_at=draft.at + policy.open_for,
            needs=gate.approvals,
            evidence_hash=evidence_hash(
                (f"{kind} {cell} {version} {policy.rungs[rung]}", *reading_lines)
            ),
            cell=cell,
            version=version,
            to_stage=policy.rungs[rung],
            gate_hash=gate_hash(policy, rung, cell),
            readings=reading_lines,
        )
    )


def evidence_hash(lines: tuple[str, ...]) -> str:
    """Return the SHA-256 of what is proposed and its readings, one a line: approvals cite it."""
    return sha256("\n".join(lines).encode()).hexdigest()
