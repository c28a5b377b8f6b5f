"""Sites, windows and cells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

OTHER_WINDOW: Final = "other"
"""Id of the hours outside every window; always shadow."""

ALWAYS_WINDOW: Final = "always"
"""Id of the window of a policy without windows."""

SHADOW: Final = "shadow"
"""Id of the stage of level 0."""


@dataclass(frozen=True, slots=True)
class Site:
    """A site with its clock.

    `timezone` is an IANA name, `country` an ISO code (for public holidays), `coordinates` latitude
    and longitude in degrees, north and east positive (for the sun). `lease` is how long an
    assignment may be used here, and so the time within which a stop holds. `was` is its former id.
    `open` are the hours in which silence counts, None for always.
    """

    id: str
    timezone: str
    country: str | None = None
    coordinates: tuple[float, float] | None = None
    wave: int = 1
    lease: timedelta | None = None
    was: str = ""
    open: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A recurring span of local hours, limited to cases with some attributes.

    `hours` is OpenStreetMap opening_hours, None for always. `when` lists the matching values of
    each attribute; hours and all attributes must match. `when` is copied and not hashed. `was` is
    the window's former id.
    """

    id: str
    hours: str | None = None
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    was: str = ""

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
