"""Charts of a report and of its engineer's page.

A report has the stage calendar, evidence against its threshold, and actions. The engineer's page
has reliability, risk by coverage, slices, drift and numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import inf
from typing import Any, TypeVar

from rollout.engine.words.formatting import (
    format_bound_value,
    format_cell_name,
    format_day,
    format_estimate,
    format_percent,
    format_quantity,
    format_signed,
    format_threshold,
    is_amount,
    is_difference,
)
from rollout.features.reports.figures.calibration import HUMANS, Calibration
from rollout.features.reports.figures.cell_timeline import CalendarBlock, SiteCalendar
from rollout.features.reports.figures.drift import Drift
from rollout.features.reports.figures.evidence_facts import EvidenceFacts
from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.figures.slices import SliceSearch, format_slice_name
from rollout.features.reports.inputs.inputs import ActionFrequencyChange
from rollout.features.reports.pages.number_charts import (
    ACCENT,
    ACCENT_SOFT,
    INK,
    NO_STAGE,
    RULE,
    SINGLE_ROW_DATA,
    SOFT,
    draw_difference_chart,
    draw_scatter_chart,
    draw_svg,
    get_stage_paints,
)
from rollout.features.reports.pages.timeline_layout import EMPTY, StageMarker, build_markers
from rollout.kernel.calendar.instants import SHADOW
from rollout.kernel.facts import EvidenceSeries
from rollout.kernel.units import group_pairs

MAX_PANELS = 24
MAX_POINTS = 90  # per curve of a small chart
MONTH_AXIS_DAYS = 300  # a longer axis has months
WIDE_MAP, NARROW_MAP = (1080, 34), (300, 56)  # width and height of a panel, in pixels
MIN_NAMED_WIDTH = 26  # pixels, of a block with the code of its stage
MAX_LETTER_WIDTH = 7.5  # pixels, of a name at an axis
DAY = timedelta(days=1)
DAY_AXIS: dict[str, Any] = {
    "title": None, "grid": False, "labelOverlap": "greedy", "labelSeparation": 6,
}  # fmt: skip
HEADER: dict[str, Any] = {
    "labelAngle": 0, "labelAlign": "left", "labelAnchor": "start", "labelOrient": "top",
    "labelPadding": 3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvidenceChart:
    """The chart of one condition of one version in one cell."""

    name: str
    condition: str
    latest_text: str
    svg: str


@dataclass(frozen=True, slots=True)
class ReportCharts:
    """All charts of a report; `omitted_count` counts evidence charts beyond the limit.

    Without vl-convert, `calendar` is None and the lists are empty.
    """

    calendar: str | None
    narrow_calendar: str | None
    evidence: tuple[EvidenceChart, ...]
    actions: tuple[tuple[str, str], ...]
    omitted_count: int


NO_CHARTS = ReportCharts(None, None, (), (), 0)


def draw_charts(facts: ReportFacts) -> ReportCharts:
    """Return every chart, or `NO_CHARTS` without vl-convert."""
    calendar = draw_calendar_chart(facts)
    if calendar is None:
        return NO_CHARTS
    panels = list(_select_evidence_panels(facts))
    zones = facts.identity.zones
    evidence = tuple(
        chart
        for index, (row, paths) in enumerate(panels[:MAX_PANELS])
        if (chart := draw_evidence_chart(row, paths, zones[row.site], prefix=f"e{index}"))
        is not None
    )
    return ReportCharts(
        calendar,
        draw_calendar_chart(facts, NARROW_MAP, "narrow-map"),
        evidence,
        tuple(_draw_action_charts(facts)),
        max(0, len(panels) - MAX_PANELS),
    )


def draw_calendar_chart(
    facts: ReportFacts, size: tuple[int, int] = WIDE_MAP, prefix: str = "map"
) -> str | None:
    """Return the map of stages over days and hours, one panel per site.

    Sites that never left shadow share one panel.
    """
    markers = build_report_markers(facts)
    first, last = _find_day_range(facts.calendar)
    panels = {
        format_cell_name(panel.site, panel.window) or panel.site: panel.stretches
        for panel in facts.calendar
        if any(block.stage not in (None, SHADOW) for block in panel.stretches)
    }
    shadow_count = len(facts.calendar) - len(panels)
    drawn_panels = dict(list(panels.items())[:MAX_PANELS])
    if shadow_count:
        name = (
            f"{format_quantity(shadow_count, 'site')} always in shadow" if panels else "every site"
        )
        drawn_panels[name] = (CalendarBlock(first, last - DAY, 0, 24, SHADOW),)
    days = (last - first).days
    rows = [
        _build_rectangle(panel_name, block, markers, days, size)
        for panel_name, blocks in drawn_panels.items()
        for block in blocks
    ]
    spec = {
        "data": {"values": rows},
        "facet": {"row": {"field": "panel", "sort": list(drawn_panels), "header": HEADER}},
        "spacing": 4,
        "spec": {
            "width": size[0],
            "height": size[1],
            "layer": [_build_rectangle_layer(days, size[0]), _build_name_layer()],
        },
    }
    return draw_svg(spec, prefix, "Stages over time", _describe_calendar(facts))


def _build_date_axis(days: int, ticks: int) -> dict[str, Any]:
    """Return the date format and tick count of an axis over so many days."""
    date_format = "%b %Y" if days > MONTH_AXIS_DAYS else "%-d %b"
    return {"format": date_format, "tickCount": max(1, min(days, ticks))}


def build_report_markers(facts: ReportFacts) -> dict[str, StageMarker]:
    """Return the marker of each stage of a report, shadow first."""
    stages = facts.policy.stages
    shares = zip(stages, facts.policy.model_shares, strict=True)
    return build_markers(stages, {stage: share for stage, share in shares if share is not None})


def _find_day_range(panels: tuple[SiteCalendar, ...]) -> tuple[date, date]:
    blocks = [block for panel in panels for block in panel.stretches]
    return min(block.first for block in blocks), max(block.last for block in blocks) + DAY


def _build_rectangle(
    panel: str,
    block: CalendarBlock,
    markers: Mapping[str, StageMarker],
    days: int,
    size: tuple[int, int],
) -> dict[str, Any]:
    marker = markers.get(block.stage or "")
    paints = get_stage_paints(marker.pattern if marker else EMPTY)
    if marker is None:
        paints |= {"fill": NO_STAGE, "edge": NO_STAGE}
    width = ((block.last - block.first).days + 1) * size[0] / days
    height = (block.end - block.start) * size[1] / 24
    code = marker.code if marker else ""
    return {
        "panel": panel,
        "first": block.first.isoformat(),
        "last": (block.last + DAY).isoformat(),
        "start": block.start,
        "end": block.end,
        **paints,
        "name": code if width >= MIN_NAMED_WIDTH and height >= 12 else "",
    }


def _build_rectangle_layer(days: int, width: int) -> dict[str, Any]:
    date_axis = {**DAY_AXIS, **_build_date_axis(days, width // 75)}
    hours = {"labelExpr": "datum.value + ':00'", "values": [0, 12, 24], "grid": False}
    return {
        "mark": {"type": "rect", "strokeWidth": 1},
        "encoding": {
            "x": {**_build_time_axis("first"), "axis": date_axis},
            "x2": {"field": "last"},
            "y": {
                "field": "start", "type": "quantitative", "axis": {**hours, "title": None},
                "scale": {"domain": [0, 24], "reverse": True, "nice": False},
            },
            "y2": {"field": "end"},
            "fill": {"field": "fill", "type": "nominal", "scale": None},
            "stroke": {"field": "edge", "type": "nominal", "scale": None},
        },
    }  # fmt: skip


def _build_name_layer() -> dict[str, Any]:
    transforms = [
        {"filter": "datum.name != ''"},
        {"calculate": "(datum.start + datum.end) / 2", "as": "hour"},
        {"calculate": "(toDate(datum.first) + toDate(datum.last)) / 2", "as": "middle"},
    ]
    return {
        "transform": transforms,
        "mark": {"type": "text", "baseline": "middle", "fontWeight": 600},
        "encoding": {
            "x": _build_time_axis("middle"),
            "y": {"field": "hour", "type": "quantitative"},
            "text": {"field": "name"},
            "color": {"field": "ink", "type": "nominal", "scale": None},
        },
    }


def _build_time_axis(field: str) -> dict[str, Any]:
    return {"field": field, "type": "temporal", "scale": {"type": "utc", "nice": False}}


def _describe_calendar(facts: ReportFacts) -> str:
    ends = [f"{cell.cell_name} ends {cell.stage}" for cell in facts.stages if cell.was_above_shadow]
    rest = "the others never left shadow" if len(ends) < len(facts.stages) else ""
    text = "; ".join([*ends, *([rest] if rest else [])])
    return f"Days across, hours of the site's clock down. {text}."


def _select_evidence_panels(
    facts: ReportFacts,
) -> Iterator[tuple[EvidenceFacts, list[EvidenceSeries]]]:
    """Yield each condition of each gate, version and cell, cells above shadow first."""
    order = sorted(facts.evidence, key=lambda item: (item.stage == SHADOW, not item.acting))
    for evidence in order:
        panels = group_pairs(
            ((path.to, path.condition), path) for path in evidence.path if path.bound
        )
        for paths in panels.values():
            yield evidence, paths


def draw_evidence_chart(
    evidence: EvidenceFacts, paths: list[EvidenceSeries], zone: str, *, prefix: str
) -> EvidenceChart | None:
    """Return the chart of a condition's estimate and bound over time, days in a time zone."""
    rows = list(_build_points(paths))
    last, threshold = paths[-1], paths[-1].threshold
    is_share = not is_amount(last.measure)
    low, high = _compute_range(rows, threshold, last.measure)
    axis = {"title": None, "format": ".0%" if is_share else ".2~f", "tickCount": 4}
    y = {"type": "quantitative", "axis": axis, "scale": {"domain": [low, high], "zero": False}}
    x = {
        **_build_time_axis("at"),
        "axis": {**DAY_AXIS, **_build_date_axis((last.at[-1] - paths[0].at[0]).days, 4)},
    }
    detail = {"field": "attempt", "type": "nominal"}
    spec = {
        "width": 250, "height": 110, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "area", "fill": ACCENT_SOFT, "opacity": 0.5, "clip": True},
             "encoding": {"x": x, "y": {"field": "bound", **y}, "y2": {"field": "estimate"},
                          "detail": detail}},
            {"mark": {"type": "line", "stroke": SOFT, "strokeWidth": 1, "clip": True},
             "encoding": {"x": x, "y": {"field": "estimate", **y}, "detail": detail}},
            {"mark": {"type": "line", "stroke": ACCENT, "strokeWidth": 2, "clip": True},
             "encoding": {"x": x, "y": {"field": "bound", **y}, "detail": detail}},
            {"mark": {"type": "rule", "stroke": INK, "strokeDash": [5, 4]}, "data": SINGLE_ROW_DATA,
             "encoding": {"y": {"datum": threshold, **y}}},
        ],
    }  # fmt: skip
    name = f"{evidence.cell_name}, {evidence.version}"
    text = _describe_latest_point(last)
    svg = draw_svg(spec, prefix, f"{name}: {last.condition}", text)
    condition = (
        f"gate to {last.to}: {last.condition}, risk {format_percent(last.risk, 2)},"
        f" since {format_day(last.at[0], zone)}"
    )
    return None if svg is None else EvidenceChart(name, condition, text, svg)


