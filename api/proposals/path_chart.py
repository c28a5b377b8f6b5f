"""Charts of evidence over time: estimate, always-valid bound and threshold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.web_kit.figures import format_bound, name_measure
from rollout.engine.words.formatting import (
    NO_BREAK_SPACE,
    capitalize_first,
    format_estimate,
    format_signed,
    format_threshold,
    is_amount,
    is_difference,
)
from rollout.features.reports.figures.evidence_facts import EvidenceFacts
from rollout.features.reports.pages.number_charts import format_pixels, list_ticks
from rollout.kernel.facts import EvidenceSeries

MAX_CHARTS = 6
RANGE_FACTOR = 2
RIGHT_MARGIN = 10
MAX_DIGITS = 4  # of the ticks
LETTER_WIDTH, LETTER_HEIGHT, LETTER_ASCENT = 7.4, 13, 10  # of bold letters at 12 px
NAME_GAP, NAME_STEP = 3, 24  # between a line and its name; between places that are tried
MAX_TABLE_ROWS = 8
"""Maximum number of looks in the table beside a chart."""


@dataclass(frozen=True, slots=True)
class EvidenceLook:
    """One row of the table beside a chart."""

    at: datetime
    n: int
    estimate: str
    bound: str


@dataclass(frozen=True, slots=True)
class EvidencePathChart:
    """A chart in two widths, with title, description and table."""

    title: str
    text: str
    wide: Markup
    narrow: Markup
    looks: tuple[EvidenceLook, ...]


@dataclass(frozen=True, slots=True)
class _ChartFrame:
    """Size of a drawing, and the values at its lower and upper edge."""

    width: int
    height: int
    low: float
    high: float
    first: datetime
    last: datetime
    left: int = 52
    top: int = 14

    def x(self, at: datetime) -> float:
        total_seconds = (self.last - self.first).total_seconds() or 1.0
        fraction = (at - self.first).total_seconds() / total_seconds
        return self.left + (self.width - self.left - RIGHT_MARGIN) * fraction

    def y(self, value: float) -> float:
        fraction = (value - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * fraction

    @property
    def bottom(self) -> float:
        return self.height - 30


def build_path_charts(
    evidence: Iterable[EvidenceFacts], timezone: str
) -> tuple[EvidencePathChart, ...]:
    """Return a chart for each version and condition of the latest gate.

    Measures without an always-valid bound have none.
    """
    charts = [
        _build_chart(facts, path, f"{version_index}-{path_index}", timezone)
        for version_index, facts in enumerate(evidence)
        for path_index, path in enumerate(_select_latest_paths(facts.path))
    ]
    return tuple(charts[:MAX_CHARTS])


def _select_latest_paths(paths: Sequence[EvidenceSeries]) -> list[EvidenceSeries]:
    """Return the latest path of each condition that can be drawn."""
    latest = {path.condition: path for path in paths if len(path.at) > 1 and path.bound}
    return list(latest.values())


def _build_chart(
    facts: EvidenceFacts, path: EvidenceSeries, chart_id: str, timezone: str
) -> EvidencePathChart:
    title = f"{name_measure(path.name, path.unit)} of {facts.version}, towards {path.to}"
    if path.attempt != facts.attempt:
        title += " (an earlier attempt, which has ended)"
    description = _describe_path(path)
    low, high = _compute_range(path)
    frame_values = (low, high, path.at[0], path.at[-1])
    return EvidencePathChart(
        title=capitalize_first(title),
        text=description,
        wide=_draw_path(
            path, _ChartFrame(660, 250, *frame_values), f"w{chart_id}", title, description, timezone
        ),
        narrow=_draw_path(
            path, _ChartFrame(300, 210, *frame_values), f"n{chart_id}", title, description, timezone
        ),
        looks=tuple(_list_looks(path)),
    )


def _describe_path(path: EvidenceSeries) -> str:
    estimate = format_estimate(path.measure, path.estimate[-1])
    counts_amounts = is_amount(path.measure)
    estimate_text = f"{estimate} {'over' if counts_amounts else 'of'} {path.n[-1]:,}"
    bound_text = format_bound(path.measure, path.bound[-1], path.threshold, at_least=path.at_least)
    verb = "meets" if (path.bound[-1] >= path.threshold) == path.at_least else "does not meet"
    threshold = format_threshold(path.measure, path.threshold)
    edges = ("upper", "lower") if path.at_least else ("lower", "upper")
    kind = "mean" if counts_amounts else "share"
    kind = "gain" if is_difference(path.measure) else kind
    band_text = f"The band's {edges[0]} edge is the {kind} so far, its {edges[1]} edge the bound."
    low, high = _compute_range(path)
    is_cut = not all(low <= value <= high for value in (*path.estimate, *path.bound))
    cut_text = " The first evaluations lie outside the drawing." if is_cut else ""
    return (
        f"At the last evaluation {estimate_text}, {bound_text};"
        f" that {verb} the threshold of {threshold}. {band_text}{cut_text}"
    )


def _compute_range(path: EvidenceSeries) -> tuple[float, float]:
    """Return the edge values; a few early looks may lie outside."""
    latest_values = (path.bound[-1], path.estimate[-1], path.threshold)
    if is_difference(path.measure):
        margin = (max(latest_values) - min(latest_values)) / 2 or 1.0
        return min(latest_values) - margin, max(latest_values) + margin
    if path.at_least:
        return max(0.0, 1 - RANGE_FACTOR * (1 - min(latest_values))), 1.0
    return 0.0, RANGE_FACTOR * max(latest_values) or 1.0


def _list_looks(path: EvidenceSeries) -> Iterable[EvidenceLook]:
    step = max(1, -(-len(path.at) // MAX_TABLE_ROWS))
    indexes = sorted({*range(0, len(path.at), step), len(path.at) - 1})
    for index in indexes:
        bound_text = format_bound(
            path.measure, path.bound[index], path.threshold, at_least=path.at_least
        )
        yield EvidenceLook(
            path.at[index],
            path.n[index],
            format_estimate(path.measure, path.estimate[index]),
            bound_text,
        )


def _draw_path(
    path: EvidenceSeries,
    frame: _ChartFrame,
    chart_id: str,
    title: str,
    description: str,
    timezone: str,
) -> Markup:
    lines = [
        _draw_band(path, frame),
        _draw_line("g-est", path.at, path.estimate, frame),
        _draw_line("g-low", path.at, path.bound, frame),
    ]
    parts = [
        *_draw_ruler(path, frame),
        _clip_to_plot(lines, frame, chart_id),
        _draw_threshold(path, frame),
        *_draw_dates(path, frame, timezone),
    ]
    return Markup(
        '<svg class="chart" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" '
        'aria-labelledby="{2}-t {2}-d"><title id="{2}-t">{3}</title><desc id="{2}-d">{4}</desc>\n'
        "{5}</svg>"
    ).format(frame.width, frame.height, chart_id, title, description, Markup("\n").join(parts))


def _clip_to_plot(lines: Sequence[Markup], frame: _ChartFrame, chart_id: str) -> Markup:
    """Cut lines off at the edges; a line along an edge would look like a value."""
    width, height = frame.width - RIGHT_MARGIN - frame.left, frame.bottom - frame.top
    return Markup(
        '<clipPath id="{0}-c"><rect x="{1}" y="{2}" width="{3}" height="{4}"/></clipPath>'
        '<g clip-path="url(#{0}-c)">{5}</g>'
    ).format(chart_id, frame.left, frame.top, width, height, Markup("\n").join(lines))


def _draw_ruler(path: EvidenceSeries, frame: _ChartFrame) -> Iterable[Markup]:
    values = list_ticks(frame.low, frame.high)
    for value, label in zip(values, _format_ticks(path.measure, values), strict=True):
        y = frame.y(value)
        yield Markup(
            '<line class="g-line" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
            '<text x="{3}" y="{4}" text-anchor="end">{5}</text>'
        ).format(
            frame.left,
            frame.width - RIGHT_MARGIN,
            format_pixels(y),
            frame.left - 6,
            format_pixels(y + 4),
            label,
        )


def _format_ticks(measure: str, values: Sequence[float]) -> list[str]:
    r"""Format round values with as many decimals as the finest needs.

    >>> _format_ticks("agreement", [0.9, 0.95, 1.0]), _format_ticks("cost", [0.0, 0.1, 0.2])
    (['90\xa0%', '95\xa0%', '100\xa0%'], ['0.0', '0.1', '0.2'])
    """
    is_share = not is_amount(measure)
    scaled = [value * 100 if is_share else value for value in values]
    digits = next(
        (
            digits
            for digits in range(MAX_DIGITS)
            if all(abs(v - round(v, digits)) < 1e-9 for v in scaled)
        ),
        MAX_DIGITS,
    )
    if is_difference(measure):
        return [format_signed(value, digits) for value in scaled]
    unit = f"{NO_BREAK_SPACE}%" if is_share else ""
    return [f"{value:,.{digits}f}{unit}" for value in scaled]


def _build_step_path(at: Sequence[datetime], values: Sequence[float], frame: _ChartFrame) -> str:
    """Return an SVG path in steps: a value holds until the next look."""
    start = f"M{format_pixels(frame.x(at[0]))} {format_pixels(frame.y(values[0]))}"
    later_points = zip(at[1:], values[1:], strict=True)
    return start + "".join(
        f"H{format_pixels(frame.x(instant))}V{format_pixels(frame.y(value))}"
        for instant, value in later_points
    )


def _draw_line(
    css_class: str, at: Sequence[datetime], values: Sequence[float], frame: _ChartFrame
) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(
        css_class, _build_step_path(at, values, frame)
    )


def _draw_band(path: EvidenceSeries, frame: _ChartFrame) -> Markup:
    upper_path = _build_step_path(path.at, path.estimate, frame)
    lower_path = "".join(
        f"V{format_pixels(frame.y(value))}H{format_pixels(frame.x(previous))}"
        for value, previous in zip(reversed(path.bound[:-1]), reversed(path.at[:-1]), strict=True)
    )
    return Markup('<path class="g-band" d="{}{}Z"/>').format(upper_path, lower_path)


def _draw_threshold(path: EvidenceSeries, frame: _ChartFrame) -> Markup:
    y = frame.y(path.threshold)
    text = f"threshold {format_threshold(path.measure, path.threshold)}"
    left, top = _find_free_place(path, frame, len(text) * LETTER_WIDTH)
    return Markup(
        '<line class="g-gate" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
        '<text class="t-strong g-name" x="{3}" y="{4}">{5}</text>'
    ).format(
        frame.left, frame.width - RIGHT_MARGIN, format_pixels(y), format_pixels(left),
        format_pixels(top + LETTER_ASCENT), text,
    )  # fmt: skip


def _find_free_place(path: EvidenceSeries, frame: _ChartFrame, width: float) -> tuple[float, float]:
    """Return left and top of the threshold's name: beside its line, over no other line.

    If there is no such place it is the first one.
    """
    y, last = frame.y(path.threshold), frame.width - RIGHT_MARGIN - width
    tops = [
        top
        for top in (y - NAME_GAP - LETTER_HEIGHT, y + NAME_GAP)
        if frame.top <= top and top + LETTER_HEIGHT <= frame.bottom
    ]
    lefts = range(frame.left + 8, max(int(last), frame.left + 9), NAME_STEP)
    lines = [
        box
        for values in (path.estimate, path.bound)
        for box in _list_line_boxes(path.at, values, frame)
    ]
    places = [(float(left), top) for top in tops for left in lefts]
    for left, top in places:
        right, bottom = left + width, top + LETTER_HEIGHT
        if not any(
            x1 < right and left < x2 and y1 < bottom and top < y2 for x1, y1, x2, y2 in lines
        ):
            return left, top
    return places[0] if places else (float(frame.left + 8), y - NAME_GAP - LETTER_HEIGHT)


def _list_line_boxes(
    at: Sequence[datetime], values: Sequence[float], frame: _ChartFrame
) -> Iterable[tuple[float, float, float, float]]:
    """Yield left, top, right and bottom of each level and step of a line, with its width."""
    xs, ys = [frame.x(instant) for instant in at], [frame.y(value) for value in values]
    for number, (x, y) in enumerate(zip(xs, ys, strict=True)):
        end = xs[number + 1] if number + 1 < len(xs) else x
        yield x - 1, y - 1, end + 1, y + 1
        if number + 1 < len(ys):
            yield end - 1, min(y, ys[number + 1]), end + 1, max(y, ys[number + 1])


def _draw_dates(path: EvidenceSeries, frame: _ChartFrame, timezone: str) -> Iterable[Markup]:
    for at, anchor in ((path.at[0], "start"), (path.at[-1], "end")):
        local_time = at.astimezone(ZoneInfo(timezone))
        yield Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            format_pixels(frame.x(at)),
            frame.height - 8,
            anchor,
            f"{local_time.day} {local_time:%b %H:%M}",
        )
