"""Incidents: what a person has to look at, opened once, until somebody acknowledges it."""

from types import MappingProxyType

from rollout.core.errors import UnknownIncident
from rollout.core.scope.commands import Acknowledge, OpenIncident, Tick
from rollout.core.scope.events import (
    LEDGER_ROLLED_BACK,
    UNAUTHORIZED,
    IncidentAcknowledged,
    IncidentOpened,
)
from rollout.core.scope.pending_events import Draft
from rollout.core.scope.scope import ENGINE, Incident

CLOCK = "clock"
MOST_OPEN = 50
"""Incidents of one kind in one cell that are open at once; acknowledging makes room."""
DID = MappingProxyType(
    {
        UNAUTHORIZED: "recorded as unauthorized",
        LEDGER_ROLLED_BACK: "a human decides for the client that saw the later head",
        CLOCK: "nothing raised or applied",
    }
)
"""What each kind of incident that is opened by command did; a guard's alarm says it itself."""


def open_incident(command: OpenIncident, draft: Draft) -> None:
    """Open an incident, unless the same is open already, or too many like it are.

    Who sends thousands of unauthorized actions makes no ledger of thousands of rows: each stays
    recorded as what it was, and people are called already.
    """
    if command.kind not in DID:
        raise ValueError(f"{command.kind!r} is no kind of incident; one of {', '.join(DID)} is")
    similar_incidents = [
        candidate
        for candidate in draft.scope.open_incidents.values()
        if candidate.kind == command.kind
    ]
    if any(_same(command, incident) for incident in similar_incidents):
        return
    if sum(incident.cell == command.cell for incident in similar_incidents) >= MOST_OPEN:
        return
    draft.emit(
        IncidentOpened(
            at=draft.at,
            by=ENGINE,
            incident=next_id(draft),
            kind=command.kind,
            effect=DID[command.kind],
            reason=command.reason,
            cell=command.cell,
            version=command.version,
            about=command.about,
        )
    )


def _same(command: OpenIncident, incident: Incident) -> bool:
    """Say whether an incident tells what a command would: of the same case, or the same reason.

    A clock that stays behind is one incident, though by how much changes from tick to tick.
    """
    if command.kind != incident.kind:
        return False
    if command.kind == CLOCK or (command.about and command.about == incident.about):
        return True
    incident_key = (incident.reason, incident.cell, incident.version)
    return incident_key == (command.reason, command.cell, command.version)


def clock_is_behind(draft: Draft, tick: Tick) -> None:
    """Tell that the clock stands before the ledger's last entry."""
    delay = draft.at - tick.at
    reason = f"the clock is {delay} behind the ledger's last entry"
    open_incident(OpenIncident(at=tick.at, kind=CLOCK, reason=reason), draft)


def next_id(draft: Draft) -> str:
    """Return the id of the incident that is opened next."""
    return f"I-{draft.scope.incidents + 1}"


def acknowledge(command: Acknowledge, draft: Draft) -> None:
    """Note that a person has seen an incident; acknowledged already, it stays so."""
    if command.incident in draft.scope.open_incidents:
        name, note = command.by.name, command.note
        draft.emit(IncidentAcknowledged(at=draft.at, by=name, incident=command.incident, note=note))
    elif not _was_opened(draft, command.incident):
        open_ids = ", ".join(draft.scope.open_incidents) or "none"
        raise UnknownIncident(f"there is no incident {command.incident}; open ones: {open_ids}")


def _was_opened(draft: Draft, incident: str) -> bool:
    number = incident.removeprefix("I-")
    is_well_formed = number.isascii() and number.isdigit() and incident == f"I-{int(number)}"
    return is_well_formed and 1 <= int(number) <= draft.scope.incidents
