"""Policy edits: stricter ones apply at once, looser ones wait for people."""

from collections.abc import Mapping
from itertools import takewhile

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.policy.policy import Gate, Policy
from rollout.core.scope.commands import ApplyPolicy, Tick
from rollout.core.scope.events import Narrowed, PolicyApplied, ProposalRaised, ProposalVoided
from rollout.core.scope.guards import void_of
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.policy_diff import loosened, redefined
from rollout.core.scope.proposals import evidence_hash, gate_hash
from rollout.core.scope.scope import ENGINE, Proposal
from rollout.core.scope.stops import TWO_OPERATORS, resume_needs


def apply_policy(command: ApplyPolicy, draft: Draft) -> None:
    """Put a policy in force, or raise it as a proposal under the one before."""
    old, new = draft.policy, command.policy
    is_first = draft.scope.policy_number == 0
    if not is_first and new.hash == draft.scope.policy_hash:
        return  # it holds already
    looser_rules = () if is_first else loosened(old, new)
    if looser_rules and any(
        proposal.about == new.hash for proposal in draft.scope.proposals.values()
    ):
        return  # raised already: the answer is the proposal that is open
    if looser_rules:
        _raise_edit(command, draft, looser_rules)
    else:
        _put_in_force(draft, new, by=command.by.name, loosens=(), proposal="")


def _raise_edit(command: ApplyPolicy, draft: Draft, loosens: tuple[str, ...]) -> None:
    reading_lines = (f"policy {command.policy.hash}", *loosens)
    draft.emit(
        ProposalRaised(
            at=draft.at,
            by=command.by.name,
            proposal=f"P-{draft.scope.raised + 1}",
            kind="policy",
            expires_at=draft.at + draft.policy.open_for,
            needs=highest_approvals(draft.policy),
            evidence_hash=evidence_hash(reading_lines),
            about=command.policy.hash,
            readings=reading_lines,
        )
    )


def highest_approvals(policy: Policy) -> tuple[str, ...]:
    """Return whom the gate to the highest rung asks; of several gates, the one asking most.

    A policy without gates widens nothing, and two operators are asked for its first one.
    """
    gates = sorted(
        policy.gates, key=lambda gate: (policy.rungs.index(gate.to), len(gate.approvals))
    )
    return gates[-1].approvals if gates else TWO_OPERATORS


def apply_approved_policies(draft: Draft, tick: Tick) -> bool:
    """Put in force the approved policy proposal that was raised last; older ones are void.

    A policy that only observes widens nothing, but it is edited like any other, or there would
    be no way out of it.

    Returns:
        Whether a policy was put in force.
    """
    approved_proposals = [
        candidate
        for candidate in draft.scope.proposals.values()
        if candidate.kind == "policy" and candidate.approved
    ]
    applicable_proposals = [
        candidate for candidate in approved_proposals if candidate.about in tick.pending
    ]
    if not applicable_proposals:
        return False
    proposal = applicable_proposals[-1]  # they stand in the order in which they were raised
    _apply_edit(draft, tick.pending[proposal.about], proposal)
    return True


def _apply_edit(draft: Draft, new: Policy, chosen: Proposal) -> None:
    looser_rules = loosened(draft.policy, new)
    _put_in_force(draft, new, by=ENGINE, loosens=looser_rules, proposal=chosen.id)


def _put_in_force(
    draft: Draft, new: Policy, *, by: str, loosens: tuple[str, ...], proposal: str
) -> None:
    """Emit PolicyApplied, after voiding what the edit takes the ground from."""
    old, is_first = draft.policy, draft.scope.policy_number == 0
    cleared_cells = () if is_first else _cleared(old, new)
    restarted_cells = () if is_first else _riskier(draft.scope.withdrawn, old, new)
    withdrawn_risks = {} if is_first else _withdrawn(draft.scope.withdrawn, old, new)
    for open_proposal in list(draft.scope.proposals.values()):
        if open_proposal.id != proposal and _loses_ground(
            draft, open_proposal, new, loosens, cleared_cells
        ):
            reason = "the policy was edited"
            draft.emit(
                ProposalVoided(at=draft.at, by=ENGINE, proposal=open_proposal.id, reason=reason)
            )
    _cut_ladders(draft, new, by, cleared_cells)
    draft.emit(
        PolicyApplied(
            at=draft.at,
            by=by,
            number=draft.scope.policy_number + 1,
            policy_hash=new.hash,
            loosens=loosens,
            restarted=restarted_cells,
            cleared=cleared_cells,
            proposal=proposal,
            withdrawn=tuple(withdrawn_risks),
            risks=tuple(withdrawn_risks.values()),
        )
    )
    draft.policy = new


