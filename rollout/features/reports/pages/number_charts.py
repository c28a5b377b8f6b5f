"""Inline SVG by vl-convert, charts of numbers, and the course of a detector as a page shows it.

Without vl-convert there are no charts but those of detectors, which are written here.

Numbers: the model's against the human's, and their differences (Bland–Altman).

The course of a detector is on a log scale, with the same in a table. Its markup names classes;
`tokens.css` sets colours.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from html import escape
from itertools import accumulate, pairwise
from math import ceil, exp, floor, log, log10
from typing import Any, Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from rollout.engine.words.formatting import (
    NO_BREAK_SPACE,
    format_count,
    format_number_value,
    format_quantity,
)
from rollout.features.reports.figures.agreement import NumberAgreement, NumberDifferences
from rollout.features.reports.figures.incident_cause import DetectorCourse
from rollout.kernel.units import Margin

_FIRST_SLOT = 987_100_000  # numbers from here on are slots: no size of a chart is as large
_SLOT_KEY = "slot"

Compiler = Callable[[str], Mapping[str, Any]]


def compile_chart(spec: Mapping[str, Any], compile_form: Compiler) -> str:
    """Return a Vega-Lite specification compiled to Vega, as JSON."""
    values: list[object] = []
    form = json.dumps(_take_values(spec, "", values))
    return json.dumps(_put_values(_compile_form(compile_form, form), values))


@lru_cache(maxsize=64)
def _compile_form(compile_form: Compiler, form: str) -> Mapping[str, Any]:
    return compile_form(form)


def _take_values(part: Any, key: str, values: list[object]) -> Any:
    """Return a part of a specification with slots, and append what they stand for."""
    if key == "data":
        return {"values": [{_SLOT_KEY: _add_slot(part["values"], values)}]}
    if key == "datum":
        return _add_slot(part, values)
    if key == "domain":
        return [_add_slot(end, values) for end in part]
    if isinstance(part, dict):
        return {name: _take_values(item, name, values) for name, item in part.items()}
    if isinstance(part, list):
        return [_take_values(item, "", values) for item in part]
    return part


def _add_slot(value: object, values: list[object]) -> int:
    values.append(value)
    return _FIRST_SLOT + len(values) - 1


def _put_values(part: Any, values: list[object]) -> Any:
    """Return a part of a compiled form with values in its slots."""
    if isinstance(part, dict):
        return {name: _put_values(item, values) for name, item in part.items()}
    if isinstance(part, list):
        if len(part) == 1 and isinstance(part[0], dict) and _SLOT_KEY in part[0]:
            return values[part[0][_SLOT_KEY] - _FIRST_SLOT]
        return [_put_values(item, values) for item in part]
    if isinstance(part, int) and part >= _FIRST_SLOT:
        return values[part - _FIRST_SLOT]
    return part


MAX_TICKS = 5
TICK_SIZES = (1, 2, 5, 10)
MAX_COUNT_STEPS = 3


def format_pixels(value: float) -> str:
    """Format a coordinate or length without needless decimals.

    >>> format_pixels(12.04), format_pixels(12.25)
    ('12', '12.2')
    """
    return f"{value:.1f}".removesuffix(".0")


def list_ticks(low: float, high: float) -> list[float]:
    """Return round values between two edges, at most six.

    >>> list_ticks(0.86, 1.0), list_ticks(0.0, 31.0)
    ([0.9, 0.95, 1.0], [0, 10, 20, 30])
    """
    span = high - low
    power = 10 ** floor(log10(span / MAX_TICKS))
    step = next(power * size for size in TICK_SIZES if span / (power * size) <= MAX_TICKS)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def list_count_ticks(highest: int) -> list[int]:
    """Return round counts from 0 to one that is at least `highest`, at most four.

    >>> list_count_ticks(0), list_count_ticks(92), list_count_ticks(154), list_count_ticks(3)
    ([0, 1], [0, 50, 100], [0, 100, 200], [0, 1, 2, 3])
    """
    power = 10 ** floor(log10(max(highest / MAX_COUNT_STEPS, 1)))
    step = next(power * size for size in TICK_SIZES if highest <= power * size * MAX_COUNT_STEPS)
    return [step * number for number in range(max(ceil(highest / step), 1) + 1)]


def spread_centers(
    targets: Sequence[float], sizes: Sequence[float], low: float, high: float
) -> list[float]:
    """Return centers that keep their order and don't overlap, nearest to `targets`.

    They lie between `low` and `high` if their sizes fit there together. This is the least-squares
    solution: pooling adjacent violators of the distances (Barlow et al., 1972).

    >>> spread_centers([50, 52, 90], [10, 10, 10], 0, 100)
    [46.0, 56.0, 90.0]
    >>> spread_centers([98, 99], [10, 10], 0, 100)
    [85.0, 95.0]
    """
    if not targets:
        return []
    half_steps = ((size + other) / 2 for size, other in pairwise(sizes))
    offsets = list(accumulate([sizes[0] / 2, *half_steps]))
    blocks: list[tuple[float, int]] = []
    for center, offset in zip(targets, offsets, strict=True):
        blocks.append((center - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (mean, count), (other, other_count) = blocks.pop(), blocks.pop()
            total = count + other_count
            blocks.append(((mean * count + other * other_count) / total, total))
    last_start = max(high - sum(sizes), low)
    starts = [min(max(mean, low), last_start) for mean, count in blocks for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
FONT = "system-ui, sans-serif"

# Placeholder colours, replaced by the tokens for light and dark mode. Their values are
# odd so that they occur nowhere else in a drawing.
PAINTS: Mapping[str, str] = {
    "#010a01": "var(--ink)",
    "#010a02": "var(--ink-2)",
    "#010a03": "var(--line)",
    "#010a04": "var(--primary)",
    "#010a05": "var(--shade-3)",
    "#010a06": "var(--surface)",
    "#010b00": "var(--stage-0)",
    "#010b01": "url(#p-1)",
    "#010b02": "var(--stage-2)",
    "#010b0f": "var(--sunken)",
    "#010c00": "var(--ink-2)",
    "#010c01": "var(--ink)",
    "#010c02": "var(--stage-2-ink)",
    "#010d00": "var(--stage-0-line)",
    "#010d01": "var(--stage-1-line)",
    "#010d02": "var(--stage-2)",
}
INK, SOFT, RULE, ACCENT, ACCENT_SOFT, PAGE = list(PAINTS)[:6]
NO_STAGE = "#010b0f"
SINGLE_ROW_DATA: dict[str, Any] = {"values": [{}]}  # a rule over more rows is drawn repeatedly


def get_stage_paints(pattern: str) -> dict[str, str]:
    """Return fill, edge and text colour of a stage pattern: `0` empty, `1` hatched, `2` solid."""
    return {"fill": f"#010b0{pattern}", "edge": f"#010d0{pattern}", "ink": f"#010c0{pattern}"}


PADDING: Final = {"left": 6, "top": 2, "right": 6, "bottom": 2}
"""The page's letters are a little wider than those that Vega measures."""
CONFIG: dict[str, Any] = {
    "font": FONT,
    "aria": False,
    "background": None,
    "view": {"stroke": None},
    "text": {"font": FONT, "fontSize": 11, "color": INK},
    "axis": {
        "labelColor": SOFT, "titleColor": SOFT, "labelFontSize": 11, "titleFontSize": 11,
        "labelFont": FONT, "titleFont": FONT, "titleFontWeight": "normal",
        "gridColor": RULE, "domainColor": RULE, "tickColor": RULE, "tickSize": 4,
        "labelLimit": 0,  # names have a limit at their axis; measuring numbers took a sixth
    },
    "header": {
        "labelColor": INK, "labelFont": FONT, "labelFontSize": 12, "labelFontWeight": 600,
        "title": None,
    },
}  # fmt: skip


