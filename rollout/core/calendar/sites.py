"""Sites, windows and cells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Final

from rollout.kernel.policy_keys import Key

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

    Hours, None for always, and all attributes must match. `when` is copied and not hashed.
    """

    id: Annotated[str, Key("Name", "Name of the window.", "night")]
    hours: Annotated[
        str | None, Key("NonEmptyText", "Opening hours in OpenStreetMap's syntax.")
    ] = "24/7"
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
