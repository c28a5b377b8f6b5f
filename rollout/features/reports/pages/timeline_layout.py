"""Where the parts of a cell's timeline lie, and the markers of stages.

Axes, marks and labels never overlap.

A stage's marker (code, pattern and text) is the same in the console and in reports.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from rollout.engine.words.formatting import (
    format_bound_value,
    format_count,
    format_day,
    format_estimate,
    format_local_time,
    format_quantity,
    format_threshold,
    is_amount,
)
from rollout.features.reports.figures.cell_timeline import HOUR
from rollout.features.reports.inputs.cell_facts import (
    CONFIRMED,
    HUMAN,
    MODEL,
    CellTimeline,
    TimelineBucket,
    TimelineThreshold,
    TimelineVersion,
)
from rollout.features.reports.pages.number_charts import (
    list_count_ticks,
    list_ticks,
    spread_centers,
)
from rollout.kernel.policy.stages import describe_share

MARK_Y, STRIP_Y, STRIP_HEIGHT = 16, 48, 22
PLOT_TOP, PLOT_BOTTOM, BARS_TOP, BARS_BOTTOM, HEIGHT = 92, 282, 312, 380, 406
MARK_SIZE: Final = 22
MAX_MARK_SHIFT: Final = 55
"""How far a mark may stand from its time; nearer ones become one mark then."""
MAX_SINGLE_MARKS: Final = 120
MAX_VERSIONS: Final = 4  # drawn; the table has all
LETTER_WIDTH: Final = 6.8  # of the widest usual letters at 12 px; bold ones are wider
BOLD_WIDTH: Final = 7.4
LINE_HEIGHT: Final = 13
ASCENT: Final = 10
SHORT_FROM: Final = 10_000
LINE_SHIFT: Final = 4  # from a line to the base line of the name at its end
MAX_NAME: Final = 11
"""Letters of a version's name; its whole name stands near the drawing."""

Box = tuple[float, float, float, float]


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

    @property
    def is_wide(self) -> bool:
        """Return whether names stand beside the plot; else the page's key has them."""
        return self.width - self.right > 60

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
        return (BARS_BOTTOM - BARS_TOP) * count / self.bar_ticks[-1]

    @property
    def bar_ticks(self) -> list[int]:
        """Return round counts from 0 to one that no bar exceeds, at most four.

        >>> [TimelineFrame("w", 9, 0, 9, 1, None, None, 0, 1, n).bar_ticks for n in (3, 92, 154)]
        [[0, 1, 2, 3], [0, 50, 100], [0, 100, 200]]
        """
        return list_count_ticks(self.highest_bar)


