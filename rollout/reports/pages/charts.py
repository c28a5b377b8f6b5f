"""The charts of a report: what was allowed when, evidence against its line, actions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from rollout.core.calendar.sites import SHADOW
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.figures.facts import Facts
from rollout.reports.figures.stage_map import Panel, Stretch
from rollout.reports.inputs.actions import ActionChange
from rollout.reports.inputs.evidence_paths import Path
from rollout.reports.pages.svg import (
    ACCENT,
    ACCENT_SOFT,
    INK,
    NONE,
    PAGE,
    RULE,
    SOFT,
    draw,
    stage_fill,
    stage_ink,
)
from rollout.reports.text.formatting import cell_name, per_cent, several, signed

MOST_PANELS = 24
MOST_POINTS = 90  # of one line in a small chart
MANY_DAYS = 300  # from here on the axis tells months
MAP_WIDTH, MAP_HEIGHT = 680, 62
WIDEST_LETTER = 7.5  # of a name beside an axis
DAY = timedelta(days=1)
ONCE: dict[str, Any] = {"values": [{}]}  # else a line is drawn once for every row of data
DAYS: dict[str, Any] = {
    "title": None, "grid": False, "labelOverlap": "greedy", "labelSeparation": 6,
}  # fmt: skip
HEADER: dict[str, Any] = {
    "labelAngle": 0, "labelAlign": "left", "labelAnchor": "start", "labelOrient": "top",
    "labelPadding": 3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EvidenceChart:
    """One condition of one version in one cell, drawn."""

    name: str
    condition: str
    last: str
    svg: str


@dataclass(frozen=True, slots=True)
class Charts:
    """All charts of a report; `left_out` counts those that would have been too many.

    Without something to draw with, `calendar` is None and the lists are empty.
    """

    calendar: str | None
    evidence: tuple[EvidenceChart, ...]
    actions: tuple[tuple[str, str], ...]
    left_out: int


NO_CHARTS = Charts(None, (), (), 0)


def charts_of(facts: Facts) -> Charts:
    """Return every chart, `NO_CHARTS` where vl-convert is not installed."""
    calendar = calendar_chart(facts)
    if calendar is None:
        return NO_CHARTS
    panels = list(_evidence_panels(facts))
    evidence = tuple(
        chart
        for index, panel in enumerate(panels[:MOST_PANELS])
        if (chart := evidence_chart(*panel, prefix=f"e{index}")) is not None
    )
    return Charts(calendar, evidence, tuple(_actions(facts)), max(0, len(panels) - MOST_PANELS))


def calendar_chart(facts: Facts) -> str | None:
    """Return the map of stages over days and hours, one panel for each site.

    Sites that were in shadow all the time share one panel.
    """
    stage_levels = {stage: stage_level for stage_level, stage in enumerate(facts.rules.stages)}
    first, last = _days(facts.calendar)
    panels = {_panel_name(panel): panel.stretches for panel in facts.calendar if _moved(panel)}
    shadow_count = len(facts.calendar) - len(panels)
    drawn_panels = dict(list(panels.items())[:MOST_PANELS])
    if shadow_count:
        name = f"{several(shadow_count, 'site')} never above shadow" if panels else "every site"
        drawn_panels[name] = (Stretch(first, last - DAY, 0, 24, SHADOW),)
    days = (last - first).days
    rows = [
        _rectangle(panel_name, block, stage_levels, days)
        for panel_name, blocks in drawn_panels.items()
        for block in blocks
    ]
    spec = {
        "data": {"values": rows},
        "facet": {"row": {"field": "panel", "sort": list(drawn_panels), "header": HEADER}},
        "spacing": 14,
        "spec": {
            "width": MAP_WIDTH,
            "height": MAP_HEIGHT,
            "layer": [_rectangles(days), _names()],
        },
    }
    return draw(spec, "map", "What was allowed when", _map_words(facts))


def _dates(days: int, ticks: int) -> dict[str, Any]:
    """Return how an axis over so many days tells its dates: no day twice, years over years."""
    date_format = "%b %Y" if days > MANY_DAYS else "%-d %b"
    return {"format": date_format, "tickCount": max(1, min(days, ticks))}


def _moved(panel: Panel) -> bool:
    return any(block.stage not in (None, SHADOW) for block in panel.stretches)


def _days(panels: tuple[Panel, ...]) -> tuple[date, date]:
    blocks = [block for panel in panels for block in panel.stretches]
    return min(block.first for block in blocks), max(block.last for block in blocks) + DAY


def _panel_name(panel: Panel) -> str:
    return cell_name(panel.site, panel.window) or panel.site


def _rectangle(
    panel: str, stretch: Stretch, ladder: Mapping[str, int], days: int
) -> dict[str, Any]:
    stage_level = ladder.get(stretch.stage or "", 0)
    width = ((stretch.last - stretch.first).days + 1) * MAP_WIDTH / days
    height = (stretch.end - stretch.start) * MAP_HEIGHT / 24
    name = stretch.stage or ""
    return {
        "panel": panel,
        "first": stretch.first.isoformat(),
        "last": (stretch.last + DAY).isoformat(),
        "start": stretch.start,
        "end": stretch.end,
        "fill": NONE if stretch.stage is None else stage_fill(stage_level),
        "ink": stage_ink(stage_level),
        "name": name if width >= 7 * len(name) + 8 and height >= 14 else "",
    }


def _rectangles(days: int) -> dict[str, Any]:
    hours = {"labelExpr": "datum.value + ':00'", "values": [0, 12, 24], "grid": False}
    return {
        "mark": {"type": "rect", "stroke": PAGE, "strokeWidth": 0.5},
        "encoding": {
            "x": {**_time("first"), "axis": {**DAYS, **_dates(days, 10)}},
            "x2": {"field": "last"},
            "y": {
                "field": "start", "type": "quantitative", "axis": {**hours, "title": None},
                "scale": {"domain": [0, 24], "reverse": True, "nice": False},
            },
            "y2": {"field": "end"},
            "fill": {"field": "fill", "type": "nominal", "scale": None},
        },
    }  # fmt: skip


def _names() -> dict[str, Any]:
    transforms = [
        {"filter": "datum.name != ''"},
        {"calculate": "(datum.start + datum.end) / 2", "as": "hour"},
        {"calculate": "(toDate(datum.first) + toDate(datum.last)) / 2", "as": "middle"},
    ]
    return {
        "transform": transforms,
        "mark": {"type": "text", "baseline": "middle", "fontWeight": 600},
        "encoding": {
            "x": _time("middle"),
            "y": {"field": "hour", "type": "quantitative"},
            "text": {"field": "name"},
            "color": {"field": "ink", "type": "nominal", "scale": None},
        },
    }


def _time(field: str) -> dict[str, Any]:
    return {"field": field, "type": "temporal", "scale": {"type": "utc", "nice": False}}


def _map_words(facts: Facts) -> str:
    ends = [
        f"{cell_name(cell.site, cell.window)} ends {cell.stage}"
        for cell in facts.stages
        if cell.widened
    ]
    rest = "the others never left shadow" if len(ends) < len(facts.stages) else ""
    text = "; ".join([*ends, *([rest] if rest else [])])
    return f"Days across, hours of the site's clock down. {text}."


def _evidence_panels(facts: Facts) -> Iterator[tuple[EvidenceFacts, list[Path]]]:
    """Yield each condition of each version and cell: those first that ever widened."""
    order = sorted(facts.evidence, key=lambda item: (item.stage == SHADOW, not item.acting))
    for evidence in order:
        conditions = dict.fromkeys(path.condition for path in evidence.path if path.bound)
        for condition in conditions:
            yield evidence, [path for path in evidence.path if path.condition == condition]


def evidence_chart(
    evidence: EvidenceFacts, paths: list[Path], *, prefix: str
) -> EvidenceChart | None:
    """Return one condition's estimate and bound over time, against its line."""
    rows = list(_points(paths))
    last, threshold = paths[-1], paths[-1].line
    low, high = _range(rows, threshold, at_least=last.at_least)
    is_share = last.measure != "cost"
    axis = {"title": None, "format": ".0%" if is_share else ".2~f", "tickCount": 4}
    y = {"type": "quantitative", "axis": axis, "scale": {"domain": [low, high], "zero": False}}
    x = {
        **_time("at"),
        "axis": {**DAYS, **_dates((last.at[-1] - paths[0].at[0]).days, 4)},
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
            {"mark": {"type": "rule", "stroke": INK, "strokeDash": [5, 4]}, "data": ONCE,
             "encoding": {"y": {"datum": threshold, **y}}},
        ],
    }  # fmt: skip
    name = f"{cell_name(evidence.site, evidence.window)}, {evidence.version}"
    text = _last_words(last)
    svg = draw(spec, prefix, f"{name}: {last.condition}", text)
    return None if svg is None else EvidenceChart(name, last.condition, text, svg)


