"""Two doors of a school that exists nowhere: who rings when, and what two detectors make of it.

Every constant below is invented. The errors are stated here and nowhere else; the engine sees only
the records.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

ZONE: Final = ZoneInfo("Europe/Paris")
FIRST_DAY, LAST_DAY = date(2026, 3, 16), date(2026, 5, 15)
HOLIDAYS: Final = frozenset(
    {date(2026, 4, 6), date(2026, 5, 1), date(2026, 5, 8), date(2026, 5, 14)}
)
SATURDAY: Final = 5

# Visits of an open day by door and window, and the hours of the window; `late` is no window of the
# policy, but doors ring after closing too.
VISITS: Final = {
    ("main-entrance", "by-day"): 90,
    ("main-entrance", "evening"): 62,
    ("garden-door", "by-day"): 60,
    ("garden-door", "evening"): 40,
    ("main-entrance", "late"): 3,
    ("garden-door", "late"): 2,
}
HOURS: Final = {"by-day": (8, 16), "evening": (16, 20), "late": (20, 22)}
HOLIDAY_VISITS: Final = 10  # at each door, by day: rehearsals, with a porter at the door
SHARES: Final = {"mask": 0.80, "no-mask": 0.17, "nobody": 0.03}  # nobody: a bird, a ball
SECOND_PICTURE: Final = 0.1  # share of visits with a second picture, some seconds later

RAIN_UNTIL: Final = date(2026, 3, 20)  # no sun in the first days, so that a naive rule opens
SUNNY: Final = 5 / 6  # share of later evenings on which the sun shines into the garden camera

# Share of pictures that a detector misreads, by light: what it says instead of the truth.
# v1 learned from pictures in daylight. v2 learned from lamplight too, and from few against the sun.
ERRORS: Final = {
    "v1": {
        "daylight": {"mask": 0.015, "no-mask": 0.03, "nobody": 0.02},
        "lamps": {"mask": 0.020, "no-mask": 0.14, "nobody": 0.02},
        "clouds": {"mask": 0.015, "no-mask": 0.03, "nobody": 0.02},
        "low-sun": {"mask": 0.080, "no-mask": 0.50, "nobody": 0.10},
    },
    "v2": {
        "daylight": {"mask": 0.006, "no-mask": 0.015, "nobody": 0.01},
        "lamps": {"mask": 0.008, "no-mask": 0.020, "nobody": 0.01},
        "clouds": {"mask": 0.006, "no-mask": 0.015, "nobody": 0.01},
        "low-sun": {"mask": 0.050, "no-mask": 0.40, "nobody": 0.10},
    },
}
INSTEAD: Final = {"mask": "no-mask", "no-mask": "mask", "nobody": "mask"}
STICKY: Final = 0.8  # chance that the second picture of a visit is misread like the first
# Confidence of a right answer, of a wrong one, and of any answer against the sun: there the
# detectors are as sure as ever, so that confidence gives no warning.
SURE, UNSURE, DAZZLED = (0.94, 0.995), (0.55, 0.92), (0.88, 0.99)
V2_SINCE: Final = datetime(2026, 4, 2, 8, tzinfo=ZONE)
LATENCY_MS: Final = (180, 850)

TAILGATING: Final = 0.0008  # per unlocked visit: somebody walks in behind
# The closer of one door breaks for one day; the door then stays open behind most visitors.
BROKEN_CLOSER: Final = ("main-entrance", date(2026, 5, 6), 0.12)
BARRIER_HOUR: Final = 22  # when the light barrier's count is compared with the door's


@dataclass(frozen=True, slots=True)
class Reading:
    """What one version answered to one picture."""

    version: str
    label: str
    hundredths: int
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of the door camera, with its truth and the versions' answers."""

    key: str
    visit: str
    site: str
    local: datetime
    light: str
    truth: str
    readings: tuple[Reading, ...]
    followed: bool

    @property
    def at(self) -> datetime:
        """The picture's time in UTC."""
        return self.local.astimezone(UTC)


