"""Opening hours of a site, and local times of the sun in them, by opening-hours-py.

An instant lies in the hours if the local time of the site does. So an hour that the clock skips in
spring is in no window, and an hour that it shows twice in autumn is in the same window both times.
The library gets local time without a zone: measured with 2.1.4, with one it loses the first of the
two hours, the last minute before them for `24/7`, and, with `auto_timezone=False`, the coordinates.
`24/7` never reaches the library.

Hours that follow the sun are computed day by day, with that day's times of the sun in place of the
words. So `sunset-sunrise` ends by the sun of the morning on which it ends. Only hours that end
after midnight *by the evening's sun* (an hour after a sunset at 23:10) use the coming evening's
time instead of the last one's: an error of a minute or two.

Years before 1900 and after 2199 are closed, except for `24/7`. The state `unknown` is closed.

Times of the sun: the library computes one event at a time in UTC; local time is derived here. With
a timezone the library ends a night by the sun of the day on which the night began (an hour off at
clock changes), and it uses its own timezone table, which may be older than Python's.

Twilight is civil (sun 6° below the horizon). Times are cut to the minute. If an event does not
happen, because the sun (or for dawn and dusk, twilight) stays or stays away all day, it is placed
next to midnight or next to the sun's noon: such a day or night is right to two minutes.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from rollout.kernel.arrays import Bools, Ints, LateModule, np
from rollout.kernel.calendar.instants import (
    DAY,
    FIRST_YEAR,
    HOUR,
    LAST_YEAR,
    MINUTE,
    Site,
    compute_midnight,
    compute_year_start,
    from_micros,
    list_days,
    list_stretches,
    list_years,
    to_instant_micros,
    to_wall_time,
    to_wall_times,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import opening_hours
else:
    opening_hours = LateModule("opening_hours")

SUN_EVENTS: Final = ("dawn", "sunrise", "sunset", "dusk")

# Placeholders of events that don't happen: minute of the local day if the sun stays up, distance
# from the sun's noon if it stays down. They differ, as equal times would mean a whole day.
_MINUTES_SUN_UP: Final = {"dawn": 0, "sunrise": 1, "sunset": 1438, "dusk": 1439}
_MINUTES_SUN_DOWN: Final = {"dawn": -1, "sunrise": 0, "sunset": 1, "dusk": 2}

_SUN_TOKEN: Final = re.compile(
    r'"[^"]*"'  # a comment may contain "sunset"
    r"|\(\s*(?P<shifted>dawn|sunrise|sunset|dusk)\s*(?P<sign>[+-])"
    r"\s*(?P<hours>\d+):(?P<minutes>\d+)\s*\)"
    r"|\b(?P<plain>dawn|sunrise|sunset|dusk)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def follows_sun(hours: str) -> bool:
    """Return whether the hours name an event of the sun outside comments."""
    return any(not match[0].startswith('"') for match in _SUN_TOKEN.finditer(hours))


def replace_sun_events(hours: str, minutes: dict[str, int]) -> str:
    """Return the hours with each sun event replaced by its local time.

    >>> replace_sun_events('sunset-(sunset+01:00) "after sunset"', {"sunset": 1190})
    '19:50-20:50 "after sunset"'
    """

    def format_clock(match: re.Match[str]) -> str:
        event = match["plain"] or match["shifted"]
        if event is None:
            return match[0]
        minute = minutes[event.lower()]
        if match["shifted"]:
            shift = int(match["hours"]) * 60 + int(match["minutes"])
            minute += shift if match["sign"] == "+" else -shift
        return "{:02d}:{:02d}".format(*divmod(minute % 1440, 60))

    return _SUN_TOKEN.sub(format_clock, hours)


def _compute_utc_minutes(event: str, coordinates: tuple[float, float], days: range) -> Ints:
    """Return the event's minute of each UTC day, −1 without event."""
    utc_zone = ZoneInfo("UTC")
    probe = opening_hours.OpeningHours(
        f"{event}-({event}+00:01)", timezone=utc_zone, coords=coordinates, auto_country=False
    )
    minutes = np.full(len(days), -1, dtype=np.int64)
    for index, day in enumerate(days):  # one by one: at midnight two days' minutes would touch
        for opens, closes, state, _ in probe.intervals(
            compute_midnight(day), compute_midnight(day + 1)
        ):
            if state == opening_hours.State.OPEN and closes - opens == timedelta(minutes=1):
                minutes[index] = opens.hour * 60 + opens.minute
    return minutes


def _is_northern_summer(days: range) -> Bools:
    dates = [compute_midnight(day) for day in days]
    return np.array([(3, 20) < (at.month, at.day) < (9, 23) for at in dates])


