"""Hours of a policy: what is wrong with them, what they leave out, and how to ask about them.

This is the module to import from. How hours are answered stands in `openings`, the local clock in
`zones`, the sun in `sun`.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np

from rollout.core.calendar.opening_hours import (
    is_open,
    known_country,
    next_change,
    on_holidays,
    open_edges,
    open_spans,
    spelled_out,
    unquoted,
    unreadable,
)
from rollout.core.calendar.sites import OTHER, Site, Window, hours_hold, window_at, windows_at
from rollout.core.calendar.sun import follows_sun, sun_offset_hours
from rollout.core.calendar.timezones import (
    end_of_local_day,
    local_day,
    local_days,
    local_hours,
    year_start,
)

__all__ = [
    "FIRST_LOOK",
    "end_of_local_day",
    "follows_sun",
    "hours_faults",
    "hours_hold",
    "hours_warnings",
    "is_open",
    "known_country",
    "local_day",
    "local_days",
    "local_hours",
    "next_change",
    "open_spans",
    "share_of_year",
    "sun_offset_hours",
    "window_at",
    "windows_at",
]

FIRST_LOOK: Final = 2024  # a leap year that begins on a Monday
_NEUTRAL: Final = Site("any", "UTC", country="US", place=(0.0, 0.0))
_SPELLING: Final = 'write OpenStreetMap opening_hours, such as "Mo-Fr 09:00-17:00; PH off"'
_HOLIDAYS_FIRST: Final = re.compile(r"\s*PH\s+(off|closed)\s*;")
_SCHOOL: Final = re.compile(r"\bSH\b")
_MONTH_DAY: Final = re.compile(r"(Feb|Apr|Jun|Sep|Nov) (\d+)\b(?!:)")
_EVENING: Final = r"(?:sunset|dusk|\(\s*(?:sunset|dusk)[^)]*\))"
_MORNING: Final = r"(?:sunrise|dawn|\(\s*(?:sunrise|dawn)[^)]*\))"
_NIGHT: Final = re.compile(rf"{_EVENING}\s*-\s*{_MORNING}", re.IGNORECASE)


def hours_faults(
    hours: str,
    *,
    has_place: bool,
    has_country: bool,
    site: Site | None = None,
    first_year: int = FIRST_LOOK,
) -> list[str]:
    """Why a policy with these hours is refused; empty if it is not.

    Args:
        hours: OpenStreetMap opening_hours.
        has_place: whether all sites they are for have coordinates.
        has_country: whether all sites they are for have a country.
        site: one of them, at which "never open" is looked at; without it, the equator in UTC with
            the holidays of the United States.
        first_year: the first of the five years in which the hours must open once.

    >>> hours_faults("Mo-Fr 09:00-17:00", has_place=False, has_country=False)
    []
    >>> hours_faults("sunrise-sunset", has_place=False, has_country=False)
    ['follows the sun, but a site has no place; give each site `place: [lat, lon]`']
    """
    unreadable_part = unreadable(hours)
    if unreadable_part is not None:
        return [f"{hours!r} can't be read from {unreadable_part!r} on; {_SPELLING}"]
    hours_text = unquoted(hours)
    errors = []
    if follows_sun(hours) and not has_place:
        errors.append(
            "follows the sun, but a site has no place; give each site `place: [lat, lon]`"
        )
    if on_holidays(hours):
        errors += _holiday_faults(has_country=has_country, site=site)
    if _SCHOOL.search(hours_text):
        errors.append("school holidays (`SH`) are not known; write their dates, such as `Jul-Aug`")
    errors += _date_faults(spelled_out(hours_text))
    if _HOLIDAYS_FIRST.match(hours_text):
        errors.append("`PH off;` first is overruled by what follows; write `; PH off` last")
    return errors or _never_open(hours, site or _NEUTRAL, first_year)


def _holiday_faults(*, has_country: bool, site: Site | None) -> list[str]:
    if not has_country:
        return ["asks for public holidays (`PH`), but a site has no country; give `country: FR`"]
    if site is not None and not known_country(site.country or ""):
        return [
            f"no public holidays (`PH`) of {site.country!r} are known; write an ISO code (`FR`)"
        ]
    return []


def _date_faults(hours: str) -> list[str]:
    # The library takes a date that does not exist for no condition at all: `Apr 31` is every day.
    days = ((month, int(day)) for month, day in _MONTH_DAY.findall(hours))
    impossible_dates = [(month, day) for month, day in days if day > (29 if month == "Feb" else 30)]
    return [
        f"{month} has no day {day}; write its last day or the next month's first"
        for month, day in impossible_dates
    ]


def _never_open(hours: str, site: Site, first_year: int) -> list[str]:
    years = range(first_year, first_year + 5)
    if any(open_edges(hours, site, year_start(year), year_start(year + 1)).size for year in years):
        return []
    last = years[-1]
    return [f"never open from {first_year} to {last}; write hours that come again, such as `Mo-Fr`"]


def share_of_year(
    site: Site, windows: Sequence[Window], year: int = FIRST_LOOK
) -> dict[str, float]:
    """The share of a year that each window takes at a site, `other` last; they add up to 1.

    Only hours are looked at, as if each `when` fitted: with attributes a window's share is at
    most this, and `other` may be more.

    >>> day, night = Window("day", "06:00-18:00"), Window("night", "18:00-05:00")
    >>> share_of_year(Site("ramp-a", "Asia/Tokyo"), [day, night])["other"] == 1 / 24
    True
    """
    start, end = year_start(year), year_start(year + 1)
    pieces = [open_edges(window.hours, site, start, end) for window in windows]
    edges = np.unique(np.concatenate([*pieces, [start, end]]).astype(np.int64))
    hour_windows = [Window(window.id, window.hours) for window in windows]
    window_ids = windows_at(site, hour_windows, edges[:-1].astype("datetime64[us]"))
    lengths = np.diff(edges)
    names = [*(window.id for window in windows), OTHER]
    return {name: float(lengths[window_ids == name].sum() / (end - start)) for name in names}


def hours_warnings(site: Site, windows: Sequence[Window]) -> list[str]:
    """What `plan` warns of in a site's windows; hours must be free of faults."""
    nights = [
        f"window {window.id}: a night from sunset to sunrise; write `24/7` last, it leaves no gap"
        for window in windows
        if window.hours and _NIGHT.search(unquoted(window.hours))
    ]
    return nights + _place_warnings(site) + _gap_warnings(site, windows)


def _place_warnings(site: Site) -> list[str]:
    offset_hours = sun_offset_hours(site)
    if offset_hours is None or abs(offset_hours) <= 3:
        return []
    side = "ahead of" if offset_hours > 0 else "behind"
    text = (
        f"site {site.id}: {site.timezone} is {abs(offset_hours):.1f} h {side} the sun at its place"
    )
    return [f"{text}; write `place: [latitude, longitude]`, south and west negative"]


def _gap_warnings(site: Site, windows: Sequence[Window]) -> list[str]:
    gap = share_of_year(site, windows)[OTHER]
    if not 0 < gap < 0.01:
        return []
    text = (
        f"site {site.id}: {gap * 366 * 24:.1f} hours of a year are in no window (`other`, shadow)"
    )
    return [f"{text}; close the gap, or write `24/7` as the last window"]
