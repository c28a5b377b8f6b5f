"""Window hours of a site in one week, in minutes since Monday 00:00 local time.

A skipped hour in spring belongs to the surrounding window; a repeated hour in autumn is drawn once.
So every week has the same length.
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

from rollout.core.calendar.opening_hours import compute_open_edges
from rollout.core.calendar.sites import Site, Window
from rollout.core.calendar.sun import follows_sun
from rollout.core.calendar.timezones import MINUTE, to_instant_micros, to_wall_times

DAY_MINUTES: Final = 24 * 60
WEEK_MINUTES: Final = 7 * DAY_MINUTES
MinuteSpan = tuple[int, int]
WindowBand = tuple[int, int, str]
"""First minute, last minute (exclusive), and the window, "" for none."""


def compute_monday(at: datetime, zone: str) -> date:
    """Return the local Monday of the week of an instant."""
    today = at.astimezone(ZoneInfo(zone)).date()
    return today - timedelta(days=today.weekday())


def compute_week_minute(at: datetime, zone: str, monday: date) -> int:
    """Return the local minute of the week; outside 0 to 10,080 in other weeks."""
    local_time = at.astimezone(ZoneInfo(zone))
    days = (local_time.date() - monday).days
    return days * DAY_MINUTES + local_time.hour * 60 + local_time.minute


def compute_bands(site: Site, windows: Sequence[Window], monday: date) -> tuple[WindowBand, ...]:
    """Return the windows at a site by minute; the first match wins.

    Windows chosen by case attributes need one call each.
    """
    return _list_bands(
        tuple((window.id, window.hours) for window in windows),
        *_get_clock_site(site, windows),
        monday,
    )


def compute_spans(hours: str | None, site: Site, monday: date) -> tuple[MinuteSpan, ...]:
    """Return when hours apply at a site: of a freeze, or of one window."""
    window = Window("", hours)
    return _compute_spans(hours, *_get_clock_site(site, (window,)), monday)


def _get_clock_site(site: Site, windows: Sequence[Window]) -> tuple[Site]:
    """Return the site fields that hours depend on, so that equal sites share a cache entry."""
    follows_sunlight = any(
        window.hours is not None and follows_sun(window.hours) for window in windows
    )
    return (
        replace(
            site,
            id="",
            wave=1,
            lease=None,
            coordinates=site.coordinates if follows_sunlight else None,
        ),
    )


@lru_cache(maxsize=4096)
def _list_bands(
    windows: tuple[tuple[str, str | None], ...], site: Site, monday: date
) -> tuple[WindowBand, ...]:
    edges_by_window = {
        name: [edge for span in _compute_spans(hours, site, monday) for edge in span]
        for name, hours in windows
    }
    edges = sorted(
        {
            0,
            WEEK_MINUTES,
            *(minute for window_edges in edges_by_window.values() for minute in window_edges),
        }
    )
    bands: list[WindowBand] = []
    for start, end in pairwise(edges):
        window = _find_window(edges_by_window, start)
        if bands and bands[-1][2] == window:
            bands[-1] = (bands[-1][0], end, window)
        else:
            bands.append((start, end, window))
    return tuple(bands)


def _find_window(edges_by_window: Mapping[str, list[int]], minute: int) -> str:
    return next(
        (
            name
            for name, window_edges in edges_by_window.items()
            if bisect_right(window_edges, minute) % 2
        ),
        "",
    )


@lru_cache(maxsize=4096)
def _compute_spans(hours: str | None, site: Site, monday: date) -> tuple[MinuteSpan, ...]:
    zone = ZoneInfo(site.timezone)
    week_start, week_end = (
        datetime.combine(day, datetime.min.time(), zone)
        for day in (monday, _get_next_monday(monday))
    )
    edges = compute_open_edges(
        hours, site, to_instant_micros(week_start), to_instant_micros(week_end)
    )
    midnight = to_instant_micros(week_start) + (week_start.utcoffset() or timedelta()) // timedelta(
        microseconds=1
    )
    minutes = np.clip(
        (to_wall_times(site.timezone, edges) - midnight) // MINUTE, 0, WEEK_MINUTES
    ).tolist()
    spans: list[MinuteSpan] = []
    for start, end in sorted(zip(minutes[::2], minutes[1::2], strict=True)):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        elif end > start:
            spans.append((start, end))
    return tuple(spans)


def _get_next_monday(monday: date) -> date:
    return monday + timedelta(days=7)