def _build_points(paths: list[EvidenceSeries]) -> Iterator[dict[str, Any]]:
    total = sum(len(path.at) for path in paths)
    for path in paths:
        step = max(1, -(-total // MAX_POINTS))
        for index in sorted({*range(0, len(path.at), step), len(path.at) - 1}):
            yield {
                "attempt": path.attempt,
                "at": int(path.at[index].timestamp() * 1000),
                "estimate": round(path.estimate[index], 4),
                "bound": round(path.bound[index], 4),
            }


def _compute_range(
    rows: list[dict[str, Any]], threshold: float, measure: str
) -> tuple[float, float]:
    """Return the ends of the axis, without the first volatile fifth of the points.

    A gain's early bounds are the lowest possible amount; the axis has the last one.
    """
    settled = rows[len(rows) // 5 :]
    bounds = [row["bound"] for row in (settled[-1:] if is_difference(measure) else settled)]
    values = [threshold, *bounds, *(row["estimate"] for row in settled)]
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or 0.05
    if is_difference(measure):
        return low - margin, high + margin
    return max(0.0, low - margin), min(inf if is_amount(measure) else 1.0, high + margin)


def _describe_latest_point(path: EvidenceSeries) -> str:
    is_met = path.bound[-1] >= path.threshold if path.at_least else path.bound[-1] <= path.threshold
    direction = "at least" if path.at_least else "at most"
    bound = format_bound_value(path.measure, path.bound[-1], path.threshold, at_least=path.at_least)
    estimate = format_estimate(path.measure, path.estimate[-1])
    is_mean = is_amount(path.measure) and not is_difference(path.measure)
    values = f"{'mean ' if is_mean else ''}{estimate}, {direction} {bound}"
    threshold = format_threshold(path.measure, path.threshold)
    return f"{values}; threshold {threshold} {'met' if is_met else 'not met'}, n {path.n[-1]:,}"


def _draw_action_charts(facts: ReportFacts) -> Iterator[tuple[str, str]]:
    """Yield each version with its chart of action changes."""
    for index, version in enumerate(dict.fromkeys(change.version for change in facts.actions)):
        changes = [change for change in facts.actions if change.version == version]
        svg = draw_action_chart(changes, prefix=f"a{index}")
        if svg is not None:
            yield version, svg


def draw_action_chart(changes: list[ActionFrequencyChange], *, prefix: str) -> str | None:
    """Return the chart of changes in action frequency, with intervals."""
    rows = [
        {
            "action": change.action,
            "change": change.change.per_100,
            "low": change.change.per_100 if change.change.low is None else change.change.low,
            "high": change.change.per_100 if change.change.high is None else change.change.high,
        }
        for change in changes
        if change.change.per_100 is not None
    ]
    if not rows:
        return None
    # Browser fonts can be wider than the layout font, so names need extra space.
    label_width = MAX_LETTER_WIDTH * max(len(change.action) for change in changes)
    y = {
        "field": "action", "type": "nominal", "sort": None,
        "axis": {"title": None, "minExtent": label_width, "labelLimit": 180},
    }  # fmt: skip
    spec = {
        "width": 360, "height": {"step": 20}, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "rule", "stroke": SOFT}, "data": SINGLE_ROW_DATA,
             "encoding": {"x": {"datum": 0}}},
            {"mark": {"type": "rule", "stroke": ACCENT, "strokeWidth": 2},
             "encoding": {"y": y, "x": _build_change_axis("low"), "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "fill": ACCENT, "size": 50, "opacity": 1},
             "encoding": {"y": y, "x": _build_change_axis("change")}},
        ],
    }  # fmt: skip
    largest = max(changes, key=lambda change: abs(change.change.per_100 or 0.0))
    text = (
        f"The largest change is {largest.action}: {format_signed(largest.change.per_100)} of 100"
        " cases."
    )
    return draw_svg(spec, prefix, f"Change in actions, {changes[0].version}", text)


def _build_change_axis(field: str) -> dict[str, Any]:
    axis = {"title": "change per 100 cases, model minus human", "format": "+~f", "grid": True}
    return {"field": field, "type": "quantitative", "axis": {**axis, "gridColor": RULE}}


T = TypeVar("T")

MAX_CHARTS = 8  # of each kind
MAX_ROWS = 12
WIDE_PADDING = {
    "left": 70,
    "right": 4,
    "top": 2,
    "bottom": 2,
}  # names are wider in a browser than measured
SHARE_AXIS: dict[str, Any] = {"format": ".0%", "tickCount": 5, "gridColor": RULE}


@dataclass(frozen=True, slots=True)
class FigureCharts:
    """Charts in the order of the facts; None without data and after the first eight."""

    reliability: tuple[str | None, ...]
    risk: tuple[str | None, ...]
    slices: tuple[str | None, ...]
    drift: str | None
    scatter: tuple[str | None, ...]
    difference: tuple[str | None, ...]


def draw_figure_charts(facts: ReportFacts) -> FigureCharts:
    """Return every chart; all None without vl-convert."""
    return FigureCharts(
        reliability=_draw_each(facts.calibrations, draw_reliability_chart, "cal"),
        risk=_draw_each(facts.calibrations, draw_risk_chart, "risk"),
        slices=_draw_each(facts.slice_searches, draw_slice_chart, "slice"),
        drift=draw_drift_chart(facts.drift.changes, prefix="drift"),
        scatter=_draw_each(facts.number_agreements, draw_scatter_chart, "pair"),
        difference=_draw_each(facts.number_agreements, draw_difference_chart, "gap"),
    )


def _draw_each(rows: Sequence[Any], draw_chart: Any, prefix: str) -> tuple[str | None, ...]:
    return tuple(
        draw_chart(row, prefix=f"{prefix}{index}") if index < MAX_CHARTS else None
        for index, row in enumerate(rows)
    )


def draw_reliability_chart(calibration: Calibration, *, prefix: str) -> str | None:
    """Return the reliability diagram; None without confidences."""
    rows = [
        {
            "sure": b.confidence,
            "right": b.right.rate,
            "low": b.right.rate if b.right.low is None else b.right.low,
            "high": b.right.rate if b.right.high is None else b.right.high,
        }
        for b in calibration.bins
        if b.confidence is not None
    ]
    if not rows:
        return None
    x, y = (
        _build_share_axis("sure", "confidence, mean of the bin"),
        _build_share_axis("right", "right"),
    )
    diagonal = {"values": [{"sure": 0, "right": 0}, {"sure": 1, "right": 1}]}
    spec = {
        "width": 250, "height": 170, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "line", "stroke": INK, "strokeDash": [5, 4]}, "data": diagonal,
             "encoding": {"x": x, "y": y}},
            {"mark": {"type": "rule", "stroke": ACCENT, "strokeWidth": 2},
             "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "fill": ACCENT, "size": 45, "opacity": 1},
             "encoding": {"x": x, "y": y}},
        ],
    }  # fmt: skip
    words = calibration.words
    title = f"{words.right.capitalize()} by confidence, {_name_comparison(calibration)}"
    text = (
        f"Mean confidence {format_percent(calibration.mean_confidence)}, {words.right}"
        f" {format_percent(calibration.right.rate)}, calibration error"
        f" {format_percent(calibration.ece)}. On the dashed line both are equal."
    )
    return draw_svg(spec, prefix, title, text)


