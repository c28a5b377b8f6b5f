"""Instants, the grid of ticks, and what instants fall into: sites, windows, cells, quiet hours.

An instant is a count of whole microseconds since 1970-01-01 UTC, a wall time the same count as if
the local clock were UTC. Between two changes of a zone's offset (a *stretch*) they differ by a
constant. Python's `zoneinfo` does not list the changes, so a search by day and bisection finds
them, once for each zone and year. Slot n of ticks is n ticks after 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - sections of a policy are read by their hints
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

from rollout.kernel.arrays import Ints, np
from rollout.kernel.units import Key

if TYPE_CHECKING:
    from numpy.typing import NDArray


OTHER_WINDOW: Final = "other"
"""Id of the hours outside every window; always shadow."""

ALWAYS_WINDOW: Final = "always"
"""Id of the window of a policy without windows."""

SHADOW: Final = "shadow"
"""Id of the stage of level 0."""


@dataclass(frozen=True, slots=True)
class Site:
    """A site with its time zone; a name alone is enough.

    `coordinates` are in degrees, north and east positive. Zone and country are those of the rollout
    where the file names none.
    """

    id: Annotated[
        str,
        Key("Name", "Name of the site, as records write it.", "creek", is_enough=True),
    ]
    timezone: Annotated[str, Key("Zone", "Default: the rollout's timezone.")] = ""
    country: Annotated[str | None, Key("Country", "Default: the rollout's country.")] = None
    coordinates: Annotated[
        tuple[float, float] | None,
        Key("Position", "Latitude and longitude, for the sun.", name="place"),
    ] = None
    wave: Annotated[int, Key("Ordinal", "Which wave the site belongs to.")] = 1
    lease: Annotated[
        timedelta | None,
        Key(
            "PositiveDuration",
            "How soon a stop takes effect there. Default: the rollout's lease.",
        ),
    ] = None
    was: Annotated[str, Key("Name", "Former id of a renamed site.")] = ""
    open: Annotated[
        str | None,
        Key(
            "NonEmptyText",
            "Hours in which silence counts, as in windows. Default: always.",
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class Window:
    """A recurring time; the first window that fits takes a case.

    Hours and all attributes must match. `when` is copied and not hashed.
    """

    id: Annotated[str, Key("Name", "Name of the window.", "night")]
    hours: Annotated[str, Key("NonEmptyText", "Opening hours in OpenStreetMap's syntax.")] = "24/7"
    when: Annotated[
        Mapping[str, tuple[str, ...]],
        Key(
            "NonEmptyText",
            "Attributes that the case must have, with their values.",
            is_filled=True,
        ),
    ] = field(default_factory=dict, hash=False)
    was: Annotated[str, Key("Name", "Former id of a renamed window.")] = ""

    def __post_init__(self) -> None:
        when = {attribute: tuple(values) for attribute, values in self.when.items()}
        object.__setattr__(self, "when", when)


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A site in a window: the unit of widening and narrowing."""

    site: str
    window: str

    def __str__(self) -> str:
        return f"{self.site} · {self.window}"


CellVersion = tuple[Cell, str]
"""A cell and a version."""


@lru_cache
def list_timezones() -> frozenset[str]:
    """Return the names of all timezones, as this process first read them.

    Reading them walks a folder of 600 files, which takes 15 ms.
    """
    return frozenset(available_timezones())


DIGEST_TIME: Final = time(8)
"""Local time of digests."""
MONDAY: Final = 0


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Local hours of each day from `start` to before `end`, possibly over midnight."""

    timezone: str
    start: time
    end: time

    def contains(self, at: datetime) -> bool:
        """Return whether a time is quiet.

        >>> nights = QuietHours("Europe/Vienna", time(22), time(7))
        >>> [nights.contains(datetime(2027, 6, 1, hour, tzinfo=UTC)) for hour in (4, 5, 19, 20)]
        [True, False, False, True]
        """
        local_time = at.astimezone(ZoneInfo(self.timezone)).time()
        if self.start <= self.end:
            return self.start <= local_time < self.end
        return local_time >= self.start or local_time < self.end

    def find_send_time(self, at: datetime) -> datetime:
        """Return the first time from `at` on that is not quiet."""
        if not self.contains(at):
            return at
        local = at.astimezone(ZoneInfo(self.timezone))
        day = local.date() + timedelta(days=1 if local.time() >= self.end else 0)
        ends = (
            datetime.combine(day, self.end.replace(fold=fold), ZoneInfo(self.timezone))
            for fold in (0, 1)  # where clocks go back, the end comes twice
        )
        return next(end.astimezone(UTC) for end in ends if end.astimezone(UTC) > at)


def find_digest_time(timezone: str, at: datetime, *, weekly: bool) -> datetime:
    """Return the last time up to `at` of a daily digest, or of Monday's.

    >>> at = datetime(2027, 6, 3, 5, 59, tzinfo=UTC)  # a Thursday
    >>> [str(find_digest_time("Europe/Vienna", at, weekly=weekly)) for weekly in (False, True)]
    ['2027-06-02 08:00:00+02:00', '2027-05-31 08:00:00+02:00']
    """
    zone = ZoneInfo(timezone)
    day = at.astimezone(zone).date()
    while (weekly and day.weekday() != MONDAY) or datetime.combine(day, DIGEST_TIME, zone) > at:
        day -= timedelta(days=1)
    return datetime.combine(day, DIGEST_TIME, zone)


# MERGED

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(at: datetime) -> int:
    """Return an instant as whole microseconds since 1970, UTC."""
    return (at - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the instant of whole microseconds since 1970."""
    return EPOCH + micros * MICROSECOND


