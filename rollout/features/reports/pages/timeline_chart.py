"""The timeline of a cell on a page: its SVG drawing, its events, and the same in a table.

The drawing has events, stages, agreement or cost, and who decided. The markup names classes and
patterns; `tokens.css` sets colours, and shows the values of a column when it is pointed at, tapped
or reached by keys.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from markupsafe import Markup

from rollout.engine.words.formatting import (
    format_count,
    format_day,
    format_estimate,
    format_quantity,
    format_threshold,
    join_words,
)
from rollout.features.reports.inputs.cell_facts import (
    CONFIRMED,
    DECIDERS,
    HUMAN,
    MODEL,
    CellTimeline,
    TimelineMark,
    TimelinePoint,
)
from rollout.features.reports.pages.number_charts import (
    draw_rule,
    format_pixels,
    list_ticks,
    spread_centers,
)
from rollout.features.reports.pages.timeline_layout import (
    BARS_BOTTOM,
    BARS_TOP,
    EMPTY,
    HATCHED,
    HEIGHT,
    LETTER_WIDTH,
    MARK_SIZE,
    MARK_Y,
    MIN_COLUMN_WIDTH,
    PLOT_TOP,
    SOLID,
    STRIP_HEIGHT,
    STRIP_Y,
    ChartLabel,
    MarkBox,
    TimelineColumn,
    TimelineFrame,
    build_frames,
    count_units,
    format_timeline_bound,
    get_bucket_span,
    list_columns,
    list_dates,
    list_drawn_versions,
    list_labels,
    name_threshold,
    place_marks,
)
from rollout.kernel.policy.stages import describe_share

PATTERNS: Final[Mapping[str, str]] = {HUMAN: EMPTY, CONFIRMED: HATCHED, MODEL: SOLID}
DECIDER_TEXTS: Final[Mapping[str, str]] = {
    HUMAN: "Humans alone",
    CONFIRMED: "Humans with the model's answer",
    MODEL: "Model alone",
}
MARK_TEXTS: Final[Mapping[str, str]] = {
    "wider": "Widening, renewal or resume",
    "narrower": "Narrowing, stop or lapse",
    "": "Another event",
}
CODE_WIDTH: Final = 9  # pixels per letter of a stage's code
TIP_LINE: Final = 16
SMALL_BARS_TOP: Final = STRIP_Y + STRIP_HEIGHT + 2
SMALL_MARK_SIZE: Final = 8
DOT_PATHS: Final = ("h0", "m0-4l4 4-4 4-4-4z", "m-3-3h6v6h-6z", "m0-4l4 7h-8z")
"""Shapes of versions; the first one is a stroke of no length with a round end."""


def draw_timeline(
    timeline: CellTimeline,
    prefix: str,
    title: str,
    description: str,
    column_width: int = MIN_COLUMN_WIDTH,
) -> tuple[Markup, Markup]:
    """Return the drawing for wide and for narrow screens.

    Args:
        timeline: what is drawn.
        prefix: begin of its ids; the event with number 1 is linked to at `<prefix>-e1`.
        title, description: its accessible name and text.
        column_width: least width in pixels of what is chosen at once; wider ones make a page small.
    """
    wide, narrow = (
        _draw_frame(timeline, frame, prefix, column_width, title, description)
        for frame in build_frames(timeline)
    )
    return wide, narrow


@dataclass(frozen=True, slots=True)
class KeyItem:
    """What a sign of the drawing stands for."""

    drawing: Markup
    text: str


def list_key_items(timeline: CellTimeline) -> tuple[KeyItem, ...]:
    """Return the signs that are in the drawing: bars, versions, thresholds and marks."""
    return tuple(
        KeyItem(
            Markup('<svg class="tl" viewBox="0 0 32 20" aria-hidden="true">{}</svg>').format(sign),
            text,
        )
        for sign, text in _list_signs(timeline)
    )


def _list_signs(timeline: CellTimeline) -> Iterator[tuple[Markup, str]]:
    for decider, text in DECIDER_TEXTS.items():
        is_stage = any(stage.decider == decider for stage in timeline.stages)
        if is_stage or any(getattr(bucket, decider) for bucket in timeline.buckets):
            shares = _describe_shares(timeline) if decider == MODEL else ""
            yield _draw_box(f"p-{PATTERNS[decider]}", 0.5, 31, 0.5, 19), shares or text
    for number, version in enumerate(list_drawn_versions(timeline)):
        if version.points:
            dot = Markup('<path class="tl-dot tl-{}" d="M5 6{}"/>').format(
                number, DOT_PATHS[number]
            )
            line = Markup('<path class="tl-bound tl-{}" d="M10 15H20V11H31"/>').format(number)
            is_bound = any(point.bound is not None for point in version.points)
            sign, bound_text = (dot + line, ", and its bound") if is_bound else (dot, "")
            yield sign, f"{version.version}: one {timeline.bucket}{bound_text}"
    for threshold in timeline.thresholds:
        css = "g-gate" if threshold.kind == "gate" else "g-guard"
        sign = Markup('<line class="{}" x1="0" x2="32" y1="10" y2="10"/>').format(css)
        yield sign, name_threshold(timeline.measure, threshold)
    tones = {mark.tone for mark in timeline.marks}
    for tone, text in MARK_TEXTS.items():
        if tone in tones:
            box = MarkBox(0, 0, 16, 16, 16)
            yield (
                Markup('<g class="tl-mark tl-{}" transform="translate(0 {})">{}</g>').format(
                    tone or "other", 10 - MARK_Y, _draw_mark_box(box, tone, 16)
                ),
                text,
            )


def _draw_frame(
    timeline: CellTimeline,
    frame: TimelineFrame,
    prefix: str,
    column_width: int,
    title: str,
    description: str,
) -> Markup:
    parts = [
        *_draw_gaps(timeline, frame),
        *_draw_grid(timeline, frame),
        *_draw_stages(timeline, frame),
        *_draw_thresholds(timeline, frame),
        *_draw_versions(timeline, frame),
        *_draw_bars(timeline, frame),
        *map(_draw_label, list_labels(timeline, frame)),
        *_draw_marks(timeline, frame, prefix),
        *(
            _draw_column(column, frame, f"{prefix}-{frame.prefix}{number}")
            for number, column in enumerate(list_columns(timeline, frame, column_width))
        ),
    ]
    return Markup(
        '<svg class="chart map tl" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="group" '
        'aria-labelledby="{2}-t {2}-d"><title id="{2}-t">{3}</title><desc id="{2}-d">{4}</desc>\n'
        "{5}</svg>"
    ).format(
        frame.width, HEIGHT, f"{prefix}-{frame.prefix}", title, description,
        Markup("\n").join(parts),
    )  # fmt: skip


def _draw_label(label: ChartLabel) -> Markup:
    css_class = Markup(' class="{}"').format(label.css) if label.css else ""
    is_default = label.anchor == "start"
    anchor = "" if is_default else Markup(' text-anchor="{}"').format(label.anchor)
    return Markup('<text{} x="{}" y="{}"{}>{}</text>').format(
        css_class, format_pixels(label.x), format_pixels(label.y), anchor, label.text
    )


def _draw_box(css: str, left: float, width: float, y: float, height: float) -> Markup:
    """Draw a rectangle, `css` with a pattern if it is the hatched one."""
    fill = Markup(' fill="url(#p-1)"') if css == f"p-{HATCHED}" else ""
    css_class = Markup(' class="{}"').format(css) if css else ""
    return Markup('<rect{}{} x="{}" y="{}" width="{}" height="{}"/>').format(
        css_class, fill, *map(format_pixels, (left, y, width, height))
    )


def _draw_gaps(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for gap in timeline.gaps:
        left, right = frame.x(gap.since), frame.x(gap.until)
        yield Markup(
            "<g><title>Records deleted: counts stay, cases can’t be opened</title>{}</g>"
        ).format(_draw_box("g-track", left, right - left, STRIP_Y, BARS_BOTTOM - STRIP_Y))


def _draw_grid(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    """Yield the lines of dates and ticks as one path, so that a drawing stays small."""
    days = (f"M{format_pixels(frame.x(start))} {STRIP_Y}" for start in list_dates(timeline, frame))
    ticks = [frame.y(value) for value in list_ticks(frame.low, frame.high)]
    if frame.highest_bar:
        ticks += [BARS_BOTTOM - frame.bar(count) for count in frame.bar_ticks[1:]]
    lines = [f"{day}V{BARS_BOTTOM}" for day in days]
    lines += [f"M{frame.left} {format_pixels(y)}H{frame.right}" for y in ticks]
    yield Markup('<path class="g-line" d="{}"/>').format("".join(lines))
    yield draw_rule("g-axis", frame.left, frame.right, BARS_BOTTOM)


def _describe_shares(timeline: CellTimeline) -> str:
    """Describe the stages that draw a share of the cases for the model; "" without one."""
    texts = {
        f"at {stage.stage} {describe_share(stage.version, stage.model_share)}": None
        for stage in timeline.stages
        if stage.model_share not in {None, 1.0}
    }
    return f"Model: {', '.join(texts)}" if texts else ""


def _draw_stages(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for stage in timeline.stages:
        left, right = frame.x(stage.since), frame.x(stage.until)
        pattern = PATTERNS[stage.decider]
        name = f"{stage.version} {stage.stage}".strip()
        if stage.model_share not in {None, 1.0}:
            name = f"{stage.stage}: {describe_share(stage.version, stage.model_share)}"
        box = _draw_box(
            f"p-{pattern}", left + 0.5, max(right - left - 1, 0.5), STRIP_Y, STRIP_HEIGHT
        )
        yield Markup("<g><title>{}</title>{}</g>").format(name, box)
        code = f"{stage.stage[:2].capitalize()} {stage.version}".strip()
        width = CODE_WIDTH * len(code)
        if right - left >= width + 8:
            x = (left + right) / 2
            if pattern == HATCHED:
                yield Markup(
                    '<rect class="code-ground" x="{}" y="{}" width="{}" height="16" rx="2"/>'
                ).format(format_pixels(x - width / 2), STRIP_Y + 3, width)
            yield _draw_label(ChartLabel(x, STRIP_Y + 15, code, "middle", f"t-code on-{pattern}"))


def _draw_thresholds(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for threshold in timeline.thresholds:
        css = "g-gate" if threshold.kind == "gate" else "g-guard"
        yield draw_rule(css, frame.left, frame.right, frame.y(threshold.value))


def _draw_versions(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[Markup]:
    for number, version in enumerate(list_drawn_versions(timeline)):
        bounds = [point for point in version.points if point.bound is not None]
        if bounds:
            yield Markup('<path class="tl-bound tl-{}" d="{}"/>').format(
                number, _build_bound_path(bounds, timeline, frame)
            )
        yield Markup('<path class="tl-dot tl-{}" d="{}"/>').format(
            number, "".join(_list_dot_paths(version.points, timeline, frame, DOT_PATHS[number]))
        )


def _list_dot_paths(
    points: Sequence[TimelinePoint], timeline: CellTimeline, frame: TimelineFrame, shape: str
) -> Iterator[str]:
    for point in points:
        if point.value is not None:
            start, end = get_bucket_span(timeline, point.bucket)
            x, y = frame.x(start + (end - start) / 2), frame.y(point.value)
            yield f"M{format_pixels(x)} {format_pixels(y)}{shape}"


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
    """Yield the bars of each decider, the model's below."""
    paths = {MODEL: "", CONFIRMED: "", HUMAN: ""}
    for number, bucket in enumerate(timeline.buckets):
        left, right = map(frame.x, get_bucket_span(timeline, number))
        x, width = format_pixels(left + 0.5), format_pixels(max(right - left - 1, 0.5))
        y = float(BARS_BOTTOM)
        for decider in paths:
            height = frame.bar(getattr(bucket, decider))
            if height:
                paths[decider] += f"M{x} {format_pixels(y)}h{width}v-{format_pixels(height)}"
                paths[decider] += f"h-{width}z"
            y -= height
    for decider, path in paths.items():
        pattern = PATTERNS[decider]
        fill = Markup(' fill="url(#p-1)"') if pattern == HATCHED else ""
        if path:
            yield Markup('<path class="p-{}"{} d="{}"/>').format(pattern, fill, path)


