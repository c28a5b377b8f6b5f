"""Two routes of a campus shuttle that exist nowhere: who rides when, and what comes in the way."""

import zlib
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from rollout.kernel.statistics.sampling import compute_sampling_value

ZONE: Final = ZoneInfo("Europe/Zurich")
FIRST_DAY: Final = date(2025, 3, 3)  # a Monday
WEEKS: Final = 12
RAINY: Final = 0.2  # of days; a rainy day is wet from the first ride to the last
SHUTTLES: Final = {"lake-loop": ("s1", "s2", "s3"), "station-line": ("s4", "s5", "s6")}
HOURS: Final = {  # seconds of the day, as the policy's windows
    "quiet": ((9.5, 11.5), (13.5, 16.0)),
    "busy": ((7.0, 9.5), (11.5, 13.5), (16.0, 19.0)),
}
ENCOUNTERS: Final = {"quiet": 30, "busy": 34}  # a weekday and route
SCENES: Final = {  # what is on the road, its share, and how the safety driver brakes for it
    "clear": (0.62, "none"),
    "kerb": (0.09, "none"),  # somebody waits at the kerb
    "car": (0.17, "soft"),
    "crossing": (0.11, "soft"),  # somebody crosses
    "runs-out": (0.01, "hard"),
}
BENDS: Final = {"left": -8, "straight": 0, "right": 8}  # degrees at the wheel
MORE_FRAMES: Final = 0.2  # chance that one more frame of the same encounter follows
PLANTED_A_DAY: Final = 4  # foam figures pushed onto a closed lane, in each cell

HARSH_DAY: Final = date(2025, 5, 13)  # dry
HARSH_AT: Final = datetime(2025, 5, 13, 10, 12, tzinfo=ZONE)
HARSH_ROUTE, HARSH_SHUTTLE = "lake-loop", "s2"
DEPOT: Final = time(20, 30)  # then shuttles send the day's records
SALT: Final = bytes(32)  # replay's default
BLIND: Final = 0.1  # share of the policy's stages that the driver drives


@dataclass(frozen=True, slots=True)
class Encounter:
    """A stretch of the road with one thing on it, seen in some frames."""

    route: str
    hours: str
    shuttle: str
    weather: str
    scene: str
    bend: str
    times: tuple[datetime, ...]
    key: str
    planted: bool = False
    harsh: bool = False


def stream(seed: int, purpose: str) -> np.random.RandomState:
    """Open the stream of random numbers that `purpose` alone uses; NumPy keeps it for ever."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def list_encounters(route: str, seed: int) -> list[Encounter]:
    """Return a route's encounters on all weekdays, planted ones too, in order of time."""
    rainy = stream(seed, f"rain {route}").random_sample(WEEKS * 7) < RAINY
    luck, planted = stream(seed, f"rides {route}"), stream(seed, f"planted {route}")
    encounters: list[Encounter] = []
    for number in range(WEEKS * 7):
        day = FIRST_DAY + timedelta(days=number)
        if day.weekday() >= 5:  # no rides
            continue
        weather = "rain" if rainy[number] and day != HARSH_DAY else "dry"
        for hours in HOURS:
            count = luck.poisson(ENCOUNTERS[hours])
            encounters += [_meet(route, hours, day, weather, luck) for _ in range(count)]
            encounters += [_plant(route, hours, day, planted) for _ in range(PLANTED_A_DAY)]
        if day == HARSH_DAY and route == HARSH_ROUTE:
            encounters.append(_brake_harshly())
    return sorted(encounters, key=lambda encounter: encounter.times[0])


def _meet(
    route: str, hours: str, day: date, weather: str, luck: np.random.RandomState
) -> Encounter:
    first = _draw_time(hours, day, luck)
    frames = min(int(luck.geometric(1 - MORE_FRAMES)), 5)
    return Encounter(
        route=route,
        hours=hours,
        shuttle=SHUTTLES[route][luck.randint(3)],
        weather=weather,
        scene=str(luck.choice(list(SCENES), p=[share for share, _ in SCENES.values()])),
        bend=str(luck.choice(list(BENDS))),
        times=tuple(first + timedelta(seconds=number) for number in range(frames)),
        key="",
    )


def _plant(route: str, hours: str, day: date, luck: np.random.RandomState) -> Encounter:
    shuttle = SHUTTLES[route][luck.randint(3)]
    at = _draw_time(hours, day, luck)
    return Encounter(route, hours, shuttle, "dry", "foam", "straight", (at,), "", planted=True)


def _brake_harshly() -> Encounter:
    """Return the encounter of the harsh brake, with a key that the draw gives to the model."""
    keys = (f"{HARSH_ROUTE}-harsh-{number}" for number in range(100))
    key = next(key for key in keys if compute_sampling_value(SALT, "stage", key) > 2 * BLIND)
    times = (HARSH_AT,)
    return Encounter(
        HARSH_ROUTE, "quiet", HARSH_SHUTTLE, "dry", "clear", "straight", times, key, harsh=True
    )


def _draw_time(hours: str, day: date, luck: np.random.RandomState) -> datetime:
    """Return a whole second within the hours, at least a minute from their ends."""
    lengths = [end - start for start, end in HOURS[hours]]
    start, end = HOURS[hours][luck.choice(len(lengths), p=np.array(lengths) / sum(lengths))]
    second = int(luck.randint(round(start * 3600) + 60, round(end * 3600) - 60))
    return datetime.combine(day, time(), ZONE) + timedelta(seconds=second)
