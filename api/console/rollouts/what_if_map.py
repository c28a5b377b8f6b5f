"""The maps of a comparison: the stages of each cell over time, one map a policy."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from markupsafe import Markup, escape

from rollout.reports.pages.stage_markers import StageMarker, build_markers
from rollout.services.what_if.comparison import CellPair, WhatIfResult
from rollout.services.what_if.replayed_policy import CellReplay

MAX_ROWS: Final = 40  # cells on a map; the table has all
WIDTH, LEFT, ROW, BAR = 520, 150, 26, 18  # pixels
MIN_CODE_WIDTH: Final = 26


def list_mapped_cells(result: WhatIfResult) -> tuple[CellPair, ...]:
    """Return the cells of the maps: those that the draft changes first."""
    ordered = sorted(result.cells, key=lambda pair: pair.effect == "same")
    return tuple(ordered[:MAX_ROWS])


def list_markers(result: WhatIfResult) -> tuple[StageMarker, ...]:
    """Return how each stage is drawn."""
    return tuple(build_markers(result.stages, result.deciding_stages).values())


def draw_map(result: WhatIfResult, side: str, name: str) -> Markup:
    """Return a map of one side, `current` or `draft`; the table says the same in words."""
    cells = list_mapped_cells(result)
    markers = {marker.name: marker for marker in list_markers(result)}
    parts = [
        part
        for row, pair in enumerate(cells)
        for part in _draw_row(row * ROW, pair, getattr(pair, side), markers, result)
    ]
    label = escape(f"Stages under {name}; the table cell by cell has the times")
    height = len(cells) * ROW
    return Markup(  # noqa: S704 - names are escaped where they are put in
        f'<svg class="map" role="img" aria-label="{label}" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
    )


def _draw_row(
    top: int,
    pair: CellPair,
    cell: CellReplay | None,
    markers: dict[str, StageMarker],
    result: WhatIfResult,
) -> Iterator[str]:
    title = escape(f"{pair.site} · {pair.window}")
    yield f'<text class="t-strong" x="0" y="{top + 14}">{title}</text>'
    if cell is None:
        yield f'<text x="{LEFT}" y="{top + 14}">no such cell</text>'
        return
    for interval in cell.intervals:
        until = min(interval.until, cell.unknown_since or interval.until)
        left, right = _find_x(interval.since, result), _find_x(until, result)
        if right > left:
            yield from _draw_bar(top, left, right, markers[interval.stage])
    if cell.unknown_since is not None:
        left = _find_x(cell.unknown_since, result)
        yield (
            f'<rect class="p-0" x="{left:.1f}" y="{top}" width="{WIDTH - left:.1f}"'
            f' height="{BAR}" fill="none"/>'
        )
        yield f'<text x="{min(left + 4, WIDTH - 56):.1f}" y="{top + 13}">unknown</text>'


def _draw_bar(top: int, left: float, right: float, marker: StageMarker) -> Iterator[str]:
    fill = f' fill="url(#p-{marker.pattern})"' if marker.pattern == "1" else ""
    yield (
        f'<rect class="p-{marker.pattern}"{fill} x="{left:.1f}" y="{top}"'
        f' width="{right - left:.1f}" height="{BAR}"/>'
    )
    if right - left >= MIN_CODE_WIDTH:
        yield (
            f'<text class="t-code on-{marker.pattern}" x="{(left + right) / 2:.1f}"'
            f' y="{top + 13}" text-anchor="middle">{escape(marker.code)}</text>'
        )


def _find_x(at: datetime, result: WhatIfResult) -> float:
    share = (at - result.since) / (result.until - result.since)
    return LEFT + (WIDTH - LEFT) * min(1.0, max(0.0, share))
