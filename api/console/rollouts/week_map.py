"""The map of a rollout: what is allowed at each site in each hour of a week, as SVG.

Shadow is drawn once for a whole row, and every other look over it as one path, so that fifty sites
stay small. Patterns are named in the markup, colours only by class: see `console.css`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.console.page.scale_chart import pixels
from api.console.page.stages import EMPTY, HATCHED, HELD, SOLID, Mark
from api.console.rollouts.map_rows import (
    MOST_ROWS,
    Course,
    Row,
    courses_of,
    described,
    grouped,
    rows_of,
    sites_of,
    turns_of,
)
from api.console.rollouts.window_bands import DAY_MINUTES, WEEK_MINUTES, monday_of
from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy

__all__ = ["Course", "WeekMap", "courses_of", "described", "small_map", "turns_of", "week_map"]

PATTERNED: Final = (HATCHED, HELD)
OVER: Final = (HATCHED, SOLID, HELD)  # what is drawn over shadow
LETTER: Final = 8  # px, of a label in bold
ROOM: Final = 26  # px that a code needs
NOW: Final = "now"


@dataclass(frozen=True, slots=True)
class WeekMap:
    """The map in its two widths, what it shows in words, and the Monday of its week."""

    wide: Markup
    narrow: Markup
    says: str
    monday: date


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Where things stand: bars `left` of the edge, `width` for `span` minutes from `start` on."""

    left: int
    width: int
    start: int
    span: int
    top: int
    bar: int
    step: int

    def x(self, minute: int) -> float:
        """Return where a minute stands, at an edge where it is out of sight."""
        return self.left + self.width * min(max(minute - self.start, 0), self.span) / self.span

    def y(self, place: int) -> int:
        """Return where a row's bar begins."""
        return self.top + place * self.step

    def bottom(self, rows: int) -> int:
        """Return where the rows end."""
        return self.top + rows * self.step

    def shows(self, start: int, end: int) -> bool:
        """Say whether anything of a span is in sight."""
        return start < self.start + self.span and end > self.start


def week_map(
    policy: Policy,
    courses: Mapping[Cell, Course],
    at: datetime,
    sites: Collection[str] | None = None,
    *,
    word: str = NOW,
) -> WeekMap:
    """Return the map of the week around an instant, and of its day for narrow screens.

    Args:
        policy: the policy in force.
        courses: how each of its cells is drawn, by `courses_of`.
        at: the instant at which the line stands.
        sites: those to be drawn; None for all.
        word: what the line is called: `now`, or `then` of a map of the past.
    """
    rows, description = rows_of(policy, courses, at, sites), described(policy, courses, sites)
    monday, local_time = monday_of(at, policy.timezone), at.astimezone(ZoneInfo(policy.timezone))
    now_label = f"{word} {local_time:%H:%M}" if len({row.now for row in rows}) == 1 else word
    day_index = (local_time.date() - monday).days
    week_frame, day_frame = _sheet(rows, 1178, 180), _sheet(rows, 326, 96, day_index)
    place_text = f"{len(sites_of(policy, sites))} sites" if len(rows) != 1 else rows[0].label
    return WeekMap(
        wide=_drawn(
            rows, week_frame, "week", f"What is allowed in this week, {place_text}", description,
            [_days(monday, week_frame, day_index, len(rows)), *_rows(rows, week_frame, day_index),
             _now(rows, week_frame, now_label)],
        ),
        narrow=_drawn(
            rows, day_frame, "today", f"What is allowed on this day, {place_text}", description,
            [_hours(day_frame, len(rows)), *_rows(rows, day_frame, day_index),
             _now(rows, day_frame, now_label)],
        ),
        says=description,
        monday=monday,
    )  # fmt: skip


