"""The window of an instant, checks of a policy's hours, windows' shares of a year, cells' clocks.

The clock of a cell runs only in the cell's minutes: in its window, and while its site is open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - examples name it
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from rollout.kernel.arrays import Bools, Ints, np
from rollout.kernel.calendar.instants import (
    OTHER_WINDOW,
    Instants,
    Site,
    Window,
    compute_year_start,
    find_year,
    to_instant_micros_array,
    to_wall_times,
)
from rollout.kernel.calendar.opening_hours import (
    are_open,
    compute_open_edges,
    compute_sun_offset,
    find_unreadable_part,
    follows_sun,
    has_holidays,
    is_always_open,
    is_open,
    normalize_hours,
    strip_comments,
    uses_holidays,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

REFERENCE_YEAR: Final = 2024  # a leap year that begins on a Monday
_NEUTRAL_SITE: Final = Site("any", "UTC", country="US", coordinates=(0.0, 0.0))
_SPELLING_HINT: Final = 'write OpenStreetMap opening_hours, such as "Mo-Fr 09:00-17:00; PH off"'
_HOLIDAYS_FIRST: Final = re.compile(r"\s*PH\s+(off|closed)\s*;")
_SCHOOL_HOLIDAYS: Final = re.compile(r"\bSH\b")
_MONTH_DAY: Final = re.compile(r"(Feb|Apr|Jun|Sep|Nov) (\d+)\b(?!:)")
_EVENING: Final = r"(?:sunset|dusk|\(\s*(?:sunset|dusk)[^)]*\))"
_MORNING: Final = r"(?:sunrise|dawn|\(\s*(?:sunrise|dawn)[^)]*\))"
_SUNSET_TO_SUNRISE: Final = re.compile(rf"{_EVENING}\s*-\s*{_MORNING}", re.IGNORECASE)


def find_window(
    site: Site,
    windows: Sequence[Window],
    at: datetime,
    attributes: Mapping[str, str] | None = None,
) -> str:
    """Return the id of the first window that fits instant and attributes.

    If a window's hours fit but a case lacks one of its attributes, the result is `other`: the
    window can't be known. It is `other` too if no window fits.

    Raises:
        ValueError: `at` has no timezone, or hours follow the sun and the site has no coordinates.

    >>> dry = Window("dry", "Mo-Fr 07:00-19:00", {"weather": ("dry",)})
    >>> windows, monday = [dry, Window("rest")], datetime.fromisoformat("2026-03-02T08:00+01:00")
    >>> loop = Site("lake-loop", "Europe/Zurich")
    >>> [find_window(loop, windows, monday, case) for case in ({"weather": "wet"}, {}, None)]
    ['rest', 'other', 'other']
    """
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone; give an aware datetime")
    return select_window((w for w in windows if is_open(w.hours, site, at)), attributes)


def select_window(
    open_windows: Iterable[Window], attributes: Mapping[str, str] | None = None
) -> str:
    """Return the first open window that fits attributes, as `find_window`."""
    values_by_attribute = attributes or {}
    for window in open_windows:
        if any(values_by_attribute.get(attribute) is None for attribute in window.when):
            return OTHER_WINDOW
        if all(
            values_by_attribute[attribute] in values for attribute, values in window.when.items()
        ):
            return window.id
    return OTHER_WINDOW


def find_open_windows(site: Site, windows: Sequence[Window], starts: Instants) -> dict[str, Bools]:
    """Return for each window whether its hours are open at each instant.

    `when` is ignored.

    Args:
        starts: UTC, datetime64 of any unit, shape (cases,), any order.

    Returns:
        By window id, shape (cases,).

    Raises:
        ValueError: an instant is NaT, or hours follow the sun and the site has no coordinates.
    """
    wall_times = to_wall_times(site.timezone, to_instant_micros_array(starts))
    return {window.id: are_open(window.hours, site, wall_times) for window in windows}


def find_windows(
    site: Site,
    windows: Sequence[Window],
    starts: Instants,
    attributes: Mapping[str, NDArray[np.object_]] | None = None,
) -> NDArray[np.str_]:
    """Return the window id of each instant at one site, as `find_window`.

    Args:
        starts: UTC, datetime64 of any unit, shape (cases,), any order.
        attributes: by name, text or None for missing, shape (cases,); a missing name is
            None for all.

    Returns:
        Window ids, shape (cases,), `other` where none fits.

    Raises:
        ValueError: as `find_open_windows`.
    """
    window_indexes = np.full(starts.shape, len(windows))
    undecided = np.ones(starts.shape, dtype=np.bool_)
    open_by_window = find_open_windows(site, windows, starts)
    for i, window in enumerate(windows):
        fits, missing = _match_attributes(window, attributes or {}, starts.shape)
        candidates = undecided & open_by_window[window.id]
        window_indexes[candidates & fits] = i
        undecided &= ~(candidates & (fits | missing))
    names = np.array([*(window.id for window in windows), OTHER_WINDOW], dtype=np.str_)
    return np.asarray(names[window_indexes])


def _match_attributes(
    window: Window, attributes: Mapping[str, NDArray[np.object_]], shape: tuple[int, ...]
) -> tuple[Bools, Bools]:
    """Return where `when` matches and where an attribute is missing."""
    fits, missing = np.ones(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    for attribute, values in window.when.items():
        column = np.asarray(attributes.get(attribute, np.full(shape, None)), dtype=np.object_)
        matches = np.zeros(shape, dtype=np.bool_)
        for value in values:
            matches |= column == value
        fits &= matches
        missing |= column == np.array(None)
    return fits, missing


def find_hours_errors(
    hours: str,
    *,
    has_coordinates: bool,
    has_country: bool,
    site: Site | None = None,
    first_year: int = REFERENCE_YEAR,
) -> list[str]:
    """Return why hours are invalid, one sentence each; empty if valid.

    Args:
        has_coordinates: whether all sites of the hours have coordinates.
        has_country: whether all sites of the hours have a country.
        site: the site at which "never open" is tested; by default the equator in UTC with the
            holidays of the United States.
        first_year: the first of the five years in which the hours must open once.

    >>> find_hours_errors("Mo-Fr 09:00-17:00", has_coordinates=False, has_country=False)
    []
    >>> find_hours_errors("sunrise-sunset", has_coordinates=False, has_country=False)
    ['follows the sun, but a site has no place; give each site `place: [lat, lon]`']
    """
    unreadable_part = find_unreadable_part(hours)
    if unreadable_part is not None:
        place = "" if unreadable_part == hours else f" from {unreadable_part!r} on"
        return [f"{hours!r} can't be read{place}; {_SPELLING_HINT}"]
    hours_text = strip_comments(hours)
    errors = []
    if follows_sun(hours) and not has_coordinates:
        errors.append(
            "follows the sun, but a site has no place; give each site `place: [lat, lon]`"
        )
    if uses_holidays(hours):
        errors += _find_holiday_errors(has_country=has_country, site=site)
    if _SCHOOL_HOLIDAYS.search(hours_text):
        errors.append("school holidays (`SH`) are not known; write their dates, such as `Jul-Aug`")
    errors += _find_date_errors(normalize_hours(hours_text))
    if _HOLIDAYS_FIRST.match(hours_text):
        errors.append("`PH off;` first is overruled by what follows; write `; PH off` last")
    return errors or _find_never_open(hours, site or _NEUTRAL_SITE, first_year)


def _find_holiday_errors(*, has_country: bool, site: Site | None) -> list[str]:
    if not has_country:
        return ["asks for public holidays (`PH`), but a site has no country; give `country: FR`"]
    if site is not None and not has_holidays(site.country or ""):
        return [
            f"no public holidays (`PH`) of {site.country!r} are known; write an ISO code (`FR`)"
        ]
    return []


def _find_date_errors(hours: str) -> list[str]:
    # The library ignores dates that don't exist: `Apr 31` is every day.
    days = ((month, int(day)) for month, day in _MONTH_DAY.findall(hours))
    impossible_dates = [(month, day) for month, day in days if day > (29 if month == "Feb" else 30)]
    return [
        f"{month} has no day {day}; write its last day or the next month's first"
        for month, day in impossible_dates
    ]


def _find_never_open(hours: str, site: Site, first_year: int) -> list[str]:
    if is_always_open(hours):
        return []
    years = range(first_year, first_year + 5)
    if any(
        compute_open_edges(hours, site, compute_year_start(year), compute_year_start(year + 1)).size
        for year in years
    ):
        return []
    last = years[-1]
    return [f"never open from {first_year} to {last}; write hours that come again, such as `Mo-Fr`"]


def compute_year_shares(
    site: Site, windows: Sequence[Window], year: int = REFERENCE_YEAR
) -> dict[str, float]:
    """Return each window's share of a year at a site, `other` last.

    The shares add up to 1. They cover hours only: with `when` a window's share is at most this, and
    `other` may be more.

    >>> day, night = Window("day", "06:00-18:00"), Window("night", "18:00-05:00")
    >>> compute_year_shares(Site("ramp-a", "Asia/Tokyo"), [day, night])["other"] == 1 / 24
    True
    """
    start, end = compute_year_start(year), compute_year_start(year + 1)
    pieces = [compute_open_edges(window.hours, site, start, end) for window in windows]
    edges = np.unique(np.concatenate([*pieces, [start, end]]).astype(np.int64))
    hour_windows = [Window(window.id, window.hours) for window in windows]
    window_ids = find_windows(site, hour_windows, edges[:-1].astype("datetime64[us]"))
    lengths = np.diff(edges)
    names = [*(window.id for window in windows), OTHER_WINDOW]
    return {name: float(lengths[window_ids == name].sum() / (end - start)) for name in names}


def list_hours_warnings(site: Site, windows: Sequence[Window]) -> list[tuple[str, str]]:
    """Return warnings on a site's valid windows: the window, or "" of the site, and the text."""
    nights = [
        (window.id, "a night from sunset to sunrise; write `24/7` last, it leaves no gap")
        for window in windows
        if _SUNSET_TO_SUNRISE.search(strip_comments(window.hours))
    ]
    of_site = _list_location_warnings(site) + _list_gap_warnings(site, windows)
    return nights + [("", text) for text in of_site]


