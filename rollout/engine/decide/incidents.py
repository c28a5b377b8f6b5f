"""Incidents, corrections of a rollout's time, and the attribute values that versions met.

An incident is opened once, until a user acknowledges it.

The clock: one jump would block a rollout whose time is ahead of the clock until that time comes. An
incident says so; whoever acknowledges it confirms the clock. Then the rollout's time goes back to
the clock's: entries and ticks dated ahead hold nothing, and grants that ended in the skipped time
stay ended.

Attribute values: ticks record those that versions met for the first time.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rollout.engine.decide.commands import (
    AcknowledgeIncident,
    CheckClock,
    OpenIncident,
    StopChangedCells,
    Tick,
)
from rollout.engine.decide.incident_kinds import (
    CLOCK_BEHIND,
    EVIDENCE_CHANGED,
    INCIDENT_KINDS,
    UNFAMILIAR,
    get_incident_kind,
)
from rollout.engine.decide.projection import PendingEvents
from rollout.engine.decide.scope import Incident, Scope
from rollout.engine.decide.stops import list_unstopped_cells
from rollout.engine.events import (
    ENGINE,
    ClockCorrected,
    FamiliarityChanged,
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
    Stopped,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import UnknownIncidentError
from rollout.kernel.facts import (
    CHANGED_EVIDENCE,
    CLOCK_BACK,
    CORRECTED_CLOCK,
    UNFAMILIAR_VALUE,
    Trigger,
)
from rollout.kernel.policy.familiarity import (
    FAMILIAR,
    FEW,
    MISTAKEN,
    UNITS_BEFORE_NOTICE,
    AttributeValue,
    ValueReading,
    format_value,
    needs_incident,
    needs_record,
)

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
    if command.about and not INCIDENT_KINDS[command.kind].about:
        raise ValueError(
            f"the incident kind {command.kind!r} is about nothing; say in its declaration what"
            " `about` names, so that an erasure finds it"
        )
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
            trigger=command.trigger,
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
    open_incidents = scope.open_incidents.values()
    open_count = sum(each.kind == kind and each.cell == cell for each in open_incidents)
    return open_count < MAX_OPEN_INCIDENTS


def _is_open(command: OpenIncident, scope: Scope) -> bool:
    return any(_is_same_incident(command, incident) for incident in scope.open_incidents.values())


def _is_same_incident(command: OpenIncident, incident: Incident) -> bool:
    """Return whether an open incident equals the command's.

    What it is about decides, never its sentence: clocks that disagree are one incident, and so is a
    clock behind the same entry or tick, though the times that they show change; so are all changes
    of evidence.
    """
    return command.kind == incident.kind and get_incident_kind(command.kind).is_same_about(
        command.about, incident.about
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
    number, count = incident_id.removeprefix("I-"), pending.scope.incident_count
    is_short = number.isascii() and number.isdigit() and len(number) <= len(str(count))
    return is_short and incident_id == f"I-{int(number)}" and 1 <= int(number) <= count


CLOCK_TOLERANCE = timedelta(minutes=1)


def is_clock_behind(latest: datetime, clock: datetime) -> bool:
    """Return whether the clock is over a minute behind the last entry or tick."""
    return latest > clock + CLOCK_TOLERANCE


def check_clock(command: CheckClock, pending: PendingEvents) -> None:
    """Open an incident if the clock is behind; correct the rollout's time once it was confirmed."""
    latest = max(pending.at, command.last_slot or pending.at)
    if not is_clock_behind(latest, command.at):
        return
    if pending.scope.confirmed_ahead == latest:
        _correct_clock(pending, command.at.astimezone(UTC), latest)
    else:
        open_clock_incident(pending, command.at, latest)


def open_clock_incident(pending: PendingEvents, clock: datetime, latest: datetime) -> None:
    """Open an incident: the clock is behind the last entry or tick."""
    times = {"clock": clock.astimezone(UTC), "latest": latest}
    values = {name: at.isoformat(timespec="seconds") for name, at in times.items()}
    incident = OpenIncident(
        at=clock,
        kind=CLOCK_BEHIND.name,
        trigger=Trigger(CLOCK_BACK, values),
        about=latest.isoformat(),
    )
    open_incident(incident, pending)


def _correct_clock(pending: PendingEvents, clock: datetime, latest: datetime) -> None:
    """Set the time to the clock's and void all open proposals."""
    for proposal in list(pending.scope.proposals.values()):
        pending.void_proposal(proposal.id, CORRECTED_CLOCK)
    pending.emit(ClockCorrected(at=clock, by=ENGINE, previous_time=latest))