def _cut_ladders(draft: Draft, new: Policy, by: str, cleared: tuple[Cell, ...]) -> None:
    """Pop the grants that don't stand on the new ladder rung by rung.

    Left in place they would give a rung back, unasked, when the ones missing below are granted.
    """
    for (cell, version), state in list(draft.scope.cells.items()):
        stages = tuple(grant.stage for grant in state.grants)
        common_count = _common(stages, new.rungs[1:])
        if common_count == len(stages) or cell in cleared:
            continue
        void_of(draft, state, "the policy's ladder was edited")
        draft.emit(
            Narrowed(
                at=draft.at,
                by=by,
                cell=cell,
                version=version,
                from_stage=stages[-1],
                to_stage=(SHADOW, *stages)[common_count],
                reason="the policy's ladder was edited",
            )
        )


def _common(stages: tuple[str, ...], ladder: tuple[str, ...]) -> int:
    """Return how many of `stages`, lowest first, are those of the ladder."""
    matches = (a == b for a, b in zip(stages, ladder, strict=False))
    return sum(takewhile(bool, matches))


def _loses_ground(
    draft: Draft,
    proposal: Proposal,
    new: Policy,
    loosens: tuple[str, ...],
    cleared: tuple[Cell, ...],
) -> bool:
    """Say whether an edit voids a proposal: any edit a policy proposal, looser ones all others.

    A resume goes on only if the new policy would ask the same people for it. A clock that is
    wrong is wrong under any policy.
    """
    cell = proposal.cell
    if proposal.kind == "clock":
        return False
    if proposal.kind == "policy" or loosens:
        return True
    if cell is None:
        stop = draft.scope.stops[proposal.about]
        return resume_needs(draft.scope, new, stop, draft.at) != proposal.needs
    if cell in cleared or proposal.to not in new.rungs:
        return True
    return gate_hash(new, new.rungs.index(proposal.to), cell) != proposal.gate


def _cleared(old: Policy, new: Policy) -> tuple[Cell, ...]:
    """Return the cells that are gone or whose records mean something else now."""
    return tuple(cell for cell in old.cells if cell not in new.known or redefined(old, new, cell))


def _riskier(withdrawn: Mapping[str, str], old: Policy, new: Policy) -> tuple[Cell, ...]:
    """Return the cells in which some gate opens at a higher risk than the last one there did."""
    shared_cells = (cell for cell in old.cells if cell in new.known)
    return tuple(cell for cell in shared_cells if _risk_rises(withdrawn, old, new, cell))


def _risk_rises(withdrawn: Mapping[str, str], old: Policy, new: Policy, cell: Cell) -> bool:
    for stage in new.rungs[1:]:
        old_gate, new_gate = _gate_to(old, stage, cell), _gate_to(new, stage, cell)
        last_risk = old_gate.risk if old_gate is not None else float(withdrawn.get(stage, "inf"))
        if new_gate is not None and new_gate.risk > last_risk:
            return True
    return False


def _withdrawn(before: Mapping[str, str], old: Policy, new: Policy) -> dict[str, str]:
    """Return the risk of the gate that some cell has lost, by stage, until no cell lacks one.

    A gate that is taken away and put back with more risk would else judge the same evidence
    twice. The lowest risk of a stage's gates stands for all of its cells.
    """
    lost_risks = {stage: float(risk) for stage, risk in before.items()}
    for cell in old.cells:
        for stage in old.rungs[1:] if cell in new.known else ():
            gate = _gate_to(old, stage, cell)
            if gate is not None and _gate_to(new, stage, cell) is None:
                lost_risks[stage] = min(gate.risk, lost_risks.get(stage, gate.risk))
    stages_without_gate = (
        s for s in sorted(lost_risks) if any(_gate_to(new, s, c) is None for c in new.cells)
    )
    return {stage: str(lost_risks[stage]) for stage in stages_without_gate}


def _gate_to(policy: Policy, stage: str, cell: Cell) -> Gate | None:
    """Return the gate that leads `cell` to a stage, None too where the ladder has no such rung."""
    return policy.gate(policy.rungs.index(stage), cell) if stage in policy.rungs else None
