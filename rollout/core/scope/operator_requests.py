"""What operators ask of a cell: takeovers and renewals."""

from dataclasses import replace

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.errors import NotEligibleError
from rollout.core.policy.cell_evidence import EvidenceCounts, VersionEvidence
from rollout.core.policy.gates import GateReading, read_gate, read_renewal
from rollout.core.scope.commands import (
    BeginNextAttempt,
    ProposeRenewal,
    ProposeTakeover,
)
from rollout.core.scope.floor_steps import select_renewal_floor, select_takeover_floor
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.proposals import (
    are_lower_gates_met,
    compute_renewal_start,
    find_obstacle,
    get_version,
    list_takeover_levels,
    raise_proposal,
)
from rollout.core.scope.scope import compute_held_level
from rollout.kernel.readings import NEXT_ATTEMPT
from rollout.kernel.words import say_requirement


def begin_next_attempt(command: BeginNextAttempt, pending: PendingEvents) -> None:
    """End a version's attempts that have begun in some cells; grants stay.

    The next one takes the next share of the risk, and counts only units that occur from now on.
    """
    version = get_version(pending.scope, command.version).id
    cells = [cell for cell in command.cells if pending.scope.has_begun(cell, version)]
    if not command.reason.strip():
        raise NotEligibleError("the next attempt costs a share of the year's risk: give a reason")
    if not cells:
        raise NotEligibleError(f"no unit of {version} counts there yet: its attempt begins by then")
    for cell in cells:
        state = pending.scope.get_cell_state(cell, version)
        pending.void_proposal(state.proposal, NEXT_ATTEMPT, by=command.by.name)
        stage = state.grants[-1].stage if state.grants else SHADOW
        pending.narrow(command, cell, version, stage, stage, restart=True)


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
    allowed_levels = list_takeover_levels(
        policy, scope.get_cell_state(command.cell, holder), pending.at
    )
    stage_level = policy.stage_ids.index(command.to) if command.to in policy.stage_ids else 0
    if stage_level not in allowed_levels or stage_level > policy.compute_ceiling(
        command.cell, pending.at
    ):
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
