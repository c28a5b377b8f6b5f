"""When hours hold at a site: opening-hours-py, asked about the clock on the wall alone.

An instant lies in the hours if the time that the site's clock shows then lies in them. So an hour
that the clock skips in spring is in nothing, and an hour that it shows twice in autumn is in the
same hours both times. The library is asked without a zone; measured with 2.1.4, with one it loses
the first of the two hours, the last minute before them for `24/7`, and, told
`auto_timezone=False`, the coordinates. `24/7` is not asked of it at all.

Hours that follow the sun are asked day by day, with that day's times of the sun in place of the
words. So `sunset-sunrise` ends by the sun of the morning on which it ends. Only what ends after
midnight *by the evening's sun* (an hour after a sunset at 23:10) takes the coming evening's time
for the last one's: off by what a day changes, a minute or two.

Years before 1900 and after 2199 are closed, save to `24/7`. A state that is `unknown` is closed.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from opening_hours import OpeningHours, State

from rollout.core.calendar.sun import at_times, follows_sun, sun_year
from rollout.core.calendar.timezones import (
    DAY,
    FIRST_YEAR,
    LAST_YEAR,
    Counts,
    count,
    days_of,
    midnight,
    moment,
    stretches,
    wall,
    year_start,
    years_of,
)

if TYPE_CHECKING:
    from rollout.core.calendar.sites import Site

_HORIZON_YEARS: Final = 10  # in which a change is looked for
_PH: Final = re.compile(r"\bPH\b")

Spans = list[tuple[datetime, datetime]]


def unquoted(hours: str) -> str:
    """The hours without their comments."""
    return re.sub(r'"[^"]*"', "", hours)


def on_holidays(hours: str) -> bool:
    """Whether the hours ask for public holidays (`PH`)."""
    return _PH.search(unquoted(hours)) is not None


def always(hours: str | None) -> bool:
    """Whether the hours are `24/7` or none at all, which is the same."""
    return hours is None or hours.strip() == "24/7"


@lru_cache(maxsize=512)
def _asked(hours: str, country: str | None) -> OpeningHours:
    return OpeningHours(hours.strip(), country=country)


def _open(hours: str, country: str | None, start: datetime, end: datetime) -> Spans:
    intervals = _asked(hours, country).intervals(start, end)
    return [(opens, closes) for opens, closes, state, _ in intervals if state == State.OPEN]


def _merged(edges: Counts) -> Counts:
    """Edges of spans in order (open, close, open, …), without those at which two spans touch."""
    repeats = edges[1:] == edges[:-1]
    touching = np.zeros(edges.size, dtype=np.bool_)
    touching[1:] |= repeats
    touching[:-1] |= repeats
    return edges[~touching]


def _flat(spans: Spans) -> Counts:
    edges = np.array(spans, dtype="datetime64[us]").astype(np.int64)
    return _merged(edges.reshape(-1))


@lru_cache(maxsize=4096)
def _by_the_clock(hours: str, country: str | None, year: int) -> Counts:
    days = days_of(year)
    return _flat(_open(hours, country, midnight(days.start), midnight(days.stop)))


@lru_cache(maxsize=4096)
def _by_the_sun(
    hours: str, country: str | None, timezone: str, place: tuple[float, float], year: int
) -> Counts:
    spans: Spans = []
    for day, minutes in zip(days_of(year), sun_year(timezone, place, year), strict=True):
        spans += _open(at_times(hours, minutes), country, midnight(day), midnight(day + 1))
    return _flat(spans)


def _wall_edges(hours: str, site: "Site", year: int) -> Counts:
    """Wall times of one year at which the hours open, close and so on."""
    country = site.country if on_holidays(hours) else None
    if not follows_sun(hours):
        return _by_the_clock(hours, country, year)
    if site.place is None:
        raise ValueError(f"{hours!r} follows the sun: give site {site.id} its `place: [lat, lon]`")
    return _by_the_sun(hours, country, site.timezone, site.place, year)


def _years_edges(hours: str, site: "Site", years: Iterable[int]) -> Counts:
    return np.concatenate([_wall_edges(hours, site, year) for year in years])


def hold(hours: str | None, site: "Site", shown: Counts) -> NDArray[np.bool_]:
    """Whether the hours hold at each time `shown` by the site's clock (`zones.walls`)."""
    if hours is None or always(hours):
        return np.ones(shown.size, dtype=np.bool_)
    if not shown.size:
        return np.zeros(0, dtype=np.bool_)
    edges = _years_edges(hours, site, years_of(shown))
    return np.asarray(np.searchsorted(edges, shown, side="right") % 2 == 1)


