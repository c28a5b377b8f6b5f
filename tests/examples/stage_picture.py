"""Draws the stages of each cell of an example over time."""

from itertools import pairwise

from rollout.features.demo.story import format_day_month
from tests.examples.picture_frame import frame_picture

LEFT, WIDTH, ROW, TOP = 190, 780, 24, 34


def draw_stages(story):
    """Return an SVG with the stages of each cell over time, takeovers and the held cell."""
    stages, cells = story.replayed_files.policy.stage_ids, story.facts.stages
    first = min(cell.intervals[0].since for cell in cells)
    last = max(cell.intervals[-1].until for cell in cells)
    height = TOP + ROW * len(cells) + 34
    parts = [_draw_legend(stages, has_takeover=any(map(_list_takeovers, cells)))]
    for row, cell in enumerate(cells):
        parts += _draw_cell(story, cell, TOP + ROW * row, first, last, stages)
    parts.append(_draw_axis(first, last, height))
    return frame_picture("Stages of each cell over time", WIDTH, height, parts)


def _list_takeovers(cell):
    """Return the intervals in which another version acts than just before."""
    return [
        after
        for before, after in pairwise(cell.intervals)
        if before.version and after.version and before.version != after.version
    ]


def _draw_legend(stages, *, has_takeover):
    pieces = []
    for level, stage in enumerate(stages):
        x = LEFT + 130 * level
        pieces.append(f'<rect x="{x}" y="8" width="14" height="14" class="stage-{level}"/>')
        pieces.append(f'<text x="{x + 20}" y="20">{stage}</text>')
    if has_takeover:
        x = LEFT + 130 * len(stages)
        pieces.append(f'<rect x="{x}" y="8" width="14" height="14" class="stage-2"/>')
        pieces.append(f'<rect x="{x + 6}" y="6" width="3" height="18" class="canvas"/>')
        pieces.append(f'<text x="{x + 20}" y="20">a version takes over</text>')
    return "".join(pieces)


def _draw_cell(story, cell, y, first, last, stages):
    held_cell = story.example.held
    is_held = (cell.site, cell.window) == (held_cell.site, held_cell.window)
    label = f"{cell.site} {cell.window}"
    weight = ' font-weight="bold"' if is_held else ""
    place = f'x="{LEFT - 8}" y="{y + 15}" text-anchor="end"'
    yield f"<text {place}{weight}>{label}</text>"
    for interval in cell.intervals:
        start, end = (_scale(at, first, last) for at in (interval.since, interval.until))
        level = stages.index(interval.stage)
        width = max(end - start, 0.5)
        yield (
            f'<rect x="{start:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}"'
            f' class="stage-{level}"/>'
        )
    for takeover in _list_takeovers(cell):
        x = _scale(takeover.since, first, last)
        yield f'<rect x="{x - 1.5:.1f}" y="{y + 1}" width="3" height="{ROW - 2}" class="canvas"/>'
        level = stages.index(takeover.stage)
        yield f'<text x="{x + 6:.1f}" y="{y + 16}" class="on-{level}">{takeover.version}</text>'
    if is_held:
        level = stages.index(cell.intervals[-1].stage)
        yield (
            f'<rect x="{LEFT - 1}" y="{y + 2}" width="{WIDTH - LEFT - 18}" height="{ROW - 4}"'
            ' class="limit"/>'
            f'<text x="{WIDTH - 24}" y="{y + 15}" text-anchor="end" class="on-{level}">held</text>'
        )


def _scale(at, first, last):
    return LEFT + (WIDTH - LEFT - 20) * ((at - first) / (last - first))


def _draw_axis(first, last, height):
    pieces = []
    for number in range(5):
        at = first + (last - first) * number / 4
        anchor = "end" if number == 4 else "middle" if number else "start"
        pieces.append(
            f'<text x="{_scale(at, first, last):.0f}" y="{height - 12}" text-anchor="{anchor}"'
            f' class="faint">{format_day_month(at, "UTC")}</text>'
        )
    return "".join(pieces)
