"""Sites, windows and cells.

When a user's notifications may be sent: quiet hours and the times of digests.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from rollout.kernel.units import Key

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
