"""The clock of a time zone: what it shows at an instant, and the instants it shows a time at.

An instant here is a count of microseconds since 1970-01-01 UTC, a wall time the same count as if
the clock on the wall were UTC. Between two changes of a zone's offset one is the other plus a
constant: a *stretch*. Python's `zoneinfo` names no changes, so they are searched for day by day
and by bisection, once for each zone and year.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rollout.core.calendar.sites import Site

Instants = NDArray[np.datetime64]
Counts = NDArray[np.int64]

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_DAY: Final = EPOCH.toordinal()
FIRST_YEAR: Final = 1900  # opening-hours-py knows no earlier ones
LAST_YEAR: Final = 2199


class Stretch(NamedTuple):
    """Instants `since` to `until` (outside), in which wall time is instant plus `offset`."""

    since: int
    until: int
    offset: int


def count(at: datetime) -> int:
    """The instant `at` as microseconds since 1970 UTC; ValueError for a time without zone."""
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone; give an aware datetime")
    return (at - EPOCH) // timedelta(microseconds=1)


def moment(instant: int) -> datetime:
    """The inverse of `count`, in UTC."""
    return EPOCH + timedelta(microseconds=instant)


def counts(instants: Instants) -> Counts:
    """Instants in UTC, datetime64 of any unit, as microseconds; ValueError if one is NaT."""
    if np.isnat(instants).any():
        raise ValueError("an instant is NaT; set records without a time aside first")
    return instants.astype("datetime64[us]").astype(np.int64)


def years_of(walls: Counts) -> list[int]:
    """The calendar years that occur, ascending, cut to the years known here."""
    years = walls.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    year_offsets = np.clip(years, FIRST_YEAR, LAST_YEAR) - FIRST_YEAR
    return [FIRST_YEAR + int(year) for year in np.flatnonzero(np.bincount(year_offsets))]


def year_start(year: int) -> int:
    """1 January 00:00 of a year: an instant for UTC, a wall time for any other clock."""
    return (date(year, 1, 1).toordinal() - EPOCH_DAY) * DAY


def days_of(year: int) -> range:
    """The days of a year, counted from 1 January 1970."""
    return range(year_start(year) // DAY, year_start(year + 1) // DAY)


def midnight(day: int) -> datetime:
    """The start of a day since 1970 on the wall, a time without zone."""
    return datetime.fromordinal(day + EPOCH_DAY)


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = moment(second * SECOND).astimezone(zone).utcoffset() or timedelta()
    return offset // timedelta(microseconds=1)


def _change(zone: ZoneInfo, before: int, after: int) -> int:
    """The first second in (before, after] with the offset of `after`."""
    new_offset = _offset(zone, after)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (before, middle) if _offset(zone, middle) == new_offset else (middle, after)
    return after


@lru_cache(maxsize=1024)
def _year(timezone: str, year: int) -> tuple[tuple[int, int], ...]:
    """Instant and offset at the start of a UTC year and at each change within it."""
    zone = ZoneInfo(timezone)
    days = range(year_start(year) // SECOND, year_start(year + 1) // SECOND, DAY // SECOND)
    changes = [(days.start, _offset(zone, days.start))]
    for day in days:
        after = min(day + days.step, days.stop - 1)
        if _offset(zone, after) != changes[-1][1]:
            change = _change(zone, day, after)
            changes.append((change, _offset(zone, change)))
    return tuple((second * SECOND, offset) for second, offset in changes)


def _known(timezone: str, years: Iterable[int]) -> tuple[Counts, Counts]:
    rows = np.array([row for year in years for row in _year(timezone, year)], dtype=np.int64)
    return rows[:, 0], rows[:, 1]


def stretches(timezone: str, start: int, end: int) -> list[Stretch]:
    """The stretches of [start, end), in order and cut to it; none if it is empty."""
    if end <= start:
        return []
    years = years_of(np.array([start, end]))
    since, offset = _known(timezone, range(years[0], years[-1] + 1))
    inner_changes = np.flatnonzero(
        (since > start) & (since < end) & (np.diff(offset, prepend=0) != 0)
    )
    edges = [start, *(int(since[i]) for i in inner_changes), end]
    offset_index = np.searchsorted(since, edges[:-1], side="right") - 1
    return [
        Stretch(start_edge, end_edge, int(offset[max(i, 0)]))
        for start_edge, end_edge, i in zip(edges, edges[1:], offset_index.tolist(), strict=False)
    ]


def walls(timezone: str, instants: Counts) -> Counts:
    """What the zone's clock shows at each instant; outside 1900 to 2199 with the nearest offset."""
    if not instants.size:
        return instants
    since, offset = _known(timezone, years_of(instants))
    offset_index = np.searchsorted(since, instants, side="right") - 1
    return np.asarray(instants + offset[np.maximum(offset_index, 0)], dtype=np.int64)


def wall(timezone: str, at: datetime) -> int:
    """What the zone's clock shows at `at`; ValueError for a time without zone."""
    if not FIRST_YEAR < at.year < LAST_YEAR:  # some zones overflow at the ends of the calendar
        return int(walls(timezone, np.array([count(at)]))[0])
    offset = at.astimezone(ZoneInfo(timezone)).utcoffset() or timedelta()
    return count(at) + offset // timedelta(microseconds=1)


def local_days(site: "Site", instants: Instants) -> Counts:
    """The local calendar day of each instant, numbered like `date.toordinal`.

    Args:
        site: the place whose clock counts.
        instants: UTC, datetime64 of any unit, any order.

    Raises:
        ValueError: an instant is NaT.

    >>> from rollout.core.calendar.sites import Site
    >>> late = np.array(["2026-03-28T23:30"], dtype="datetime64[us]")
    >>> date.fromordinal(local_days(Site("ramp-a", "Europe/Vienna"), late)[0])
    datetime.date(2026, 3, 29)
    """
    return walls(site.timezone, counts(instants)) // DAY + EPOCH_DAY


def local_hours(site: "Site", instants: Instants) -> Counts:
    """The hour, 0 to 23, that the site's clock shows at each instant; see `local_days`."""
    return walls(site.timezone, counts(instants)) % DAY // HOUR


def local_day(site: "Site", at: datetime) -> date:
    """The calendar day at the site; ValueError for a time without zone."""
    return date.fromordinal(wall(site.timezone, at) // DAY + EPOCH_DAY)


def end_of_local_day(site: "Site", day: date) -> datetime:
    """The instant, in UTC, from which on the site's clock never again shows `day` or earlier.

    A clock that goes back over midnight shows the end of a day twice: the second time counts.
    A clock that jumps over midnight ends the day at the jump.

    >>> from rollout.core.calendar.sites import Site
    >>> end_of_local_day(Site("ramp-a", "Europe/Vienna"), date(2026, 3, 29)).isoformat()
    '2026-03-29T22:00:00+00:00'
    """
    wall_end = (day.toordinal() + 1 - EPOCH_DAY) * DAY
    stretches_around = stretches(site.timezone, wall_end - 2 * DAY, wall_end + 2 * DAY)
    ends = [
        min(stretch.until, wall_end - stretch.offset)
        for stretch in stretches_around
        if stretch.since + stretch.offset < wall_end
    ]
    return moment(max(ends))