def _compute_event_minutes(
    event: str, timezone: str, coordinates: tuple[float, float], year: int
) -> Ints:
    """Return the event's minute of the local day, by day of a year."""
    days = list_days(year)
    starts = np.array(days) * DAY
    noon = starts + 12 * HOUR - round(coordinates[1] * 4 * MINUTE)
    usual_instants = noon + (-6 * HOUR if event in ("dawn", "sunrise") else 6 * HOUR)
    minute_of_day = _compute_utc_minutes(event, coordinates, days)
    # The library returns a time of day without a date: take the one nearest to the usual instant.
    event_instants = (
        usual_instants
        + (starts + minute_of_day * MINUTE - usual_instants + 12 * HOUR) % DAY
        - 12 * HOUR
    )
    instants = np.where(minute_of_day < 0, noon + _MINUTES_SUN_DOWN[event] * MINUTE, event_instants)
    local_minutes = to_wall_times(timezone, instants) % DAY // MINUTE
    is_sun_up = (minute_of_day < 0) & (_is_northern_summer(days) == (coordinates[0] > 0))
    return np.where(is_sun_up, _MINUTES_SUN_UP[event], local_minutes)


@lru_cache(maxsize=512)
def compute_sun_year(
    timezone: str, coordinates: tuple[float, float], year: int
) -> tuple[dict[str, int], ...]:
    """Return for each day of a year the local minute of each event.

    >>> compute_sun_year("Europe/Paris", (48.85, 2.35), 2024)[90][
    ...     "sunrise"
    ... ]  # 31 March, clocks moved
    449
    """
    minutes = [
        _compute_event_minutes(event, timezone, coordinates, year).tolist() for event in SUN_EVENTS
    ]
    return tuple(dict(zip(SUN_EVENTS, day, strict=True)) for day in zip(*minutes, strict=True))


def compute_sun_offset(site: Site) -> float | None:
    """Return the hours, ±12, of standard time ahead of the sun.

    None without coordinates. A large offset means swapped or mis-signed coordinates, or the
    timezone of another site.
    """
    if site.coordinates is None:
        return None
    year_stretches = list_stretches(
        site.timezone, compute_year_start(2024), compute_year_start(2025)
    )
    standard_offset = min(stretch.offset for stretch in year_stretches) / HOUR
    return (standard_offset - site.coordinates[1] / 15 + 12) % 24 - 12


_HORIZON_YEARS: Final = 10  # of the search for a change
_PUBLIC_HOLIDAY: Final = re.compile(r"\bPH\b")

TimeSpans = list[tuple[datetime, datetime]]


def strip_comments(hours: str) -> str:
    """Return the hours without their comments."""
    return re.sub(r'"[^"]*"', "", hours)


def uses_holidays(hours: str) -> bool:
    """Return whether the hours refer to public holidays (`PH`)."""
    return _PUBLIC_HOLIDAY.search(strip_comments(hours)) is not None


def is_always_open(hours: str | None) -> bool:
    """Return whether the hours are `24/7` or None, which means the same."""
    return hours is None or hours.strip() == "24/7"


@lru_cache(maxsize=512)
def _parse_hours(hours: str, country: str | None) -> opening_hours.OpeningHours:
    return opening_hours.OpeningHours(hours.strip(), country=country)


def _list_open_spans(hours: str, country: str | None, start: datetime, end: datetime) -> TimeSpans:
    intervals = _parse_hours(hours, country).intervals(start, end)
    return [
        (opens, closes)
        for opens, closes, state, _ in intervals
        if state == opening_hours.State.OPEN
    ]


def _merge_edges(edges: Ints) -> Ints:
    """Return sorted edges of spans without those at which two spans touch."""
    repeats = edges[1:] == edges[:-1]
    touching = np.zeros(edges.size, dtype=np.bool_)
    touching[1:] |= repeats
    touching[:-1] |= repeats
    return edges[~touching]


def _flatten_spans(spans: TimeSpans) -> Ints:
    edges = np.array(spans, dtype="datetime64[us]").astype(np.int64)
    return _merge_edges(edges.reshape(-1))


@lru_cache(maxsize=4096)
def _compute_clock_edges(hours: str, country: str | None, year: int) -> Ints:
    days = list_days(year)
    return _flatten_spans(
        _list_open_spans(hours, country, compute_midnight(days.start), compute_midnight(days.stop))
    )


@lru_cache(maxsize=4096)
def _compute_sun_edges(
    hours: str, country: str | None, timezone: str, coordinates: tuple[float, float], year: int
) -> Ints:
    spans: TimeSpans = []
    for day, minutes in zip(
        list_days(year), compute_sun_year(timezone, coordinates, year), strict=True
    ):
        spans += _list_open_spans(
            replace_sun_events(hours, minutes),
            country,
            compute_midnight(day),
            compute_midnight(day + 1),
        )
    return _flatten_spans(spans)


def _compute_wall_edges(hours: str, site: Site, year: int) -> Ints:
    """Return the local times of opening and closing in a year."""
    country = site.country if uses_holidays(hours) else None
    if not follows_sun(hours):
        return _compute_clock_edges(hours, country, year)
    if site.coordinates is None:
        raise ValueError(f"{hours!r} follows the sun: give site {site.id} its `place: [lat, lon]`")
    return _compute_sun_edges(hours, country, site.timezone, site.coordinates, year)


def _collect_edges(hours: str, site: Site, years: Iterable[int]) -> Ints:
    return np.concatenate([_compute_wall_edges(hours, site, year) for year in years])