def draw_svg(spec: Mapping[str, Any], prefix: str, title: str, description: str) -> str | None:
    """Return a Vega-Lite specification as inline SVG, None without vl-convert.

    Args:
        spec: without schema and config, which all charts share.
        prefix: prefix of all ids, unique on a page.
        title: accessible name.
        description: accessible description.
    """
    try:
        import vl_convert
    except ImportError:
        return None
    full_spec = {"$schema": SCHEMA, "config": CONFIG, "padding": PADDING, **spec}
    svg = _draw_vega(vl_convert.vega_to_svg, compile_chart(full_spec, vl_convert.vegalite_to_vega))
    return finish_svg(svg, prefix, title, description)


@lru_cache(maxsize=64)  # a report's pages for its three readers share their charts
def _draw_vega(draw: Callable[[str], str], spec: str) -> str:
    """Return the drawing of a specification; drawing costs 30 ms and more."""
    return draw(spec)


def finish_svg(svg: str, prefix: str, title: str, description: str) -> str:
    """Return a drawing with unique ids, page colours, short numbers and a title."""
    svg = svg[svg.index("<svg") :]
    svg = _rename_ids(svg, prefix)
    svg = re.sub(r' (?:d|transform|[xy]\d?|width|height|viewBox)="[^"]*"', _shorten_numbers, svg)
    svg = compact_svg(svg)
    for paint, variable in PAINTS.items():
        svg = svg.replace(paint, variable)
    attributes = f'role="img" aria-labelledby="{prefix}-title {prefix}-desc"'
    header = (
        f'<title id="{prefix}-title">{escape(title)}</title>'
        f'<desc id="{prefix}-desc">{escape(description)}</desc>'
    )
    end = svg.index(">")
    return f"<svg {attributes}{svg[len('<svg') : end]}>{header}{svg[end + 1 :]}"


