"""Newer counting rules: an admin proposes them, and an operator's approval applies them at once.

They only tighten, so no tick has to look at the evidence again. No event goes back to older rules.
"""

from rollout.core.errors import EvidenceChangedError, RefusalError
from rollout.core.policy.counting_rules import CURRENT_RULES
from rollout.core.scope.commands import ApproveProposal, ProposeRules
from rollout.core.scope.event_base import ENGINE
from rollout.core.scope.events import RulesApplied
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.proposals import build_proposal, compute_evidence_hash
from rollout.core.scope.scope import OPERATOR_APPROVAL, Scope

RULES_PROPOSAL = "rules"


def propose_rules(command: ProposeRules, pending: PendingEvents) -> None:
    """Propose the newest rules on the effects that the admin read, unless proposed already.

    Raises:
        RefusalError: the rollout is on these rules.
        EvidenceChangedError: the effects are others now.
    """
    if pending.scope.rules >= CURRENT_RULES:
        raise RefusalError(
            f"the rollout is on counting rules {pending.scope.rules}, the newest: there is nothing"
            " to apply"
        )
    if has_open_rules_proposal(pending.scope):
        return
    if compute_evidence_hash(command.effects) != command.evidence_hash:
        raise EvidenceChangedError(
            "the new rules would change something else by now; read the plan again and cite its"
            " hash"
        )
    pending.emit(
        build_proposal(
            pending,
            RULES_PROPOSAL,
            command.by.name,
            OPERATOR_APPROVAL,
            command.effects,
            about=str(CURRENT_RULES),
        )
    )


def has_open_rules_proposal(scope: Scope) -> bool:
    """Return whether newer counting rules are proposed."""
    return any(proposal.kind == RULES_PROPOSAL for proposal in scope.proposals.values())


def apply_approved_rules(command: ApproveProposal, pending: PendingEvents) -> None:
    """Apply the rules of a proposal that this approval completes.

    Open proposals whose evidence rests on what no longer counts are voided. A running attempt keeps
    its share of the risk; later ones are numbered in their cell's year.
    """
    proposal = pending.scope.proposals[command.proposal]
    if not proposal.is_approved:
        return
    for proposal_id, reason in command.void_reasons.items():
        if proposal_id in pending.scope.proposals:
            pending.void_proposal(proposal_id, reason)
    pending.emit(
        RulesApplied(
            at=pending.at,
            by=ENGINE,
            number=int(proposal.about),
            proposal=proposal.id,
            cells=tuple(cell for cell, _ in command.running_attempts),
            versions=tuple(version for _, version in command.running_attempts),
        )
    )
