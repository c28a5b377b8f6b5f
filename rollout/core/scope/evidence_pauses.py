"""Pauses of a cell's evidence: in shadow, by users, until they resume it."""

from dataclasses import replace

from rollout.core.errors import NotAllowedError, UnknownCellError
from rollout.core.scope.commands import PauseEvidence, ResumeEvidence, Tick
from rollout.core.scope.events import EvidencePaused, EvidenceResumed
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.scope import Scope


def pause_evidence(command: PauseEvidence, pending: PendingEvents) -> None:
    """Pause a cell's evidence and void its proposals.

    Above shadow guards need the decisions, so a person narrows the cell first.
    """
    cell, scope = command.cell, pending.scope
    _check_cell(command, pending)
    if cell in scope.evidence_pauses:
        return
    holder = scope.get_holder(cell)
    if holder is not None:
        raise NotAllowedError(
            f"{holder} has grants in {cell}, and its guards need the decisions there; narrow the"
            " cell to shadow first"
        )
    for version in scope.versions:
        if (state := scope.cells.get((cell, version))) is not None:
            pending.void_proposal(state.proposal, f"the evidence of {cell} is paused")
    by, reason = command.by.name, command.reason
    pending.emit(EvidencePaused(at=pending.at, by=by, cell=cell, reason=reason))


def resume_evidence(command: ResumeEvidence, pending: PendingEvents) -> None:
    """Resume a cell's evidence with a new attempt of every version."""
    _check_cell(command, pending)
    if command.cell in pending.scope.evidence_pauses:
        by, reason = command.by.name, command.reason
        pending.emit(EvidenceResumed(at=pending.at, by=by, cell=command.cell, reason=reason))


def drop_paused_evidence(tick: Tick, scope: Scope) -> Tick:
    """Return the tick without the evidence of paused cells, which never counts."""
    pauses = scope.evidence_pauses
    if not pauses or pauses.keys().isdisjoint(cell for cell, _ in tick.evidence):
        return tick
    evidence = {key: tick.evidence[key] for key in tick.evidence if key[0] not in pauses}
    return replace(tick, evidence=evidence)


def _check_cell(command: PauseEvidence | ResumeEvidence, pending: PendingEvents) -> None:
    if command.cell not in pending.policy.cell_set:
        raise UnknownCellError(f"the policy has no cell {command.cell}; use its sites and windows")