def _rename_ids(svg: str, prefix: str) -> str:
    """Return a drawing with ids numbered from 1; vl-convert counts over all drawings.

    >>> _rename_ids('<clipPath id="clip7"/><g clip-path="url(#clip7)"/>', "a0")
    '<clipPath id="a0-1"/><g clip-path="url(#a0-1)"/>'
    """
    ids = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))
    names = {old_id: f"{prefix}-{number}" for number, old_id in enumerate(ids, start=1)}
    svg = re.sub(r'\bid="([^"]+)"', lambda match: f'id="{names[match[1]]}"', svg)
    return re.sub(r"url\(#([^)]+)\)", lambda match: f"url(#{names.get(match[1], match[1])})", svg)


def _shorten_numbers(attribute: re.Match[str]) -> str:
    """Return an attribute with coordinates rounded to a tenth of a pixel."""
    return re.sub(r"-?\d+\.\d{2,}", lambda match: f"{float(match[0]):.1f}", attribute[0])


def compact_svg(svg: str) -> str:
    """Return a drawing without invisible parts: empty shapes, group names, defaults."""
    svg = re.sub(r'<path[^>]* d="(?:M0,0h0v0h0Z)?"[^>]*/>', "", svg)
    svg = re.sub(
        r' (?:class|role|aria-[a-z]+|pointer-events|version|font-family|xmlns:xlink)="[^"]*"',
        "",
        svg,
    )
    svg = re.sub(r' (?:transform="translate\(0,0\)"|opacity="1"|[xy]2?="0")', "", svg)
    while "<g></g>" in svg or "<g><g>" in svg:
        previous = svg
        svg = re.sub(r"<g></g>", "", svg)
        svg = re.sub(r"<g><g>((?:(?!</?g[ >]).)*)</g></g>", r"<g>\1</g>", svg)
        if svg == previous:
            return svg
    return svg


SIZE = {"width": 250, "height": 170}
POINT = {"type": "point", "filled": True, "fill": ACCENT, "size": 12, "opacity": 0.6, "clip": True}
BAND = {"type": "area", "fill": ACCENT_SOFT, "opacity": 0.35, "clip": True}
DASHED = {"type": "line", "stroke": INK, "strokeDash": [5, 4], "clip": True}
MAX_RELATIVE_TICKS = 5


