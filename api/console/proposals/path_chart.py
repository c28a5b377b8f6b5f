"""How evidence went, drawn: the plain figure, its bound at every look, the line to be reached."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.console.page.figures import COSTS, bound_of, line_of, value_of
from api.console.page.scale_chart import pixels
from api.console.page.text import first_large
from api.console.proposals.hold_reason import subject
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.inputs.evidence_paths import Path

MOST_CHARTS = 6
SPREAD = 2
ROWS = 8
"""Looks that the table beside a chart tells of."""


@dataclass(frozen=True, slots=True)
class Look:
    """One row of the table beside a chart."""

    at: datetime
    n: int
    estimate: str
    bound: str


@dataclass(frozen=True, slots=True)
class PathChart:
    """A chart in its two widths, with its title, what it says, and its table."""

    title: str
    says: str
    wide: Markup
    narrow: Markup
    looks: tuple[Look, ...]


@dataclass(frozen=True, slots=True)
class _Sheet:
    """A drawing's size, and the values at its lower and upper edge."""

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
        fraction = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.bottom - (self.bottom - self.top) * fraction

    @property
    def bottom(self) -> float:
        return self.height - 30


def path_charts(evidence: Iterable[EvidenceFacts], zone: str) -> tuple[PathChart, ...]:
    """Return a chart for each version and condition of the gate that is looked at last.

    What has no bound at every look, as parity, is left to the numbers.
    """
    charts = [
        _chart(facts.version, path, f"{version_index}-{path_index}", zone)
        for version_index, facts in enumerate(evidence)
        for path_index, path in enumerate(_newest(facts.path))
    ]
    return tuple(charts[:MOST_CHARTS])


def _newest(paths: Sequence[Path]) -> list[Path]:
    """Return the last stretch of each condition that can be drawn."""
    latest = {path.condition: path for path in paths if len(path.at) > 1 and path.bound}
    return list(latest.values())


def _chart(version: str, path: Path, name: str, zone: str) -> PathChart:
    title = f"{subject(path.condition)} of {version}, towards {path.to}"
    description = _says(path)
    low, high = _range(path)
    frame_values = (low, high, path.at[0], path.at[-1])
    return PathChart(
        title=first_large(title),
        says=description,
        wide=_drawn(path, _Sheet(660, 250, *frame_values), f"w{name}", title, description, zone),
        narrow=_drawn(path, _Sheet(300, 210, *frame_values), f"n{name}", title, description, zone),
        looks=tuple(_looks(path)),
    )


def _says(path: Path) -> str:
    estimate = value_of(path.measure, path.estimate[-1])
    estimate_text = f"{estimate} {'over' if path.measure in COSTS else 'of'} {path.n[-1]:,}"
    bound_text = bound_of(path.measure, path.bound[-1], path.line, at_least=path.at_least)
    verb = "meets" if (path.bound[-1] >= path.line) == path.at_least else "does not meet"
    threshold = line_of(path.measure, path.line)
    edges = ("Upper", "lower") if path.at_least else ("Lower", "upper")
    band_text = f"{edges[0]} edge of the band: what was found so far; {edges[1]}: the bound."
    return (
        f"At the last look {estimate_text}, {bound_text}; that {verb} the line of {threshold}."
        f" {band_text}"
    )


def _range(path: Path) -> tuple[float, float]:
    """Return the values at the edges: the first looks, of a few records, may lie beyond them."""
    latest_values = (path.bound[-1], path.estimate[-1], path.line)
    if path.at_least:
        return max(0.0, 1 - SPREAD * (1 - min(latest_values))), 1.0
    return 0.0, SPREAD * max(latest_values) or 1.0


def _looks(path: Path) -> Iterable[Look]:
    step = max(1, -(-len(path.at) // ROWS))
    indexes = sorted({*range(0, len(path.at), step), len(path.at) - 1})
    for index in indexes:
        bound_text = bound_of(path.measure, path.bound[index], path.line, at_least=path.at_least)
        yield Look(
            path.at[index], path.n[index], value_of(path.measure, path.estimate[index]), bound_text
        )


def _drawn(path: Path, sheet: _Sheet, name: str, title: str, says: str, zone: str) -> Markup:
    parts = [
        *_ruler(path, sheet),
        _band(path, sheet),
        _line("g-est", path.at, path.estimate, sheet),
        _line("g-low", path.at, path.bound, sheet),
        _gate(path, sheet),
        *_days(path, sheet, zone),
    ]
    return Markup(
        '<svg class="chart" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" '
        'aria-labelledby="{2}-t {2}-d"><title id="{2}-t">{3}</title><desc id="{2}-d">{4}</desc>\n'
        "{5}</svg>"
    ).format(sheet.width, sheet.height, name, title, says, Markup("\n").join(parts))


def _ruler(path: Path, sheet: _Sheet) -> Iterable[Markup]:
    for part in range(4):
        value = sheet.low + (sheet.high - sheet.low) * part / 3
        y = sheet.y(value)
        label = value_of(path.measure, round(value, 3))
        yield Markup(
            '<line class="g-line" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
            '<text x="{3}" y="{4}" text-anchor="end">{5}</text>'
        ).format(sheet.left, sheet.width - 10, pixels(y), sheet.left - 6, pixels(y + 4), label)


def _steps(at: Sequence[datetime], values: Sequence[float], sheet: _Sheet) -> str:
    """Return a path in steps: a value holds until the next look."""
    start = f"M{pixels(sheet.x(at[0]))} {pixels(sheet.y(values[0]))}"
    later_points = zip(at[1:], values[1:], strict=True)
    return start + "".join(
        f"H{pixels(sheet.x(instant))}V{pixels(sheet.y(value))}" for instant, value in later_points
    )


def _line(name: str, at: Sequence[datetime], values: Sequence[float], sheet: _Sheet) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(name, _steps(at, values, sheet))


def _band(path: Path, sheet: _Sheet) -> Markup:
    upper_path = _steps(path.at, path.estimate, sheet)
    lower_path = "".join(
        f"V{pixels(sheet.y(value))}H{pixels(sheet.x(previous))}"
        for value, previous in zip(reversed(path.bound[:-1]), reversed(path.at[:-1]), strict=True)
    )
    return Markup('<path class="g-band" d="{}{}Z"/>').format(upper_path, lower_path)


def _gate(path: Path, sheet: _Sheet) -> Markup:
    y = sheet.y(path.line)
    return Markup(
        '<line class="g-gate" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
        '<text class="t-strong" x="{3}" y="{4}">line {5}</text>'
    ).format(
        sheet.left, sheet.width - 10, pixels(y), sheet.left + 8, pixels(y - 6),
        line_of(path.measure, path.line),
    )  # fmt: skip


def _days(path: Path, sheet: _Sheet, zone: str) -> Iterable[Markup]:
    for at, anchor in ((path.at[0], "start"), (path.at[-1], "end")):
        local_time = at.astimezone(ZoneInfo(zone))
        yield Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            pixels(sheet.x(at)), sheet.height - 8, anchor, f"{local_time.day} {local_time:%b %H:%M}"
        )
