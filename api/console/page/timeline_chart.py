"""The timeline of a cell as SVG: events, stages, agreement or cost, and who decided.

The markup names classes and patterns; `console.css` sets colours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.console.page.scale_chart import format_pixels, list_ticks
from rollout.reports.figures.cell_timeline import HOUR
from rollout.reports.figures.timeline_parts import (
    CONFIRMED,
    HUMAN,
    MODEL,
    CellTimeline,
    TimelineBucket,
    TimelineMark,
    TimelinePoint,
)
from rollout.reports.pages.stage_markers import EMPTY, HATCHED, SOLID
from rollout.reports.text.bound_text import format_bound_value, format_estimate, format_threshold
from rollout.reports.text.formatting import format_count, format_quantity

PATTERNS: Final[Mapping[str, str]] = {HUMAN: EMPTY, CONFIRMED: HATCHED, MODEL: SOLID}
MAX_VERSIONS: Final = 4  # drawn; the table has all
MARK_RADIUS: Final = 12
MARK_Y, STRIP_Y, STRIP_HEIGHT = 20, 46, 24
PLOT_TOP, PLOT_BOTTOM, BARS_TOP, BARS_BOTTOM, HEIGHT = 92, 282, 312, 380, 406
NARROW_NAME_WIDTH: Final = 84  # pixels of a threshold's name
CODE_WIDTH: Final = 9  # pixels per letter of a stage's code
DOT_PATHS: Final = ("M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0", "M0-4l4 4-4 4-4-4z", "M-3-3h6v6h-6z",
                    "M0-4l4 7h-8z")  # fmt: skip


@dataclass(frozen=True, slots=True)
class TimelineFrame:
    """Coordinates of a drawing: the plot lies between `left` and `right`."""

    prefix: str
    width: int
    left: int
    right: int
    max_dates: int
    since: datetime
    until: datetime
    low: float
    high: float
    highest_bar: int

    def x(self, at: datetime) -> float:
        """Return the x coordinate of an instant, clipped to the plot."""
        share = (at - self.since) / max(self.until - self.since, timedelta(seconds=1))
        return self.left + (self.right - self.left) * min(max(share, 0.0), 1.0)

    def y(self, value: float) -> float:
        """Return the y coordinate of a share or cost."""
        share = (value - self.low) / (self.high - self.low)
        return PLOT_BOTTOM - (PLOT_BOTTOM - PLOT_TOP) * min(max(share, 0.0), 1.0)

    def bar(self, count: int) -> float:
        """Return the height of a bar."""
        return (BARS_BOTTOM - BARS_TOP) * count / max(self.highest_bar, 1)


def draw_timeline(timeline: CellTimeline, title: str, description: str) -> tuple[Markup, Markup]:
    """Return the drawing for wide and for narrow screens."""
    low, high = _find_range(timeline)
    highest = max((count_units(bucket) for bucket in timeline.buckets), default=0)
    values = (timeline.since, timeline.until, low, high, highest)
    frames = (
        TimelineFrame("tl-w", 1160, 124, 1030, 8, *values),
        TimelineFrame("tl-n", 326, 40, 320, 3, *values),
    )
    wide, narrow = (_draw_frame(timeline, frame, title, description) for frame in frames)
    return wide, narrow


def count_units(bucket: TimelineBucket) -> int:
    """Return the units of a bucket."""
    return bucket.human + bucket.confirmed + bucket.model


def _find_range(timeline: CellTimeline) -> tuple[float, float]:
    points = (point for version in timeline.versions for point in version.points)
    drawn = [value for point in points for value in (point.value, point.bound) if value is not None]
    drawn += [threshold.value for threshold in timeline.thresholds]
    if not timeline.at_least:
        return 0.0, max([*drawn, 0.0]) * 1.1 or 1.0
    return max(0.0, int(min([*drawn, 0.9]) * 10 - 1e-9) / 10), 1.0


def _draw_frame(
    timeline: CellTimeline, frame: TimelineFrame, title: str, description: str
) -> Markup:
    parts = [
        *_draw_gaps(timeline, frame),
        *_draw_dates(timeline, frame),
        *_draw_stages(timeline, frame),
        *_draw_ruler(timeline, frame),
        *_draw_thresholds(timeline, frame),
        *_draw_versions(timeline, frame),
        *_draw_bars(timeline, frame),
        *_draw_names(timeline, frame),
        *_draw_marks(timeline, frame),
    ]
    return Markup(
        '<svg class="chart map tl" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="group" '
        'aria-labelledby="{2}-t {2}-d"><title id="{2}-t">{3}</title><desc id="{2}-d">{4}</desc>\n'
        "{5}</svg>"
    ).format(frame.width, HEIGHT, frame.prefix, title, description, Markup("\n").join(parts))


def _draw_text(x: float, y: float, text: str, anchor: str = "start", css: str = "") -> Markup:
    css_class = Markup(' class="{}"').format(css) if css else ""
    return Markup('<text{} x="{}" y="{}" text-anchor="{}">{}</text>').format(
        css_class, format_pixels(x), format_pixels(y), anchor, text
    )


def _draw_rule(css: str, left: float, right: float, y: float) -> Markup:
    return Markup('<line class="{0}" x1="{1}" x2="{2}" y1="{3}" y2="{3}"/>').format(
        css, format_pixels(left), format_pixels(right), format_pixels(y)
    )


def _draw_gaps(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for gap in timeline.gaps:
        left, right = frame.x(gap.since), frame.x(gap.until)
        yield Markup(
            "<g><title>Records deleted: counts stay, cases can’t be opened</title>"
            '<rect class="g-track" x="{}" y="{}" width="{}" height="{}"/></g>'
        ).format(format_pixels(left), STRIP_Y, format_pixels(right - left), BARS_BOTTOM - STRIP_Y)
        yield _draw_text(left + 6, PLOT_TOP + 14, "records deleted")


def _draw_dates(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    zone, starts = ZoneInfo(timeline.timezone), [bucket.since for bucket in timeline.buckets]
    step = max(1, -(-len(starts) // frame.max_dates))
    for start in starts[::step]:
        x, local = frame.x(start), start.astimezone(zone)
        text = f"{local:%H:%M}" if timeline.bucket == HOUR else f"{local.day} {local:%b}"
        yield Markup('<line class="g-line" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            format_pixels(x), STRIP_Y, BARS_BOTTOM
        )
        yield _draw_text(x, HEIGHT - 8, text, "middle" if x > frame.left + 12 else "start")


def _draw_stages(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for stage in timeline.stages:
        left, right = frame.x(stage.since), frame.x(stage.until)
        pattern = PATTERNS[stage.decider]
        fill = Markup(' fill="url(#p-1)"') if pattern == HATCHED else ""
        yield Markup(
            '<g><title>{}{}</title><rect class="p-{}"{} x="{}" y="{}" width="{}" height="{}"/></g>'
        ).format(
            f"{stage.version} " if stage.version else "", stage.stage, pattern, fill,
            format_pixels(left + 0.5), STRIP_Y, format_pixels(max(right - left - 1, 0.5)),
            STRIP_HEIGHT,
        )  # fmt: skip
        code = f"{stage.stage[:2].capitalize()} {stage.version}".strip()
        if right - left >= CODE_WIDTH * len(code) + 8:
            yield from _draw_code(code, pattern, (left + right) / 2)


def _draw_code(code: str, pattern: str, x: float) -> Iterator[Markup]:
    width = CODE_WIDTH * len(code)
    if pattern == HATCHED:
        yield Markup(
            '<rect class="code-ground" x="{}" y="{}" width="{}" height="16" rx="2"/>'
        ).format(format_pixels(x - width / 2), STRIP_Y + 4, width)
    yield _draw_text(x, STRIP_Y + 16, code, "middle", f"t-code on-{pattern}")


def _draw_ruler(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for value in list_ticks(frame.low, frame.high):
        y = frame.y(value)
        yield _draw_rule("g-line", frame.left, frame.right, y)
        yield _draw_text(frame.left - 5, y + 4, _format_tick(timeline.measure, value), "end")
    yield _draw_rule("g-axis", frame.left, frame.right, BARS_BOTTOM)
    if frame.highest_bar:
        yield _draw_text(frame.left - 5, BARS_TOP + 10, format_count(frame.highest_bar), "end")


def _format_tick(measure: str, value: float) -> str:
    return f"{value * 100:.0f}\N{NO-BREAK SPACE}%" if measure == "agreement" else f"{value:g}"


def _draw_thresholds(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    """Draw thresholds; beside the wide drawing with their names, apart from each other."""
    least_y, shift = 0.0, 0
    for threshold in sorted(timeline.thresholds, key=lambda t: frame.y(t.value)):
        y = frame.y(threshold.value)
        css = "g-gate" if threshold.kind == "gate" else "g-guard"
        yield _draw_rule(css, frame.left, frame.right, y)
        shift = shift + 1 if y + 4 < least_y + 13 else 0
        least_y = max(y + 4, least_y + 13)
        text = f"{threshold.kind} {format_threshold(timeline.measure, threshold.value)}"
        if frame.width - frame.right > 60:
            yield _draw_text(frame.right + 6, least_y, text.capitalize(), css="t-strong")
        else:
            yield _draw_text(frame.left + 4 + NARROW_NAME_WIDTH * shift, y - 3, text)


def _draw_versions(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    drawn = sorted(timeline.versions, key=lambda version: not version.acting)[:MAX_VERSIONS]
    for number, version in enumerate(drawn):
        bounds = [point for point in version.points if point.bound is not None]
        if bounds:
            yield Markup('<path class="tl-bound tl-{}" d="{}"/>').format(
                number, _build_bound_path(bounds, timeline, frame)
            )
            _, end = get_bucket_span(timeline, bounds[-1].bucket)
            y = frame.y(bounds[-1].bound or 0.0)
            css = f"tl-name tl-{number}"
            yield _draw_text(frame.x(end) - 4, y + 14, version.version, "end", css)
        for point in version.points:
            if point.value is None:
                continue
            start, end = get_bucket_span(timeline, point.bucket)
            x = frame.x(start + (end - start) / 2)
            yield Markup(
                '<g transform="translate({} {})"><title>{}</title>'
                '<path class="tl-dot tl-{}" d="{}"/></g>'
            ).format(
                format_pixels(x), format_pixels(frame.y(point.value)),
                f"{version.version}: {describe_point(timeline, point)}", number,
                DOT_PATHS[number],
            )  # fmt: skip


def describe_point(timeline: CellTimeline, point: TimelinePoint) -> str:
    """Describe what a version did in a bucket."""
    texts = []
    if point.value is not None:
        number = format_quantity(point.judged, "decided unit")
        texts.append(f"{format_estimate(timeline.measure, point.value)} of {number}")
    if point.bound is not None:
        texts.append(f"bound {format_timeline_bound(timeline, point.bound)}")
    return ", ".join(texts)


def format_timeline_bound(timeline: CellTimeline, bound: float) -> str:
    """Format a bound, rounded towards caution at the first gate's threshold."""
    lines = [threshold.value for threshold in timeline.thresholds if threshold.kind == "gate"]
    line = lines[0] if lines else bound
    return format_bound_value(timeline.measure, bound, line, at_least=timeline.at_least)


