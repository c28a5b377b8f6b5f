"""The charts of the engineer's figures: confidence, risk by coverage, slices, drift."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rollout.reports.figures.calibration import Calibration
from rollout.reports.figures.drift import Drift
from rollout.reports.figures.facts import Facts
from rollout.reports.figures.slices import FoundSlice, SliceSearch, name_words
from rollout.reports.pages.svg import ACCENT, ACCENT_SOFT, INK, RULE, SOFT, draw
from rollout.reports.text.formatting import per_cent

T = TypeVar("T")

MOST_PANELS = 8  # of each kind
MOST_ROWS = 12
ONCE: dict[str, Any] = {"values": [{}]}  # else a line is drawn once for every row of data
WIDE = {"left": 70, "right": 4, "top": 2, "bottom": 2}  # names are wider in a browser than measured
SHARES: dict[str, Any] = {"format": ".0%", "tickCount": 5, "gridColor": RULE}


@dataclass(frozen=True, slots=True)
class FigureCharts:
    """Drawings beside their tables, in the order of the facts; None where there is nothing to draw.

    Beyond the first eight of a kind the tables stand alone.
    """

    reliability: tuple[str | None, ...]
    risk: tuple[str | None, ...]
    slices: tuple[str | None, ...]
    drift: str | None


def figure_charts(facts: Facts) -> FigureCharts:
    """Return every chart, none where vl-convert is not installed."""
    return FigureCharts(
        reliability=_each(facts.calibrations, reliability_chart, "cal"),
        risk=_each(facts.calibrations, risk_chart, "risk"),
        slices=_each(facts.slice_searches, slice_chart, "slice"),
        drift=drift_chart(facts.drifts.found, prefix="drift"),
    )


def _each(rows: Sequence[Any], drawn: Any, prefix: str) -> tuple[str | None, ...]:
    return tuple(
        drawn(row, prefix=f"{prefix}{index}") if index < MOST_PANELS else None
        for index, row in enumerate(rows)
    )


def reliability_chart(found: Calibration, *, prefix: str) -> str | None:
    """Return how often the version is right by how sure it is; None without confidences."""
    rows = [
        {"sure": b.confidence, "right": b.right.rate, "low": b.right.low, "high": b.right.high}
        for b in found.bins
        if b.confidence is not None
    ]
    if not rows:
        return None
    x, y = _share("sure", "confidence, mean of the bin"), _share("right", "right")
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
    title = f"Right by confidence, {found.version} against {found.against}"
    text = (
        f"Mean confidence {per_cent(found.mean_confidence)}, right {per_cent(found.right.rate)}, "
        f"calibration error {per_cent(found.ece)}. On the dashed line both are equal."
    )
    return draw(spec, prefix, title, text)


def risk_chart(found: Calibration, *, prefix: str) -> str | None:
    """Return the share of wrong answers among the surest ones; None without confidences."""
    rows = [{"share": p.share, "risk": p.risk, "bound": p.at_most} for p in found.curve]
    if not rows:
        return None
    max_risk = min(
        1.0, 1.1 * max(found.line or 0.0, *(row["risk"] for row in rows[len(rows) // 2 :]))
    )
    x = _share("share", "share of the cases decided, the surest first")
    y = {**_share("risk", "wrong"), "scale": {"domain": [0, max_risk or 0.05]}}
    spec: dict[str, Any] = {
        "width": 250, "height": 170, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "area", "fill": ACCENT_SOFT, "opacity": 0.5, "clip": True},
             "encoding": {"x": x, "y": y, "y2": {"field": "bound"}}},
            {"mark": {"type": "line", "stroke": ACCENT, "strokeWidth": 2, "clip": True},
             "encoding": {"x": x, "y": y}},
        ],
    }  # fmt: skip
    if found.line is not None:
        mark = {"type": "rule", "stroke": INK, "strokeDash": [5, 4]}
        encoding = {"y": {"datum": found.line, "type": "quantitative"}}
        spec["layer"].append({"mark": mark, "data": ONCE, "encoding": encoding})
    title = f"Wrong among the surest, {found.version} against {found.against}"
    text = f"Of all cases {per_cent(rows[-1]['risk'])} are wrong; the shade is the bound above."
    return draw(spec, prefix, title, text)


def slice_chart(found: SliceSearch, *, prefix: str) -> str | None:
    """Return the found slices with their intervals, and the rest of their cells; None for none."""
    if not found.found:
        return None
    rows = [_slice_row(row) for row in found.found[:MOST_ROWS]]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelLimit": 220},
    }
    x = {"type": "quantitative", "axis": {"title": "share that differs", **SHARES}}
    spec = {
        "padding": WIDE, "width": 330, "height": {"step": 24}, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "rule", "stroke": ACCENT, "strokeWidth": 2},
             "encoding": {"y": y, "x": {"field": "low", **x}, "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "fill": ACCENT, "size": 50, "opacity": 1},
             "encoding": {"y": y, "x": {"field": "share", **x}}},
            {"mark": {"type": "tick", "color": SOFT, "thickness": 3, "size": 14, "opacity": 1},
             "encoding": {"y": y, "x": {"field": "elsewhere", **x}}},
        ],
    }  # fmt: skip
    text = (
        f"Points with intervals: the slices; ticks: the rest of their cells. {found.found[0].words}"
    )
    return draw(spec, prefix, f"Slices that differ, {found.version}", text)


def _slice_row(row: FoundSlice) -> dict[str, Any]:
    shares = {"share": row.share, "low": row.low, "high": row.high, "elsewhere": row.elsewhere}
    return {"name": name_words(row.names), **shares}


def drift_chart(found: Sequence[Drift], *, prefix: str) -> str | None:
    """Return the farthest comparisons and what chance alone gives; None where there are none."""
    if not found:
        return None
    rows = [
        {"name": drift_name(row), "distance": row.distance, "chance": row.by_chance}
        for row in found[:MOST_ROWS]
    ]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelLimit": 260},
    }
    x = {"type": "quantitative", "axis": {"title": "distance, 0 alike to 1", "gridColor": RULE}}
    spec = {
        "padding": WIDE, "width": 330, "height": {"step": 22}, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "bar", "fill": ACCENT_SOFT, "height": 12},
             "encoding": {"y": y, "x": {"field": "chance", **x}}},
            {"mark": {"type": "point", "filled": True, "fill": ACCENT, "size": 50, "opacity": 1},
             "encoding": {"y": y, "x": {"field": "distance", **x}}},
        ],
    }  # fmt: skip
    text = f"Points: distances; bars: what chance stays within. {rows[0]['name']} is farthest."
    return draw(spec, prefix, "Last days against the first", text)


def some(rows: Sequence[T], most: int) -> list[T]:
    """Return rows spread evenly over all of them, the last one among them; a few are all kept.

    >>> some([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(rows) <= most:
        return list(rows)
    step = (len(rows) - 1) / (most - 1)
    return [rows[round(index * step)] for index in range(most)]


def drift_name(row: Drift) -> str:
    """Say what a comparison is of: `lisbon, model's answer digit, v1`."""
    feature = row.name if row.thing == "attribute" else f"{row.thing} {row.name}".strip()
    return ", ".join(part for part in (row.site, feature, row.version) if part)


def _share(field: str, title: str) -> dict[str, Any]:
    scale = {"domain": [0, 1]}
    return {
        "field": field,
        "type": "quantitative",
        "scale": scale,
        "axis": {"title": title, **SHARES},
    }
