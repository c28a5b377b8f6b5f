"""Incidents: opened once, until a user acknowledges them."""

from rollout.core.calendar.sites import Cell
from rollout.core.errors import UnknownIncidentError
from rollout.core.scope.commands import AcknowledgeIncident, OpenIncident, StopChangedCells
from rollout.core.scope.events import ENGINE, IncidentAcknowledged, IncidentOpened, Stopped
from rollout.core.scope.incident_kinds import (
    EVIDENCE_CHANGED,
    INCIDENT_KINDS,
    get_incident_kind,
)
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.scope import Incident, Scope
from rollout.core.scope.stop_targets import list_unstopped_cells
from rollout.kernel.readings import CHANGED_EVIDENCE

MAX_OPEN_INCIDENTS = 50
"""Open incidents of one kind in one cell; acknowledging allows new ones."""


def open_incident(command: OpenIncident, pending: PendingEvents) -> None:
    """Open an incident, unless an equal one or too many are open.

    A client with thousands of unauthorized actions must not cause thousands of ledger rows: each
    action is recorded anyway, users are alerted already, and the caller counts the others
    (`is_over_limit`).
    """
    names = [name for name, kind in INCIDENT_KINDS.items() if kind.has_command]
    if command.kind not in names:
        raise ValueError(f"{command.kind!r} is not an incident kind; use one of {', '.join(names)}")
    if _is_open(command, pending.scope) or is_over_limit(command, pending.scope):
        return
    pending.emit(
        IncidentOpened(
            at=pending.at,
            by=ENGINE,
            incident=pending.next_incident_id,
            kind=command.kind,
            effect=INCIDENT_KINDS[command.kind].effects[0].name,
            reason=command.reason,
            cell=command.cell,
            version=command.version,
            about=command.about,
            by_later_records=command.by_later_records,
        )
    )


def is_over_limit(command: OpenIncident, scope: Scope) -> bool:
    """Return whether an incident stays unopened because too many others are open."""
    return not has_room(scope, command.kind, command.cell) and not _is_open(command, scope)


def has_room(scope: Scope, kind: str, cell: Cell | None) -> bool:
    """Return whether a further incident of a kind may be open in a cell."""
    incidents = scope.open_incidents.values()
    open_count = sum(incident.kind == kind and incident.cell == cell for incident in incidents)
    return open_count < MAX_OPEN_INCIDENTS


def _is_open(command: OpenIncident, scope: Scope) -> bool:
    incidents = scope.open_incidents.values()
    return any(_is_same_incident(command, incident) for incident in incidents)


def _is_same_incident(command: OpenIncident, incident: Incident) -> bool:
    """Return whether an open incident equals the command's.

    Clocks that disagree are one incident, and so is a clock behind the same entry or tick, though
    the times that they show change; so are all changes of evidence.
    """
    return command.kind == incident.kind and (
        get_incident_kind(command.kind).is_same_about(command.about, incident.about)
        or (incident.reason, incident.cell, incident.version)
        == (command.reason, command.cell, command.version)
    )


def stop_changed_cells(command: StopChangedCells, pending: PendingEvents) -> None:
    """Open an incident, end the cells' proposals and stop the cells; a repeat has no effect."""
    cells = list_unstopped_cells(pending.scope, command.cells)
    incidents = pending.scope.open_incidents.values()
    is_told = any((i.kind, i.cell) == (EVIDENCE_CHANGED.name, command.cell) for i in incidents)
    if cells or not is_told:
        pending.emit(
            IncidentOpened(
                at=pending.at,
                by=ENGINE,
                incident=pending.next_incident_id,
                kind=EVIDENCE_CHANGED.name,
                effect=EVIDENCE_CHANGED.effects[1].name,
                reason=command.reason,
                cell=command.cell,
            )
        )
    for (cell, _), state in list(pending.scope.cells.items()):
        if cell in command.cells:
            pending.void_proposal(state.proposal, CHANGED_EVIDENCE)
    if cells:
        stop = f"S-{pending.scope.revision + 1}"
        pending.emit(
            Stopped(at=pending.at, by=ENGINE, stop=stop, cells=cells, reason=command.reason)
        )


def acknowledge_incident(command: AcknowledgeIncident, pending: PendingEvents) -> None:
    """Record that a user has seen an incident; ignore a repeat."""
    if command.incident in pending.scope.open_incidents:
        name, note = command.by.name, command.note
        pending.emit(
            IncidentAcknowledged(at=pending.at, by=name, incident=command.incident, note=note)
        )
    elif not _was_opened(pending, command.incident):
        open_ids = ", ".join(pending.scope.open_incidents) or "none"
        raise UnknownIncidentError(
            f"there is no incident {command.incident}; open ones: {open_ids}"
        )


def _was_opened(pending: PendingEvents, incident_id: str) -> bool:
    number = incident_id.removeprefix("I-")
    is_well_formed = number.isascii() and number.isdigit() and incident_id == f"I-{int(number)}"
    return is_well_formed and 1 <= int(number) <= pending.scope.incident_count