class _ValueChange(NamedTuple):
    cell: Cell
    version: str
    value: AttributeValue
    reading: ValueReading


def record_unfamiliar_values(pending: PendingEvents, tick: Tick) -> None:
    """Record values that are not familiar, and open an incident for each mistaken one.

    If too many are open in the cell, the others are counted (`count_unopened_values`) and open
    once there is room.
    """
    changes = [c for c in _list_changes(pending, tick) if c.reading.status != FAMILIAR]
    _emit_changes(pending, changes)
    for cell, version in tick.evidence:
        for value, reading in tick.evidence[cell, version].values.items():
            reported = pending.scope.get_cell_values(cell, version).reported
            is_acting = pending.scope.get_holder(cell) == version
            if needs_incident(value, reading, reported, is_acting=is_acting) and has_room(
                pending.scope, UNFAMILIAR.name, cell
            ):
                _open_incident(pending, _ValueChange(cell, version, value, reading))


def count_unopened_values(scope: Scope, cell: Cell, version: str) -> int:
    """Return how many mistaken values of the acting version have no incident in the cell."""
    if scope.get_holder(cell) != version:
        return 0
    values = scope.get_cell_values(cell, version)
    mistaken = {format_value(v) for v, status in values.statuses.items() if status == MISTAKEN}
    return len(mistaken - values.reported)


def record_familiar_values(pending: PendingEvents, tick: Tick) -> None:
    """Record values that became familiar."""
    changes = [c for c in _list_changes(pending, tick) if c.reading.status == FAMILIAR]
    _emit_changes(pending, changes)


def _list_changes(pending: PendingEvents, tick: Tick) -> Iterator[_ValueChange]:
    """Yield the values whose status differs from the recorded one, in a fixed order."""
    rule = pending.policy.evidence.familiar
    if rule is None:
        return
    for cell, version in tick.evidence:
        version_state = pending.scope.versions.get(version)
        if cell not in pending.policy.cell_set or version_state is None or version_state.retired:
            continue
        statuses = pending.scope.get_cell_values(cell, version).statuses
        readings = dict(tick.evidence[cell, version].values)
        for value, status in statuses.items():
            if status == FAMILIAR and value[0] in rule.attribute_ids:
                readings.setdefault(value, ValueReading(FEW))  # its units no longer count
        is_acting = pending.scope.get_holder(cell) == version
        for value in sorted(readings):
            reading = readings[value]
            if needs_record(statuses.get(value, ""), reading, is_acting=is_acting):
                yield _ValueChange(cell, version, value, reading)


def _emit_changes(pending: PendingEvents, changes: Sequence[_ValueChange]) -> None:
    if not changes:
        return
    pending.emit(
        FamiliarityChanged(
            at=pending.at,
            by=ENGINE,
            cells=tuple(change.cell for change in changes),
            versions=tuple(change.version for change in changes),
            attributes=tuple(change.value[0] for change in changes),
            values=tuple(change.value[1] for change in changes),
            statuses=tuple(change.reading.status for change in changes),
            judged=tuple(change.reading.judged for change in changes),
            agreed=tuple(change.reading.agreed for change in changes),
        )
    )


def _open_incident(pending: PendingEvents, change: _ValueChange) -> None:
    reading = change.reading
    values = {"units": reading.today, "agreed": reading.agreed, "judged": reading.judged}
    pending.emit(
        IncidentOpened(
            at=pending.at,
            by=ENGINE,
            incident=pending.next_incident_id,
            kind=UNFAMILIAR.name,
            effect=UNFAMILIAR.effects[0].name,
            trigger=Trigger(UNFAMILIAR_VALUE, values),
            cell=change.cell,
            version=change.version,
            about=format_value(change.value),
        )
    )


@dataclass(frozen=True, slots=True)
class NewAttributeValue:
    """A value that a version had met a few times at a tick; it is not familiar with it."""

    at: datetime
    cell: Cell
    version: str
    value: AttributeValue

    @property
    def notice_key(self) -> str:
        """Return what a message is about: a tick and a site."""
        return f"{self.at.isoformat()} {self.cell.site}"


def list_new_values(events: Iterable[LedgerEvent]) -> Iterator[NewAttributeValue]:
    """Yield the new values that events recorded."""
    for event in events:
        for key, value, status, judged in event.list_statuses():
            if status == FEW and judged >= UNITS_BEFORE_NOTICE:
                yield NewAttributeValue(event.at, *key, value)