def _list_location_warnings(site: Site) -> list[str]:
    offset_hours = compute_sun_offset(site)
    if offset_hours is None or abs(offset_hours) <= 3:
        return []
    side = "ahead of" if offset_hours > 0 else "behind"
    text = f"{site.timezone} is {abs(offset_hours):.1f} h {side} the sun at its place"
    return [f"{text}; write `place: [latitude, longitude]`, south and west negative"]


def _list_gap_warnings(site: Site, windows: Sequence[Window]) -> list[str]:
    gap = compute_year_shares(site, windows)[OTHER_WINDOW]
    if not 0 < gap < 0.01:
        return []
    text = f"{gap * 366 * 24:.1f} hours of a year are in no window (`other`, shadow)"
    return [f"{text}; close the gap, or write `24/7` as the last window"]


@dataclass(frozen=True, eq=False)
class CellClock:
    """A clock that stands still while the cell is closed; `build_cell_clock` shares equal ones.

    Attributes:
        edges: instants at which it starts and stops, in turn, ascending.
    """

    edges: Ints

    @cached_property
    def _readings(self) -> Ints:
        """Return the clock's reading at each edge."""
        is_open = np.arange(self.edges.size) % 2 == 1
        return np.cumsum(np.where(is_open, np.diff(self.edges, prepend=0), 0))

    def read_at(self, instants: Ints) -> Ints:
        """Return the open microseconds up to each instant, counted from the first edge."""
        position = np.searchsorted(self.edges, instants, side="right")
        if not self.edges.size:
            return np.zeros_like(instants)
        last = np.maximum(position - 1, 0)
        passed = np.where(position % 2 == 1, instants - self.edges[last], 0)
        return np.asarray(np.where(position > 0, self._readings[last], 0) + passed)

    def are_running(self, instants: Ints) -> Bools:
        """Return whether the clock runs at each of some ascending instants."""
        if not instants.size:
            return np.zeros(0, dtype=np.bool_)
        first, last = np.searchsorted(self.edges, instants[[0, -1]], side="right").tolist()
        edges = self.edges[first:last]  # few: the instants before each are searched
        marks = [0, *np.searchsorted(instants, edges).tolist(), instants.size]
        return np.repeat(np.arange(first, last + 1) % 2 == 1, np.diff(marks))

    def find_instant(self, reading: int) -> int | None:
        """Return the first instant with a reading, or None if the clock doesn't reach it."""
        position = int(np.searchsorted(self._readings, reading))
        if position >= self.edges.size:
            return None
        return int(self.edges[position] - (self._readings[position] - reading))