def count_micros(duration: timedelta) -> int:
    """Return a duration in whole microseconds."""
    return duration // MICROSECOND


def format_duration(duration: timedelta) -> str:
    """Return a duration in its largest whole unit, as policy files write it.

    >>> format_duration(timedelta(hours=48)), format_duration(timedelta(minutes=90))
    ('2d', '90m')
    """
    for unit, text in (
        (timedelta(days=1), "d"),
        (timedelta(hours=1), "h"),
        (timedelta(minutes=1), "m"),
    ):
        if duration and duration % unit == timedelta(0):
            return f"{duration // unit}{text}"
    return f"{duration.total_seconds():g}s"


Instants: TypeAlias = "NDArray[np.datetime64]"

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
EPOCH_DAY: Final = EPOCH.toordinal()
FIRST_YEAR: Final = 1900  # opening-hours-py knows no earlier ones
LAST_YEAR: Final = 2199


class OffsetStretch(NamedTuple):
    """Instants from `since` to before `until` with one offset to wall time."""

    since: int
    until: int
    offset: int


def to_instant_micros(at: datetime) -> int:
    """Return an instant as microseconds since 1970 UTC.

    Raises:
        ValueError: the time has no timezone.
    """
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone; give an aware datetime")
    return to_micros(at)


def to_instant_micros_array(instants: Instants) -> Ints:
    """Return UTC instants, datetime64 of any unit, as microseconds.

    Raises:
        ValueError: an instant is NaT.
    """
    if np.isnat(instants).any():
        raise ValueError("an instant is NaT; set records without a time aside first")
    return instants.astype("datetime64[us]").astype(np.int64)


def list_years(wall_times: Ints) -> list[int]:
    """Return the calendar years of wall times, ascending, within the known years."""
    years = wall_times.astype("datetime64[us]").astype("datetime64[Y]").astype(np.int64) + 1970
    year_offsets = np.clip(years, FIRST_YEAR, LAST_YEAR) - FIRST_YEAR
    return [FIRST_YEAR + int(year) for year in np.flatnonzero(np.bincount(year_offsets))]


def find_year(wall_time: int) -> int:
    """Return the calendar year of a wall time, or the nearest known one."""
    year = int(np.datetime64(wall_time, "us").astype("datetime64[Y]").astype(np.int64)) + 1970
    return min(max(year, FIRST_YEAR), LAST_YEAR)


def compute_year_start(year: int) -> int:
    """Return 1 January 00:00 of a year as instant or wall time."""
    return (date(year, 1, 1).toordinal() - EPOCH_DAY) * DAY


