"""The week map of a rollout as SVG: what is allowed by site and hour.

Shadow is one bar per row and every other pattern one path, so that fifty sites stay small. The
markup names patterns; `console.css` sets colours.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.cells.map_rows import (
    DAY_MINUTES,
    MAX_ROWS,
    WEEK_MINUTES,
    MapRow,
    StageSchedule,
    build_map_rows,
    compute_monday,
    describe_map,
    group_rows,
    list_sites,
)
from rollout.features.reports.figures.funnel import OUTSIDE_WINDOWS
from rollout.features.reports.pages.number_charts import format_pixels
from rollout.features.reports.pages.timeline_layout import (
    EMPTY,
    HATCHED,
    HUMANS_DECIDE,
    SOLID,
    WITHHELD,
    StageMarker,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.policy import Policy

PATTERN_FILLS: Final = (HATCHED, WITHHELD)
OVERLAY_PATTERNS: Final = (HATCHED, SOLID, WITHHELD)  # patterns drawn over shadow
LETTER_WIDTH: Final = 8  # px per character of a bold label
MIN_CODE_WIDTH: Final = 26  # px that a code needs
NOW_LABEL: Final = "now"
OUTSIDE: Final = "outside"  # text and pattern of hours outside every window
OUTSIDE_MARKER: Final = StageMarker(OUTSIDE_WINDOWS, "", OUTSIDE, HUMANS_DECIDE)
# Sizes in px.
WIDE_MAP: Final = (1178, 180)  # width, and the most for labels of sites
NARROW_MAP: Final = (326, 96)
SMALL_MAP_WIDTH: Final = 200
SMALL_ROWS: Final = (1, 11, 14)  # top of the first bar, its height, distance of rows
ROWS: Final = (38, 36, 46)
DENSE_ROWS: Final = (38, 20, 27)  # of more than `MAX_ROWS` rows
WEEK_HOURS: Final = (6, 12, 18)  # named in each day of a week
HOURS_HEIGHT: Final = 14
TICK_HEIGHT: Final = 5
LABEL_GAP: Final = 12
NOW_GAP: Final = 4  # between the line of now and a code
NOW_MARGIN: Final = 34  # half the width of the label of now


@dataclass(frozen=True, slots=True)
class WeekMap:
    """The map in two widths, its description, and its Monday."""

    wide: Markup
    narrow: Markup
    text: str
    monday: date


@dataclass(frozen=True, slots=True)
class _MapFrame:
    """Coordinates: bars begin at `left`, with `width` for `span` minutes after `start`."""

    left: int
    width: int
    start: int
    span: int
    top: int
    bar: int
    step: int

    def x(self, minute: int) -> float:
        """Return the x coordinate of a minute, clipped to the edges."""
        return self.left + self.width * min(max(minute - self.start, 0), self.span) / self.span

    def y(self, index: int) -> int:
        """Return the y coordinate of a row's bar."""
        return self.top + index * self.step

    def bottom(self, rows: int) -> int:
        """Return the y coordinate below the last row."""
        return self.top + rows * self.step

    def is_visible(self, start: int, end: int) -> bool:
        """Return whether part of a span is visible."""
        return start < self.start + self.span and end > self.start


def draw_week_map(
    policy: Policy,
    schedules: Mapping[Cell, StageSchedule],
    at: datetime,
    sites: Collection[str] | None = None,
    *,
    now_word: str = NOW_LABEL,
) -> WeekMap:
    """Draw the week around an instant, and its day for narrow screens.

    Args:
        policy: the policy in force.
        schedules: markers by cell, from `compute_schedules`.
        at: the marked instant.
        sites: the drawn sites; None for all.
        now_word: label of the mark: `now`, or `then` in the past.
    """
    rows = build_map_rows(policy, schedules, at, sites)
    description = describe_map(policy, schedules, sites)
    monday = compute_monday(at, policy.timezone)
    local_time = at.astimezone(ZoneInfo(policy.timezone))
    now_label = (
        f"{now_word} {local_time:%H:%M}" if len({row.now_minute for row in rows}) == 1 else now_word
    )
    day_index = (local_time.date() - monday).days
    week_frame = _build_frame(rows, *WIDE_MAP)
    day_frame = _build_frame(rows, *NARROW_MAP, day_index)
    place_text = f"{len(list_sites(policy, sites))} sites" if len(rows) != 1 else rows[0].label
    return WeekMap(
        wide=_draw_map(
            rows,
            week_frame,
            "week",
            f"What is allowed in this week, {place_text}",
            description,
            [
                _draw_days(monday, week_frame, day_index, len(rows)),
                *_draw_rows(rows, week_frame, day_index),
                _draw_now(rows, week_frame, now_label),
            ],
        ),
        narrow=_draw_map(
            rows,
            day_frame,
            "today",
            f"What is allowed on this day, {place_text}",
            description,
            [
                _draw_hours(day_frame, len(rows)),
                *_draw_rows(rows, day_frame, day_index),
                _draw_now(rows, day_frame, now_label),
            ],
        ),
        text=description,
        monday=monday,
    )


