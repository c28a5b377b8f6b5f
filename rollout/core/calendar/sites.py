"""Where and when: sites, windows, cells, and the one window that an instant at a site lies in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rollout.core.calendar.opening_hours import hold, is_open
from rollout.core.calendar.timezones import Instants, counts, walls

OTHER: Final = "other"
"""The window of what fits no window; always shadow."""

ALWAYS: Final = "always"
"""The one window of a policy that names none."""

SHADOW: Final = "shadow"
"""The stage below the policy's ladder."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place with its clock.

    `timezone` is an IANA name, `country` an ISO code (for public holidays), `place` latitude and
    longitude in degrees, north and east positive (for the sun). `lease` is how long an answer to
    "who decides" may be used here, so the time within which a stop arrives.
    """

    id: str
    timezone: str
    country: str | None = None
    place: tuple[float, float] | None = None
    wave: int = 1
    lease: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A recurring time pattern: `hours` of the site and attributes of the case, both must hold.

    `hours` is OpenStreetMap opening_hours, None at all times. `when` gives for each attribute the
    values that fit; it is copied, and left out of the hash alone.
    """

    id: str
    hours: str | None = None
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        when = {attribute: tuple(values) for attribute, values in self.when.items()}
        object.__setattr__(self, "when", when)


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A site in a window: what is widened and narrowed."""

    site: str
    window: str

    def __str__(self) -> str:
        return f"{self.site} · {self.window}"


def window_at(
    site: Site,
    windows: Sequence[Window],
    at: datetime,
    attributes: Mapping[str, str] | None = None,
) -> str:
    """The id of the first window that fits an instant and a case's attributes at a site.

    A window that would hold by its hours, but asks for an attribute that is missing, ends the
    search: which window it is can't be known, so `other`. So does no window that fits.

    Raises:
        ValueError: `at` has no time zone, or hours follow the sun and the site has no place.

    >>> dry = Window("dry", "Mo-Fr 07:00-19:00", {"weather": ("dry",)})
    >>> windows, monday = [dry, Window("rest")], datetime.fromisoformat("2026-03-02T08:00+01:00")
    >>> loop = Site("lake-loop", "Europe/Zurich")
    >>> [window_at(loop, windows, monday, case) for case in ({"weather": "wet"}, {}, None)]
    ['rest', 'other', 'other']
    """
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone; give an aware datetime")
    values_by_attribute = attributes or {}
    for window in windows:
        if not is_open(window.hours, site, at):
            continue
        if any(values_by_attribute.get(attribute) is None for attribute in window.when):
            return OTHER
        if all(
            values_by_attribute[attribute] in values for attribute, values in window.when.items()
        ):
            return window.id
    return OTHER


def hours_hold(
    site: Site, windows: Sequence[Window], starts: Instants
) -> dict[str, NDArray[np.bool_]]:
    """For each window, whether its hours hold at each instant; its `when` is not looked at.

    Args:
        site: the place.
        windows: in the policy's order.
        starts: UTC, datetime64 of any unit, shape (cases,), any order.

    Returns:
        By window id, shape (cases,). A window without hours holds at all of them.

    Raises:
        ValueError: an instant is NaT, or hours follow the sun and the site has no place.
    """
    wall_times = walls(site.timezone, counts(starts))
    return {window.id: hold(window.hours, site, wall_times) for window in windows}


def windows_at(
    site: Site,
    windows: Sequence[Window],
    starts: Instants,
    attributes: Mapping[str, NDArray[np.object_]] | None = None,
) -> NDArray[np.str_]:
    """`window_at` for many instants of one site.

    Args:
        site: the place.
        windows: in the policy's order.
        starts: UTC, datetime64 of any unit, shape (cases,), any order.
        attributes: by name, text or None for missing, shape (cases,); a name left out is missing
            for all.

    Returns:
        Window ids, shape (cases,), `other` where none fits.

    Raises:
        ValueError: as `hours_hold`.
    """
    window_indexes = np.full(starts.shape, len(windows))
    undecided = np.ones(starts.shape, dtype=np.bool_)
    open_by_window = hours_hold(site, windows, starts)
    for i, window in enumerate(windows):
        fits, missing = _when(window, attributes or {}, starts.shape)
        candidates = undecided & open_by_window[window.id]
        window_indexes[candidates & fits] = i
        undecided &= ~(candidates & (fits | missing))
    names = np.array([*(window.id for window in windows), OTHER], dtype=np.str_)
    return np.asarray(names[window_indexes])


def _when(
    window: Window, attributes: Mapping[str, NDArray[np.object_]], shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where the window's `when` fits, and where it can't be known for a missing attribute."""
    fits, missing = np.ones(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    for attribute, values in window.when.items():
        column = np.asarray(attributes.get(attribute, np.full(shape, None)), dtype=np.object_)
        matches = np.zeros(shape, dtype=np.bool_)
        for value in values:
            matches |= column == value
        fits &= matches
        missing |= column == np.array(None)
    return fits, missing