def list_days(year: int) -> range:
    """Return the days of a year, counted from 1 January 1970."""
    return range(compute_year_start(year) // DAY, compute_year_start(year + 1) // DAY)


def compute_midnight(day: int) -> datetime:
    """Return the local start of a day since 1970, without timezone."""
    return datetime.fromordinal(day + EPOCH_DAY)


def _compute_offset(zone: ZoneInfo, second: int) -> int:
    offset = from_micros(second * SECOND).astimezone(zone).utcoffset() or timedelta()
    return offset // MICROSECOND


def _find_offset_change(zone: ZoneInfo, before: int, after: int) -> int:
    """Return the first second in (before, after] with the offset of `after`."""
    new_offset = _compute_offset(zone, after)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (
            (before, middle) if _compute_offset(zone, middle) == new_offset else (middle, after)
        )
    return after


@lru_cache(maxsize=1024)
def _list_offset_changes(timezone: str, year: int) -> tuple[tuple[int, int], ...]:
    """Return instant and offset at a UTC year's start and each change."""
    zone = ZoneInfo(timezone)
    days = range(
        compute_year_start(year) // SECOND, compute_year_start(year + 1) // SECOND, DAY // SECOND
    )
    changes = [(days.start, _compute_offset(zone, days.start))]
    for day in days:
        after = min(day + days.step, days.stop - 1)
        if _compute_offset(zone, after) != changes[-1][1]:
            change = _find_offset_change(zone, day, after)
            changes.append((change, _compute_offset(zone, change)))
    return tuple((second * SECOND, offset) for second, offset in changes)


@lru_cache(maxsize=256)
def _load_offsets(timezone: str, first_year: int, last_year: int) -> tuple[Ints, Ints]:
    years = range(first_year, last_year + 1)
    rows = np.array(
        [row for year in years for row in _list_offset_changes(timezone, year)], dtype=np.int64
    )
    return rows[:, 0], rows[:, 1]


def list_stretches(timezone: str, start: int, end: int) -> list[OffsetStretch]:
    """Return the stretches of [start, end) in order, cut to it."""
    if end <= start:
        return []
    years = list_years(np.array([start, end]))
    since, offset = _load_offsets(timezone, years[0], years[-1])
    inner_changes = np.flatnonzero(
        (since > start) & (since < end) & (np.diff(offset, prepend=0) != 0)
    )
    edges = [start, *(int(since[i]) for i in inner_changes), end]
    offset_index = np.searchsorted(since, edges[:-1], side="right") - 1
    return [
        OffsetStretch(start_edge, end_edge, int(offset[max(i, 0)]))
        for start_edge, end_edge, i in zip(edges, edges[1:], offset_index.tolist(), strict=False)
    ]


def to_wall_times(timezone: str, instants: Ints) -> Ints:
    """Return the wall time of each instant.

    Outside 1900 to 2199 the nearest offset is used.
    """
    if not instants.size:
        return instants
    years = (find_year(int(end)) for end in (instants.min(), instants.max()))
    since, offset = _load_offsets(timezone, *years)
    offset_index = np.searchsorted(since, instants, side="right") - 1
    return np.asarray(instants + offset[np.maximum(offset_index, 0)], dtype=np.int64)


def to_wall_time(timezone: str, at: datetime) -> int:
    """Return the wall time of `at`.

    Raises:
        ValueError: `at` has no timezone.
    """
    if not FIRST_YEAR < at.year < LAST_YEAR:  # some zones overflow at the ends of the calendar
        return int(to_wall_times(timezone, np.array([to_instant_micros(at)]))[0])
    offset = at.astimezone(ZoneInfo(timezone)).utcoffset() or timedelta()
    return to_instant_micros(at) + offset // MICROSECOND


def compute_local_days(site: Site, instants: Instants) -> Ints:
    """Return each instant's local calendar day, numbered as `date.toordinal`.

    `instants` are UTC, datetime64 of any unit, in any order.

    Raises:
        ValueError: an instant is NaT.

    >>> late = np.array(["2026-03-28T23:30"], dtype="datetime64[us]")
    >>> date.fromordinal(compute_local_days(Site("ramp-a", "Europe/Vienna"), late)[0])
    datetime.date(2026, 3, 29)
    """
    return to_wall_times(site.timezone, to_instant_micros_array(instants)) // DAY + EPOCH_DAY


def compute_local_hours(site: Site, instants: Instants) -> Ints:
    """Return each instant's local hour, 0 to 23; see `compute_local_days`."""
    return to_wall_times(site.timezone, to_instant_micros_array(instants)) % DAY // HOUR


def compute_end_of_local_day(site: Site, day: date) -> datetime:
    """Return the UTC instant after which the site's clock never shows `day`.

    A clock that goes back over midnight shows the end of a day twice: the second time counts.
    A clock that jumps over midnight ends the day at the jump.

    >>> compute_end_of_local_day(Site("ramp-a", "Europe/Vienna"), date(2026, 3, 29)).isoformat()
    '2026-03-29T22:00:00+00:00'
    """
    wall_end = (day.toordinal() + 1 - EPOCH_DAY) * DAY
    stretches_around = list_stretches(site.timezone, wall_end - 2 * DAY, wall_end + 2 * DAY)
    ends = [
        min(stretch.until, wall_end - stretch.offset)
        for stretch in stretches_around
        if stretch.since + stretch.offset < wall_end
    ]
    return from_micros(max(ends))


FIRST_SLOT, LAST_SLOT = -(2**62), 2**62  # before and after all slots
NEVER = LAST_SLOT
"""Receipt of a prediction that nobody has sent, in microseconds."""


def to_instant(slot: int, tick: timedelta) -> datetime:
    """Return the instant of a slot."""
    return EPOCH + slot * tick


def find_slot_before(at: datetime, tick: timedelta) -> int:
    """Return the last slot at or before an instant."""
    return (at - EPOCH) // tick


def find_slot_after(at: datetime, tick: timedelta) -> int:
    """Return the first slot at or after an instant."""
    return -((EPOCH - at) // tick)
