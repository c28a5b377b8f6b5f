"""Attribute values that versions met for the first time, as ticks recorded them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import (
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
from rollout.core.scope.commands import Tick
from rollout.core.scope.events import (
    ENGINE,
    FamiliarityChanged,
    IncidentOpened,
    LedgerEvent,
)
from rollout.core.scope.incident_kinds import UNFAMILIAR
from rollout.core.scope.incidents import has_room
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.scope import Scope


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
    text, reading = format_value(change.value), change.reading
    units = "unit" if reading.today == 1 else "units"
    pending.emit(
        IncidentOpened(
            at=pending.at,
            by=ENGINE,
            incident=pending.next_incident_id,
            kind=UNFAMILIAR.name,
            effect=UNFAMILIAR.effects[0].name,
            reason=(
                f"unfamiliar: {text}, {reading.today} {units} judged today,"
                f" {reading.agreed} of {reading.judged} agree"
            ),
            cell=change.cell,
            version=change.version,
            about=text,
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