def build_cell_clock(
    site: Site, windows: Sequence[Window], window: str, start: int, end: int
) -> CellClock:
    """Return the clock of a window at a site, for the years from `start` to `end`.

    The hours of an earlier window are not the cell's, unless it takes only cases with some
    attributes.
    """
    calendar = Site("", site.timezone, site.country, site.coordinates, open=site.open)
    return _build_clock(calendar, tuple(windows), window, find_year(start), find_year(end))


@lru_cache(maxsize=256)  # the cells of all sites with one calendar have the same
def _build_clock(
    calendar: Site, windows: tuple[Window, ...], window: str, first_year: int, last_year: int
) -> CellClock:
    pieces = [
        _compute_own_edges(calendar, windows, window, year)
        for year in range(first_year, last_year + 1)
    ]
    return CellClock(_join_edges(np.concatenate(pieces)))


@lru_cache(maxsize=4096)
def _compute_own_edges(site: Site, windows: tuple[Window, ...], window: str, year: int) -> Ints:
    start, end = compute_year_start(year), compute_year_start(year + 1)
    position = next(i for i, other in enumerate(windows) if other.id == window)
    earlier_hours = [other.hours for other in windows[:position] if not other.when]
    open_edges, *earlier_edges = (
        compute_open_edges(hours, site, start, end)
        for hours in (windows[position].hours, *earlier_hours)
    )
    site_edges = compute_open_edges(site.open, site, start, end)
    marks = np.unique(np.concatenate([open_edges, site_edges, *earlier_edges, [start, end]]))
    is_own = _are_inside(open_edges, marks) & _are_inside(site_edges, marks)
    for edges in earlier_edges:
        is_own &= ~_are_inside(edges, marks)
    is_own[-1] = False  # the year's end
    return np.asarray(marks[np.diff(is_own, prepend=False)], dtype=np.int64)


def _are_inside(edges: Ints, instants: Ints) -> Bools:
    return np.asarray(np.searchsorted(edges, instants, side="right") % 2 == 1)


def _join_edges(edges: Ints) -> Ints:
    """Return the edges without those at which one year's span continues in the next."""
    is_repeated = np.zeros(edges.size, dtype=np.bool_)
    is_repeated[1:] = edges[1:] == edges[:-1]
    is_repeated[:-1] |= is_repeated[1:]
    return edges[~is_repeated]
