"""The timeline of a cell, loaded for a caller."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from rollout.data.database.session import Database
from rollout.engine.decide.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.engine.events import LedgerEvent, RecordsPurged, select_events
from rollout.engine.evidence.slots import find_slot_before
from rollout.features.reports.figures.timeline_parts import (
    CellTimeline,
    TimelineRequest,
    list_cell_marks,
    sort_marks,
)
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.errors import RefusalError, UnknownCellError, UnknownVersionError
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

if TYPE_CHECKING:
    from rollout.engine.evidence.stored_units import NewCellValue
    from rollout.features.reports.figures.cell_timeline import TimelineSource
    from rollout.live.evidence.evidence_reader import CountedCells


DEFAULT_SPAN: Final = timedelta(days=42)
EMPTY_SPAN: Final = timedelta(hours=1)


def load_cell_timeline(
    service: Service, caller: Caller, rollout_name: str, request: TimelineRequest, *, at: datetime
) -> CellTimeline:
    """Return what is drawn of a cell, by default the last six weeks of all its versions.

    For a caller who may review at the site, agreement moves in batches and has no bounds: a sum
    read before and after an own answer exposes no case.

    Raises:
        NotAllowedError: the caller may not read the site.
        UnknownCellError: the policy has no such cell.
        UnknownVersionError: the rollout has no such version.
        RefusalError: the span ends before it begins.
    """
    cell, version = request.cell, request.version
    require_permission(caller, Permission.READ, rollout_name)
    require_permission(caller, Permission.READ, rollout_name, (cell.site,))
    state = service.state_cache.reload_rollout(rollout_name).state
    if cell not in state.policy.cell_set:
        raise UnknownCellError(f"the policy has no {cell}; list the cells to see their names")
    version = state.scope.get_first_name(version)
    if version and version not in state.scope.versions:
        raise UnknownVersionError(f"no version {version} was seen in {rollout_name}")
    if request.since is not None and request.since >= min(request.until or at, at):
        raise RefusalError("nothing is in this span: `from` has to be before `until` and now")
    request = replace(request, version=version)
    (timeline,) = load_state_timelines(service, caller, state, (request,), at=at)
    return timeline


def load_state_timelines(
    service: Service,
    caller: Caller,
    state: RolloutState,
    requests: Sequence[TimelineRequest],
    *,
    at: datetime,
) -> tuple[CellTimeline, ...]:
    """Return timelines of cells that the caller may read; all cost one read of the evidence."""
    from rollout.live.evidence.evidence_reader import load_counted_cells, load_events

    events = load_events(service.database, state)
    cells = tuple(request.cell for request in requests)
    counted = load_counted_cells(service.database, state, cells)
    timelines = []
    for request in requests:
        source = _build_source(state, events, counted, request, at)
        is_batched = may_be_asked_blind(caller, state.rollout.name, (request.cell.site,))
        timeline = _build_timeline(source, request, events[0].at, at, is_batched=is_batched)
        if not is_batched:  # a reviewer would know a gold case by its value: it has been counted
            new_values = counted.new_values.get(request.cell, ())
            timeline = _add_new_values(service.database, state, timeline, new_values)
        timelines.append(timeline)
    return tuple(timelines)


def _add_new_values(
    database: Database,
    state: RolloutState,
    timeline: CellTimeline,
    new_values: "Sequence[NewCellValue]",
) -> CellTimeline:
    """Return a timeline with a mark for the first counted case with each value."""
    from rollout.data.counting.closed_units import list_units_of_slots
    from rollout.features.reports.figures.funnel import list_value_marks

    tick = state.policy.tick
    first, last = (find_slot_before(at, tick) for at in (timeline.since, timeline.until))
    values = [value for value in new_values if first <= value.slot <= last]
    if not values:
        return timeline
    cell = Cell(timeline.site, timeline.window)
    with database.begin_read() as transaction:
        units = list_units_of_slots(
            transaction, state.rollout, cell, {value.slot for value in values}
        )
    marks = [
        mark
        for mark in list_value_marks(values, units, tick)
        if timeline.since <= mark.at <= timeline.until
    ]
    return replace(timeline, marks=sort_marks([*timeline.marks, *marks]))


def _build_timeline(
    source: "TimelineSource",
    request: TimelineRequest,
    began_at: datetime,
    at: datetime,
    *,
    is_batched: bool,
) -> CellTimeline:
    from rollout.features.reports.figures.cell_timeline import build_cell_timeline, find_first_unit

    until = min(request.until or at, at)
    first = min(find_first_unit(source) or at, began_at)
    since = max(first, request.since or until - DEFAULT_SPAN)
    since = since if since < until else until - EMPTY_SPAN  # before the first event
    return build_cell_timeline(source, since, until, is_batched=is_batched)


def _build_source(
    state: RolloutState,
    events: tuple[LedgerEvent, ...],
    counted: "CountedCells",
    request: TimelineRequest,
    at: datetime,
) -> "TimelineSource":
    from rollout.features.cells.cells import build_evidence_inputs
    from rollout.features.reports.figures.cell_timeline import TimelineSource
    from rollout.features.reports.inputs.evidence_inputs import build_state_periods

    cell = request.cell
    own_views = {key: view for key, view in counted.views.items() if key[0] == cell}
    inputs = build_evidence_inputs(state, events, own_views, at, has_retired=True)
    return TimelineSource(
        cell=cell,
        policy=state.policy,
        holder=state.scope.get_holder(cell),
        views={name: view for (_, name), view in own_views.items()},
        periods={name: periods for (_, name), periods in build_state_periods(inputs).items()},
        shown=(request.version,) if request.version else tuple(state.scope.versions),
        marks=list_cell_marks(events, cell),
        purged_before=max(
            (event.before for event in select_events(events, RecordsPurged)), default=None
        ),
        last_slot=counted.last_slot,
    )


RECENT_SPAN: Final = timedelta(days=7)
MAX_RECENT_CELLS: Final = 3
"""Cells of all rollouts together; those of one rollout cost one read of its evidence."""


@dataclass(frozen=True, slots=True)
class RecentCell:
    """A cell with an event, and when the newest one was."""

    state: RolloutState
    cell: Cell
    at: datetime

    @property
    def rollout_name(self) -> str:
        """Return the name of the cell's rollout."""
        return self.state.rollout.name