def small_map(
    policy: Policy,
    courses: Mapping[Cell, Course],
    at: datetime,
    sites: Collection[str] | None = None,
    *,
    name: str = "",
) -> Markup:
    """Return the same week 200 px wide, without codes: equal sites in one row, at most twelve rows.

    Args:
        policy: the policy in force.
        courses: how each of its cells is drawn, by `courses_of`.
        at: an instant of the week.
        sites: those to be drawn; None for all.
        name: whose map it is, as its label begins; the words of all sites follow.
    """
    rows = grouped(rows_of(policy, courses, at, sites))[:MOST_ROWS]
    frame = _Sheet(0, 200, 0, WEEK_MINUTES, 1, 11, 14)
    label = (f"{name}: " if name else "") + described(policy, courses, sites)
    return Markup(
        '<svg class="chart map" width="200" height="{0}" viewBox="0 0 200 {0}" role="img" '
        'aria-label="{1}">{2}</svg>'
    ).format(frame.bottom(len(rows)), label, Markup("").join(_bars(list(enumerate(rows)), frame)))


def _sheet(rows: Sequence[Row], width: int, most: int, day: int | None = None) -> _Sheet:
    left = min(max((LETTER * len(row.label) for row in rows), default=0), most) + 12
    start, span = (0, WEEK_MINUTES) if day is None else (day * DAY_MINUTES, DAY_MINUTES)
    bar, step = (36, 46) if len(rows) <= MOST_ROWS else (20, 27)
    return _Sheet(left, width - left, start, span, 38, bar, step)


def _drawn(
    rows: Sequence[Row],
    sheet: _Sheet,
    name: str,
    title: str,
    says: str,
    parts: Iterable[Markup],
) -> Markup:
    return Markup(
        '<svg class="chart map" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" '
        'aria-labelledby="{2}-t {2}-d">\n<title id="{2}-t">{3}</title><desc id="{2}-d">{4}</desc>\n'
        "{5}</svg>"
    ).format(
        sheet.left + sheet.width + 2, sheet.bottom(len(rows)) + 20, name, title, says,
        Markup("\n").join(parts),
    )  # fmt: skip


def _days(monday: date, sheet: _Sheet, today: int, rows: int) -> Markup:
    """Return a line and a date for each day; today's is strong."""
    lines = []
    for number in range(7):
        x, day = sheet.x(number * DAY_MINUTES), monday + timedelta(days=number)
        strong_class = Markup(' class="t-strong"') if number == today else ""
        lines.append(_line("g-line", x, 20, sheet.bottom(rows)))
        lines.append(
            Markup('<text x="{}" y="16"{}>{}</text>').format(
                pixels(x + 5), strong_class, f"{day:%a} {day.day} {day:%b}"
            )
        )
    return Markup("\n").join(lines)


def _hours(sheet: _Sheet, rows: int) -> Markup:
    """Return a line for every six hours of the day."""
    lines = []
    for hour in range(0, 25, 6):
        x, anchor = sheet.x(sheet.start + hour * 60), "end" if hour == 24 else "middle"
        lines.append(_line("g-line", x, 22, sheet.bottom(rows)))
        lines.append(
            Markup('<text x="{}" y="18" text-anchor="{}">{}</text>').format(
                pixels(x), anchor, f"{hour:02}"
            )
        )
    return Markup("\n").join(lines)


