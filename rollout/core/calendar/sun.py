"""Dawn, sunrise, sunset and dusk at a place, as opening-hours-py computes them.

The library is asked in UTC, one event at a time, and the local clock is read here. Asked with a
zone it ends a night by the sun of the day on which the night began (an hour off when the clocks
change), and it uses a table of zones of its own, which may be older than Python's.

Twilight is civil (sun 6° below the horizon). Times are cut to the minute. Where an event does not
happen, because the sun (or for dawn and dusk, twilight) stays all day or stays away, it is said to
happen next to midnight or next to the sun's noon: such a day or night is right to two minutes.
"""

import re
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from opening_hours import OpeningHours, State

from rollout.core.calendar.timezones import (
    DAY,
    HOUR,
    MINUTE,
    Counts,
    days_of,
    midnight,
    stretches,
    walls,
    year_start,
)

if TYPE_CHECKING:
    from rollout.core.calendar.sites import Site

EVENTS: Final = ("dawn", "sunrise", "sunset", "dusk")

# Minutes that stand for an event that does not happen: of the local day if the sun stays up, from
# the sun's noon if it stays down. They differ, as two equal times would read as a whole day.
_UP: Final = {"dawn": 0, "sunrise": 1, "sunset": 1438, "dusk": 1439}
_DOWN: Final = {"dawn": -1, "sunrise": 0, "sunset": 1, "dusk": 2}

_TOKEN: Final = re.compile(
    r'"[^"]*"'  # a comment may speak of sunset
    r"|\(\s*(?P<shifted>dawn|sunrise|sunset|dusk)\s*(?P<sign>[+-])"
    r"\s*(?P<hours>\d+):(?P<minutes>\d+)\s*\)"
    r"|\b(?P<plain>dawn|sunrise|sunset|dusk)\b",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def follows_sun(hours: str) -> bool:
    """Whether the hours name dawn, sunrise, sunset or dusk outside a comment."""
    return any(not match[0].startswith('"') for match in _TOKEN.finditer(hours))


def at_times(hours: str, minutes: dict[str, int]) -> str:
    """The hours with each event of the sun replaced by its minute of one local day.

    >>> at_times('sunset-(sunset+01:00) "after sunset"', {"sunset": 1190})
    '19:50-20:50 "after sunset"'
    """

    def clock(found: re.Match[str]) -> str:
        event = found["plain"] or found["shifted"]
        if event is None:
            return found[0]
        minute = minutes[event.lower()]
        if found["shifted"]:
            shift = int(found["hours"]) * 60 + int(found["minutes"])
            minute += shift if found["sign"] == "+" else -shift
        return "{:02d}:{:02d}".format(*divmod(minute % 1440, 60))

    return _TOKEN.sub(clock, hours)


def _utc_minutes(event: str, place: tuple[float, float], days: range) -> Counts:
    """The minute of the UTC day at which the event happens, by day since 1970; −1 if it doesn't."""
    utc_zone = ZoneInfo("UTC")
    probe = OpeningHours(
        f"{event}-({event}+00:01)", timezone=utc_zone, coords=place, auto_country=False
    )
    minutes = np.full(len(days), -1, dtype=np.int64)
    for index, day in enumerate(days):  # one by one: at midnight two days' minutes would touch
        for opens, closes, state, _ in probe.intervals(midnight(day), midnight(day + 1)):
            if state == State.OPEN and closes - opens == timedelta(minutes=1):
                minutes[index] = opens.hour * 60 + opens.minute
    return minutes


def _northern_summer(days: range) -> NDArray[np.bool_]:
    dates = [midnight(day) for day in days]
    return np.array([(3, 20) < (at.month, at.day) < (9, 23) for at in dates])


def _event_minutes(event: str, timezone: str, place: tuple[float, float], year: int) -> Counts:
    """Minute of the local day of the event, for each day of a year."""
    days = days_of(year)
    starts = np.array(days) * DAY
    noon = starts + 12 * HOUR - round(place[1] * 4 * MINUTE)
    usual_instants = noon + (-6 * HOUR if event in ("dawn", "sunrise") else 6 * HOUR)
    minute_of_day = _utc_minutes(event, place, days)
    # The library gives a time of day without a date: it is the one nearest to the usual instant.
    event_instants = (
        usual_instants
        + (starts + minute_of_day * MINUTE - usual_instants + 12 * HOUR) % DAY
        - 12 * HOUR
    )
    instants = np.where(minute_of_day < 0, noon + _DOWN[event] * MINUTE, event_instants)
    local_minutes = walls(timezone, instants) % DAY // MINUTE
    is_sun_up = (minute_of_day < 0) & (_northern_summer(days) == (place[0] > 0))
    return np.where(is_sun_up, _UP[event], local_minutes)


@lru_cache(maxsize=512)
def sun_year(timezone: str, place: tuple[float, float], year: int) -> tuple[dict[str, int], ...]:
    """For each day of a year, the minute of the local day at which each event happens.

    >>> sun_year("Europe/Paris", (48.85, 2.35), 2024)[90]["sunrise"]  # 31 March, clocks moved
    449
    """
    minutes = [_event_minutes(event, timezone, place, year).tolist() for event in EVENTS]
    return tuple(dict(zip(EVENTS, day, strict=True)) for day in zip(*minutes, strict=True))


def sun_offset_hours(site: "Site") -> float | None:
    """Hours by which the zone's standard time is ahead of the sun at the site's place, ±12.

    None without a place. A large one means that latitude and longitude, or a sign, were mixed up,
    or that the zone is another place's.
    """
    if site.place is None:
        return None
    year_stretches = stretches(site.timezone, year_start(2024), year_start(2025))
    standard_offset = min(stretch.offset for stretch in year_stretches) / HOUR
    return (standard_offset - site.place[1] / 15 + 12) % 24 - 12
