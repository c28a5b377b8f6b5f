"""Policy edits: stricter ones apply at once, looser ones need approvals."""

from collections.abc import Mapping
from itertools import takewhile
from typing import NamedTuple

from rollout.core.calendar.instants import format_duration
from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.errors import PolicyRefusedError
from rollout.core.policy.cell_evidence import MeasureKey
from rollout.core.policy.confidence_floors import list_floor_texts
from rollout.core.policy.outcomes import GainCondition
from rollout.core.policy.policy import Policy
from rollout.core.policy.record_definition import is_redefined
from rollout.core.scope.commands import ApplyPolicy, Tick
from rollout.core.scope.event_base import ENGINE
from rollout.core.scope.events import Narrowed, PolicyApplied
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.policy_diff import list_looser_rules
from rollout.core.scope.proposals import build_proposal, compute_gate_hash
from rollout.core.scope.renames import check_renames, find_renamed_cells
from rollout.core.scope.scope import CellState, ProposalState
from rollout.core.scope.stop_targets import TWO_OPERATORS, find_resume_needs


def apply_policy(command: ApplyPolicy, pending: PendingEvents) -> None:
    """Apply a policy, or propose it if it is looser."""
    old, new = pending.policy, command.policy
    is_first = pending.scope.policy_number == 0
    if not is_first and new.hash == pending.scope.policy_hash:
        return  # it is in force
    if not is_first:
        _check_tick(old, new)
        check_renames(old, new)
    looser_rules = () if is_first else list_looser_rules(old, new)
    if looser_rules and any(
        proposal.about == new.hash for proposal in pending.scope.proposals.values()
    ):
        return  # proposed already
    if looser_rules:
        _propose_policy(command, pending, looser_rules)
    else:
        _emit_policy_applied(pending, new, by=command.by.name, looser_rules=(), proposal_id="")


def _check_tick(old: Policy, new: Policy) -> None:
    """Refuse another tick: stored evidence has the numbers of its slots.

    With a longer one no slot would come after those that are done, so no guard would narrow.
    """
    if new.tick != old.tick:
        tick = format_duration(old.tick)
        raise PolicyRefusedError(
            f"tick: {tick} stays as it is, since evidence is counted by its slots; write tick:"
            f" {tick}, or start a rollout of another name"
        )


def _propose_policy(
    command: ApplyPolicy, pending: PendingEvents, looser_rules: tuple[str, ...]
) -> None:
    readings = (f"policy {command.policy.hash}", *looser_rules)
    needs = find_highest_approvals(pending.policy)
    pending.emit(
        build_proposal(
            pending, "policy", command.by.name, needs, readings, about=command.policy.hash
        )
    )


def find_highest_approvals(policy: Policy) -> tuple[str, ...]:
    """Return the approvals of the gate to the highest stage.

    Of several such gates the one with most approvals; two operators for a policy without gates.
    """
    gates = sorted(
        policy.gates, key=lambda gate: (policy.stage_ids.index(gate.to), len(gate.approvals))
    )
    return gates[-1].approvals if gates else TWO_OPERATORS


def apply_approved_policies(pending: PendingEvents, tick: Tick) -> bool:
    """Apply the approved policy proposal that was raised last.

    Observing policies can be edited too, or they could never be left.

    Returns:
        Whether a policy was applied.
    """
    approved_proposals = [
        candidate
        for candidate in pending.scope.proposals.values()
        if candidate.kind == "policy"
        and candidate.is_approved
        and candidate.about in tick.pending_policies
    ]
    if not approved_proposals:
        return False
    proposal = approved_proposals[-1]  # in the order in which they were raised
    new = tick.pending_policies[proposal.about]
    try:
        _check_tick(pending.policy, new)
    except PolicyRefusedError as error:
        pending.void_proposal(proposal.id, str(error))
        return False
    looser_rules = list_looser_rules(pending.policy, new)
    _emit_policy_applied(
        pending, new, by=ENGINE, looser_rules=looser_rules, proposal_id=proposal.id
    )
    return True


def _emit_policy_applied(
    pending: PendingEvents, new: Policy, *, by: str, looser_rules: tuple[str, ...], proposal_id: str
) -> None:
    """Emit PolicyApplied, after voiding and narrowing what the edit invalidates."""
    effects = _find_effects(pending, new)
    for proposal in list(pending.scope.proposals.values()):
        if proposal.id != proposal_id and _is_voided_by_edit(
            pending, proposal, new, looser_rules, effects.cleared
        ):
            pending.void_proposal(proposal.id, "the policy was edited")
    _narrow_to_ladder(pending, new, by, effects.cleared)
    pending.emit(
        PolicyApplied(
            at=pending.at,
            by=by,
            number=pending.scope.policy_number + 1,
            policy_hash=new.hash,
            loosens=looser_rules,
            restarted=effects.restarted,
            cleared=effects.cleared,
            proposal=proposal_id,
            withdrawn=tuple(effects.withdrawn_risks),
            risks=tuple(effects.withdrawn_risks.values()),
            renamed=tuple(effects.renamed),
            former=tuple(effects.renamed.values()),
            confidence_floors=list_floor_texts(new.evidence),
        )
    )
    pending.policy = new


class _EditEffects(NamedTuple):
    cleared: tuple[Cell, ...]
    restarted: tuple[Cell, ...]
    withdrawn_risks: Mapping[str, str]
    renamed: Mapping[Cell, Cell]