def choose_differences(numbers: NumberAgreement) -> NumberDifferences:
    """Return the differences in the tolerance's own terms: percent, or the lever's unit."""
    return numbers.relative if numbers.relative_tolerance else numbers.differences


def draw_scatter_chart(numbers: NumberAgreement, *, prefix: str) -> str | None:
    """Return the model's numbers against the human's; None without pairs."""
    if not numbers.points:
        return None
    values = [value for point in numbers.points for value in (point.human, point.model)]
    low, high = _widen(min(values), max(values))
    margin = Margin(numbers.tolerance_amount, numbers.relative_tolerance)
    band = [
        {"x": x, "low": x - margin.compute_distance(x), "high": x + margin.compute_distance(x)}
        for x in sorted({low, min(max(0.0, low), high), high})
    ]
    x = _build_axis("x", "human", numbers.unit, low, high)
    y = _build_axis("y", "model", numbers.unit, low, high)
    points = [{"x": point.human, "y": point.model} for point in numbers.points]
    spec = {
        **SIZE,
        "layer": [
            {"mark": BAND, "data": {"values": band},
             "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": DASHED, "data": {"values": [{"x": low, "y": low}, {"x": high, "y": high}]},
             "encoding": {"x": x, "y": y}},
            {"mark": POINT, "data": {"values": points}, "encoding": {"x": x, "y": y}},
        ],
    }  # fmt: skip
    text = f"{describe_points(numbers)} On the dashed line both are equal; shaded: the tolerance."
    return draw_svg(spec, prefix, f"Numbers of {numbers.version} and humans", text)


