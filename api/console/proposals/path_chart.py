"""Charts of evidence over time: estimate, always-valid bound and threshold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.console.page.figures import format_bound, name_measure
from api.console.page.text import capitalize_first
from rollout.core.policy.outcomes import GAIN
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.inputs.evidence_paths import EvidenceSeries
from rollout.reports.pages.svg import format_pixels, list_ticks
from rollout.reports.text.formatting import format_signed
from rollout.reports.text.value_text import COST_MEASURES, format_estimate, format_threshold

MAX_CHARTS = 6
RANGE_FACTOR = 2
WIDE_RANGE = 100  # of a gain: labels have no decimals, for which there is no room
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
        return self.left + (self.width - self.left - 10) * fraction

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

    Measures without an always-valid bound, such as parity, have none.
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
    measure = name_measure(path.condition, path.measure)
    title = f"{measure} of {facts.version}, towards {path.to}"
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
    is_amount = path.measure in {*COST_MEASURES, GAIN}
    estimate_text = f"{estimate} {'over' if is_amount else 'of'} {path.n[-1]:,}"
    bound_text = format_bound(path.measure, path.bound[-1], path.line, at_least=path.at_least)
    verb = "meets" if (path.bound[-1] >= path.line) == path.at_least else "does not meet"
    threshold = format_threshold(path.measure, path.line)
    edges = ("upper", "lower") if path.at_least else ("lower", "upper")
    kind = "gain" if path.measure == GAIN else "mean" if is_amount else "share"
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
    latest_values = (path.bound[-1], path.estimate[-1], path.line)
    if path.measure == GAIN:
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
            path.measure, path.bound[index], path.line, at_least=path.at_least
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
    width, height = frame.width - 10 - frame.left, frame.bottom - frame.top
    return Markup(
        '<clipPath id="{0}-c"><rect x="{1}" y="{2}" width="{3}" height="{4}"/></clipPath>'
        '<g clip-path="url(#{0}-c)">{5}</g>'
    ).format(chart_id, frame.left, frame.top, width, height, Markup("\n").join(lines))


def _draw_ruler(path: EvidenceSeries, frame: _ChartFrame) -> Iterable[Markup]:
    for value in list_ticks(frame.low, frame.high):
        y = frame.y(value)
        is_wide = path.measure == GAIN and frame.high - frame.low >= WIDE_RANGE
        label = (
            format_signed(value, 0) if is_wide else format_estimate(path.measure, round(value, 6))
        )
        yield Markup(
            '<line class="g-line" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
            '<text x="{3}" y="{4}" text-anchor="end">{5}</text>'
        ).format(
            frame.left,
            frame.width - 10,
            format_pixels(y),
            frame.left - 6,
            format_pixels(y + 4),
            label,
        )


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
    y = frame.y(path.line)
    return Markup(
        '<line class="g-gate" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
        '<text class="t-strong" x="{3}" y="{4}">threshold {5}</text>'
    ).format(
        frame.left, frame.width - 10, format_pixels(y), frame.left + 8, format_pixels(y - 6),
        format_threshold(path.measure, path.line),
    )  # fmt: skip


def _draw_dates(path: EvidenceSeries, frame: _ChartFrame, timezone: str) -> Iterable[Markup]:
    for at, anchor in ((path.at[0], "start"), (path.at[-1], "end")):
        local_time = at.astimezone(ZoneInfo(timezone))
        yield Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            format_pixels(frame.x(at)),
            frame.height - 8,
            anchor,
            f"{local_time.day} {local_time:%b %H:%M}",
        )
