"""The course of a detector as SVG on a log scale, and the same in a table.

The markup names classes; `tokens.css` sets colours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil, exp, floor, log, log10
from typing import Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from rollout.engine.words.formatting import NO_BREAK_SPACE, format_count, format_quantity
from rollout.features.reports.figures.incident_cause import CoursePoint, DetectorCourse
from rollout.features.reports.pages.number_charts import format_pixels

WIDE: Final = (810, 250, 70)  # width, height, left edge of the plot
NARROW: Final = (326, 230, 70)
TOP, BOTTOM_MARGIN, RIGHT_MARGIN = 26, 44, 12
TICK_HEIGHT: Final = 7
DATE_WIDTH: Final = 46
MAX_POWERS: Final = 6
MAX_PLAIN: Final = 1_000_000
LN_10: Final = log(10)


@dataclass(frozen=True, slots=True)
class DetectorView:
    """A detector's course as a page shows it: two drawings, their text, and a table of cells."""

    wide: Markup
    narrow: Markup
    text: str
    rows: tuple[tuple[datetime, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class _CourseFrame:
    """Coordinates: powers of ten from `low` to `high`, records up to `records`."""

    width: int
    height: int
    left: int
    low: int
    high: int
    records: int

    @property
    def right(self) -> int:
        return self.width - RIGHT_MARGIN

    @property
    def bottom(self) -> int:
        return self.height - BOTTOM_MARGIN

    def x(self, records: int) -> float:
        return self.left + (self.right - self.left) * records / self.records

    def y(self, power: float) -> float:
        return self.bottom - (self.bottom - TOP) * (power - self.low) / (self.high - self.low)


def build_detector_view(course: DetectorCourse, zone: str, prefix: str) -> DetectorView:
    """Return the view of a course; its ids begin with `prefix`, its days are those of `zone`."""
    powers = [log10(course.threshold), *(point.log_value / LN_10 for point in course.points)]
    low, high = floor(min(powers)), max(ceil(max(powers)), floor(min(powers)) + 1)
    text = _describe_course(course)
    wide, narrow = (
        _draw_course(
            course,
            _CourseFrame(*size, low, high, course.points[-1].records),
            zone,
            f"{prefix}-{name}",
            text,
        )
        for size, name in ((WIDE, "w"), (NARROW, "n"))
    )
    return DetectorView(wide, narrow, text, tuple(map(_build_row, course.points)))


def _describe_course(course: DetectorCourse) -> str:
    last = course.points[-1]
    counts = f"{format_count(last.against)} of {format_count(last.records)}"
    return (
        f"The detector of “{course.guard}” compares how likely the records are after a change with"
        f" how likely they are without one. Value at the alarm: {format_evidence(last.log_value)};"
        f" threshold: {format_count(round(course.threshold))}. By then {counts}"
        f" {course.counted}. Ticks at the bottom: records against the"
        " threshold."
    )


def format_evidence(log_value: float) -> str:
    r"""Format the value of a detector, given its natural logarithm, with three digits.

    >>> format_evidence(log(22_913)), format_evidence(log(0.0123)), format_evidence(800.0)
    ('22,900', '0.0123', '2.73\xa0×\xa010^347')
    """
    if log_value < log(MAX_PLAIN):
        value = exp(log_value)
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"
    power = floor(log_value / LN_10)
    digits = f"{10 ** (log_value / LN_10 - power):.2f}"
    return f"{digits}{NO_BREAK_SPACE}×{NO_BREAK_SPACE}10^{power}"


def _build_row(point: CoursePoint) -> tuple[datetime, str, str, str]:
    return (
        point.at,
        format_count(point.records),
        format_count(point.against),
        format_evidence(point.log_value),
    )


def _draw_course(
    course: DetectorCourse, frame: _CourseFrame, zone: str, chart_id: str, text: str
) -> Markup:
    parts = [
        *_draw_powers(frame),
        *_draw_days(course, frame, zone),
        *_draw_threshold(course, frame),
        *_draw_line(course, frame),
        *_draw_alarm(course, frame),
    ]
    return Markup(
        '<svg class="chart" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" '
        'aria-labelledby="{2}-t {2}-d"><title id="{2}-t">{3}</title><desc id="{2}-d">{4}</desc>\n'
        "{5}</svg>"
    ).format(
        frame.width, frame.height, chart_id, f"Detector of “{course.guard}”", text,
        Markup("\n").join(parts),
    )  # fmt: skip


def _draw_powers(frame: _CourseFrame) -> Iterator[Markup]:
    step = -(-(frame.high - frame.low) // MAX_POWERS)
    for power in range(frame.low, frame.high + 1, step):
        y = frame.y(power)
        yield _draw_rule("g-line", frame.left, frame.right, y)
        yield _draw_text(frame.left - 6, y + 4, format_evidence(power * LN_10), "end")
    yield _draw_rule("g-axis", frame.left, frame.right, frame.bottom)


def _draw_days(course: DetectorCourse, frame: _CourseFrame, zone: str) -> Iterator[Markup]:
    """Draw a tick and a date where days begin, and the number of records below."""
    starts: dict[str, float] = {}
    before = 0
    for point in course.points:
        local = point.at.astimezone(ZoneInfo(zone))
        starts.setdefault(f"{local.day} {local:%b}", frame.x(before))
        before = point.records
    labelled_days = _choose_days(starts, frame.right)
    for day, x in starts.items():
        yield Markup('<line class="g-axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            format_pixels(x), frame.bottom, frame.bottom + 5
        )
        if day in labelled_days:
            yield _draw_text(x, frame.bottom + 18, day, "start")
    yield _draw_text(
        frame.left,
        frame.height - 8,
        f"{format_quantity(frame.records, 'record')} in order",
        "start",
    )


def _choose_days(starts: Mapping[str, float], right: float) -> set[str]:
    """Return the days that have room for their name, the last and the first before others."""
    days = [day for day, x in starts.items() if x + DATE_WIDTH <= right]
    chosen_days: list[str] = []
    for day in [*days[-1:], *days[:1], *days[1:-1]]:
        if all(abs(starts[day] - starts[other]) >= DATE_WIDTH for other in chosen_days):
            chosen_days.append(day)
    return set(chosen_days)


def _draw_threshold(course: DetectorCourse, frame: _CourseFrame) -> Iterator[Markup]:
    y = frame.y(log10(course.threshold))
    yield _draw_rule("g-guard", frame.left, frame.right, y)
    label = f"Threshold {format_count(round(course.threshold))}"
    yield _draw_text(frame.left + 6, y - 5, label, "start", "t-strong")


def _draw_line(course: DetectorCourse, frame: _CourseFrame) -> Iterator[Markup]:
    """Draw the detector's values, and a tick where records count against the threshold."""
    pairs = [
        f"{format_pixels(frame.x(point.records))} {format_pixels(frame.y(point.log_value / LN_10))}"
        for point in course.points
    ]
    yield Markup('<path class="tl-bound tl-0" d="M{}"/>').format("L".join(pairs))
    ticks, against = "", 0
    for point in course.points:
        if point.against > against:
            ticks += f"M{format_pixels(frame.x(point.records))} {frame.bottom - TICK_HEIGHT}"
            ticks += f"v{TICK_HEIGHT}"
        against = point.against
    if ticks:
        yield Markup('<path class="det-against" d="{}"/>').format(ticks)


def _draw_alarm(course: DetectorCourse, frame: _CourseFrame) -> Iterator[Markup]:
    last = course.points[-1]
    y = frame.y(last.log_value / LN_10)
    yield Markup('<circle class="det-alarm" cx="{}" cy="{}" r="5"/>').format(
        format_pixels(frame.x(last.records)), format_pixels(y)
    )
    text = f"Alarm: {format_evidence(last.log_value)}"
    yield _draw_text(frame.right, TOP - 10, text, "end", "t-strong")


def _draw_rule(css_class: str, left: float, right: float, y: float) -> Markup:
    return Markup('<line class="{0}" x1="{1}" x2="{2}" y1="{3}" y2="{3}"/>').format(
        css_class, left, right, format_pixels(y)
    )


def _draw_text(x: float, y: float, text: str, anchor: str, css_class: str = "") -> Markup:
    attribute = Markup(' class="{}"').format(css_class) if css_class else ""
    return Markup('<text{} x="{}" y="{}" text-anchor="{}">{}</text>').format(
        attribute, format_pixels(x), format_pixels(y), anchor, text
    )
