"""Proposals that an operator raises: what the tick would raise too, or may not by itself."""

from rollout.core.calendar.sites import Cell
from rollout.core.errors import NotEligible
from rollout.core.policy.cell_evidence import Counted, Known
from rollout.core.policy.gates import GateReading, read_gate, read_renewal
from rollout.core.scope.commands import AskRenewal, RaiseTakeover
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.proposals import (
    hindrance,
    raise_proposal,
    reads_every_gate,
    renewal_starts,
    takeover_rungs,
    version_of,
)
from rollout.core.scope.scope import held_rung


def raise_takeover(command: RaiseTakeover, draft: Draft) -> None:
    """Raise a takeover to a lower stage than the acting version holds, if the policy allows it."""
    cell, version = command.cell, command.version
    stage_level = _takeover_rung(command, draft)
    if _is_open(draft, "takeover", command):
        return
    evidence = command.evidence.get((cell, version), Known())
    attempt = draft.scope.state(cell, version).attempt
    reading = read_gate(
        draft.policy, cell, stage_level, attempt, evidence.attempt, evidence.attempt
    )
    if not reading.met or not reads_every_gate(draft.policy, cell, stage_level, attempt, evidence):
        raise NotEligible(f"{version} may not take over {cell} yet: {_lacks(reading)}")
    raise_proposal(draft, "takeover", cell, version, stage_level, reading, by=command.by.name)


def _takeover_rung(command: RaiseTakeover, draft: Draft) -> int:
    scope, policy = draft.scope, draft.policy
    holder = scope.holder(command.cell)
    if version_of(scope, command.version).retired:
        raise NotEligible(f"{command.version} is retired; a version that is served may take over")
    if holder is None or holder == command.version:
        raise NotEligible(f"no other version acts in {command.cell}; the gate widens it by itself")
    allowed_levels = takeover_rungs(policy, scope.state(command.cell, holder), draft.at)
    stage_level = policy.rungs.index(command.to) if command.to in policy.rungs else 0
    if stage_level not in allowed_levels or stage_level > policy.ceiling(command.cell, draft.at):
        allowed_stages = ", ".join(policy.rungs[level] for level in allowed_levels) or "none"
        raise NotEligible(
            f"a takeover of {command.cell} may go to {allowed_stages}, not to {command.to}"
        )
    return stage_level


def raise_renewal(command: AskRenewal, draft: Draft) -> None:
    """Raise the renewal of one grant in its last fifth, on the measures that a tick goes by.

    No earlier: who may pick the day on which a grant is weighed picks a good one.
    """
    cell, version = command.cell, command.version
    stage_level = _renewed_rung(command, draft)
    if _is_open(draft, "renewal", command):
        return
    evidence = command.evidence.get((cell, version), Known())
    reading = read_renewal(
        draft.policy, cell, stage_level, evidence.spans.get(command.to, Counted())
    )
    if not reading.met:
        raise NotEligible(f"{command.to} of {cell} may not be renewed yet: {_lacks(reading)}")
    raise_proposal(draft, "renewal", cell, version, stage_level, reading, by=command.by.name)


def _renewed_rung(command: AskRenewal, draft: Draft) -> int:
    policy, cell, to = draft.policy, command.cell, command.to
    version_of(draft.scope, command.version)
    state = draft.scope.state(cell, command.version)
    stage_level = policy.rungs.index(to) if to in policy.rungs else 0
    if not 0 < stage_level <= held_rung(policy, state, draft.at):
        raise NotEligible(f"{command.version} holds no grant of {to} in {cell}")
    if stage_level > policy.ceiling(cell, draft.at) or policy.gate(stage_level, cell) is None:
        raise NotEligible(f"the policy leads {cell} to {to} no more; it may only lapse")
    renewal_start = renewal_starts(policy, state, stage_level)
    if draft.at < renewal_start:
        raise NotEligible(
            f"the last fifth of the grant begins {renewal_start.isoformat()}; ask then"
        )
    return stage_level


def _is_open(draft: Draft, kind: str, command: RaiseTakeover | AskRenewal) -> bool:
    """Say whether the proposal that is asked for is open; refuse what stands against raising it."""
    cell, version = command.cell, command.version
    proposal_id = draft.scope.state(cell, version).proposal
    if proposal_id is None:
        _refuse_hindered(draft, cell, version)
        return False
    proposal = draft.scope.proposals[proposal_id]
    if (proposal.kind, proposal.to) != (kind, command.to):
        raise NotEligible(f"{proposal_id} of {version} is open there; approve or reject it")
    return True


def _refuse_hindered(draft: Draft, cell: Cell, version: str) -> None:
    reason = hindrance(draft, cell, version)
    if reason:
        raise NotEligible(f"nothing of {version} is proposed in {cell} now: {reason}")


def _lacks(reading: GateReading) -> str:
    return "; ".join(reading.lacks) or "its evidence does not reach the gate's lines"
