"""The timeline of a cell on a page: its drawing, events, and the same in a table."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from markupsafe import Markup

from rollout.reports.figures.timeline_parts import (
    CellTimeline,
    TimelineBucket,
    TimelineMark,
    TimelineThreshold,
)
from rollout.reports.pages.timeline_chart import KeyItem, draw_timeline, list_key_items
from rollout.reports.pages.timeline_layout import (
    MIN_COLUMN_WIDTH,
    count_units,
    format_timeline_bound,
)
from rollout.reports.text.formatting import (
    format_cell_name,
    format_count,
    format_day,
    format_quantity,
    join_words,
)
from rollout.reports.text.value_text import format_estimate, format_threshold

NO_VALUE: Final = "–"
DECIDED_UNITS_TEXT: Final = (
    "Decided units of a version: with its answer and a human's blind decision, in shadow, a blind"
    " review or an audit. So they are other units than those that the model or humans decided."
)


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """A bucket in the table: units by decider, then decided units, value and bound by version."""

    since: datetime
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TimelineView:
    """A timeline as a page shows it.

    Attributes:
        name, zone: the cell, and its site's timezone.
        prefix: begin of the ids; the first event has `<prefix>-e1`.
        text: what is drawn, in sentences.
        columns: headings of `rows` after the time.
        marks: events in the order of their numbers.
        key: what the signs of the drawing stand for.
    """

    prefix: str
    name: str
    zone: str
    wide: Markup
    narrow: Markup
    text: str
    note: str
    bucket: str
    columns: tuple[str, ...]
    rows: tuple[TimelineRow, ...]
    marks: tuple[TimelineMark, ...]
    key: tuple[KeyItem, ...]

    @property
    def units_note(self) -> str:
        """Return which units a version's figures are of."""
        return DECIDED_UNITS_TEXT


def build_timeline_view(
    timeline: CellTimeline, prefix: str, column_width: int = MIN_COLUMN_WIDTH
) -> TimelineView:
    """Return the view of a timeline; its ids begin with `prefix`."""
    first, last = (format_day(at, timeline.timezone) for at in (timeline.since, timeline.until))
    title = f"{timeline.site} · {timeline.window} from {first} to {last}"
    text = describe_timeline(timeline)
    wide, narrow = draw_timeline(timeline, prefix, title, text, column_width)
    names = [version.version for version in timeline.versions]
    heading = timeline.measure
    version_columns = [
        column
        for name in names
        for column in (f"{name} decided units", f"{name} {heading}", f"{name} bound")
    ]
    return TimelineView(
        prefix=prefix,
        name=format_cell_name(timeline.site, timeline.window),
        zone=timeline.timezone,
        wide=wide,
        narrow=narrow,
        text=text,
        note=_describe_batches(timeline),
        bucket=timeline.bucket,
        columns=("Humans", "Assisted", "Model", *version_columns),
        rows=tuple(_build_rows(timeline)),
        marks=timeline.marks,
        key=list_key_items(timeline),
    )


def _build_rows(timeline: CellTimeline) -> list[TimelineRow]:
    points = [{point.bucket: point for point in v.points} for v in timeline.versions]
    rows = []
    for number, bucket in enumerate(timeline.buckets):
        cells = [format_count(n) for n in (bucket.human, bucket.confirmed, bucket.model)]
        version_points = [by_bucket.get(number) for by_bucket in points]
        for point in version_points:
            value = None if point is None else point.value
            bound = None if point is None else point.bound
            cells.append(format_count(point.judged) if point and point.judged else NO_VALUE)
            cells.append(NO_VALUE if value is None else format_estimate(timeline.measure, value))
            cells.append(NO_VALUE if bound is None else format_timeline_bound(timeline, bound))
        if count_units(bucket) or any(point and point.judged for point in version_points):
            rows.append(TimelineRow(bucket.since, tuple(cells)))
    return rows


def describe_timeline(timeline: CellTimeline) -> str:
    """Describe the drawing: units by decider, each version's last figures, thresholds."""
    total = sum(count_units(bucket) for bucket in timeline.buckets)
    if not total:
        return "No unit was counted here in this time."
    sums = {
        name: sum(getattr(b, name) for b in timeline.buckets)
        for name in ("human", "confirmed", "model")
    }
    sentences = [f"{_describe_deciders(TimelineBucket(timeline.since, **sums))}."]
    for version in timeline.versions:
        bounds = [point.bound for point in version.points if point.bound is not None]
        judged = sum(point.judged for point in version.points)
        bound_text = (
            f", bound at the end {format_timeline_bound(timeline, bounds[-1])}" if bounds else ""
        )
        quantity = format_quantity(judged, "decided unit")
        sentences.append(f"{version.version}: {quantity}{bound_text}.")
    if timeline.thresholds:
        sentences.append(f"In force now: {_list_thresholds(timeline)}.")
    return " ".join(sentences)


def _describe_deciders(bucket: TimelineBucket) -> str:
    return (
        f"{format_quantity(count_units(bucket), 'unit')}: {format_count(bucket.model)} by the"
        f" model, {format_count(bucket.confirmed)} by humans who had its answer,"
        f" {format_count(bucket.human)} by humans alone"
    )


def _list_thresholds(timeline: CellTimeline) -> str:
    side = "at least" if timeline.at_least else "at most"

    def describe(threshold: TimelineThreshold) -> str:
        return f"{threshold.name} {side} {format_threshold(timeline.measure, threshold.value)}"

    return join_words([describe(threshold) for threshold in timeline.thresholds])


def _describe_batches(timeline: CellTimeline) -> str:
    if timeline.batch is None:
        return ""
    return (
        f"You may be given blind reviews here: on this page {timeline.measure} moves once"
        f" another {timeline.batch} units are decided, and the drawing has no bounds."
    )