def _name_comparison(calibration: Calibration) -> str:
    reference = "humans" if calibration.reference == HUMANS else "outcomes"
    return f"{calibration.version} against {reference}"


def draw_risk_chart(calibration: Calibration, *, prefix: str) -> str | None:
    """Return the risk–coverage curve; None without confidences."""
    rows = [{"share": p.share, "risk": p.risk, "bound": p.at_most} for p in calibration.curve]
    if not rows:
        return None
    words = calibration.words
    max_risk = min(
        1.0,
        1.1
        * max(calibration.largest_risk or 0.0, *(row["risk"] for row in rows[len(rows) // 2 :])),
    )
    x = _build_share_axis("share", "share decided, most confident first")
    y = {**_build_share_axis("risk", words.wrong), "scale": {"domain": [0, max_risk or 0.05]}}
    spec: dict[str, Any] = {
        "width": 250, "height": 170, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "area", "fill": ACCENT_SOFT, "opacity": 0.5, "clip": True},
             "encoding": {"x": x, "y": y, "y2": {"field": "bound"}}},
            {"mark": {"type": "line", "stroke": ACCENT, "strokeWidth": 2, "clip": True},
             "encoding": {"x": x, "y": y}},
        ],
    }  # fmt: skip
    if calibration.largest_risk is not None:
        mark = {"type": "rule", "stroke": INK, "strokeDash": [5, 4]}
        encoding = {"y": {"datum": calibration.largest_risk, "type": "quantitative"}}
        spec["layer"].append({"mark": mark, "data": SINGLE_ROW_DATA, "encoding": encoding})
    title = f"{words.wrong.capitalize()} among the most confident, {_name_comparison(calibration)}"
    share = format_percent(rows[-1]["risk"])
    text = f"Of all cases {share} are {words.wrong}; shaded: up to the upper bound."
    return draw_svg(spec, prefix, title, text)