def _draw_marks(timeline: CellTimeline, frame: TimelineFrame, prefix: str) -> Iterator[Markup]:
    for box in place_marks(timeline, frame):
        marks = timeline.marks[box.first : box.last + 1]
        tones = {mark.tone for mark in marks}
        tone = next((tone for tone in ("narrower", "wider") if tone in tones), "other")
        yield Markup(
            '<a href="#{}-e{}"><title>{}</title><g class="tl-mark tl-{}">'
            '<path d="M{} {}L{} {}"/>{}<text x="{}" y="{}" text-anchor="middle">{}</text></g></a>'
        ).format(
            prefix, box.first + 1, f"{box.text}: {'; '.join(mark.text for mark in marks)}",
            tone, format_pixels(box.x),
            MARK_Y + MARK_SIZE // 2, format_pixels(box.at_x), STRIP_Y, _draw_mark_box(box, tone),
            format_pixels(box.x), MARK_Y + 4, box.text,
        )  # fmt: skip


def _draw_mark_box(box: MarkBox, tone: str, height: int = MARK_SIZE) -> Markup:
    """Draw the ground of a mark: with corners if it stands for a narrowing, else round."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="{}"/>').format(
        format_pixels(box.x - box.width / 2), MARK_Y - height // 2, format_pixels(box.width),
        height, 2 if tone == "narrower" else height // 2,
    )  # fmt: skip


def _draw_column(column: TimelineColumn, frame: TimelineFrame, tip_id: str) -> Markup:
    """Draw a column that shows its values when it is pointed at, tapped or reached by keys."""
    width = min(max(map(len, column.lines)) * LETTER_WIDTH + 16, frame.width)
    center = (column.left + column.right) / 2
    left = min(max(center - width / 2, 0), frame.width - width)
    lines = Markup("").join(
        _draw_label(ChartLabel(left + 8, PLOT_TOP + 17 + TIP_LINE * number, line))
        for number, line in enumerate(column.lines)
    )
    area = (column.left, PLOT_TOP, column.right - column.left, BARS_BOTTOM - PLOT_TOP)
    return Markup(
        '<rect class="tl-hit" tabindex="0" role="img" aria-labelledby="{0}" x="{1}" y="{2}" '
        'width="{3}" height="{4}"/><g class="tl-tip" id="{0}">{5}{6}</g>'
    ).format(
        tip_id, *map(format_pixels, area),
        _draw_box("", left, width, PLOT_TOP + 2, TIP_LINE * len(column.lines) + 8), lines,
    )  # fmt: skip


def draw_small_timeline(timeline: CellTimeline, label: str) -> Markup:
    """Draw events, stages and who decided, 240 px wide and without numbers."""
    wide, _ = build_frames(timeline)
    frame = replace(wide, width=240, left=1, right=239)
    room = min(SMALL_MARK_SIZE + 1.5, frame.width / max(len(timeline.marks), 1))
    sizes = [room] * len(timeline.marks)
    centers = spread_centers([frame.x(mark.at) for mark in timeline.marks], sizes, 0, frame.width)
    marks = Markup("").join(
        Markup('<g class="tl-mark tl-{}">{}</g>').format(
            mark.tone or "other",
            _draw_mark_box(MarkBox(0, 0, x, room - 1.5, x), mark.tone, SMALL_MARK_SIZE),
        )
        for mark, x in zip(timeline.marks, centers, strict=True)
    )
    signs = Markup('<g transform="translate(0 {})">{}</g>').format(
        STRIP_Y - SMALL_MARK_SIZE // 2 - 3 - MARK_Y, marks
    )
    bars = Markup('<g transform="translate(0 {})">{}</g>').format(
        SMALL_BARS_TOP - BARS_TOP, Markup("").join(_draw_bars(timeline, frame))
    )
    top = STRIP_Y - SMALL_MARK_SIZE - 5
    return Markup(
        '<svg class="chart map tl" width="240" height="{0}" viewBox="0 {1} 240 {0}" role="img" '
        'aria-label="{2}">{3}{4}{5}</svg>'
    ).format(
        SMALL_BARS_TOP + BARS_BOTTOM - BARS_TOP - top + 1, top, label, signs,
        Markup("").join(_draw_stages(timeline, frame)), bars,
    )  # fmt: skip


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
        units_note: which units a version's figures are of.
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
    units_note: str = DECIDED_UNITS_TEXT


def build_timeline_view(
    timeline: CellTimeline, prefix: str, column_width: int = MIN_COLUMN_WIDTH
) -> TimelineView:
    """Return the view of a timeline; its ids begin with `prefix`."""
    first, last = (format_day(at, timeline.timezone) for at in (timeline.since, timeline.until))
    title = f"{timeline.cell_name} from {first} to {last}"
    text = describe_timeline(timeline)
    wide, narrow = draw_timeline(timeline, prefix, title, text, column_width)
    version_columns = [
        f"{version.version} {heading}"
        for version in timeline.versions
        for heading in ("decided units", timeline.measure, "bound")
    ]
    return TimelineView(
        prefix=prefix,
        name=timeline.cell_name,
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
    human, confirmed, model = (sum(getattr(b, name) for b in timeline.buckets) for name in DECIDERS)
    if not human + confirmed + model:
        return "No unit was counted here in this time."
    units = (
        f"{format_quantity(human + confirmed + model, 'unit')}: {format_count(model)} by the"
        f" model, {format_count(confirmed)} by humans who had its answer,"
        f" {format_count(human)} by humans alone."
    )
    sentences = [units]
    for version in timeline.versions:
        bounds = [point.bound for point in version.points if point.bound is not None]
        judged = sum(point.judged for point in version.points)
        bound_text = (
            f", bound at the end {format_timeline_bound(timeline, bounds[-1])}" if bounds else ""
        )
        sentences.append(
            f"{version.version}: {format_quantity(judged, 'decided unit')}{bound_text}."
        )
    if timeline.thresholds:
        sentences.append(f"In force now: {_list_thresholds(timeline)}.")
    return " ".join(sentences)


def _list_thresholds(timeline: CellTimeline) -> str:
    side = "at least" if timeline.at_least else "at most"
    return join_words(
        [
            f"{threshold.name} {side} {format_threshold(timeline.measure, threshold.value)}"
            for threshold in timeline.thresholds
        ]
    )


def _describe_batches(timeline: CellTimeline) -> str:
    if timeline.batch is None:
        return ""
    return (
        f"You may be given blind reviews here: on this page {timeline.measure} moves once"
        f" another {timeline.batch} units are decided, and the drawing has no bounds."
    )
