"""Commands that stop cells, and resumes that end a stop.

`Scope.is_stopped` tells whether a cell is stopped.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import ProposeResume, StopCells
from rollout.core.scope.events import Stopped
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.proposals import build_proposal
from rollout.core.scope.scope import Scope, Stop, compute_held_level

TWO_OPERATORS = ("operator", "operator")  # needs without a gate


def apply_stop(command: StopCells, pending: PendingEvents) -> None:
    """Stop the cells that no equal stop holds already."""
    cells = list_unstopped_cells(pending.scope, command.cells, is_drill=command.drill)
    if not cells:
        return
    pending.emit(
        Stopped(
            at=pending.at,
            by=command.by.name,
            stop=f"S-{pending.scope.revision + 1}",
            cells=cells,
            reason=command.reason,
            drill=command.drill,
        )
    )


def list_unstopped_cells(
    scope: Scope, cells: Iterable[Cell], *, is_drill: bool = False
) -> tuple[Cell, ...]:
    """Return the cells that no equal stop holds already, sorted."""
    return tuple(sorted(c for c in set(cells) if not _is_already_stopped(scope, c, is_drill)))


def _is_already_stopped(scope: Scope, cell: Cell, is_drill: bool) -> bool:
    """Return whether a stop in force makes another one redundant in `cell`.

    A drill, or a stop with an open resume, does not: the resume would restore what was stopped
    after the resume was proposed.
    """
    return any(
        cell in stop.cells and (is_drill or not stop.drill) and not has_open_resume(scope, stop)
        for stop in scope.stops.values()
    )


def has_open_resume(scope: Scope, stop: Stop) -> bool:
    """Return whether a resume of `stop` is open."""
    return any(p.kind == "resume" and p.about == stop.id for p in scope.proposals.values())


def propose_resume(command: ProposeResume, stop: Stop, pending: PendingEvents) -> None:
    """Propose to end `stop`, unless that is proposed already."""
    if has_open_resume(pending.scope, stop):
        return
    readings = (f"resume of {stop.id}", *(str(cell) for cell in sorted(stop.cells)))
    needs = find_resume_needs(pending.scope, pending.policy, stop, pending.at)
    pending.emit(build_proposal(pending, "resume", command.by.name, needs, readings, stop.id))


def find_resume_needs(scope: Scope, policy: Policy, stop: Stop, at: datetime) -> tuple[str, ...]:
    """Return the approvals of the highest gate that comes back, or two operators.

    If cells return to the same level by different gates, the needs of all these gates are combined.
    """
    level_by_cell = {
        cell: _find_resumed_level(scope, policy, cell, at) for cell in stop.cells & policy.cell_set
    }
    max_level = max(level_by_cell.values(), default=0)
    needed_groups: Counter[str] = Counter()
    for cell in sorted(
        cell for cell, stage_level in level_by_cell.items() if stage_level == max_level
    ):
        gate = policy.find_gate(max_level, cell)
        if gate is not None:
            needed_groups |= Counter(gate.approvals)
    return tuple(needed_groups.elements()) or TWO_OPERATORS


def _find_resumed_level(scope: Scope, policy: Policy, cell: Cell, at: datetime) -> int:
    holder = scope.get_holder(cell)
    return (
        0 if holder is None else compute_held_level(policy, scope.get_cell_state(cell, holder), at)
    )