def draw_slice_chart(search: SliceSearch, *, prefix: str) -> str | None:
    """Return the chart of divergent slices; None without any."""
    if not search.slices:
        return None
    rows = [
        {
            "name": format_slice_name(row.names),
            "share": row.share,
            "low": row.low,
            "high": row.high,
            "elsewhere": row.elsewhere,
        }
        for row in search.slices[:MAX_ROWS]
    ]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelLimit": 220},
    }
    x = {"type": "quantitative", "axis": {"title": "share that differs", **SHARE_AXIS}}
    spec = {
        "padding": WIDE_PADDING, "width": 330, "height": {"step": 24}, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "rule", "stroke": ACCENT, "strokeWidth": 2},
             "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "fill": ACCENT, "size": 50, "opacity": 1},
             "encoding": {"y": y, "x": {"field": "share", **x}}},
            {"mark": {"type": "tick", "color": SOFT, "thickness": 3, "size": 14, "opacity": 1},
             "encoding": {"y": y, "x": {"field": "elsewhere", **x}}},
        ],
    }  # fmt: skip
    text = f"Points with intervals: the slices; ticks: the rest. {search.slices[0].summary}"
    return draw_svg(spec, prefix, f"Slices that differ, {search.version}", text)


def draw_drift_chart(drifts: Sequence[Drift], *, prefix: str) -> str | None:
    """Return the chart of the largest drifts; None without any."""
    if not drifts:
        return None
    rows = [
        {"name": format_drift_name(row), "distance": row.distance, "chance": row.by_chance}
        for row in drifts[:MAX_ROWS]
    ]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelLimit": 260},
    }
    x = {
        "type": "quantitative",
        "axis": {"title": "distance, from 0 (equal) to 1", "gridColor": RULE},
    }
    spec = {
        "padding": WIDE_PADDING, "width": 330, "height": {"step": 22}, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "bar", "fill": ACCENT_SOFT, "height": 12},
             "encoding": {"y": y, "x": {"field": "chance", **x}}},
            {"mark": {"type": "point", "filled": True, "fill": ACCENT, "size": 50, "opacity": 1},
             "encoding": {"y": y, "x": {"field": "distance", **x}}},
        ],
    }  # fmt: skip
    text = f"Points: distances; bars: 95 % range by chance. {rows[0]['name']} is farthest."
    return draw_svg(spec, prefix, "Last days against the first", text)


def sample_rows(rows: Sequence[T], limit: int) -> list[T]:
    """Return at most `limit` evenly spaced rows, including the last.

    >>> sample_rows([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(rows) <= limit:
        return list(rows)
    step = (len(rows) - 1) / (limit - 1)
    return [rows[round(index * step)] for index in range(limit)]


def format_drift_name(row: Drift) -> str:
    """Format the name of a drift: `lisbon, model's answer digit, v1`."""
    feature = row.name if row.feature == "attribute" else f"{row.feature} {row.name}".strip()
    return ", ".join(part for part in (row.site, feature, row.version) if part)


def _build_share_axis(field: str, title: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "axis": {"title": title, **SHARE_AXIS},
    }
