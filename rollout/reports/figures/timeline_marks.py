"""Marks of a cell's timeline: which events of a ledger it shows."""

from collections.abc import Iterator, Sequence

from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import format_value
from rollout.core.scope.event_base import CellEvent, LedgerEvent
from rollout.core.scope.events import (
    Approved,
    EvidencePaused,
    EvidenceResumed,
    IncidentOpened,
    ProposalRaised,
    Resumed,
    Stopped,
)
from rollout.core.scope.new_values import list_new_values
from rollout.reports.figures.timeline_parts import TimelineMark
from rollout.reports.text.event_kinds import find_tone
from rollout.reports.text.event_phrases import describe_mark


def list_cell_marks(events: Sequence[LedgerEvent], cell: Cell) -> tuple[TimelineMark, ...]:
    """Return a cell's events, and values that a version met for the first time, by time."""
    new_values = (
        TimelineMark(
            value.at, 0, "NewValue", f"{value.version}: first {format_value(value.value)}", ""
        )
        for value in list_new_values(events)
        if value.cell == cell
    )
    return tuple(sorted([*_list_events(events, cell), *new_values], key=lambda mark: mark.at))


def _list_events(events: Sequence[LedgerEvent], cell: Cell) -> Iterator[TimelineMark]:
    """Yield what happened in a cell, or in the whole rollout, in order."""
    proposals = {
        event.proposal
        for event in events
        if isinstance(event, ProposalRaised) and event.cell == cell
    }
    stops = {event.stop for event in events if isinstance(event, Stopped) and cell in event.cells}
    for revision, event in enumerate(events, start=1):
        if _is_about_cell(event, cell, proposals, stops) and (text := describe_mark(event)):
            kind = type(event).__name__
            yield TimelineMark(event.at, revision, kind, text, find_tone(kind))


def _is_about_cell(event: LedgerEvent, cell: Cell, proposals: set[str], stops: set[str]) -> bool:
    match event:
        case (
            CellEvent() | ProposalRaised() | IncidentOpened() | EvidencePaused() | EvidenceResumed()
        ):
            return event.cell == cell
        case Approved():
            return event.proposal in proposals
        case Stopped() | Resumed():
            return event.stop in stops
    return True