def is_open(hours: str | None, site: "Site", at: datetime) -> bool:
    """Whether the hours hold at the site at one instant; None and `24/7` always do.

    Raises:
        ValueError: `at` has no time zone, or the hours follow the sun and the site has no place.

    >>> from rollout.core.calendar.sites import Site
    >>> lisbon = Site("lisbon", "Europe/Lisbon")
    >>> is_open("Mo-Sa 06:00-18:00", lisbon, datetime.fromisoformat("2025-10-25T16:59:59+00:00"))
    True
    >>> is_open("Mo-Sa 06:00-18:00", lisbon, datetime.fromisoformat("2025-10-25T17:00:00+00:00"))
    False
    """
    wall_time = wall(site.timezone, at)
    if hours is None or always(hours):
        return True
    if not year_start(FIRST_YEAR) <= wall_time < year_start(LAST_YEAR + 1):
        return False
    edges = _wall_edges(hours, site, moment(wall_time).year)
    return int(np.searchsorted(edges, wall_time, side="right")) % 2 == 1


def open_edges(hours: str | None, site: "Site", start: int, end: int) -> Counts:
    """Instants in [start, end] at which the hours open, close, open, …, cut to that range."""
    if hours is None or always(hours):
        return np.array([start, end] if start < end else [], dtype=np.int64)
    pieces = [np.array([], dtype=np.int64)]
    for since, until, offset in stretches(site.timezone, start, end):
        years = years_of(np.array([since, until]) + offset)
        edges = _years_edges(hours, site, range(years[0], years[-1] + 1)) - offset
        spans = np.clip(edges, since, until).reshape(-1, 2)
        pieces.append(spans[spans[:, 0] < spans[:, 1]].reshape(-1))
    return _merged(np.concatenate(pieces))


def open_spans(
    hours: str | None, site: "Site", start: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    """The spans of [start, end) in which the hours hold, in order, apart from each other, in UTC.

    Each begins with the instant at which the hours open and ends before the one at which they
    close; the first and last are cut to the range. Exact to the minute. Empty if nothing is open
    or the range is empty.

    Raises:
        ValueError: as `is_open`.

    >>> from rollout.core.calendar.sites import Site
    >>> start, end = (datetime.fromisoformat(f"2025-10-2{day}T00:00:00+00:00") for day in "68")
    >>> [str(at) for at in open_spans("01:30-02:00", Site("a", "Europe/Lisbon"), start, end)[0]]
    ['2025-10-26 00:30:00+00:00', '2025-10-26 01:00:00+00:00']
    >>> len(open_spans("01:30-02:00", Site("a", "Europe/Lisbon"), start, end))  # clock goes back
    3
    """
    edges = open_edges(hours, site, count(start), count(end)).tolist()
    moments = [moment(edge) for edge in edges]
    return list(zip(moments[::2], moments[1::2], strict=True))


def next_change(hours: str | None, site: "Site", at: datetime) -> datetime | None:
    """The first instant after `at` at which the hours open or close, in UTC.

    None if there is none within ten years. Raises as `is_open`.
    """
    is_open_now, start = is_open(hours, site, at), count(at)
    horizon = min(start + _HORIZON_YEARS * 366 * DAY, year_start(LAST_YEAR + 1))
    while start < horizon:
        end = start + 366 * DAY
        edges = open_edges(hours, site, start, end)
        if is_open(hours, site, moment(start)) != is_open_now:
            return moment(start)
        later_edges = edges[(edges > start) & (edges < end)]
        if later_edges.size:
            return moment(int(later_edges[0]))
        start = end
    return None


def unreadable(hours: str) -> str | None:
    """The part of the hours from which on they can't be read, or None if they can."""
    try:
        OpeningHours(hours.strip())
    except Exception as error:  # noqa: BLE001  the library's stub leaves out its ParserError
        position = re.search(r"--> 1:(\d+)", str(error))
        return hours.strip()[int(position[1]) - 1 :] if position else hours
    return None


def spelled_out(hours: str) -> str:
    """Readable hours as the library understood them, `Dec 24-26` as `Dec 24-Dec 26`."""
    return str(OpeningHours(hours.strip()))


def known_country(country: str) -> bool:
    """Whether public holidays of this ISO code are known (`NO`, not `no` or `Norway`).

    They are from 2000 to 2076 (measured); in other years no day is one.
    """
    try:
        OpeningHours("PH", country=country)
    except Exception:  # noqa: BLE001  the library's stub leaves out its UnknownCountryError
        return False
    return True