@dataclass(frozen=True, slots=True)
class ChartLabel:
    """A text in a drawing; `y` is its base line."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    css: str = ""

    @property
    def box(self) -> Box:
        """Return left, top, right and bottom, by the widest usual letters."""
        is_bold = "t-strong" in self.css or "tl-name" in self.css
        width = len(self.text) * (BOLD_WIDTH if is_bold else LETTER_WIDTH)
        left = self.x - {"start": 0.0, "middle": width / 2, "end": width}[self.anchor]
        return left, self.y - ASCENT, left + width, self.y + LINE_HEIGHT - ASCENT


@dataclass(frozen=True, slots=True)
class MarkBox:
    """A drawn mark: the first and last of the events that it stands for, and its place.

    Attributes:
        x: its center.
        width: with its line.
        at_x: where its first event lies in time.
    """

    first: int
    last: int
    x: float
    width: float
    at_x: float

    @property
    def text(self) -> str:
        """Return the numbers of the events, from 1."""
        return _format_numbers(self.first, self.last)


def build_frames(timeline: CellTimeline) -> tuple[TimelineFrame, TimelineFrame]:
    """Return the coordinates for wide and for narrow screens."""
    low, high = _find_range(timeline)
    highest = max((count_units(bucket) for bucket in timeline.buckets), default=0)
    values = (timeline.since, timeline.until, low, high, highest)
    return (
        TimelineFrame("w", 1160, 124, 1030, 8, *values),
        TimelineFrame("n", 326, 46, 320, 3, *values),
    )


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


def list_drawn_versions(timeline: CellTimeline) -> list[TimelineVersion]:
    """Return the versions that are drawn, the acting one first."""
    return sorted(timeline.versions, key=lambda version: not version.acting)[:MAX_VERSIONS]


def get_bucket_span(timeline: CellTimeline, number: int) -> tuple[datetime, datetime]:
    """Return begin and end of a bucket; the last one ends with the timeline."""
    start = timeline.buckets[number].since
    is_last = number + 1 >= len(timeline.buckets)
    return start, timeline.until if is_last else timeline.buckets[number + 1].since


def _format_numbers(first: int, last: int) -> str:
    return str(first + 1) if first == last else f"{first + 1}\N{EN DASH}{last + 1}"


def place_marks(timeline: CellTimeline, frame: TimelineFrame) -> list[MarkBox]:
    """Return the marks side by side, none over another, in the order of their numbers.

    A mark that would lie too far from its time is drawn together with its nearest neighbour.
    """
    places = [frame.x(mark.at) for mark in timeline.marks]
    if not places:
        return []
    groups: list[tuple[int, int]] = []
    for number, x in enumerate(places):
        has_many = len(places) > MAX_SINGLE_MARKS
        if has_many and groups and x - places[groups[-1][0]] < MARK_SIZE:
            groups[-1] = (groups[-1][0], number)
        else:
            groups.append((number, number))
    low = frame.left - MARK_SIZE / 2 if frame.is_wide else 1.0  # there the row has no name
    high = frame.right + MARK_SIZE / 2 - 6
    while True:
        texts = [_format_numbers(*group) for group in groups]
        sizes = [max(MARK_SIZE, 10 + LETTER_WIDTH * len(text)) + 2 for text in texts]
        at_xs = [places[first] for first, _ in groups]
        centers = spread_centers(at_xs, sizes, low, high)
        shifts = [abs(x - at_x) for x, at_x in zip(centers, at_xs, strict=True)]
        worst = max(range(len(groups)), key=shifts.__getitem__)
        if len(groups) == 1 or (shifts[worst] <= MAX_MARK_SHIFT and sum(sizes) <= high - low):
            break
        block = _find_touching(centers, sizes, worst)
        index = min(block, key=lambda number: at_xs[number + 1] - places[groups[number][1]])
        groups[index : index + 2] = [(groups[index][0], groups[index + 1][1])]
    return [
        MarkBox(first, last, x, size - 2, at_x)
        for (first, last), x, size, at_x in zip(groups, centers, sizes, at_xs, strict=True)
    ]


def _find_touching(centers: Sequence[float], sizes: Sequence[float], worst: int) -> list[int]:
    """Return the left marks of the pairs that touch in the row of the mark `worst`."""
    touches = [
        right - left <= (size + other) / 2 + 1e-6
        for (left, right), (size, other) in zip(pairwise(centers), pairwise(sizes), strict=True)
    ]
    first = last = worst
    while first > 0 and touches[first - 1]:
        first -= 1
    while last < len(touches) and touches[last]:
        last += 1
    return list(range(first, last)) or list(range(len(touches)))


def list_labels(timeline: CellTimeline, frame: TimelineFrame) -> list[ChartLabel]:
    """Return all texts but those in marks and stages: rows, ticks, dates, names, gaps."""
    return [
        *_list_row_names(timeline, frame),
        *_list_ticks(timeline, frame),
        *_list_dates(timeline, frame),
        *_list_line_names(timeline, frame),
        *_list_gap_names(timeline, frame),
    ]


def _list_row_names(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[ChartLabel]:
    """Yield what each row is: beside the wide drawing, above the rows of the narrow one."""
    if frame.is_wide:
        yield ChartLabel(0, MARK_Y + 4, "Events", css="t-strong")
        yield ChartLabel(0, STRIP_Y + 15, "Stage", css="t-strong")
    x = 0 if frame.is_wide else frame.left
    yield ChartLabel(x, PLOT_TOP - 8, timeline.measure.capitalize(), css="t-strong")
    yield ChartLabel(x, BARS_TOP - 10, f"Units per {timeline.bucket}", css="t-strong")


def _list_ticks(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[ChartLabel]:
    for value in list_ticks(frame.low, frame.high):
        text = (
            f"{value:g}" if is_amount(timeline.measure) else f"{value * 100:.0f}\N{NO-BREAK SPACE}%"
        )
        yield ChartLabel(frame.left - 5, frame.y(value) + 4, text, "end")
    if frame.highest_bar:
        for count in frame.bar_ticks:
            y = BARS_BOTTOM - frame.bar(count) + 4
            yield ChartLabel(frame.left - 5, y, format_tick_count(count), "end")


def format_tick_count(count: int) -> str:
    """Return a round count, short enough for the narrow margin.

    >>> format_tick_count(1500), format_tick_count(250_000), format_tick_count(1_500_000)
    ('1,500', '250k', '1.5m')
    """
    if count < SHORT_FROM:
        return format_count(count)
    return f"{count / 1e6:g}m" if count >= 1e6 else f"{count / 1e3:g}k"


def list_dates(timeline: CellTimeline, frame: TimelineFrame) -> list[datetime]:
    """Return the starts of buckets that the time axis names."""
    starts = [bucket.since for bucket in timeline.buckets]
    return starts[:: max(1, -(-len(starts) // frame.max_dates))]


def _list_dates(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[ChartLabel]:
    zone = ZoneInfo(timeline.timezone)
    for start in list_dates(timeline, frame):
        x, local = frame.x(start), start.astimezone(zone)
        text = f"{local:%H:%M}" if timeline.bucket == HOUR else f"{local.day} {local:%b}"
        anchor = "start" if x <= frame.left + 12 else "middle"
        yield ChartLabel(x, HEIGHT - 8, text, "end" if x > frame.right - 20 else anchor)


def _list_line_names(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[ChartLabel]:
    """Yield the names of thresholds and versions in the margin, spread where they would overlap.

    The narrow drawing has no margin, and in its plot names would lie over values.
    """
    if not frame.is_wide:
        return
    names = [
        (frame.y(threshold.value), name_threshold(timeline.measure, threshold), "t-strong")
        for threshold in timeline.thresholds
    ]
    names += [
        (frame.y(value), shorten_name(version.version), f"tl-name tl-{number}")
        for number, version in enumerate(list_drawn_versions(timeline))
        if (value := _find_last_value(version)) is not None
    ]
    yield from _spread_names(names, frame.right + 6)


def name_threshold(measure: str, threshold: TimelineThreshold) -> str:
    """Return a threshold's kind and value, such as `Gate 92 %`."""
    return f"{threshold.kind} {format_threshold(measure, threshold.value)}".capitalize()


