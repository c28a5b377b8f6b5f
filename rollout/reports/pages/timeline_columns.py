"""Columns of a cell's timeline, wide enough for a finger: what each shows when it is chosen."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from rollout.reports.figures.cell_timeline import HOUR
from rollout.reports.figures.timeline_parts import (
    CONFIRMED,
    HUMAN,
    MODEL,
    CellTimeline,
    TimelineBucket,
    TimelineVersion,
)
from rollout.reports.pages.timeline_layout import (
    TimelineFrame,
    count_units,
    get_bucket_span,
    list_drawn_versions,
    shorten_name,
)
from rollout.reports.text.bound_text import format_bound_value, format_estimate
from rollout.reports.text.formatting import (
    format_count,
    format_day,
    format_local_time,
    format_quantity,
)

MIN_COLUMN_WIDTH: Final = 24  # pixels, of WCAG 2.2 target size (minimum)


DECIDER_NAMES: Final = {MODEL: "model", CONFIRMED: "assisted", HUMAN: "humans"}


@dataclass(frozen=True, slots=True)
class TimelineColumn:
    """Neighbouring buckets that are chosen together.

    Attributes:
        left, right: edges in pixels.
        lines: the time, the stage, units by decider, and each version's figures.
    """

    left: float
    right: float
    lines: tuple[str, ...]


def list_columns(
    timeline: CellTimeline, frame: TimelineFrame, least_width: int
) -> Iterator[TimelineColumn]:
    """Yield columns of as many buckets as make them wide enough, those with units only."""
    total = len(timeline.buckets)
    bucket_width = (frame.right - frame.left) / max(total, 1)
    size = max(1, -int(-least_width // bucket_width))
    for first in range(0, total, size):
        last = min(first + size, total) - 1
        lines = _describe_column(timeline, first, last)
        if lines:
            start, end = get_bucket_span(timeline, first)[0], get_bucket_span(timeline, last)[1]
            yield TimelineColumn(frame.x(start), frame.x(end), lines)


def _describe_column(timeline: CellTimeline, first: int, last: int) -> tuple[str, ...]:
    """Return the lines of a column, none without units and bounds."""
    buckets = timeline.buckets[first : last + 1]
    version_lines = [
        f"{shorten_name(version.version)}: {text}"
        for version in list_drawn_versions(timeline)
        if (text := _describe_points(timeline, version, first, last))
    ]
    if not version_lines and not any(map(count_units, buckets)):
        return ()
    return (
        _format_time(timeline, first, last),
        ", ".join(f"{name} {_sum(buckets, key)}" for key, name in DECIDER_NAMES.items()),
        *version_lines,
    )


def _sum(buckets: tuple[TimelineBucket, ...], decider: str) -> str:
    return format_count(sum(getattr(bucket, decider) for bucket in buckets))


def _format_time(timeline: CellTimeline, first: int, last: int) -> str:
    """Return the days of a column, or the time at which its first hour begins; and its stage."""
    since, end = get_bucket_span(timeline, first)[0], get_bucket_span(timeline, last)[1]
    until = end - timedelta(microseconds=1)
    if timeline.bucket == HOUR:
        text = format_local_time(since, timeline.timezone, since)
    else:
        days = [format_day(at, timeline.timezone) for at in (since, until)]
        text = " to ".join(dict.fromkeys(days))
    stage = next((s for s in timeline.stages if s.since <= until < s.until), None)
    return text if stage is None else f"{text}, at the end {stage.stage} {stage.version}".rstrip()


def _describe_points(
    timeline: CellTimeline, version: TimelineVersion, first: int, last: int
) -> str:
    """Describe what a version did in some buckets: their mean, and the bound at their end."""
    points = [point for point in version.points if first <= point.bucket <= last]
    judged = sum(point.judged for point in points)
    texts = []
    if judged:
        total = sum(point.judged * (point.value or 0.0) for point in points)
        estimate = format_estimate(timeline.measure, total / judged)
        texts.append(f"{estimate} of {format_quantity(judged, 'decided unit')}")
    bounds = [point.bound for point in points if point.bound is not None]
    if bounds:
        texts.append(f"bound {format_timeline_bound(timeline, bounds[-1])}")
    return ", ".join(texts)


def format_timeline_bound(timeline: CellTimeline, bound: float) -> str:
    """Format a bound, rounded towards caution at the first gate's threshold."""
    lines = [threshold.value for threshold in timeline.thresholds if threshold.kind == "gate"]
    line = lines[0] if lines else bound
    return format_bound_value(timeline.measure, bound, line, at_least=timeline.at_least)