def get_bucket_span(timeline: CellTimeline, number: int) -> tuple[datetime, datetime]:
    """Return begin and end of a bucket; the last one ends with the timeline."""
    start = timeline.buckets[number].since
    is_last = number + 1 >= len(timeline.buckets)
    return start, timeline.until if is_last else timeline.buckets[number + 1].since


def _build_bound_path(
    points: Sequence[TimelinePoint], timeline: CellTimeline, frame: TimelineFrame
) -> str:
    """Return steps: a bound holds from its bucket's end on; without one the line is broken."""
    path, previous = "", -2
    for point in points:
        _, end = get_bucket_span(timeline, point.bucket)
        x, y = format_pixels(frame.x(end)), format_pixels(frame.y(point.bound or 0.0))
        path += f"H{x}V{y}" if point.bucket == previous + 1 else f"M{x} {y}"
        previous = point.bucket
    return path


def _draw_bars(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for number, bucket in enumerate(timeline.buckets):
        if not count_units(bucket):
            continue
        start, end = get_bucket_span(timeline, number)
        left, right, y = frame.x(start), frame.x(end), float(BARS_BOTTOM)
        yield Markup("<g><title>{}</title>").format(describe_bucket(bucket))
        for decider in (MODEL, CONFIRMED, HUMAN):
            height = frame.bar(getattr(bucket, decider))
            y -= height
            if height:
                pattern = PATTERNS[decider]
                fill = Markup(' fill="url(#p-1)"') if pattern == HATCHED else ""
                yield Markup(
                    '<rect class="p-{}"{} x="{}" y="{}" width="{}" height="{}"/>'
                ).format(
                    pattern, fill, format_pixels(left + 0.5), format_pixels(y),
                    format_pixels(max(right - left - 1, 0.5)), format_pixels(height),
                )  # fmt: skip
        yield Markup("</g>")


def describe_bucket(bucket: TimelineBucket) -> str:
    """Describe who decided a bucket's units."""
    return (
        f"{format_quantity(count_units(bucket), 'unit')}: {format_count(bucket.model)} by the"
        f" model, {format_count(bucket.confirmed)} confirmed by humans,"
        f" {format_count(bucket.human)} by humans"
    )


def _draw_names(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    """Draw what each row is: beside the wide drawing, above the rows of the narrow one."""
    rows = ((STRIP_Y + 16, "Stage"), (PLOT_TOP + 4, timeline.measure.capitalize()),
            (BARS_TOP + 4, f"Units per {timeline.bucket}"))  # fmt: skip
    if frame.left > 100:
        yield _draw_text(0, MARK_Y + 4, "Events", css="t-strong")
        for y, name in rows:
            yield _draw_text(0, y, name, css="t-strong")
        return
    for y, name in rows[1:]:
        yield _draw_text(frame.left, y - 10, name, css="t-strong")


def _draw_marks(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for numbers in _cluster_marks(timeline.marks, frame):
        marks = [timeline.marks[number] for number in numbers]
        x = min(max(frame.x(marks[0].at), frame.left), frame.right - MARK_RADIUS)
        text = "; ".join(mark.text for mark in marks)
        tone = next((m.tone for m in marks if m.tone == "narrower"), marks[0].tone)
        tone = tone or next((m.tone for m in marks if m.tone), "other")
        yield Markup(
            '<a href="#tl-e{0}" aria-label="{1}"><title>{1}</title><g class="tl-mark tl-{2}">'
            '<{3}/><text x="{4}" y="{5}" text-anchor="middle">{0}</text></g></a>'
        ).format(
            numbers[0] + 1, text, tone, _draw_mark_shape(tone, x), format_pixels(x), MARK_Y + 4
        )


def _draw_mark_shape(tone: str, x: float) -> Markup:
    r = MARK_RADIUS
    if tone == "narrower":
        return Markup('rect x="{}" y="{}" width="{}" height="{}" rx="2"').format(
            format_pixels(x - r), MARK_Y - r, 2 * r, 2 * r
        )
    return Markup('circle cx="{}" cy="{}" r="{}"').format(format_pixels(x), MARK_Y, r)


def _cluster_marks(marks: Sequence[TimelineMark], frame: TimelineFrame) -> list[list[int]]:
    """Return the numbers of marks that one drawn mark stands for, because they overlap."""
    clusters: list[list[int]] = []
    last_x = float("-inf")
    for number, mark in enumerate(marks):
        x = frame.x(mark.at)
        if x - last_x >= 2 * MARK_RADIUS + 2:
            clusters.append([])
            last_x = x
        clusters[-1].append(number)
    return clusters