def draw_difference_chart(numbers: NumberAgreement, *, prefix: str) -> str | None:
    """Return the differences by the mean of both numbers; None without pairs."""
    rows = [
        {"x": (point.human + point.model) / 2, "y": difference}
        for point in numbers.points
        if (difference := _compute_difference(numbers, point.human, point.model)) is not None
    ]
    if not rows:
        return None
    differences = choose_differences(numbers)
    tolerance = numbers.tolerance_amount * (100 if numbers.relative_tolerance else 1)
    lines = [
        estimate.value
        for estimate in (differences.lower, differences.upper)
        if estimate.value is not None
    ]
    heights = [*(row["y"] for row in rows), *lines, -tolerance, tolerance]
    means = [row["x"] for row in rows]
    x = _build_axis("x", "mean of both", numbers.unit, *_widen(min(means), max(means)))
    y = _build_axis("y", "model − human", differences.unit, *_widen(min(heights), max(heights)))
    band = [{"x": end, "low": -tolerance, "high": tolerance} for end in x["scale"]["domain"]]
    spec = {
        **SIZE,
        "layer": [
            {"mark": BAND, "data": {"values": band},
             "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            _build_rule(0.0, y, stroke=SOFT),
            {"mark": POINT, "data": {"values": rows}, "encoding": {"x": x, "y": y}},
            *(_build_rule(line, y, stroke=INK, strokeDash=[5, 4]) for line in lines),
            _build_rule(differences.bias.value, y, stroke=ACCENT, strokeWidth=2),
        ],
    }  # fmt: skip
    bias = format_number_value(differences.bias.value, differences.unit)
    text = (
        f"{describe_points(numbers)} Line: the bias, {bias}; dashed: the limits of agreement;"
        " shaded: the tolerance."
    )
    return draw_svg(spec, prefix, f"Differences of {numbers.version} from humans", text)


def describe_points(numbers: NumberAgreement) -> str:
    """Describe how many pairs are drawn."""
    drawn, n = len(numbers.points), numbers.concordance.n
    if drawn == n:
        return f"All {format_count(n)} pairs."
    return f"{format_count(drawn)} of {format_count(n)} pairs, evenly by difference."


def _compute_difference(numbers: NumberAgreement, human: float, model: float) -> float | None:
    if not numbers.relative_tolerance:
        return model - human
    return 100 * (model - human) / abs(human) if human else None


def _widen(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis with a margin, also for a single value."""
    margin = 0.03 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _build_axis(field: str, name: str, unit: str, low: float, high: float) -> dict[str, Any]:
    title = ", ".join(filter(None, (name, unit)))
    axis = {"title": title, "tickCount": MAX_RELATIVE_TICKS, "gridColor": RULE}
    scale = {"domain": [low, high], "nice": False, "zero": False}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def _build_rule(height: float | None, y: dict[str, Any], **stroke: Any) -> dict[str, Any]:
    encoding = {name: y[name] for name in ("type", "scale", "axis")}
    return {
        "mark": {"type": "rule", **stroke},
        "data": SINGLE_ROW_DATA,
        "encoding": {"y": {"datum": height, **encoding}},
    }


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
    powers = [log10(course.threshold), *(point.value_log10 for point in course.points)]
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
    rows = (
        (
            point.at,
            format_count(point.records),
            format_count(point.against),
            format_evidence(point.log_value),
        )
        for point in course.points
    )
    return DetectorView(wide, narrow, text, tuple(rows))


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
        rounded = float(f"{exp(log_value):.3g}")
        return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"
    power = floor(log_value / LN_10)
    digits = f"{10 ** (log_value / LN_10 - power):.2f}"
    return f"{digits}{NO_BREAK_SPACE}×{NO_BREAK_SPACE}10^{power}"


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
        yield draw_rule("g-line", frame.left, frame.right, y)
        yield _draw_text(frame.left - 6, y + 4, format_evidence(power * LN_10), "end")
    yield draw_rule("g-axis", frame.left, frame.right, frame.bottom)


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
    yield draw_rule("g-guard", frame.left, frame.right, y)
    label = f"Threshold {format_count(round(course.threshold))}"
    yield _draw_text(frame.left + 6, y - 5, label, "start", "t-strong")


def _draw_line(course: DetectorCourse, frame: _CourseFrame) -> Iterator[Markup]:
    """Draw the detector's values, and a tick where records count against the threshold."""
    pairs = [
        f"{format_pixels(frame.x(point.records))} {format_pixels(frame.y(point.value_log10))}"
        for point in course.points
    ]
    yield Markup('<path class="tl-bound tl-0" d="M{}"/>').format("L".join(pairs))
    counts = [0, *(point.against for point in course.points)]
    ticks = [
        f"M{format_pixels(frame.x(point.records))} {frame.bottom - TICK_HEIGHT}v{TICK_HEIGHT}"
        for point, (before, after) in zip(course.points, pairwise(counts), strict=True)
        if after > before
    ]
    if ticks:
        yield Markup('<path class="det-against" d="{}"/>').format("".join(ticks))


def _draw_alarm(course: DetectorCourse, frame: _CourseFrame) -> Iterator[Markup]:
    last = course.points[-1]
    yield Markup('<circle class="det-alarm" cx="{}" cy="{}" r="5"/>').format(
        format_pixels(frame.x(last.records)), format_pixels(frame.y(last.value_log10))
    )
    text = f"Alarm: {format_evidence(last.log_value)}"
    yield _draw_text(frame.right, TOP - 10, text, "end", "t-strong")


def draw_rule(css_class: str, left: float, right: float, y: float) -> Markup:
    """Draw a horizontal line."""
    return Markup('<line class="{0}" x1="{1}" x2="{2}" y1="{3}" y2="{3}"/>').format(
        css_class, left, right, format_pixels(y)
    )


def _draw_text(x: float, y: float, text: str, anchor: str, css_class: str = "") -> Markup:
    attribute = Markup(' class="{}"').format(css_class) if css_class else ""
    return Markup('<text{} x="{}" y="{}" text-anchor="{}">{}</text>').format(
        attribute, format_pixels(x), format_pixels(y), anchor, text
    )