def _points(paths: list[Path]) -> Iterator[dict[str, Any]]:
    total = sum(len(path.at) for path in paths)
    for path in paths:
        step = max(1, -(-total // MOST_POINTS))
        indices = sorted({*range(0, len(path.at), step), len(path.at) - 1})
        for index in indices:
            yield {
                "attempt": path.attempt,
                "at": int(path.at[index].timestamp() * 1000),
                "estimate": round(path.estimate[index], 4),
                "bound": round(path.bound[index], 4),
            }


def _range(rows: list[dict[str, Any]], line: float, *, at_least: bool) -> tuple[float, float]:
    """Return the axis's ends: the line and where the path came to, not its first wild steps."""
    settled = rows[len(rows) // 5 :]
    values = [line, *(row["bound"] for row in settled), *(row["estimate"] for row in settled)]
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or 0.05
    return (max(0.0, low - margin), min(1.0, high + margin) if at_least else high + margin)


def _last_words(path: Path) -> str:
    is_met = path.bound[-1] >= path.line if path.at_least else path.bound[-1] <= path.line
    direction = "at least" if path.at_least else "at most"
    if path.measure == "cost":
        values = f"mean {path.estimate[-1]:.3f}, {direction} {path.bound[-1]:.3f}"
        threshold = f"{path.line:g}"
    else:
        values = f"{per_cent(path.estimate[-1])}, {direction} {per_cent(path.bound[-1])}"
        threshold = per_cent(path.line, 0)
    return (
        f"{values} at every look; line {threshold} {'met' if is_met else 'not met'}, n"
        f" {path.n[-1]:,}"
    )


def _actions(facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield for each version its chart of changes, with the version's name."""
    versions = dict.fromkeys(change.version for change in facts.actions)
    for index, version in enumerate(versions):
        changes = [change for change in facts.actions if change.version == version]
        svg = action_chart(changes, prefix=f"a{index}")
        if svg is not None:
            yield version, svg


def action_chart(changes: list[ActionChange], *, prefix: str) -> str | None:
    """Return how many more of 100 cases the model takes each action, with intervals."""
    rows = [
        {
            "action": change.action,
            "change": change.change.per_100,
            "low": change.change.low,
            "high": change.change.high,
        }
        for change in changes
        if change.change.per_100 is not None
    ]
    if not rows:
        return None
    # Readers' fonts are wider than the one that it is laid out with: names need room of their own.
    label_width = WIDEST_LETTER * max(len(change.action) for change in changes)
    y = {
        "field": "action", "type": "nominal", "sort": None,
        "axis": {"title": None, "minExtent": label_width},
    }  # fmt: skip
    spec = {
        "width": 360, "height": {"step": 20}, "data": {"values": rows},
        "layer": [
            {"mark": {"type": "rule", "stroke": SOFT}, "data": ONCE,
             "encoding": {"x": {"datum": 0}}},
            {"mark": {"type": "rule", "stroke": ACCENT, "strokeWidth": 2},
             "encoding": {"y": y, "x": _gap("low"), "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "fill": ACCENT, "size": 50, "opacity": 1},
             "encoding": {"y": y, "x": _gap("change")}},
        ],
    }  # fmt: skip
    largest = max(changes, key=lambda change: abs(change.change.per_100 or 0.0))
    text = f"The largest change is {largest.action}: {signed(largest.change.per_100)} of 100 cases."
    return draw(spec, prefix, f"Change in actions, {changes[0].version}", text)


def _gap(field: str) -> dict[str, Any]:
    axis = {"title": "more or fewer of 100 cases by the model", "format": "+~f", "grid": True}
    return {"field": field, "type": "quantitative", "axis": {**axis, "gridColor": RULE}}
