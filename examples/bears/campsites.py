"""Two campsites and a remote one that exist nowhere: when cameras trigger, and what they see."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np

FIRST_DAY: Final = date(2025, 7, 1)
DAYS: Final = 84  # twelve weeks of the season
MARGIN: Final = timedelta(minutes=3)  # off the sun's times, so that any almanac puts a case right
DUSK: Final = timedelta(hours=1)

POSES: Final = {"front": 0.30, "side": 0.42, "behind": 0.16, "cub": 0.12}
OTHERS: Final = {"deer": 0.45, "raccoon": 0.20, "nothing": 0.35}  # nothing: wind in the grass
MORE_PICTURES: Final = 0.12  # chance that one more picture of the same visit follows
RAINY: Final = 0.15  # of days; the lens then stays wet until midnight
LOW_RESOLUTION: Final = {"day": 0.05, "dusk": 0.25, "night": 0.80}  # the radio link is thin

GLASS_FOGS: Final = datetime(
    2025, 9, 10, 21, tzinfo=UTC
)  # at the creek, after hail: water behind it
TENTS_COME: Final = datetime(
    2025, 8, 16, 18, tzinfo=UTC
)  # brown tents in sight of the meadow's camera
TENTS_GO: Final = datetime(2025, 9, 4, 18, tzinfo=UTC)
LINK_SLOW: Final = datetime(2025, 9, 6, 15, tzinfo=UTC)  # a festival fills the meadow's radio link
LINK_FAST: Final = datetime(2025, 9, 7, 22, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Campsite:
    """A site: where it is, visits a day in each window, and the share of bears among them."""

    site: str
    latitude: float
    longitude: float
    visits: dict[str, float]
    bears: dict[str, float]


CAMPSITES: Final = (
    Campsite(
        "creek",
        40.34,
        -105.57,
        {"day": 28, "dusk": 15, "night": 9},
        {"day": 0.06, "dusk": 0.12, "night": 0.06},
    ),
    Campsite(
        "meadow",
        40.36,
        -105.59,
        {"day": 26, "dusk": 13, "night": 17},
        {"day": 0.06, "dusk": 0.12, "night": 0.06},
    ),
    Campsite(
        "far-camp",
        40.23,
        -105.54,
        {"day": 8, "dusk": 4, "night": 4},
        {"day": 0.008, "dusk": 0.008, "night": 0.008},
    ),
)


@dataclass(frozen=True, slots=True)
class Visit:
    """What set a camera off, with the times of its pictures; `pose` is empty without a bear."""

    camp: Campsite
    window: str
    times: tuple[datetime, ...]
    subject: str
    pose: str
    wet: bool
    low: bool
    variant: int

    @property
    def label(self) -> str:
        """Say what is true of the visit, in the policy's labels."""
        return "bear" if self.pose else "no-bear"


def stream(seed: int, purpose: str) -> np.random.RandomState:
    """Open the stream of random numbers that `purpose` alone uses; NumPy keeps it for ever."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def list_visits(camp: Campsite, seed: int) -> list[Visit]:
    """Return the season's visits to one campsite, in order of time."""
    rain = stream(seed, f"rain {camp.site}").random_sample(DAYS) < RAINY
    visits: list[Visit] = []
    for window in camp.visits:
        luck = stream(seed, f"visits {camp.site} {window}")
        for day in range(DAYS):
            spans = find_spans(camp, FIRST_DAY + timedelta(days=day))
            visits += _list_window(camp, window, spans[window], bool(rain[day]), luck)
    return sorted(visits, key=lambda visit: visit.times[0])


def find_spans(camp: Campsite, day: date) -> dict[str, tuple[datetime, datetime]]:
    """Return when day, dusk and night begin and end that the policy's windows name."""
    (rise, set_), (next_rise, _) = (
        find_sun_times(day + timedelta(days=more), camp.latitude, camp.longitude) for more in (0, 1)
    )
    return {
        "day": (rise, set_),
        "dusk": (set_, set_ + DUSK),
        "night": (set_ + DUSK, next_rise),
    }


def find_sun_times(day: date, latitude: float, longitude: float) -> tuple[datetime, datetime]:
    """Return sunrise and sunset in UTC, to the minute, by NOAA's short formula."""
    year = 2 * math.pi / 365 * (day.timetuple().tm_yday - 0.5)
    clock = 229.18 * (
        0.000075
        + 0.001868 * math.cos(year)
        - 0.032077 * math.sin(year)
        - 0.014615 * math.cos(2 * year)
        - 0.040849 * math.sin(2 * year)
    )
    tilt = 0.006918 - 0.399912 * math.cos(year) + 0.070257 * math.sin(year)
    tilt += 0.000907 * math.sin(2 * year) - 0.006758 * math.cos(2 * year)
    north = math.radians(latitude)
    half = math.degrees(
        math.acos(
            math.cos(math.radians(90.833)) / (math.cos(north) * math.cos(tilt))
            - math.tan(north) * math.tan(tilt)
        )
    )
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rise, set_ = (round(720 - 4 * (longitude + side * half) - clock) for side in (1, -1))
    return midnight + timedelta(minutes=rise), midnight + timedelta(minutes=set_)


def _list_window(
    camp: Campsite,
    window: str,
    span: tuple[datetime, datetime],
    wet: bool,
    luck: np.random.RandomState,
) -> Iterator[Visit]:
    """Yield the visits of one window on one day."""
    start, end = span[0] + MARGIN, span[1] - MARGIN
    seconds = int((end - start).total_seconds())
    for second in luck.randint(0, seconds, size=luck.poisson(camp.visits[window])).tolist():
        is_bear = luck.random_sample() < camp.bears[window]
        kinds = POSES if is_bear else OTHERS
        kind = str(luck.choice(list(kinds), p=list(kinds.values())))
        pictures = min(int(luck.geometric(1 - MORE_PICTURES)), 4)
        first = start + timedelta(seconds=second)
        yield Visit(
            camp=camp,
            window=window,
            times=tuple(first + timedelta(seconds=8 * number) for number in range(pictures)),
            subject="bear" if is_bear else kind,
            pose=kind if is_bear else "",
            wet=wet,
            low=bool(luck.random_sample() < LOW_RESOLUTION[window]),
            variant=int(luck.randint(2)),
        )
