"""The timeline of a cell, loaded for a page's visitor."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from api.console.page.page_context import Visitor
from rollout.core.calendar.sites import Cell
from rollout.reports.figures.first_values import join_value_marks
from rollout.reports.figures.timeline_parts import TimelineMark, TimelineRequest
from rollout.reports.pages.timeline_page import TimelineView, build_timeline_view
from rollout.services.cells.timeline import load_cell_timeline

PREFIX: Final = "tl"


def load_timeline_view(
    visitor: Visitor,
    rollout: str,
    cell: Cell,
    since: datetime | None = None,
    until: datetime | None = None,
    first_marks: Sequence[TimelineMark] = (),
) -> TimelineView:
    """Return a cell's timeline with marks of first cases, by default of the last six weeks."""
    request = TimelineRequest(cell, since, until)
    timeline = load_cell_timeline(visitor.service, visitor.caller, rollout, request, at=visitor.at)
    in_span = [mark for mark in first_marks if timeline.since <= mark.at <= timeline.until]
    timeline = replace(timeline, marks=join_value_marks(timeline.marks, in_span))
    return build_timeline_view(timeline, PREFIX)
