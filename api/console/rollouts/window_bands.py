"""When the windows of a site hold in one week, by the site's clock: minutes since Monday 00:00.

A clock that skips an hour in spring shows it as part of what holds around it; an hour that it shows
twice in autumn is drawn once. So every week is as long as every other.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from rollout.core.calendar.opening_hours import open_edges
from rollout.core.calendar.sites import Site, Window
from rollout.core.calendar.sun import follows_sun
from rollout.core.calendar.timezones import MINUTE, count, walls

DAY_MINUTES: Final = 24 * 60
WEEK_MINUTES: Final = 7 * DAY_MINUTES
Span = tuple[int, int]
Band = tuple[int, int, str]
"""From one minute to another (outside): which window holds, "" where none does."""


def monday_of(at: datetime, zone: str) -> date:
    """Return the Monday of the week that a zone's calendar shows at an instant."""
    today = at.astimezone(ZoneInfo(zone)).date()
    return today - timedelta(days=today.weekday())


def minute_of(at: datetime, zone: str, monday: date) -> int:
    """Return the minute of the week that a zone's clock shows; outside 0 to 10,080 in others."""
    local_time = at.astimezone(ZoneInfo(zone))
    days = (local_time.date() - monday).days
    return days * DAY_MINUTES + local_time.hour * 60 + local_time.minute


def bands_of(site: Site, windows: Sequence[Window], monday: date) -> tuple[Band, ...]:
    """Return what holds when at a site: of several windows the first, as for cases.

    What cases bring along is not looked at: ask for one window at a time where it chooses.

    >>> day = Window("day", "06:00-20:00")
    >>> bands_of(Site("hut", "UTC"), (day, Window("night")), date(2027, 6, 14))[:3]
    ((0, 360, 'night'), (360, 1200, 'day'), (1200, 1800, 'night'))
    """
    return _bands(
        tuple((window.id, window.hours) for window in windows), *_clock(site, windows), monday
    )


def spans_of(hours: str | None, site: Site, monday: date) -> tuple[Span, ...]:
    """Return when hours hold at a site: of a freeze, or of one window."""
    window = Window("", hours)
    return _spans(hours, *_clock(site, (window,)), monday)


def _clock(site: Site, windows: Sequence[Window]) -> tuple[Site]:
    """Return what of a site decides about hours: sites with the same are computed once."""
    follows_sunlight = any(
        window.hours is not None and follows_sun(window.hours) for window in windows
    )
    return (
        replace(site, id="", wave=1, lease=None, place=site.place if follows_sunlight else None),
    )


@lru_cache(maxsize=4096)
def _bands(
    windows: tuple[tuple[str, str | None], ...], site: Site, monday: date
) -> tuple[Band, ...]:
    edges_by_window = {
        name: [edge for span in _spans(hours, site, monday) for edge in span]
        for name, hours in windows
    }
    edges = sorted(
        {
            0,
            WEEK_MINUTES,
            *(minute for window_edges in edges_by_window.values() for minute in window_edges),
        }
    )
    bands: list[Band] = []
    for start, end in pairwise(edges):
        window = _first(edges_by_window, start)
        if bands and bands[-1][2] == window:
            bands[-1] = (bands[-1][0], end, window)
        else:
            bands.append((start, end, window))
    return tuple(bands)


def _first(held: Mapping[str, list[int]], minute: int) -> str:
    return next(
        (name for name, window_edges in held.items() if bisect_right(window_edges, minute) % 2), ""
    )


@lru_cache(maxsize=4096)
def _spans(hours: str | None, site: Site, monday: date) -> tuple[Span, ...]:
    zone = ZoneInfo(site.timezone)
    week_start, week_end = (
        datetime.combine(day, datetime.min.time(), zone) for day in (monday, _next(monday))
    )
    edges = open_edges(hours, site, count(week_start), count(week_end))
    midnight = count(week_start) + (week_start.utcoffset() or timedelta()) // timedelta(
        microseconds=1
    )
    minutes = np.clip((walls(site.timezone, edges) - midnight) // MINUTE, 0, WEEK_MINUTES).tolist()
    spans: list[Span] = []
    for start, end in sorted(zip(minutes[::2], minutes[1::2], strict=True)):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        elif end > start:
            spans.append((start, end))
    return tuple(spans)


def _next(monday: date) -> date:
    return monday + timedelta(days=7)
