"""Policy edits: stricter ones apply at once, looser ones wait for people."""

from rollout.core.commands import ApplyPolicy, Tick
from rollout.core.draft import Draft
from rollout.core.events import PolicyApplied, ProposalRaised, ProposalVoided
from rollout.core.loosening import loosened, redefined
from rollout.core.places import Cell
from rollout.core.policy import Gate, Policy
from rollout.core.proposing import evidence_hash, gate_hash
from rollout.core.scope import ENGINE, Proposal


def apply_policy(command: ApplyPolicy, draft: Draft) -> None:
    """Put a policy in force, or raise it as a proposal under the one before."""
    old, new = draft.policy, command.policy
    first = draft.scope.policy_number == 0
    if not first and new.hash == draft.scope.policy_hash:
        return  # it holds already
    loosens = () if first else loosened(old, new)
    if loosens:
        _raise_edit(command, draft, loosens)
    else:
        _put_in_force(draft, new, by=command.by.name, loosens=(), proposal="")


def _raise_edit(command: ApplyPolicy, draft: Draft, loosens: tuple[str, ...]) -> None:
    because = (f"policy {command.policy.hash}", *loosens)
    draft.emit(
        ProposalRaised(
            at=draft.at,
            by=command.by.name,
            proposal=f"P-{draft.scope.raised + 1}",
            kind="policy",
            expires_at=draft.at + draft.policy.open_for,
            needs=highest_gate(draft.policy).approvals,
            evidence=evidence_hash(because),
            about=command.policy.hash,
            because=because,
        )
    )


def highest_gate(policy: Policy) -> Gate:
    """Return the gate to the highest rung; of several, the one that asks most people."""
    return max(policy.gates, key=lambda g: (policy.rungs.index(g.to), len(g.approvals)))


def apply_approved_policies(draft: Draft, tick: Tick) -> None:
    """Put in force the approved policy proposal that was raised last; older ones are void."""
    waiting = [p for p in draft.scope.proposals.values() if p.kind == "policy" and p.approved]
    ready = [p for p in waiting if p.about in tick.pending]
    if not ready or draft.policy.observe:
        return
    chosen = max(ready, key=lambda p: (p.raised_at, p.id))
    _apply_edit(draft, tick.pending[chosen.about], chosen)


def _apply_edit(draft: Draft, new: Policy, chosen: Proposal) -> None:
    loosens = loosened(draft.policy, new)
    _put_in_force(draft, new, by=ENGINE, loosens=loosens, proposal=chosen.id)


def _put_in_force(
    draft: Draft, new: Policy, *, by: str, loosens: tuple[str, ...], proposal: str
) -> None:
    """Emit PolicyApplied, after voiding what the edit takes the ground from."""
    old, first = draft.policy, draft.scope.policy_number == 0
    cleared = () if first else _cleared(old, new)
    restarted = () if first else _riskier(old, new)
    for open_one in list(draft.scope.proposals.values()):
        if open_one.id != proposal and _loses_ground(open_one, new, loosens, cleared):
            because = "the policy was edited"
            draft.emit(
                ProposalVoided(at=draft.at, by=ENGINE, proposal=open_one.id, because=because)
            )
    draft.emit(
        PolicyApplied(
            at=draft.at,
            by=by,
            number=draft.scope.policy_number + 1,
            policy=new.hash,
            loosens=loosens,
            restarted=restarted,
            cleared=cleared,
            proposal=proposal,
        )
    )
    draft.policy = new


def _loses_ground(
    proposal: Proposal, new: Policy, loosens: tuple[str, ...], cleared: tuple[Cell, ...]
) -> bool:
    """Say whether an edit voids a proposal: any edit a policy proposal, looser ones all others."""
    if proposal.kind == "policy":
        return True
    cell = proposal.cell
    if cell is None:
        return False
    if loosens or cell in cleared or proposal.to not in new.rungs:
        return True
    return gate_hash(new, new.rungs.index(proposal.to), cell) != proposal.gate


def _cleared(old: Policy, new: Policy) -> tuple[Cell, ...]:
    """Return the cells that are gone or whose records mean something else now."""
    return tuple(c for c in old.cells if c not in new.known or redefined(old, new, c))


def _riskier(old: Policy, new: Policy) -> tuple[Cell, ...]:
    """Return the cells in which some gate opens at a higher risk than before."""
    return tuple(c for c in old.cells if c in new.known and _risk_rises(old, new, c))


def _risk_rises(old: Policy, new: Policy, cell: Cell) -> bool:
    for rung in range(1, min(len(old.rungs), len(new.rungs))):
        before, after = old.gate(rung, cell), new.gate(rung, cell)
        if before is not None and after is not None and after.risk > before.risk:
            return True
    return False