def open_stream(seed: int, purpose: str) -> np.random.RandomState:
    """Return the random numbers of one purpose; NumPy keeps `RandomState` the same for ever."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def list_pictures(seed: int) -> list[Picture]:
    """Return all pictures of both doors in order of time."""
    pictures = [
        picture
        for day in list_days()
        for site in ("main-entrance", "garden-door")
        for window in HOURS
        for picture in list_cell_pictures(seed, site, window, day)
    ]
    return sorted(pictures, key=lambda picture: (picture.at, picture.key))


def list_days() -> Iterator[date]:
    """Yield the days from Monday to Friday, holidays too."""
    day = FIRST_DAY
    while day <= LAST_DAY:
        if day.weekday() < SATURDAY:
            yield day
        day += timedelta(days=1)


def list_cell_pictures(seed: int, site: str, window: str, day: date) -> Iterator[Picture]:
    """Yield the pictures of one door on one day in one window; on holidays only by day."""
    luck = open_stream(seed, f"{site} {window} {day}")
    usual = VISITS[site, window]
    if day in HOLIDAYS:
        usual = HOLIDAY_VISITS if window == "by-day" else 0
    light = find_light(seed, site, window, day)
    begin, end = HOURS[window]
    offsets = luck.choice((end - begin) * 360, luck.poisson(usual), replace=False)
    for number, tens in enumerate(sorted(offsets.tolist())):
        local = datetime(day.year, day.month, day.day, begin, tzinfo=ZONE)
        local += timedelta(seconds=10 * tens)
        visit = f"{site[:4]}-{day:%m%d}-{window[:2]}-{number:03}"
        yield from list_visit_pictures(luck, visit, site, local, light)


def find_light(seed: int, site: str, window: str, day: date) -> str:
    """Return what lights the faces: the garden door looks west, into the evening sun."""
    if window == "by-day":
        return "daylight"
    if site == "main-entrance" or window == "late":
        return "lamps"
    is_sunny = open_stream(seed, f"weather {day}").random_sample() < SUNNY
    return "low-sun" if is_sunny and day >= RAIN_UNTIL else "clouds"


def list_visit_pictures(
    luck: np.random.RandomState, visit: str, site: str, local: datetime, light: str
) -> Iterator[Picture]:
    """Yield the one or two pictures of a visit."""
    truth = str(luck.choice(list(SHARES), p=list(SHARES.values())))
    slips = {version: float(luck.random_sample()) for version in ERRORS}
    follows, second = luck.random_sample(2).tolist()
    followed = truth == "mask" and follows < compute_tailgating(site, local.date())
    for number in range(2 if second < SECOND_PICTURE else 1):
        at = local + timedelta(seconds=4 * number)
        readings = tuple(
            read(luck, version, light, truth, slips[version])
            for version in ERRORS
            if version == "v1" or at >= V2_SINCE
        )
        key = f"{visit}-{number + 1}"
        yield Picture(key, visit, site, at, light, truth, readings, followed and not number)
        if luck.random_sample() >= STICKY:
            slips = {version: float(luck.random_sample()) for version in ERRORS}


def read(luck: np.random.RandomState, version: str, light: str, truth: str, slip: float) -> Reading:
    """Return a version's answer: wrong if its slip lies under the error of this light."""
    is_wrong = slip < ERRORS[version][light][truth]
    low, high = DAZZLED if light == "low-sun" else (UNSURE if is_wrong else SURE)
    confidence = low + (high - low) * luck.random_sample()
    latency_ms = int(luck.randint(*LATENCY_MS))
    label = INSTEAD[truth] if is_wrong else truth
    return Reading(version, label, round(100 * confidence), latency_ms)


def compute_tailgating(site: str, day: date) -> float:
    """Return the chance that somebody walks in behind a visitor."""
    broken_site, broken_day, broken_chance = BROKEN_CLOSER
    return broken_chance if (site, day) == (broken_site, broken_day) else TAILGATING
