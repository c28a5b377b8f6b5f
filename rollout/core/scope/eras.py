"""Eras of a ledger: after a restore, nothing that was issued before is valid."""

from rollout.core.scope.commands import AcceptRestore, StopAfterRollback
from rollout.core.scope.event_base import ENGINE
from rollout.core.scope.events import (
    LEDGER_ROLLED_BACK,
    EraBegan,
    IncidentOpened,
    Stopped,
)
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.stop_commands import list_unstopped_cells

EVERYTHING_STOPPED = "every cell is stopped"
"""Effect of the incident about a ledger that was set back."""


def stop_after_rollback(command: StopAfterRollback, pending: PendingEvents) -> None:
    """Open an incident, begin an era and stop every cell, once for each era."""
    if command.era < pending.scope.era:
        return
    pending.emit(
        IncidentOpened(
            at=pending.at,
            by=ENGINE,
            incident=pending.next_incident_id,
            kind=LEDGER_ROLLED_BACK,
            effect=EVERYTHING_STOPPED,
            reason=command.reason,
            about=command.about,
        )
    )
    _begin_era(pending, ENGINE, command.reason, command.era)


def accept_restore(command: AcceptRestore, pending: PendingEvents) -> None:
    """Begin an era and stop every cell, in a user's name."""
    _begin_era(pending, command.by.name, command.reason, command.known_era)


def _begin_era(pending: PendingEvents, by: str, reason: str, known_era: int) -> None:
    """Begin an era above each known one.

    Open proposals end: the lost entries may have rejected them.
    """
    era = max(pending.scope.era, known_era) + 1
    for proposal in tuple(pending.scope.proposals):
        pending.void_proposal(proposal, f"era {era} began: {reason}")
    pending.emit(EraBegan(at=pending.at, by=by, era=era, reason=reason))
    cells = list_unstopped_cells(pending.scope, pending.policy.cells)
    if cells:
        stop = f"S-{pending.scope.revision + 1}"
        pending.emit(Stopped(at=pending.at, by=by, stop=stop, cells=cells, reason=reason))