def are_open(hours: str | None, site: Site, wall_times: Ints) -> Bools:
    """Return whether the hours are open at each local time."""
    if hours is None or is_always_open(hours):
        return np.ones(wall_times.size, dtype=np.bool_)
    if not wall_times.size:
        return np.zeros(0, dtype=np.bool_)
    edges = _collect_edges(hours, site, list_years(wall_times))
    return np.asarray(np.searchsorted(edges, wall_times, side="right") % 2 == 1)


def is_open(hours: str | None, site: Site, at: datetime) -> bool:
    """Return whether the hours are open at an instant.

    None and `24/7` always are.

    Raises:
        ValueError: `at` has no timezone, or hours follow the sun and the site has no coordinates.

    >>> lisbon = Site("lisbon", "Europe/Lisbon")
    >>> is_open("Mo-Sa 06:00-18:00", lisbon, datetime.fromisoformat("2025-10-25T16:59:59+00:00"))
    True
    >>> is_open("Mo-Sa 06:00-18:00", lisbon, datetime.fromisoformat("2025-10-25T17:00:00+00:00"))
    False
    """
    wall_time = to_wall_time(site.timezone, at)
    if hours is None or is_always_open(hours):
        return True
    if not compute_year_start(FIRST_YEAR) <= wall_time < compute_year_start(LAST_YEAR + 1):
        return False
    edges = _compute_wall_edges(hours, site, from_micros(wall_time).year)
    return int(np.searchsorted(edges, wall_time, side="right")) % 2 == 1


def compute_open_edges(hours: str | None, site: Site, start: int, end: int) -> Ints:
    """Return the instants of opening and closing in [start, end].

    They alternate (open, close, …) and are cut to the range.
    """
    if hours is None or is_always_open(hours):
        return np.array([start, end] if start < end else [], dtype=np.int64)
    pieces = [np.array([], dtype=np.int64)]
    for since, until, offset in list_stretches(site.timezone, start, end):
        years = list_years(np.array([since, until]) + offset)
        edges = _collect_edges(hours, site, range(years[0], years[-1] + 1)) - offset
        spans = np.clip(edges, since, until).reshape(-1, 2)
        pieces.append(spans[spans[:, 0] < spans[:, 1]].reshape(-1))
    return _merge_edges(np.concatenate(pieces))


def list_open_spans(
    hours: str | None, site: Site, start: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    """Return the open spans of [start, end) in order, disjoint, in UTC.

    The first and last are cut to the range. Exact to the minute. Empty if nothing is open or the
    range is empty.

    Raises:
        ValueError: as `is_open`.

    >>> start, end = (datetime.fromisoformat(f"2025-10-2{day}T00:00:00+00:00") for day in "68")
    >>> [
    ...     str(at)
    ...     for at in list_open_spans("01:30-02:00", Site("a", "Europe/Lisbon"), start, end)[0]
    ... ]
    ['2025-10-26 00:30:00+00:00', '2025-10-26 01:00:00+00:00']
    >>> len(
    ...     list_open_spans("01:30-02:00", Site("a", "Europe/Lisbon"), start, end)
    ... )  # clock goes back
    3
    """
    edges = compute_open_edges(
        hours, site, to_instant_micros(start), to_instant_micros(end)
    ).tolist()
    moments = [from_micros(edge) for edge in edges]
    return list(zip(moments[::2], moments[1::2], strict=True))


def find_next_change(hours: str | None, site: Site, at: datetime) -> datetime | None:
    """Return the first UTC instant after `at` of opening or closing.

    None without one within ten years. Raises as `is_open`.
    """
    if is_always_open(hours):
        return None
    is_open_now, start = is_open(hours, site, at), to_instant_micros(at)
    horizon = min(start + _HORIZON_YEARS * 366 * DAY, compute_year_start(LAST_YEAR + 1))
    while start < horizon:
        end = start + 366 * DAY
        edges = compute_open_edges(hours, site, start, end)
        if is_open(hours, site, from_micros(start)) != is_open_now:
            return from_micros(start)
        later_edges = edges[(edges > start) & (edges < end)]
        if later_edges.size:
            return from_micros(int(later_edges[0]))
        start = end
    return None


def find_unreadable_part(hours: str) -> str | None:
    """Return the hours from the first syntax error on, or None."""
    try:
        opening_hours.OpeningHours(hours.strip())
    except Exception as error:  # noqa: BLE001  the library's stub leaves out its ParserError
        position = re.search(r"--> 1:(\d+)", str(error))
        return hours.strip()[int(position[1]) - 1 :] if position else hours
    return None


def normalize_hours(hours: str) -> str:
    """Return hours in the library's spelling, `Dec 24-26` as `Dec 24-Dec 26`."""
    return str(opening_hours.OpeningHours(hours.strip()))


def has_holidays(country: str) -> bool:
    """Return whether the library knows the public holidays of an ISO code.

    Codes are upper case (`NO`, not `no` or `Norway`). Holidays are known from 2000 to 2076
    (measured); other years have none.
    """
    try:
        opening_hours.OpeningHours("PH", country=country)
    except Exception:  # noqa: BLE001  the library's stub leaves out its UnknownCountryError
        return False
    return True