def _find_effects(pending: PendingEvents, new: Policy) -> _EditEffects:
    """Return what an edit does to cells; nothing for the first policy."""
    old, risks = pending.policy, pending.scope.withdrawn_gate_risks
    if pending.scope.policy_number == 0:
        return _EditEffects((), (), {}, {})
    return _EditEffects(
        _find_cleared_cells(old, new),
        _find_restarted_cells(risks, old, new),
        _find_withdrawn_risks(risks, old, new),
        find_renamed_cells(old, new),
    )


def _narrow_to_ladder(
    pending: PendingEvents, new: Policy, by: str, cleared_cells: tuple[Cell, ...]
) -> None:
    """Remove the grants that don't match the new stages level by level.

    Left in place they would restore a stage, unapproved, once the missing ones below are granted.
    """
    for (cell, version), state in list(pending.scope.cells.items()):
        stages = tuple(grant.stage for grant in state.grants)
        common_count = _count_common_stages(stages, new.stage_ids[1:])
        if common_count == len(stages) or cell in cleared_cells:
            continue
        pending.void_proposal(state.proposal, "the policy's ladder was edited")
        to_stage, reason = (SHADOW, *stages)[common_count], "the policy's ladder was edited"
        pending.emit(_build_narrowing(pending, by, (cell, version), state, to_stage, reason))


def _build_narrowing(
    pending: PendingEvents,
    by: str,
    key: tuple[Cell, str],
    state: CellState,
    to_stage: str,
    reason: str,
) -> Narrowed:
    return Narrowed(
        at=pending.at,
        by=by,
        cell=key[0],
        version=key[1],
        from_stage=state.grants[-1].stage,
        to_stage=to_stage,
        reason=reason,
    )


def _count_common_stages(stages: tuple[str, ...], ladder: tuple[str, ...]) -> int:
    """Return how many of `stages`, lowest first, match the ladder."""
    matches = (a == b for a, b in zip(stages, ladder, strict=False))
    return sum(takewhile(bool, matches))


def _is_voided_by_edit(
    pending: PendingEvents,
    proposal: ProposalState,
    new: Policy,
    looser_rules: tuple[str, ...],
    cleared_cells: tuple[Cell, ...],
) -> bool:
    """Return whether an edit voids a proposal.

    Any edit voids proposals of policies, looser ones all others. A resume stays
    open only if the new policy needs the same approvals. A clock correction does not depend on the
    policy.
    """
    cell = proposal.cell
    if proposal.kind == "clock":
        return False
    if proposal.kind == "policy" or looser_rules:
        return True
    if cell is None:
        stop = pending.scope.stops[proposal.about]
        return find_resume_needs(pending.scope, new, stop, pending.at) != proposal.needs
    if cell in cleared_cells or proposal.to not in new.stage_ids:
        return True
    return compute_gate_hash(new, new.stage_ids.index(proposal.to), cell) != proposal.gate


def _find_cleared_cells(old: Policy, new: Policy) -> tuple[Cell, ...]:
    """Return the cells that are gone or whose records mean something else."""
    return tuple(
        cell for cell in old.cells if cell not in new.cell_set or is_redefined(old, new, cell)
    )


def _find_restarted_cells(
    withdrawn_risks: Mapping[str, str], old: Policy, new: Policy
) -> tuple[Cell, ...]:
    """Return the cells in which a gate's risk has risen, or that drop a gain."""
    return tuple(
        cell
        for cell in old.cells
        if cell in new.cell_set
        and (_has_higher_risk(withdrawn_risks, old, new, cell) or _drops_gain(old, new, cell))
    )


def _drops_gain(old: Policy, new: Policy, cell: Cell) -> bool:
    """Return whether a gate no longer tests a gain, or is gone with it.

    Another gain in its place, now or by a later edit, tests other units: each such try would have
    the gate's whole risk.
    """
    for level, stage in enumerate(old.stage_ids[1:], start=1):
        is_kept = stage in new.stage_ids
        new_gains = _list_gains(new, new.stage_ids.index(stage), cell) if is_kept else set()
        if _list_gains(old, level, cell) - new_gains:
            return True
    return False


def _list_gains(policy: Policy, stage_level: int, cell: Cell) -> set[tuple[MeasureKey, str]]:
    """Return what the gates to a stage test of gains, whatever the thresholds."""
    return {
        (condition.key, condition.outcome.definition)
        for condition in policy.list_conditions(stage_level, cell)
        if isinstance(condition, GainCondition)
    }


def _has_higher_risk(
    withdrawn_risks: Mapping[str, str], old: Policy, new: Policy, cell: Cell
) -> bool:
    for stage in new.stage_ids[1:]:
        old_gate, new_gate = old.find_gate_to(stage, cell), new.find_gate_to(stage, cell)
        last_risk = (
            old_gate.risk if old_gate is not None else float(withdrawn_risks.get(stage, "inf"))
        )
        if new_gate is not None and new_gate.risk > last_risk:
            return True
    return False


def _find_withdrawn_risks(
    previous_risks: Mapping[str, str], old: Policy, new: Policy
) -> dict[str, str]:
    """Return by stage the lowest risk of withdrawn gates.

    A gate that is removed and added again with more risk would otherwise test the same evidence
    twice. A stage is listed until every cell has a gate to it.
    """
    lost_risks = {stage: float(risk) for stage, risk in previous_risks.items()}
    for cell in old.cells:
        for stage in old.stage_ids[1:] if cell in new.cell_set else ():
            gate = old.find_gate_to(stage, cell)
            if gate is not None and new.find_gate_to(stage, cell) is None:
                lost_risks[stage] = min(gate.risk, lost_risks.get(stage, gate.risk))
    stages_without_gate = (
        s for s in sorted(lost_risks) if any(new.find_gate_to(s, c) is None for c in new.cells)
    )
    return {stage: str(lost_risks[stage]) for stage in stages_without_gate}
