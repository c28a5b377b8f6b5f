"""Local times of dawn, sunrise, sunset and dusk, by opening-hours-py.

The library computes one event at a time in UTC; local time is derived here. With a timezone the
library ends a night by the sun of the day on which the night began (an hour off at clock changes),
and it uses its own timezone table, which may be older than Python's.

Twilight is civil (sun 6° below the horizon). Times are cut to the minute. If an event does not
happen, because the sun (or for dawn and dusk, twilight) stays or stays away all day, it is placed
next to midnight or next to the sun's noon: such a day or night is right to two minutes.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from rollout.core.calendar.timezones import (
    DAY,
    HOUR,
    MINUTE,
    Int64Array,
    compute_midnight,
    compute_year_start,
    list_days,
    list_stretches,
    to_wall_times,
)
from rollout.core.late_modules import LateModule

if TYPE_CHECKING:
    import numpy as np
    import opening_hours
    from numpy.typing import NDArray

    from rollout.core.calendar.sites import Site
else:
    np = LateModule("numpy")
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


def _compute_utc_minutes(event: str, coordinates: tuple[float, float], days: range) -> Int64Array:
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


def _is_northern_summer(days: range) -> NDArray[np.bool_]:
    dates = [compute_midnight(day) for day in days]
    return np.array([(3, 20) < (at.month, at.day) < (9, 23) for at in dates])


def _compute_event_minutes(
    event: str, timezone: str, coordinates: tuple[float, float], year: int
) -> Int64Array:
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
