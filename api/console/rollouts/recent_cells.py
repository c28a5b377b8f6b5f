"""The cells of the overview in which something happened: each with a small timeline."""

from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from api.console.page.page_context import Visitor
from rollout.core.calendar.sites import Cell
from rollout.reports.pages.timeline_chart import draw_small_timeline
from rollout.reports.pages.timeline_page import describe_timeline
from rollout.services.cells.overview import RolloutSummary
from rollout.services.cells.recent_timelines import load_recent_timelines


@dataclass(frozen=True, slots=True)
class RecentCellRow:
    """A cell of the overview: its newest event, None without one that is marked."""

    rollout: str
    cell: Cell
    zone: str
    text: str
    at: datetime | None
    drawing: Markup


def build_recent_rows(
    visitor: Visitor, summaries: tuple[RolloutSummary, ...]
) -> tuple[RecentCellRow, ...]:
    """Return the cells with the newest events of seven days."""
    states = (summary.state for summary in summaries)
    timelines = load_recent_timelines(visitor.service, visitor.caller, states, visitor.at)
    return tuple(
        RecentCellRow(
            rollout=rollout,
            cell=Cell(timeline.site, timeline.window),
            zone=timeline.timezone,
            text=timeline.marks[-1].text if timeline.marks else "",
            at=timeline.marks[-1].at if timeline.marks else None,
            drawing=draw_small_timeline(timeline, describe_timeline(timeline)),
        )
        for rollout, timeline in timelines
    )