def load_recent_timelines(
    service: Service, caller: Caller, states: Iterable[RolloutState], at: datetime
) -> tuple[tuple[str, CellTimeline], ...]:
    """Return rollout and timeline of the cells with the newest events that a caller may read.

    Which cells they are follows from the states alone. As on a cell's page, agreement moves in
    batches for a caller who may review at the site.
    """
    cells = [
        recent
        for state in states
        for recent in _find_recent_cells(state, at)
        if caller.has_permission(Permission.READ, state.rollout.name, recent.cell.site)
    ]
    newest = sorted(cells, key=attrgetter("at"), reverse=True)[:MAX_RECENT_CELLS]
    timelines: list[tuple[str, CellTimeline]] = []
    for name, rows in groupby(
        sorted(newest, key=attrgetter("rollout_name")), key=attrgetter("rollout_name")
    ):
        group = list(rows)
        requests = [TimelineRequest(row.cell, since=at - RECENT_SPAN) for row in group]
        loaded = load_state_timelines(service, caller, group[0].state, requests, at=at)
        timelines += [(name, timeline) for timeline in loaded]
    return tuple(timelines)


def _find_recent_cells(state: RolloutState, at: datetime) -> Iterator[RecentCell]:
    """Yield the cells whose stage, proposals, incidents or stops are not older than seven days."""
    times: dict[Cell, datetime] = {}
    for cell, instant in _list_changes(state):
        if at - RECENT_SPAN < instant <= at and cell in state.policy.cell_set:
            times[cell] = max(instant, times.get(cell, instant))
    for cell, newest in times.items():
        yield RecentCell(state, cell, newest)


def _list_changes(state: RolloutState) -> Iterator[tuple[Cell, datetime]]:
    scope = state.scope
    for (cell, version), cell_state in scope.cells.items():
        if cell_state.changed_at != scope.versions[version].first_seen:
            yield cell, cell_state.changed_at
        for grant in cell_state.grants:
            yield cell, grant.since
    for proposal in scope.proposals.values():
        if proposal.cell is not None:
            yield proposal.cell, proposal.raised_at
    for incident in scope.open_incidents.values():
        if incident.cell is not None:
            yield incident.cell, incident.at
    for stop in scope.stops.values():
        for cell in stop.cells:
            yield cell, stop.at
