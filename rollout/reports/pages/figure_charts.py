"""Charts of the engineer's page: reliability, risk by coverage, slices, drift, numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rollout.reports.figures.calibration import HUMANS, OUTCOMES, Calibration
from rollout.reports.figures.drift import Drift
from rollout.reports.figures.facts import ReportFacts
from rollout.reports.figures.slices import DivergentSlice, SliceSearch, format_slice_name
from rollout.reports.pages.number_charts import draw_difference_chart, draw_scatter_chart
from rollout.reports.pages.svg import (
    ACCENT,
    ACCENT_SOFT,
    INK,
    RULE,
    SINGLE_ROW_DATA,
    SOFT,
    draw_svg,
)
from rollout.reports.text.formatting import format_percent
from rollout.reports.text.truth_text import TruthWords, choose_words

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
    words = _choose_words(calibration)
    against = f"{calibration.version} against {_name(calibration)}"
    title = f"{words.right.capitalize()} by confidence, {against}"
    text = (
        f"Mean confidence {format_percent(calibration.mean_confidence)}, {words.right}"
        f" {format_percent(calibration.right.rate)}, calibration error"
        f" {format_percent(calibration.ece)}. On the dashed line both are equal."
    )
    return draw_svg(spec, prefix, title, text)


def _choose_words(calibration: Calibration) -> TruthWords:
    return choose_words(calibration.n * (calibration.reference == OUTCOMES), calibration.n)


def _name(calibration: Calibration) -> str:
    return "humans" if calibration.reference == HUMANS else "outcomes"


def draw_risk_chart(calibration: Calibration, *, prefix: str) -> str | None:
    """Return the risk–coverage curve; None without confidences."""
    rows = [{"share": p.share, "risk": p.risk, "bound": p.at_most} for p in calibration.curve]
    if not rows:
        return None
    words = _choose_words(calibration)
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
    against = f"{calibration.version} against {_name(calibration)}"
    title = f"{words.wrong.capitalize()} among the most confident, {against}"
    share = format_percent(rows[-1]["risk"])
    text = f"Of all cases {share} are {words.wrong}; shaded: up to the upper bound."
    return draw_svg(spec, prefix, title, text)


def draw_slice_chart(search: SliceSearch, *, prefix: str) -> str | None:
    """Return the chart of divergent slices; None without any."""
    if not search.slices:
        return None
    rows = [_build_slice_row(row) for row in search.slices[:MAX_ROWS]]
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


def _build_slice_row(row: DivergentSlice) -> dict[str, Any]:
    shares = {"share": row.share, "low": row.low, "high": row.high, "elsewhere": row.elsewhere}
    return {"name": format_slice_name(row.names), **shares}


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
    scale = {"domain": [0, 1]}
    return {
        "field": field,
        "type": "quantitative",
        "scale": scale,
        "axis": {"title": title, **SHARE_AXIS},
    }
