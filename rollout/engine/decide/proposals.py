"""Proposals as ticks and users raise them, and what keeps an approved one from being applied.

A tick raises proposals whose gates are met; operators ask for takeovers and renewals. What holds a
proposal also says until when.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple

from rollout.engine.decide.commands import (
    EvidenceByCell,
    ProposeRenewal,
    ProposeTakeover,
    Tick,
)
from rollout.engine.decide.projection import PendingEvents
from rollout.engine.decide.scope import (
    NOTHING_AGAINST,
    RECORD_SPAN,
    CellState,
    ProposalState,
    Scope,
    Version,
    compute_held_level,
)
from rollout.engine.decide.widening_steps import (
    WideningStep,
    find_settled_at,
    find_wave_hold,
    find_wave_opening,
    list_met_floors,
    list_widening_steps,
    select_renewal_floor,
    select_takeover_floor,
)
from rollout.engine.events import (
    ENGINE,
    HARM_FACT,
    ProposalRaised,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.calendar.opening_hours import find_next_change
from rollout.kernel.errors import (
    NotEligibleError,
    UnknownVersionError,
)
from rollout.kernel.facts import (
    FreshFact,
    StoredReading,
    format_facts,
    to_facts,
)
from rollout.kernel.policy.cell_evidence import EvidenceCounts, VersionEvidence, find_floor_index
from rollout.kernel.policy.gates import (
    FreshEvidence,
    GateReading,
    is_gate_open,
    list_fresh_facts,
    read_gate,
    read_renewal,
)
from rollout.kernel.policy.policy import Gate, Policy
from rollout.kernel.words import say_requirement

MAX_ADJACENT_FREEZES: Final = 100


class ProposalHold(NamedTuple):
    """A reason to wait; `until` is None if its end is not known.

    `kind` is observing, facts, harm, stop, freeze, alarm, wave or settling. For facts and
    harm `reason` names the incidents.
    """

    kind: str
    reason: str
    until: datetime | None = None


def list_proposal_holds(
    scope: Scope, policy: Policy, proposal: ProposalState, at: datetime
) -> tuple[ProposalHold, ...]:
    """Return all that holds a proposal back at `at`; () if the next tick applies it."""
    if proposal.rules.changes_policy:
        return ()
    return tuple(_find_holds(scope, policy, proposal, at))


def list_proposal_facts(
    policy: Policy, proposal: ProposalState, evidence: FreshEvidence
) -> tuple[FreshFact, ...]:
    """Return what holds a proposal for a cell by answers that don't count yet."""
    cell = proposal.cell
    if cell is None or not proposal.rules.gives_more:
        return ()
    if cell not in policy.cell_set or policy.find_gate_to(proposal.to, cell) is None:
        return ()
    floor = find_floor_index(policy.evidence, next(iter(proposal.floors), ""))
    stage_level = policy.stage_ids.index(proposal.to)
    return list_fresh_facts(policy, cell, stage_level, evidence.get_floor(floor))


def _find_holds(
    scope: Scope, policy: Policy, proposal: ProposalState, at: datetime
) -> Iterator[ProposalHold]:
    if policy.observe and not _resumes_nothing(scope, proposal):
        yield ProposalHold("observing", "the policy only observes: nothing is granted")
    if proposal.unconfirmed:
        yield ProposalHold("facts", " and ".join(proposal.unconfirmed))
    if harms := _list_harms(scope, proposal):
        yield ProposalHold("harm", " and ".join(harms))
    if proposal.cell is None:  # a resume restores grants only: no wave, no settling
        stop = scope.stops.get(proposal.about)
        yield from _find_freeze_hold(policy, stop.cells if stop else (), at)
    elif proposal.cell in policy.cell_set:
        yield from _find_cell_holds(scope, policy, proposal, proposal.cell, at)