def _rows(rows: Sequence[Row], sheet: _Sheet, today: int) -> Iterator[Markup]:
    for index, row in enumerate(rows):
        middle = sheet.y(index) + sheet.bar / 2
        yield Markup('<text class="t-strong" x="0" y="{}">{}</text>').format(
            pixels(middle + 4), _cut(row.label, (sheet.left - 10) // LETTER)
        )
        yield from _bars([(index, row)], sheet)
        yield from _codes(row, sheet, middle, None if len(rows) <= MOST_ROWS else today)
        yield from _freezes(row, sheet, sheet.y(index) - 4, first=index == 0)


def _cut(label: str, letters: int) -> str:
    return label if len(label) <= letters else label[: max(1, letters - 1)] + "…"


def _bars(rows: Sequence[tuple[int, Row]], sheet: _Sheet) -> Iterator[Markup]:
    """Yield the outline of each look: shadow as the whole bar, and what is allowed over it."""
    full_bars = [(index, sheet.left, sheet.left + sheet.width) for index, _ in rows]
    yield _path(EMPTY, full_bars, sheet)
    for look in OVER:
        bands = [
            (index, sheet.x(start), sheet.x(end))
            for index, row in rows
            for start, end, marker in row.bands
            if marker.look == look and sheet.shows(start, end)
        ]
        if bands:
            yield _path(look, bands, sheet)


def _path(look: str, bands: Iterable[tuple[int, float, float]], sheet: _Sheet) -> Markup:
    path_data = "".join(
        f"M{pixels(left + 0.5)} {sheet.y(index)}h{width}v{sheet.bar}h-{width}z"
        for index, left, right in bands
        for width in (pixels(max(right - left - 1, 0.5)),)
    )
    fill = Markup(' fill="url(#p-{})"').format(look) if look in PATTERNED else ""
    return Markup('<path class="p-{}"{} d="{}"/>').format(look, fill, path_data)


def _codes(row: Row, sheet: _Sheet, middle: float, today: int | None) -> Iterator[Markup]:
    """Yield the code of each band that has room for it; where rows are many only today's."""
    for start, end, marker in row.bands:
        for since, until in _by_day(start, end):
            is_drawn = today is None or since // DAY_MINUTES == today
            left, right = sheet.x(since), sheet.x(until)
            if is_drawn and right - left >= ROOM:
                yield from _code(marker, (left + right) / 2, middle)


def _by_day(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield a span whole, or day by day if it lasts longer than one.

    >>> list(_by_day(1200, 1800)), list(_by_day(720, 4000))
    ([(1200, 1800)], [(720, 1440), (1440, 2880), (2880, 4000)])
    """
    if end - start <= DAY_MINUTES:
        yield start, end
        return
    while start < end:
        day_end = min(end, (start // DAY_MINUTES + 1) * DAY_MINUTES)
        yield start, day_end
        start = day_end


def _code(mark: Mark, x: float, middle: float) -> Iterator[Markup]:
    width = LETTER * len(mark.code) + 4
    if mark.look in PATTERNED:
        yield Markup(
            '<rect class="code-ground" x="{}" y="{}" width="{}" height="15" rx="2"/>'
        ).format(pixels(x - width / 2), pixels(middle - 8), width)
    yield Markup('<text class="t-code on-{}" x="{}" y="{}" text-anchor="middle">{}</text>').format(
        mark.look, pixels(x), pixels(middle + 3.5), mark.code
    )


def _freezes(row: Row, sheet: _Sheet, y: int, *, first: bool) -> Iterator[Markup]:
    """Yield a line over the hours in which nothing widens; the word stands in the ruler."""
    for since, until in row.frozen:
        if not sheet.shows(since, until):
            continue
        left, right = sheet.x(since), sheet.x(until)
        yield Markup('<line class="g-axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(
            pixels(left), pixels(right), y
        )
        if first:
            x = max(right - 4, sheet.left + 40)
            yield Markup('<text x="{}" y="30" text-anchor="end">freeze</text>').format(pixels(x))


def _now(rows: Sequence[Row], sheet: _Sheet, says: str) -> Markup:
    """Return the line of now: one where all clocks show the same, else one for each row."""
    visible = [
        (index, row.now) for index, row in enumerate(rows) if sheet.shows(row.now, row.now + 1)
    ]
    bottom = sheet.bottom(len(rows))
    if not visible:
        return Markup("")
    if len({row.now for row in rows}) == 1:
        lines = [_line("g-now", sheet.x(rows[0].now), 32, bottom)]
    else:
        lines = [
            _line("g-now", sheet.x(minute), sheet.y(index) - 3, sheet.y(index) + sheet.bar + 3)
            for index, minute in visible
        ]
    x = min(max(sheet.x(visible[-1][1]), sheet.left + 34), sheet.left + sheet.width - 34)
    text = Markup('<text class="t-strong" x="{}" y="{}" text-anchor="middle">{}</text>')
    return Markup("\n").join([*lines, text.format(pixels(x), bottom + 13, says)])


def _line(name: str, x: float, top: int, bottom: int) -> Markup:
    return Markup('<line class="{0}" x1="{1}" y1="{2}" x2="{1}" y2="{3}"/>').format(
        name, pixels(x), top, bottom
    )
