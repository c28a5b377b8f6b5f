"""Charts of numbers: the model's against the human's, and their differences (Bland–Altman)."""

from typing import Any

from rollout.core.policy.levers import Margin
from rollout.reports.figures.number_agreement import NumberAgreement, NumberDifferences
from rollout.reports.pages.svg import (
    ACCENT,
    ACCENT_SOFT,
    INK,
    RULE,
    SINGLE_ROW_DATA,
    SOFT,
    draw_svg,
)
from rollout.reports.text.formatting import format_count
from rollout.reports.text.value_text import format_number_value

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
    x = _build_axis("x", f"human, {numbers.unit}", low, high)
    y = _build_axis("y", f"model, {numbers.unit}", low, high)
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
    x = _build_axis("x", f"mean of both, {numbers.unit}", *_widen(*_find_ends(rows)))
    y = _build_axis("y", f"model − human, {differences.unit}", *_widen(min(heights), max(heights)))
    ends = x["scale"]["domain"]
    band = [{"x": end, "low": -tolerance, "high": tolerance} for end in ends]
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


def _find_ends(rows: list[dict[str, float]]) -> tuple[float, float]:
    return min(row["x"] for row in rows), max(row["x"] for row in rows)


def _widen(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an axis with a margin, also for a single value."""
    margin = 0.03 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _build_axis(field: str, title: str, low: float, high: float) -> dict[str, Any]:
    axis = {"title": title.rstrip(", "), "tickCount": MAX_RELATIVE_TICKS, "gridColor": RULE}
    scale = {"domain": [low, high], "nice": False, "zero": False}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def _build_rule(height: float | None, y: dict[str, Any], **stroke: Any) -> dict[str, Any]:
    encoding = {name: y[name] for name in ("type", "scale", "axis")}
    return {
        "mark": {"type": "rule", **stroke},
        "data": SINGLE_ROW_DATA,
        "encoding": {"y": {"datum": height, **encoding}},
    }
