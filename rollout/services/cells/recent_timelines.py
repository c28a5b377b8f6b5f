"""Small timelines of the cells in which something happened within seven days."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.scope.permissions import Caller, Permission
from rollout.reports.figures.timeline_parts import CellTimeline, TimelineRequest
from rollout.services.cells.timeline import load_state_timelines
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service

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
