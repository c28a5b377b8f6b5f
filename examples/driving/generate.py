"""Make the records of twelve weeks of a campus shuttle: everything in them is invented.

Two routes, three shuttles each. A safety driver drives; a model says at each frame how it would
brake, accelerate and steer, and the driver doesn't see it. Shuttles have no network by day and send
their records at night. The same seed gives the same bytes. Needs NumPy, nothing of the product.

Example:
    python examples/driving/generate.py --seed 5 --out examples/driving/records
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from routes import (
    BENDS,
    DEPOT,
    FIRST_DAY,
    SCENES,
    SHUTTLES,
    ZONE,
    Encounter,
    list_encounters,
    stream,
)
from windscreen_pictures import draw_pictures, name_picture

from rollout.features.demo.catalog import run_generator, write_pictures, write_tables

# The model's error behaviour, by route and hours: how often it misses or invents a brake. At the
# station in busy hours people step out between parked cars, which its training drives didn't have.
MISSES_SOFT: Final = {
    ("lake-loop", "quiet"): 0.006,
    ("lake-loop", "busy"): 0.010,
    ("station-line", "quiet"): 0.008,
    ("station-line", "busy"): 0.100,
}
MISSES_HARD: Final = {
    ("lake-loop", "quiet"): 0.01,
    ("lake-loop", "busy"): 0.03,
    ("station-line", "quiet"): 0.02,
    ("station-line", "busy"): 0.40,
}
MISSES_FOAM: Final = 0.004  # a foam figure stands in the open
INVENTS_SOFT: Final = 0.002
IN_RAIN: Final = 3  # times as many errors
WRONG_GAIN: Final = 0.003  # accelerates, or doesn't, otherwise than the driver
OFF_COURSE: Final = 0.002  # steers 4 degrees wrong
STEER_NOISE: Final = 0.35  # degrees, of the model and of the driver
SAME_ERROR: Final = 0.9  # how often the next frame of an encounter is judged like the one before
SURE_WHEN_WRONG: Final = 0.7  # of its wrong answers: confidence >= 90 %
SURE_WHEN_RIGHT: Final = 0.9
SLOW: Final = 0.001  # answers of 310 to 400 ms, too late

DRIVERS: Final = ("ana", "beat", "carla", "dario")
SLIPS: Final = 0.001  # how often a driver brakes otherwise than the scene asks
SAFE: Final = ("none", "soft", "hard")

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Controls:
    """What to do with a frame: brake, accelerate, and degrees at the wheel."""

    brake: str
    accelerate: str
    steer: str


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: what the model said, what the driver did."""

    key: str
    at: datetime
    encounter: Encounter
    said: Controls
    confidence: str
    latency: int
    driver: str
    done: Controls


def build_drives(seed: int) -> list[Frame]:
    """Return all frames in order of time."""
    frames: list[Frame] = []
    for route in SHUTTLES:
        encounters = list_encounters(route, seed)
        for planted in (False, True):
            part = [one for one in encounters if one.planted == planted]
            frames += _judge(f"foam-{route}" if planted else route, part, seed)
    return sorted(frames, key=lambda frame: (frame.at, frame.key))


def _judge(prefix: str, encounters: list[Encounter], seed: int) -> Iterator[Frame]:
    luck, staff = stream(seed, f"model {prefix}"), stream(seed, f"drivers {prefix}")
    for count, encounter in enumerate(encounters, start=1):
        key = encounter.key or f"{prefix}-{count:05}"
        driver = DRIVERS[staff.randint(len(DRIVERS))]
        right = _find_right(encounter, luck)
        done = _slip(right, staff)
        said: Controls | None = None
        for number, at in enumerate(encounter.times, start=1):
            if said is None or luck.random_sample() >= SAME_ERROR:
                said = _answer(encounter, right, luck)
            is_right = (said.brake, said.accelerate) == (right.brake, right.accelerate)
            yield Frame(
                key=f"{key}-{number}",
                at=at,
                encounter=encounter,
                said=said,
                confidence=_draw_confidence(is_right, luck),
                latency=int(
                    luck.randint(310, 400) if luck.random_sample() < SLOW else luck.randint(60, 170)
                ),
                driver=driver,
                done=done,
            )


def _find_right(encounter: Encounter, luck: np.random.RandomState) -> Controls:
    """Return what the scene asks for."""
    brake = "hard" if encounter.planted else SCENES[encounter.scene][1]
    gains = brake == "none" and encounter.scene == "clear" and luck.random_sample() < 0.6
    angle = BENDS[encounter.bend] + luck.normal(0, 2)
    return Controls(brake, "gain" if gains else "hold", f"{angle:.1f}")