def _spread_names(names: Sequence[tuple[float, str, str]], x: float) -> Iterator[ChartLabel]:
    """Yield names at their lines, none over another."""
    ordered = sorted(names, key=lambda name: name[0])
    middle = LINE_HEIGHT / 2 - ASCENT  # from the base line
    targets = [y + LINE_SHIFT + middle for y, _, _ in ordered]
    sizes = [LINE_HEIGHT + 0.5] * len(ordered)
    centers = spread_centers(targets, sizes, PLOT_TOP - 2, PLOT_BOTTOM + 8)
    for center, (_, text, css) in zip(centers, ordered, strict=True):
        yield ChartLabel(x, center - middle, text, css=css)


def shorten_name(name: str) -> str:
    """Return a version's name as far as it fits.

    >>> shorten_name("v1"), shorten_name("resnet50-2027-06")
    ('v1', 'resnet50-2…')
    """
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _find_last_value(version: TimelineVersion) -> float | None:
    """Return a version's last bound, else its last value."""
    bounds = [point.bound for point in version.points if point.bound is not None]
    values = [point.value for point in version.points if point.value is not None]
    return next(reversed(bounds or values), None)


def _list_gap_names(timeline: CellTimeline, frame: TimelineFrame) -> Iterator[ChartLabel]:
    for gap in timeline.gaps:
        if frame.is_wide:
            yield ChartLabel(frame.x(gap.since) + 6, PLOT_TOP - 8, "Shaded: records deleted")
        else:
            yield ChartLabel(frame.right, BARS_TOP - 10, "shaded: deleted", "end")


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
        ", ".join(
            f"{name} {format_count(sum(getattr(bucket, key) for bucket in buckets))}"
            for key, name in DECIDER_NAMES.items()
        ),
        *version_lines,
    )


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


EMPTY, HATCHED, SOLID, WITHHELD = "0", "1", "2", "held"
HUMANS_DECIDE: Final = "humans decide"
HUMANS_CONFIRM: Final = "humans confirm"
MODEL_DECIDES: Final = "model decides"


@dataclass(frozen=True, slots=True)
class StageMarker:
    """How a stage is drawn and described.

    Attributes:
        name: the stage's name in the policy.
        code: first two letters; three if two stages begin alike.
        pattern: `0` empty, `1` hatched, `2` solid, `held` bars: the classes and patterns of the
            maps.
        text: who decides at this stage.
    """

    name: str
    code: str
    pattern: str
    text: str


def build_markers(stages: Sequence[str], deciding: Mapping[str, float]) -> dict[str, StageMarker]:
    """Return a marker for each stage of a ladder, shadow first.

    Args:
        stages: the names, the lowest stage first.
        deciding: by those at which the model decides the share of cases drawn for it, 1 for all.
    """
    codes = compute_stage_codes(stages)
    markers = {}
    for level, name in enumerate(stages):
        if level == 0:
            pattern, text = EMPTY, HUMANS_DECIDE
        elif name in deciding:
            share = deciding[name]
            pattern = SOLID
            text = MODEL_DECIDES if share == 1 else describe_share("model", share)
        else:
            pattern, text = HATCHED, HUMANS_CONFIRM
        markers[name] = StageMarker(name, codes[name], pattern, text)
    return markers


def compute_stage_codes(names: Sequence[str]) -> dict[str, str]:
    """Return the shortest first letters that tell the stages apart.

    >>> compute_stage_codes(("shadow", "supervised", "autonomous"))
    {'shadow': 'Sh', 'supervised': 'Su', 'autonomous': 'Au'}
    """
    for letter_count in range(2, max(map(len, names)) + 1):
        codes = {name: name[:letter_count].capitalize() for name in names}
        if len(set(codes.values())) == len(names):
            return codes
    return {name: name for name in names}
