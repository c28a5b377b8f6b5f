"""Stops and how they end: one person withholds grants, an approved resume gives them back."""

from collections import Counter
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import AskResume, StopCells
from rollout.core.scope.events import ProposalRaised, Stopped
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.proposals import evidence_hash
from rollout.core.scope.scope import Scope, Stop, held_rung

TWO_OPERATORS = ("operator", "operator")  # where no gate says whom to ask


def stop_cells(command: StopCells, draft: Draft) -> None:
    """Withhold grants. Cells that such a stop holds already are not stopped twice."""
    requested_cells = set(command.cells)
    cells = tuple(
        sorted(cell for cell in requested_cells if not _held_already(command, draft.scope, cell))
    )
    if not cells:
        return
    draft.emit(
        Stopped(
            at=draft.at,
            by=command.by.name,
            stop=f"S-{draft.scope.revision + 1}",
            cells=cells,
            reason=command.reason,
            drill=command.drill,
        )
    )


def _held_already(command: StopCells, scope: Scope, cell: Cell) -> bool:
    """Say whether a stop holds `cell` that this one would add nothing to.

    One that is about to be taken back, or a drill, must not swallow the stop of a person who
    means it: the resume would give back what was stopped after it was asked for.
    """
    return any(
        cell in stop.cells and (command.drill or not stop.drill) and not resume_of(scope, stop)
        for stop in scope.stops.values()
    )


def resume_of(scope: Scope, stop: Stop) -> bool:
    """Say whether a resume of `stop` is open."""
    return any(p.kind == "resume" and p.about == stop.id for p in scope.proposals.values())


def raise_resume(command: AskResume, stop: Stop, draft: Draft) -> None:
    """Propose that `stop` is taken back; asked already, the open proposal is the answer."""
    if resume_of(draft.scope, stop):
        return
    reading_lines = (f"resume of {stop.id}", *(str(cell) for cell in sorted(stop.cells)))
    draft.emit(
        ProposalRaised(
            at=draft.at,
            by=command.by.name,
            proposal=f"P-{draft.scope.raised + 1}",
            kind="resume",
            expires_at=draft.at + draft.policy.open_for,
            needs=resume_needs(draft.scope, draft.policy, stop, draft.at),
            evidence_hash=evidence_hash(reading_lines),
            about=stop.id,
            readings=reading_lines,
        )
    )


def resume_needs(scope: Scope, policy: Policy, stop: Stop, at: datetime) -> tuple[str, ...]:
    """Return the approvals of the highest gate that comes back; two operators where none does.

    Where cells come back to the same rung by different gates, whoever one of them asks is asked.
    """
    level_by_cell = {
        cell: _comes_back(scope, policy, cell, at) for cell in stop.cells & policy.known
    }
    max_level = max(level_by_cell.values(), default=0)
    needed_groups: Counter[str] = Counter()
    for cell in sorted(
        cell for cell, stage_level in level_by_cell.items() if stage_level == max_level
    ):
        gate = policy.gate(max_level, cell)
        if gate is not None:
            needed_groups |= Counter(gate.approvals)
    return tuple(needed_groups.elements()) or TWO_OPERATORS


def _comes_back(scope: Scope, policy: Policy, cell: Cell, at: datetime) -> int:
    holder = scope.holder(cell)
    return 0 if holder is None else held_rung(policy, scope.state(cell, holder), at)