def _list_harms(scope: Scope, proposal: ProposalState) -> list[str]:
    """Return the harms that nobody has acknowledged, and that hold a proposal."""
    harms = [i for i in scope.open_incidents.values() if i.fact == HARM_FACT]
    if not harms or _resumes_nothing(scope, proposal):
        return []
    stop = scope.stops.get(proposal.about)
    cells = (proposal.cell,) if proposal.cell is not None else stop.cells if stop else ()
    sites = {cell.site for cell in cells}
    versions = {proposal.version, *(scope.get_holder(cell) for cell in cells)}
    return [
        harm.id
        for harm in harms
        if harm.holds != "site"
        or harm.version in versions
        or (harm.cell is not None and harm.cell.site in sites)
    ]


def _find_cell_holds(
    scope: Scope, policy: Policy, proposal: ProposalState, cell: Cell, at: datetime
) -> Iterator[ProposalHold]:
    if scope.is_stopped(cell):
        yield ProposalHold("stop", "the cell is stopped")
    yield from _find_freeze_hold(policy, (cell,), at)
    if has_alarm(scope, cell, proposal.version):
        yield ProposalHold("alarm", "a guard is in alarm there")
    if proposal.rules.extends_grant or proposal.to not in policy.stage_ids:
        return
    wave_hold = find_wave_hold(scope, policy, cell, policy.stage_ids.index(proposal.to), at)
    if proposal.rules.waits_for_wave and wave_hold is not None:
        yield ProposalHold("wave", str(wave_hold), find_wave_opening(scope, policy, cell, at)[1])
    settled_at = find_settled_at(scope, policy, at)
    if settled_at is not None:
        yield ProposalHold("settling", "recently widened cells settle", settled_at)


def _find_freeze_hold(
    policy: Policy, cells: Iterable[Cell], at: datetime
) -> Iterator[ProposalHold]:
    """Yield the freeze of any of the cells, with the latest end."""
    frozen_cells = [
        (cell, freeze)
        for cell in sorted(cells)
        if cell in policy.cell_set and (freeze := policy.find_freeze(cell, at)) is not None
    ]
    if frozen_cells:
        ends = [find_freeze_end(policy, cell, at) for cell, _ in frozen_cells]
        known_ends = [end for end in ends if end is not None]
        is_known = len(known_ends) == len(ends)
        yield ProposalHold(
            "freeze", frozen_cells[0][1].reason, max(known_ends) if is_known else None
        )


def find_freeze_end(policy: Policy, cell: Cell, at: datetime) -> datetime | None:
    """Return when no freeze holds a frozen cell any more, or None if that is not known."""
    site, instant = policy.sites_by_id[cell.site], at
    for _ in range(MAX_ADJACENT_FREEZES):
        freeze = policy.find_freeze(cell, instant)
        if freeze is None:
            return instant
        change = find_next_change(freeze.hours, site, instant)
        if change is None:
            return None
        instant = change
    return None


def _resumes_nothing(scope: Scope, proposal: ProposalState) -> bool:
    """Return whether a proposal resumes a stop in whose cells nothing is granted."""
    stop = scope.stops.get(proposal.about) if proposal.rules.ends_stop else None
    return stop is not None and all(scope.get_holder(cell) is None for cell in stop.cells)


def has_alarm(scope: Scope, cell: Cell, version: str) -> bool:
    """Return whether a guard is in alarm on `version` or the cell's holder.

    An alarm that narrows restarts its guard, so these are guards that suspend or only report.
    """
    version_ids = {version, scope.get_holder(cell) or version}
    states = [scope.get_cell_state(cell, version_id) for version_id in version_ids]
    return any(state.suspended_by or state.reported_guards for state in states)


RENEWAL_SHARE = 5  # a renewal is due in the last fifth of a grant


def compute_gate_hash(policy: Policy, stage_level: int, cell: Cell) -> str:
    """Return the hash of the gate to `stage_level`; a changed gate voids proposals."""
    rule = (
        policy.find_gate(stage_level, cell),
        policy.list_conditions(stage_level, cell),
        policy.evidence.missing_at_most,
    )
    return sha256(json.dumps(to_facts(rule), sort_keys=True).encode()).hexdigest()[:16]