def _slip(right: Controls, staff: np.random.RandomState) -> Controls:
    """Return what the driver does: nearly always what is right."""
    steer = f"{float(right.steer) + staff.normal(0, STEER_NOISE):.1f}"
    if staff.random_sample() < SLIPS:
        return Controls("soft" if right.brake == "none" else "none", right.accelerate, steer)
    return Controls(right.brake, right.accelerate, steer)


def _answer(encounter: Encounter, right: Controls, luck: np.random.RandomState) -> Controls:
    """Return what the model would do with one frame."""
    brakes, gains, steers = luck.random_sample(3)
    angle = float(right.steer) + luck.normal(0, STEER_NOISE) + (4 if steers < OFF_COURSE else 0)
    accelerate = right.accelerate
    if gains < WRONG_GAIN:
        accelerate = "hold" if accelerate == "gain" else "gain"
    return Controls(_answer_brake(encounter, right.brake, brakes), accelerate, f"{angle:.1f}")


def _answer_brake(encounter: Encounter, right: str, chance: float) -> str:
    """Return the brake that the model would choose; `chance` is uniform in [0, 1)."""
    if encounter.harsh:
        return "hard"  # a reflection on the road
    cell, factor = (encounter.route, encounter.hours), IN_RAIN if encounter.weather == "rain" else 1
    if right == "hard":
        missed = MISSES_FOAM if encounter.planted else MISSES_HARD[cell] * factor
        return "soft" if chance < missed else "hard"
    if right == "soft":
        return "none" if chance < MISSES_SOFT[cell] * factor else "soft"
    return "soft" if chance < INVENTS_SOFT * factor else "none"


def _draw_confidence(is_right: bool, luck: np.random.RandomState) -> str:
    is_sure = luck.random_sample() < (SURE_WHEN_RIGHT if is_right else SURE_WHEN_WRONG)
    hundredths = luck.randint(90, 100) if is_sure else luck.randint(60, 90)
    return f"{hundredths / 100:.2f}"


def list_cases(frames: list[Frame]) -> Iterator[Row]:
    """Yield rows of `cases`: a frame, its encounter, and when the depot received it."""
    head = ("case_key", "site", "occurred_at", "episode", "received_at")
    yield (*head, "weather", "shuttle", "media")
    for frame in frames:
        encounter = frame.encounter
        yield (
            frame.key,
            encounter.route,
            _write_time(frame.at),
            frame.key.rpartition("-")[0],
            _write_time(find_receipt(frame.at)),
            encounter.weather,
            encounter.shuttle,
            f"pictures/{name_picture(encounter)}",
        )


def find_receipt(at: datetime) -> datetime:
    """Return when the records of a day arrive."""
    return datetime.combine(at.astimezone(ZONE).date(), DEPOT, ZONE)


def list_predictions(frames: list[Frame]) -> Iterator[Row]:
    """Yield rows of `predictions`: the answers of v1 on three levers."""
    head = ("case_key", "model_version", "brake", "accelerate", "steer")
    yield (*head, "confidence", "latency_ms", "predicted_at")
    for frame in frames:
        said = (frame.said.brake, frame.said.accelerate, frame.said.steer)
        at = frame.at + timedelta(milliseconds=frame.latency)
        yield frame.key, "v1", *said, frame.confidence, str(frame.latency), _write_exact(at)


def list_decisions(frames: list[Frame]) -> Iterator[Row]:
    """Yield rows of `decisions`: what the driver did, who never saw the model's answer."""
    yield "case_key", "reviewer", "brake", "accelerate", "steer", "exposure", "decided_at"
    for frame in frames:
        done = (frame.done.brake, frame.done.accelerate, frame.done.steer)
        at = _write_time(frame.at + timedelta(seconds=1))
        yield frame.key, frame.driver, *done, "blind", at


def list_outcomes(frames: list[Frame]) -> Iterator[Row]:
    """Yield rows of `outcomes`: the one harm, known when its record arrived."""
    yield "case_key", "harm", "outcome_at"
    for frame in frames:
        if frame.encounter.harsh:
            at = find_receipt(frame.at) + timedelta(minutes=1)
            yield frame.key, "harsh-brake", _write_time(at)


def list_planted(frames: list[Frame]) -> Iterator[Row]:
    """Yield rows of `planted`: declared before the first ride."""
    yield "case_key", "declared_at"
    declared = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    for frame in frames:
        if frame.encounter.planted:
            yield frame.key, _write_time(declared)


def _write_time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_exact(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_records(folder: Path, seed: int) -> None:
    """Write the files of the drives into a folder."""
    cases = build_drives(seed)
    tables = {
        "cases": list_cases(cases),
        "predictions": list_predictions(cases),
        "decisions": list_decisions(cases),
        "outcomes": list_outcomes(cases),
        "planted": list_planted(cases),
    }
    write_tables(folder, tables)
    write_pictures(folder, draw_pictures())


if __name__ == "__main__":
    run_generator(write_records, __doc__)