def draw_small_map(
    policy: Policy,
    schedules: Mapping[Cell, StageSchedule],
    at: datetime,
    sites: Collection[str] | None = None,
    *,
    rollout_name: str = "",
) -> Markup:
    """Draw the week 200 px wide, without codes, at most twelve rows.

    Args:
        policy: the policy in force.
        schedules: markers by cell, from `compute_schedules`.
        at: an instant of the week.
        sites: the drawn sites; None for all.
        rollout_name: begins the label of the map.
    """
    rows = group_rows(build_map_rows(policy, schedules, at, sites))[:MAX_ROWS]
    frame = _MapFrame(0, SMALL_MAP_WIDTH, 0, WEEK_MINUTES, *SMALL_ROWS)
    label = (f"{rollout_name}: " if rollout_name else "") + describe_map(policy, schedules, sites)
    return Markup(
        '<svg class="chart map" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" '
        'aria-label="{2}">{3}</svg>'
    ).format(
        frame.width,
        frame.bottom(len(rows)),
        label,
        Markup("").join(_draw_bars(list(enumerate(rows)), frame)),
    )


def _build_frame(
    rows: Sequence[MapRow], width: int, max_label_width: int, day: int | None = None
) -> _MapFrame:
    left = (
        min(max((LETTER_WIDTH * len(row.label) for row in rows), default=0), max_label_width)
        + LABEL_GAP
    )
    start, span = (0, WEEK_MINUTES) if day is None else (day * DAY_MINUTES, DAY_MINUTES)
    top, bar, step = ROWS if len(rows) <= MAX_ROWS else DENSE_ROWS
    top += HOURS_HEIGHT if day is None else 0
    return _MapFrame(left, width - left, start, span, top, bar, step)


def _draw_map(
    rows: Sequence[MapRow],
    frame: _MapFrame,
    map_id: str,
    title: str,
    description: str,
    parts: Iterable[Markup],
) -> Markup:
    return Markup(
        '<svg class="chart map" width="{0}" height="{1}" viewBox="0 0 {0} {1}" role="img" '
        'aria-labelledby="{2}-t {2}-d">\n<title id="{2}-t">{3}</title><desc id="{2}-d">{4}</desc>\n'
        "{5}</svg>"
    ).format(
        frame.left + frame.width + 2, frame.bottom(len(rows)) + 20, map_id, title, description,
        Markup("\n").join(parts),
    )  # fmt: skip


def _draw_days(monday: date, frame: _MapFrame, today: int, rows: int) -> Markup:
    """Draw a line, a date, hours and their ticks for each day; today's date in bold."""
    lines = []
    for number in range(7):
        x, day = frame.x(number * DAY_MINUTES), monday + timedelta(days=number)
        strong_class = Markup(' class="t-strong"') if number == today else ""
        lines.append(_draw_line("g-line", x, 20, frame.bottom(rows)))
        lines.append(
            Markup('<text x="{}" y="16"{}>{}</text>').format(
                format_pixels(x + 5), strong_class, f"{day:%a} {day.day} {day:%b}"
            )
        )
        lines += [
            Markup('<text x="{}" y="31" text-anchor="middle">{}</text>').format(
                format_pixels(frame.x(number * DAY_MINUTES + hour * 60)), f"{hour:02}"
            )
            for hour in WEEK_HOURS
        ]
    ticks = "".join(
        f"M{format_pixels(frame.x(number * DAY_MINUTES + hour * 60))} {frame.top - TICK_HEIGHT}"
        f"v{TICK_HEIGHT}"
        for number in range(7)
        for hour in WEEK_HOURS
    )
    lines.append(Markup('<path class="g-axis" d="{}"/>').format(ticks))
    return Markup("\n").join(lines)


