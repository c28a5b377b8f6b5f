"""Marks of a cell's timeline: what happened, in a few words without figures or typed reasons."""

from collections.abc import Iterator, Sequence
from functools import singledispatch

from rollout.core.calendar.sites import Cell
from rollout.core.scope.event_base import CellEvent, LedgerEvent
from rollout.core.scope.events import (
    Approved,
    GrantExpired,
    IncidentOpened,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    Renewed,
    Resumed,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRetired,
    Widened,
)
from rollout.core.scope.record_events import CasesErased, RecordsPurged
from rollout.reports.figures.timeline_parts import TimelineMark
from rollout.reports.text.event_kinds import find_tone
from rollout.reports.text.formatting import describe_durations, format_quantity


def list_cell_marks(events: Sequence[LedgerEvent], cell: Cell) -> Iterator[TimelineMark]:
    """Yield what happened in a cell, or in the whole rollout, in order."""
    proposals = {
        event.proposal
        for event in events
        if isinstance(event, ProposalRaised) and event.cell == cell
    }
    stops = {event.stop for event in events if isinstance(event, Stopped) and cell in event.cells}
    for revision, event in enumerate(events, start=1):
        if _is_about_cell(event, cell, proposals, stops) and (text := _describe_mark(event)):
            kind = type(event).__name__
            yield TimelineMark(event.at, revision, kind, text, find_tone(kind))


def _is_about_cell(event: LedgerEvent, cell: Cell, proposals: set[str], stops: set[str]) -> bool:
    match event:
        case CellEvent() | ProposalRaised() | IncidentOpened():
            return event.cell == cell
        case Approved():
            return event.proposal in proposals
        case Stopped() | Resumed():
            return event.stop in stops
    return True


@singledispatch
def _describe_mark(_event: LedgerEvent) -> str:
    """Return an event in a few words; "" for events that no timeline marks."""
    return ""


@_describe_mark.register
def _(event: ProposalRaised) -> str:
    return f"{event.proposal}: {event.kind} of {event.version} proposed"


@_describe_mark.register
def _(event: Approved) -> str:
    return f"{event.proposal} approved by {event.by}"


@_describe_mark.register
def _(event: Widened) -> str:
    return f"{event.version} widened to {event.to_stage}"


@_describe_mark.register
def _(event: Renewed) -> str:
    return f"{event.version}: {event.stage} renewed"


@_describe_mark.register
def _(event: TakenOver) -> str:
    return f"{event.version} replaced {event.replaced_version} at {event.to_stage}"


@_describe_mark.register
def _(event: Narrowed) -> str:
    cause = f"guard {describe_durations(event.guard)}" if event.guard else event.by
    return f"{event.version} narrowed to {event.to_stage} ({cause})"


@_describe_mark.register
def _(event: Suspended) -> str:
    return f"{event.version} suspended (guard {describe_durations(event.guard)})"


@_describe_mark.register
def _(event: SuspensionCleared) -> str:
    return f"{event.version}: suspension ended"


@_describe_mark.register
def _(event: GrantExpired) -> str:
    return f"{event.version}: grant of {event.stage} expired"


@_describe_mark.register
def _(event: IncidentOpened) -> str:
    return f"incident {event.incident}: {event.effect}"


@_describe_mark.register
def _(event: Stopped) -> str:
    return f"stop {event.stop}{' (a drill)' if event.drill else ''} by {event.by}"


@_describe_mark.register
def _(event: Resumed) -> str:
    return f"stop {event.stop} ended"


@_describe_mark.register
def _(event: PolicyApplied) -> str:
    return f"policy {event.number} applied"


@_describe_mark.register
def _(event: VersionFirstUsed) -> str:
    return f"{event.version} first used"


@_describe_mark.register
def _(event: VersionRetired) -> str:
    return f"{event.version} retired"


@_describe_mark.register
def _(_event: RecordsPurged) -> str:
    return "old records deleted"


@_describe_mark.register
def _(event: CasesErased) -> str:
    return f"contents of {format_quantity(len(event.keys), 'case')} erased"