def raise_due_proposals(pending: PendingEvents, tick: Tick) -> None:
    """Raise a proposal in each cell whose gate, takeover or renewal is met.

    A cell that this tick has changed waits for the next one: its evidence was counted for the stage
    before.
    """
    for cell, version in tick.evidence:
        if cell in pending.policy.cell_set and _can_raise(pending, cell, version):
            _raise_for_version(pending, cell, version, tick)


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
    quiet_until = scope.get_cell_state(cell, version).quiet_until
    if quiet_until is not None and pending.at < quiet_until:
        return "it was rejected there lately; wait for its quiet time to end"
    if has_alarm(scope, cell, version):
        return "a guard is in alarm there; wait until it is clear"
    awaited = scope.get_cell_state(cell, version).awaits
    open_ids = [incident for incident in awaited if incident in scope.open_incidents]
    return (
        f"acknowledge {' and '.join(open_ids)} first: it speaks against {version}"
        if open_ids
        else ""
    )


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


def _raise_for_version(pending: PendingEvents, cell: Cell, version: str, tick: Tick) -> None:
    """Raise what is due for a version."""
    holder = pending.scope.get_holder(cell)
    if holder is not None and holder != version:
        _raise_takeover(pending, cell, version, holder, tick)
    elif not _raise_renewal(pending, cell, version, tick.evidence):
        _raise_widening(pending, cell, version, tick)


def _raise_widening(pending: PendingEvents, cell: Cell, version: str, tick: Tick) -> None:
    """Raise the first step that is met, with the confidence floors that are met."""
    state = pending.scope.get_cell_state(cell, version)
    evidence = tick.evidence[cell, version]
    for step in list_widening_steps(pending.policy, state, pending.at):
        reading = _read_step(pending, cell, version, step, tick)
        if reading is not None:
            floors = list_met_floors(pending.policy, cell, step, state.risk_share, evidence)
            reading = replace(reading, floors=floors)
            raise_proposal(pending, "widening", cell, version, step.stage_level, reading)
            return


def _read_step(
    pending: PendingEvents, cell: Cell, version: str, step: WideningStep, tick: Tick
) -> GateReading | None:
    """Return the reading of a stage and confidence floor that may be opened, or None.

    The gate has to be met with the answers that don't count yet, too.
    """
    scope, policy, stage_level = pending.scope, pending.policy, step.stage_level
    if not policy.is_reachable(cell, stage_level, pending.at):
        return None
    if find_wave_hold(scope, policy, cell, stage_level, pending.at):
        return None
    share, at_floor = (
        scope.get_cell_state(cell, version).risk_share,
        tick.evidence[cell, version].get_floor(step.floor_index),
    )
    parts = (policy, cell, stage_level, share)
    if not is_gate_open(*parts, at_floor.attempt, at_floor.entered):
        return None
    fresh = tick.fresh.get((cell, version))
    if fresh is not None and not is_gate_open(
        *parts, fresh.get_floor(step.floor_index).attempt, at_floor.entered
    ):
        return None
    return read_gate(*parts, at_floor.attempt, at_floor.entered)


def _raise_takeover(
    pending: PendingEvents, cell: Cell, version: str, holder: str, tick: Tick
) -> None:
    """Raise the takeover at the holder's stage, if the challenger's evidence allows it.

    Only by a version first used after the holder: an operator proposes the return to an older one,
    because two good versions would replace each other for ever.
    """
    scope, policy = pending.scope, pending.policy
    if not is_challenger(scope, version, holder):
        return
    stage_level = compute_held_level(policy, scope.get_cell_state(cell, holder), pending.at)
    if stage_level == 0 or not policy.is_reachable(cell, stage_level, pending.at):
        return
    evidence, floors = select_takeover_floor(
        scope, policy, (cell, version), stage_level, tick.evidence[cell, version]
    )
    parts = (policy, cell, stage_level, scope.get_cell_state(cell, version).risk_share)
    reading = read_gate(*parts, evidence.attempt, evidence.attempt)
    if reading.is_met and are_lower_gates_met(*parts, evidence):
        fresh = tick.fresh.get((cell, version))
        if fresh is not None:
            at_floor = fresh.get_floor(find_floor_index(policy.evidence, next(iter(floors), "")))
            if not is_gate_open(*parts, at_floor.attempt, evidence.attempt):
                return
        reading = replace(reading, floors=floors)
        raise_proposal(pending, "takeover", cell, version, stage_level, reading)


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
    """Return whether the gates below are met at their own risks."""
    for lower_level in range(1, stage_level):
        if policy.find_gate(lower_level, cell) is not None:
            parts = (policy, cell, lower_level, risk_share, evidence.attempt, evidence.attempt)
            if not read_gate(*parts).is_met:
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
    readings = store_readings(policy, reading)
    incidents = _list_incidents_against(pending, cell, version)
    floor = next(iter(reading.floors), "")
    state = pending.scope.get_cell_state(cell, version)
    subject = (f"{kind} {cell} {version} {stage}", *([floor] if floor else ()))
    lines = (*subject, *map(format_facts, readings), *incidents)
    pending.emit(
        replace(
            build_proposal(pending, kind, by, gate.approvals, lines),
            readings=readings,
            incidents=incidents,
            cell=cell,
            version=version,
            to_stage=stage,
            gate_hash=compute_gate_hash(policy, stage_level, cell),
            confidence_floor=floor,
            stricter_floors=reading.floors[1:],
            attempt=state.number,
            risk_weight=repr(state.risk_share) if state.number else "",
        )
    )