def _draw_hours(frame: _MapFrame, rows: int) -> Markup:
    """Draw a line for every six hours of the day."""
    lines = []
    for hour in range(0, 25, 6):
        x, anchor = frame.x(frame.start + hour * 60), "end" if hour == 24 else "middle"
        lines.append(_draw_line("g-line", x, 22, frame.bottom(rows)))
        lines.append(
            Markup('<text x="{}" y="18" text-anchor="{}">{}</text>').format(
                format_pixels(x), anchor, f"{hour:02}"
            )
        )
    return Markup("\n").join(lines)


def _draw_rows(rows: Sequence[MapRow], frame: _MapFrame, today: int) -> Iterator[Markup]:
    for index, row in enumerate(rows):
        middle = frame.y(index) + frame.bar / 2
        yield Markup('<text class="t-strong" x="0" y="{}">{}</text>').format(
            format_pixels(middle + 4), _shorten_label(row.label, (frame.left - 10) // LETTER_WIDTH)
        )
        yield from _draw_bars([(index, row)], frame)
        yield from _draw_codes(row, frame, middle, None if len(rows) <= MAX_ROWS else today)
        yield from _draw_outside_names(row, frame, middle)
        yield from _draw_freezes(row, frame, frame.y(index) - 4, first=index == 0)


def _shorten_label(label: str, max_letters: int) -> str:
    return label if len(label) <= max_letters else label[: max(1, max_letters - 1)] + "…"


def _draw_bars(rows: Sequence[tuple[int, MapRow]], frame: _MapFrame) -> Iterator[Markup]:
    """Yield one path per pattern, shadow as the whole bar below."""
    full_bars = [(index, frame.left, frame.left + frame.width) for index, _ in rows]
    yield _draw_path(EMPTY, full_bars, frame)
    outside = [
        (index, frame.x(start), frame.x(end))
        for index, row in rows
        for start, end in row.outside
        if frame.is_visible(start, end)
    ]
    if outside:
        yield _draw_path(OUTSIDE, outside, frame)
    for pattern in OVERLAY_PATTERNS:
        bands = [
            (index, frame.x(start), frame.x(end))
            for index, row in rows
            for start, end, marker in row.bands
            if marker.pattern == pattern and frame.is_visible(start, end)
        ]
        if bands:
            yield _draw_path(pattern, bands, frame)


def _draw_path(pattern: str, bands: Iterable[tuple[int, float, float]], frame: _MapFrame) -> Markup:
    path_data = "".join(
        f"M{format_pixels(left + 0.5)} {frame.y(index)}h{width}v{frame.bar}h-{width}z"
        for index, left, right in bands
        for width in (format_pixels(max(right - left - 1, 0.5)),)
    )
    fill = Markup(' fill="url(#p-{})"').format(pattern) if pattern in PATTERN_FILLS else ""
    return Markup('<path class="p-{}"{} d="{}"/>').format(pattern, fill, path_data)


def _draw_codes(
    row: MapRow, frame: _MapFrame, middle: float, today: int | None
) -> Iterator[Markup]:
    """Yield the code of each wide enough band; with many rows only today's."""
    for start, end, marker in row.bands:
        for since, until in _split_by_day(start, end):
            is_drawn = today is None or since // DAY_MINUTES == today
            left, right = frame.x(since), frame.x(until)
            if is_drawn and right - left >= MIN_CODE_WIDTH:
                x = _find_code_place(left, right, _measure_code(marker), frame.x(row.now_minute))
                if x is not None:
                    yield from _draw_code(marker, x, middle)


def _split_by_day(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield a span whole, or split at midnight if longer than a day.

    >>> list(_split_by_day(1200, 1800)), list(_split_by_day(720, 4000))
    ([(1200, 1800)], [(720, 1440), (1440, 2880), (2880, 4000)])
    """
    if end - start <= DAY_MINUTES:
        yield start, end
        return
    while start < end:
        day_end = min(end, (start // DAY_MINUTES + 1) * DAY_MINUTES)
        yield start, day_end
        start = day_end


def _draw_outside_names(row: MapRow, frame: _MapFrame, middle: float) -> Iterator[Markup]:
    """Yield the name of hours outside every window, where it fits beside the line of now."""
    width = LETTER_WIDTH * len(OUTSIDE)
    for start, end in row.outside:
        left, right = frame.x(start), frame.x(end)
        if right - left < width + NOW_GAP:
            continue
        x = _find_code_place(left, right, width, frame.x(row.now_minute))
        if x is not None:
            yield Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                format_pixels(x), format_pixels(middle + 4), OUTSIDE
            )


def _measure_code(marker: StageMarker) -> int:
    return LETTER_WIDTH * len(marker.code) + 4


def _find_code_place(left: float, right: float, width: float, now: float) -> float | None:
    """Return where a band's code has its middle: beside the line of now, if it is in the band.

    >>> _find_code_place(0, 60, 20, 99), _find_code_place(0, 60, 20, 25)
    (30.0, 39.0)
    >>> _find_code_place(0, 26, 20, 13)  # no room on either side
    """
    middle, distance = (left + right) / 2, width / 2 + NOW_GAP
    if abs(now - middle) >= distance:
        return middle
    place = now + distance if now <= middle else now - distance
    return place if left + width / 2 <= place <= right - width / 2 else None


def _draw_code(marker: StageMarker, x: float, middle: float) -> Iterator[Markup]:
    width = _measure_code(marker)
    if marker.pattern in PATTERN_FILLS:
        yield Markup(
            '<rect class="code-ground" x="{}" y="{}" width="{}" height="15" rx="2"/>'
        ).format(format_pixels(x - width / 2), format_pixels(middle - 8), width)
    yield Markup('<text class="t-code on-{}" x="{}" y="{}" text-anchor="middle">{}</text>').format(
        marker.pattern, format_pixels(x), format_pixels(middle + 3.5), marker.code
    )


def _draw_freezes(row: MapRow, frame: _MapFrame, y: int, *, first: bool) -> Iterator[Markup]:
    """Yield a line over frozen hours; the first row has the word."""
    for since, until in row.freezes:
        if not frame.is_visible(since, until):
            continue
        left, right = frame.x(since), frame.x(until)
        yield Markup('<line class="g-axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(
            format_pixels(left), format_pixels(right), y
        )
        if first:
            x = max(right - 4, frame.left + 40)
            yield Markup('<text x="{}" y="{}" text-anchor="end">freeze</text>').format(
                format_pixels(x), frame.top - 8
            )


def _draw_now(rows: Sequence[MapRow], frame: _MapFrame, label: str) -> Markup:
    """Draw the mark of now: one line, or one per row if clocks differ."""
    visible = [
        (index, row.now_minute)
        for index, row in enumerate(rows)
        if frame.is_visible(row.now_minute, row.now_minute + 1)
    ]
    bottom = frame.bottom(len(rows))
    if not visible:
        return Markup("")
    if len({row.now_minute for row in rows}) == 1:
        lines = [_draw_line("g-now", frame.x(rows[0].now_minute), frame.top - 6, bottom)]
    else:
        lines = [
            _draw_line("g-now", frame.x(minute), frame.y(index) - 3, frame.y(index) + frame.bar + 3)
            for index, minute in visible
        ]
    x = min(
        max(frame.x(visible[-1][1]), frame.left + NOW_MARGIN), frame.left + frame.width - NOW_MARGIN
    )
    text = Markup('<text class="t-strong" x="{}" y="{}" text-anchor="middle">{}</text>')
    return Markup("\n").join([*lines, text.format(format_pixels(x), bottom + 13, label)])


def _draw_line(css_class: str, x: float, top: int, bottom: int) -> Markup:
    return Markup('<line class="{0}" x1="{1}" y1="{2}" x2="{1}" y2="{3}"/>').format(
        css_class, format_pixels(x), top, bottom
    )
