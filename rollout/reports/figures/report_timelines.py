"""The timelines of a report: one for each cell in which something happened."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.scope.record_events import RecordsPurged
from rollout.reports.figures.cell_timeline import (
    TimelineSource,
    build_cell_timeline,
    find_first_unit,
)
from rollout.reports.figures.timeline_parts import CellTimeline, TimelineMark, list_cell_marks
from rollout.reports.inputs.gate_progress import StatePeriod
from rollout.reports.inputs.inputs import CellVersion, ReportInputs
from rollout.reports.text.event_kinds import CELL_KINDS
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.slots import find_slot_before

MAX_TIMELINES: Final = 8
MAX_REPORT_BUCKETS: Final = 120


def compute_cell_timelines(
    inputs: ReportInputs, state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]]
) -> tuple[CellTimeline, ...]:
    """Return the timelines of the cells with most events of their own, in the policy's order."""
    marks = {cell: list_cell_marks(inputs.events, cell) for cell in inputs.policy.cells}
    counts = {cell: _count_own(cell_marks) for cell, cell_marks in marks.items()}
    by_count = sorted((cell for cell in marks if counts[cell]), key=lambda cell: -counts[cell])
    drawn = set(by_count[:MAX_TIMELINES])
    return tuple(
        _build_timeline(inputs, state_periods, cell, marks[cell])
        for cell in inputs.policy.cells
        if cell in drawn
    )


def _count_own(marks: tuple[TimelineMark, ...]) -> int:
    return sum(mark.kind in CELL_KINDS for mark in marks)


def _build_timeline(
    inputs: ReportInputs,
    state_periods: Mapping[CellVersion, tuple[StatePeriod, ...]],
    cell: Cell,
    marks: tuple[TimelineMark, ...],
) -> CellTimeline:
    counted_until = inputs.counted_until or inputs.last
    last_slot = find_slot_before(counted_until, inputs.policy.tick)
    views = {
        version: _select_counted(view, last_slot)
        for (view_cell, version), view in inputs.evidence_views.items()
        if view_cell == cell
    }
    history = inputs.timelines.get(cell)
    versions = () if history is None else history.versions
    source = TimelineSource(
        cell=cell,
        policy=inputs.policy,
        holder=versions[-1] or None if versions else None,
        views=views,
        periods={
            version: periods
            for (period_cell, version), periods in state_periods.items()
            if period_cell == cell
        },
        shown=tuple(views),
        marks=marks,
        purged_before=max(
            (event.before for event in inputs.events if isinstance(event, RecordsPurged)),
            default=None,
        ),
        last_slot=last_slot,
    )
    since = _find_begin(source, inputs)
    return build_cell_timeline(source, since, inputs.last, max_buckets=MAX_REPORT_BUCKETS)


def _find_begin(source: TimelineSource, inputs: ReportInputs) -> datetime:
    """Return the time of the first unit or event, at the latest the report's end."""
    firsts = [mark.at for mark in source.marks[:1]]
    first_unit = find_first_unit(source)
    return min([*firsts, first_unit or inputs.first, inputs.last])


def _select_counted(view: EvidenceView, last_slot: int) -> EvidenceView:
    """Return a view of the units that are counted by a slot."""
    gate = view.rows.gate
    return replace(view, rows=replace(view.rows, gate=gate.select(gate.slot <= last_slot)))