def _list_incidents_against(pending: PendingEvents, cell: Cell, version: str) -> tuple[str, ...]:
    """Return what spoke against a version, and the one that acts in the cell, in 30 days."""
    versions = dict.fromkeys((version, pending.scope.get_holder(cell) or version))
    since = pending.at - RECORD_SPAN
    spoken = (pending.scope.spoken_against.get(name, NOTHING_AGAINST) for name in versions)
    return tuple(incident for item in spoken for incident in item.list_since(since))


def store_readings(policy: Policy, reading: GateReading) -> tuple[StoredReading, ...]:
    """Return a gate's readings as a proposal freezes them."""
    return tuple(item.store(policy) for item in reading.readings)


def build_proposal(
    pending: PendingEvents,
    kind: str,
    by: str,
    needs: tuple[str, ...],
    lines: tuple[str, ...],
    about: str = "",
) -> ProposalRaised:
    """Return a proposal without a cell; its evidence hash covers the lines."""
    return ProposalRaised(
        at=pending.at,
        by=by,
        proposal=f"P-{pending.scope.proposal_count + 1}",
        kind=kind,
        expires_at=pending.at + pending.policy.open_for,
        needs=needs,
        evidence_hash=sha256("\n".join(lines).encode()).hexdigest(),
        about=about,
    )


def propose_takeover(command: ProposeTakeover, pending: PendingEvents) -> None:
    """Propose a takeover to an allowed stage level, if its gates are met."""
    cell, version = command.cell, command.version
    stage_level = _find_takeover_level(command, pending)
    if _is_open(pending, "takeover", command):
        return
    evidence, floors = select_takeover_floor(
        pending.scope,
        pending.policy,
        (cell, version),
        stage_level,
        command.evidence.get((cell, version), VersionEvidence()),
    )
    state = pending.scope.get_cell_state(cell, version)
    risk_share = state.risk_share
    reading = read_gate(
        pending.policy, cell, stage_level, risk_share, evidence.attempt, evidence.attempt
    )
    if not reading.is_met or not are_lower_gates_met(
        pending.policy, cell, stage_level, risk_share, evidence
    ):
        raise NotEligibleError(
            f"{version} may not take over {cell} yet: {_describe_unmet(reading)}"
        )
    if not state.has_begun:
        raise NotEligibleError(
            f"{version} may not take over {cell} yet: the next tick numbers its attempt and fixes"
            " its share of the risk; propose it after that tick"
        )
    reading = replace(reading, floors=floors)
    raise_proposal(pending, "takeover", cell, version, stage_level, reading, by=command.by.name)


