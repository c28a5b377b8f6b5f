"""The maps of a what-if as SVG: each cell's stages over the recorded days, once for each policy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from markupsafe import Markup

from rollout.reports.pages.stage_markers import HATCHED, StageMarker, build_markers
from rollout.reports.pages.svg import format_pixels
from rollout.reports.text.formatting import format_cell_name
from rollout.services.what_if.comparison import CellPair, WhatIfResult
from rollout.services.what_if.replayed_policy import CellReplay

MAX_ROWS: Final = 40  # cells on a map; the table has all
# Sizes in px.
WIDE: Final = (580, 200, 5)  # width, the most for names of cells, the most dates
NARROW: Final = (326, 120, 3)
ROW, BAR, AXIS_HEIGHT = 26, 18, 22
LETTER_WIDTH: Final = 8  # per character of a bold name
DATE_WIDTH: Final = 44
CODE_MARGIN: Final = 8
UNKNOWN_TEXT: Final = "unknown"
UNKNOWN_WIDTH: Final = 58


@dataclass(frozen=True, slots=True)
class _DaysFrame:
    """Coordinates: bars lie between `left` and `width`, for the span of the result."""

    width: int
    left: int
    max_dates: int
    since: datetime
    until: datetime

    def x(self, at: datetime) -> float:
        """Return the x coordinate of an instant, clipped to the bars."""
        share = (at - self.since) / (self.until - self.since)
        return self.left + (self.width - self.left - 1) * min(1.0, max(0.0, share))


def list_mapped_cells(result: WhatIfResult) -> tuple[CellPair, ...]:
    """Return the cells of the maps in their order; of too many those that the draft changes."""
    if len(result.cells) <= MAX_ROWS:
        return result.cells
    return tuple(sorted(result.cells, key=lambda pair: pair.effect == "same")[:MAX_ROWS])


def list_markers(result: WhatIfResult) -> tuple[StageMarker, ...]:
    """Return how each stage is drawn."""
    return tuple(build_markers(result.stages, result.deciding_stages).values())


def draw_map(result: WhatIfResult, side: str, name: str) -> tuple[Markup, Markup]:
    """Return a map of `current` or `draft` for wide and for narrow screens.

    The table of cells says the same in words.
    """
    wide, narrow = (_draw_map(result, side, name, size) for size in (WIDE, NARROW))
    return wide, narrow


def _draw_map(result: WhatIfResult, side: str, name: str, size: tuple[int, int, int]) -> Markup:
    width, max_name_width, max_dates = size
    cells = list_mapped_cells(result)
    names = [format_cell_name(pair.site, pair.window) for pair in cells]
    name_width = min(max(map(len, names), default=0) * LETTER_WIDTH, max_name_width)
    frame = _DaysFrame(width, name_width + 8, max_dates, result.since, result.until)
    markers = {marker.name: marker for marker in list_markers(result)}
    rows = [
        part
        for row, (pair, text) in enumerate(zip(cells, names, strict=True))
        for part in _draw_row(row * ROW, text, getattr(pair, side), markers, frame)
    ]
    return Markup(
        '<svg class="chart map" role="img" aria-label="{0}" width="{1}" height="{2}"'
        ' viewBox="0 0 {1} {2}">{3}</svg>'
    ).format(
        f"Stages under {name}; the table cell by cell has the times", width,
        len(cells) * ROW + AXIS_HEIGHT,
        Markup("").join([*_draw_dates(len(cells) * ROW, frame), *rows]),
    )  # fmt: skip


def _draw_dates(bottom: int, frame: _DaysFrame) -> Iterator[Markup]:
    """Draw a line and a date for some of the days, as far apart as they need."""
    start = frame.since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = (frame.until - start).days
    step = max(1, -(-days // frame.max_dates))
    for number in range(1, days + 1, step):
        x = frame.x(start + timedelta(days=number))
        yield Markup('<line class="g-line" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(
            format_pixels(x), bottom
        )
        anchor = "end" if x + DATE_WIDTH / 2 > frame.width else "middle"
        day = start + timedelta(days=number)
        yield Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            format_pixels(x), bottom + 14, anchor, f"{day.day} {day:%b}"
        )


def _draw_row(
    top: int,
    name: str,
    cell: CellReplay | None,
    markers: Mapping[str, StageMarker],
    frame: _DaysFrame,
) -> Iterator[Markup]:
    max_letters = (frame.left - 8) // LETTER_WIDTH
    short_name = name if len(name) <= max_letters else f"{name[: max_letters - 1]}…"
    yield Markup('<text class="t-strong" x="0" y="{}">{}</text>').format(top + 14, short_name)
    if cell is None:
        yield Markup('<text x="{}" y="{}">no such cell</text>').format(frame.left, top + 14)
        return
    for interval in cell.intervals:
        until = min(interval.until, cell.unknown.at if cell.unknown else interval.until)
        left, right = frame.x(interval.since), frame.x(until)
        if right > left:
            yield from _draw_stage(top, left, right, markers[interval.stage])
    if cell.unknown is not None:
        left, right = frame.x(cell.unknown.at), frame.x(frame.until)
        yield _draw_bar("p-0 g-track", "", top, left, right)
        if right - left >= UNKNOWN_WIDTH:
            yield _draw_text("", top, (left + right) / 2, UNKNOWN_TEXT)


def _draw_stage(top: int, left: float, right: float, marker: StageMarker) -> Sequence[Markup]:
    is_hatched = marker.pattern == HATCHED
    fill = Markup(' fill="url(#p-{})"').format(marker.pattern) if is_hatched else ""
    parts = [_draw_bar(f"p-{marker.pattern}", fill, top, left, right)]
    width = LETTER_WIDTH * len(marker.code) + 4
    if right - left >= width + CODE_MARGIN:
        middle = (left + right) / 2
        if is_hatched:
            parts.append(
                Markup(
                    '<rect class="code-ground" x="{}" y="{}" width="{}" height="14" rx="2"/>'
                ).format(format_pixels(middle - width / 2), top + 2, width)
            )
        parts.append(_draw_text(f"t-code on-{marker.pattern}", top, middle, marker.code))
    return parts


def _draw_bar(css_class: str, fill: str, top: int, left: float, right: float) -> Markup:
    return Markup('<rect class="{}"{} x="{}" y="{}" width="{}" height="{}"/>').format(
        css_class, fill, format_pixels(left + 0.5), top + 0.5, format_pixels(right - left), BAR - 1
    )


def _draw_text(css_class: str, top: int, x: float, text: str) -> Markup:
    attribute = Markup(' class="{}"').format(css_class) if css_class else ""
    return Markup('<text{} x="{}" y="{}" text-anchor="middle">{}</text>').format(
        attribute, format_pixels(x), top + 13, text
    )