def _find_takeover_level(command: ProposeTakeover, pending: PendingEvents) -> int:
    scope, policy = pending.scope, pending.policy
    holder = scope.get_holder(command.cell)
    if get_version(scope, command.version).retired:
        raise NotEligibleError(
            f"{command.version} is retired; a version that is served may take over"
        )
    if holder is None or holder == command.version:
        raise NotEligibleError(
            f"no other version acts in {command.cell}; the gate widens it by itself"
        )
    holder_state = scope.get_cell_state(command.cell, holder)
    ceiling = policy.compute_ceiling(command.cell, pending.at)
    held_levels = list_takeover_levels(policy, holder_state, pending.at)
    allowed_levels = [level for level in held_levels if level <= ceiling]
    stage_level = policy.stage_ids.index(command.to) if command.to in policy.stage_ids else 0
    if stage_level not in allowed_levels:
        allowed_stages = ", ".join(policy.stage_ids[level] for level in allowed_levels) or "none"
        raise NotEligibleError(
            f"a takeover of {command.cell} may go to {allowed_stages}, not to {command.to}"
        )
    if policy.find_gate(stage_level, command.cell) is None:
        raise NotEligibleError(
            f"the policy has no gate to {command.to} for {command.cell} any more; add one first"
        )
    return stage_level


def propose_renewal(command: ProposeRenewal, pending: PendingEvents) -> None:
    """Propose to renew a grant in its last fifth, as a tick would.

    Not earlier: a free choice of the day would allow picking one with good evidence.
    """
    cell, version = command.cell, command.version
    stage_level = _find_renewal_level(command, pending)
    if _is_open(pending, "renewal", command):
        return
    floors = pending.scope.get_cell_state(cell, version).grants[stage_level - 1].floors
    evidence = command.evidence.get((cell, version), VersionEvidence())
    evidence = select_renewal_floor(pending.policy, evidence, floors)
    reading = read_renewal(
        pending.policy, cell, stage_level, evidence.spans.get(command.to, EvidenceCounts())
    )
    if not reading.is_met:
        raise NotEligibleError(
            f"{command.to} of {cell} may not be renewed yet: {_describe_unmet(reading)}"
        )
    reading = replace(reading, floors=floors)
    raise_proposal(pending, "renewal", cell, version, stage_level, reading, by=command.by.name)


def _find_renewal_level(command: ProposeRenewal, pending: PendingEvents) -> int:
    policy, cell, to = pending.policy, command.cell, command.to
    get_version(pending.scope, command.version)
    state = pending.scope.get_cell_state(cell, command.version)
    stage_level = policy.stage_ids.index(to) if to in policy.stage_ids else 0
    if not 0 < stage_level <= compute_held_level(policy, state, pending.at):
        raise NotEligibleError(f"{command.version} holds no grant of {to} in {cell}")
    if not policy.is_reachable(cell, stage_level, pending.at):
        raise NotEligibleError(f"the policy leads {cell} to {to} no more; it may only lapse")
    renewal_start = compute_renewal_start(policy, state, stage_level)
    if pending.at < renewal_start:
        raise NotEligibleError(
            f"the last fifth of the grant begins {renewal_start.isoformat()}; ask then"
        )
    return stage_level


def _is_open(pending: PendingEvents, kind: str, command: ProposeTakeover | ProposeRenewal) -> bool:
    """Return whether the proposal is open.

    Raises:
        NotEligibleError: it is not open and may not be raised.
    """
    cell, version = command.cell, command.version
    proposal_id = pending.scope.get_cell_state(cell, version).proposal
    if proposal_id is None:
        _check_can_propose(pending, cell, version)
        return False
    proposal = pending.scope.proposals[proposal_id]
    if (proposal.kind, proposal.to) != (kind, command.to):
        raise NotEligibleError(f"{proposal_id} of {version} is open there; approve or reject it")
    return True


def _check_can_propose(pending: PendingEvents, cell: Cell, version: str) -> None:
    reason = find_obstacle(pending, cell, version)
    if reason:
        raise NotEligibleError(f"nothing of {version} is proposed in {cell} now: {reason}")


def _describe_unmet(reading: GateReading) -> str:
    empty_gains = [
        f"no unit counts for {item.condition}: a version has such units only where it acts, once"
        " their deadlines have passed; wait for them, or propose a lower stage"
        for item in reading.readings
        if item.gain is not None and not len(item.gain.units)
    ]
    return (
        "; ".join((*map(say_requirement, reading.unmet_requirements), *empty_gains))
        or "its evidence does not reach the gate's thresholds"
    )
