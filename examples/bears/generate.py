"""Make the records of a season of bear alarms: everything in them is invented.

Cameras at three campsites send a picture when something moves. A model says `bear` or `no-bear`;
rangers, who don't see its answer, wake the camp themselves and log what they saw. The same seed
gives the same bytes. Needs NumPy, nothing of the product.

Example:
    python examples/bears/generate.py --seed 5 --out examples/bears/records
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from camera_pictures import draw_pictures, name_picture
from campsites import (
    CAMPSITES,
    DAYS,
    FIRST_DAY,
    GLASS_FOGS,
    LINK_FAST,
    LINK_SLOW,
    TENTS_COME,
    TENTS_GO,
    Campsite,
    Visit,
    find_spans,
    list_visits,
    stream,
)

from rollout.features.demo.catalog import run_generator, write_pictures, write_tables

# The model's error behaviour. Its training pictures showed grown bears, from the front and the
# side, mostly by day: none from behind, no cub.
FINDS: Final = {
    "day": {"front": 1.00, "side": 0.995, "behind": 0.96, "cub": 0.95},
    "dusk": {"front": 0.99, "side": 0.99, "behind": 0.95, "cub": 0.93},
    "night": {"front": 0.78, "side": 0.74, "behind": 0.30, "cub": 0.25},
}
ON_WET_LENS: Final = 0.92  # of the bears that it would find it finds so many through drops
AT_LOW_RESOLUTION: Final = 0.98
FALSE_ALARMS: Final = {"day": 0.006, "dusk": 0.010, "night": 0.008}  # of visits without a bear
WET_FALSE_ALARMS: Final = 3  # times as many on a wet lens
FOGGED: Final = (0.30, 0.25)  # share of bears found, share of false alarms, behind fogged glass
TENT_ALARMS: Final = 0.12  # brown tents in the wind
SAME_ERROR: Final = 0.8  # how often the next picture of a visit is answered like the one before
SURE_WHEN_WRONG: Final = {
    "day": 0.3,
    "dusk": 0.4,
    "night": 0.8,
}  # of its errors: confidence >= 90 %
SURE_WHEN_RIGHT: Final = 0.85

RANGERS: Final = ("alma", "bruno", "chen", "dora")
SLIPS: Final = {"bear": 0.010, "no-bear": 0.0005}  # how often a ranger logs the other label
NEVER_LOGGED: Final = 0.0005
ROUND_AFTER: Final = timedelta(hours=4)  # then tracks tell what was there
PLANTED_A_DAY: Final = {"creek": 2, "meadow": 2, "far-camp": 1}  # zoo bears: front, side, dry lens
FINDS_PLANTED: Final = 0.995

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CameraCase:
    """One picture: what it shows, what the model and a ranger said of it, and when."""

    key: str
    at: datetime
    episode: str
    visit: Visit
    said: str
    confidence: str
    latency: timedelta
    ranger: str
    decided: str
    logged_at: datetime
    planted: bool = False


def build_season(seed: int) -> list[CameraCase]:
    """Return the season's cases in order of time, planted ones among them."""
    cases: list[CameraCase] = []
    for camp in CAMPSITES:
        cases += _judge(camp, list_visits(camp, seed), seed, camp.site)
        cases += _judge(camp, _plant(camp, seed), seed, f"zoo-{camp.site}")
    return sorted(cases, key=lambda case: (case.at, case.key))


def _plant(camp: Campsite, seed: int) -> list[Visit]:
    """Return the planted pictures of a site: bears in each window, each day."""
    luck = stream(seed, f"planted {camp.site}")
    planted = []
    for day in range(DAYS):
        for window, (start, end) in find_spans(camp, FIRST_DAY + timedelta(days=day)).items():
            for share in (luck.random_sample(PLANTED_A_DAY[camp.site]) * 0.8 + 0.1).tolist():
                at = start + timedelta(seconds=round((end - start).total_seconds() * share))
                pose, variant = ("front", "side")[luck.randint(2)], int(luck.randint(2))
                planted.append(Visit(camp, window, (at,), "bear", pose, False, False, variant))
    return sorted(planted, key=lambda visit: visit.times)


def _judge(camp: Campsite, visits: list[Visit], seed: int, prefix: str) -> Iterator[CameraCase]:
    """Yield each visit's pictures with what model and ranger said; keys count from 1."""
    luck, staff = stream(seed, f"model {prefix}"), stream(seed, f"rangers {prefix}")
    number, planted = 0, prefix != camp.site
    for count, visit in enumerate(visits, start=1):
        ranger = RANGERS[staff.randint(len(RANGERS))]
        slips = staff.random_sample() < SLIPS[visit.label]
        missing = not planted and staff.random_sample() < NEVER_LOGGED
        logged = visit.times[-1] + timedelta(seconds=int(staff.randint(300, 1800)))
        said = ""
        for at in visit.times:
            number += 1
            if not said or luck.random_sample() >= SAME_ERROR:
                said = _answer(visit, at, planted, luck)
            yield CameraCase(
                key=f"{prefix}-{number:05}",
                at=at,
                episode=f"{prefix}-e{count:05}",
                visit=visit,
                said=said,
                confidence=_draw_confidence(visit, said, luck),
                latency=timedelta(milliseconds=_draw_latency(camp, at, luck)),
                ranger="" if missing else ranger,
                decided=_other(visit.label) if slips else visit.label,
                logged_at=logged,
                planted=planted,
            )


def _answer(visit: Visit, at: datetime, planted: bool, luck: np.random.RandomState) -> str:
    """Return what the model says of one picture."""
    chance = luck.random_sample()
    fogged = visit.camp.site == "creek" and at >= GLASS_FOGS and not planted
    if not visit.pose:
        return "bear" if chance < _compute_false_alarms(visit, at, fogged) else "no-bear"
    found = FINDS_PLANTED if planted else FINDS[visit.window][visit.pose]
    found *= (ON_WET_LENS if visit.wet else 1) * (AT_LOW_RESOLUTION if visit.low else 1)
    return "bear" if chance < (FOGGED[0] if fogged else found) else "no-bear"


def _compute_false_alarms(visit: Visit, at: datetime, fogged: bool) -> float:
    """Return the chance that the model takes a visit without a bear for one."""
    tents = visit.camp.site == "meadow" and TENTS_COME <= at < TENTS_GO and visit.window == "day"
    if fogged or tents:
        return FOGGED[1] if fogged else TENT_ALARMS
    return FALSE_ALARMS[visit.window] * (WET_FALSE_ALARMS if visit.wet else 1)


def _draw_confidence(visit: Visit, said: str, luck: np.random.RandomState) -> str:
    """Return a confidence: at night the model is as sure of its errors as of anything."""
    sure = SURE_WHEN_RIGHT if said == visit.label else SURE_WHEN_WRONG[visit.window]
    is_sure = luck.random_sample() < sure
    hundredths = luck.randint(90, 100) if is_sure else luck.randint(60, 90)
    return f"{hundredths / 100:.2f}"


def _draw_latency(camp: Campsite, at: datetime, luck: np.random.RandomState) -> int:
    """Return milliseconds to the answer: seconds, or minutes over a full radio link."""
    usual, slow = int(luck.randint(1500, 9000)), int(luck.randint(25_000, 124_000))
    return slow if camp.site == "meadow" and LINK_SLOW <= at < LINK_FAST else usual


def _other(label: str) -> str:
    return "no-bear" if label == "bear" else "bear"


def list_cases(cases: list[CameraCase]) -> Iterator[Row]:
    """Yield rows of `cases`: what a camera knows when it sends a picture."""
    yield "case_key", "site", "occurred_at", "episode", "lens", "resolution", "media"
    for case in cases:
        visit = case.visit
        lens, resolution = "wet" if visit.wet else "clear", "low" if visit.low else "high"
        place = (visit.camp.site, _write_time(case.at), case.episode)
        yield case.key, *place, lens, resolution, f"pictures/{name_picture(visit)}"


def list_predictions(cases: list[CameraCase]) -> Iterator[Row]:
    """Yield rows of `predictions`: the answer of v1 to each picture."""
    yield "case_key", "model_version", "label", "confidence", "latency_ms", "predicted_at"
    for case in cases:
        latency = str(case.latency // timedelta(milliseconds=1))
        at = _write_time(case.at + case.latency)
        yield case.key, "v1", case.said, case.confidence, latency, at


def list_decisions(cases: list[CameraCase]) -> Iterator[Row]:
    """Yield rows of `decisions`: what rangers logged, who never saw the model's answer."""
    yield "case_key", "reviewer", "label", "exposure", "decided_at"
    for case in cases:
        if case.ranger:
            yield case.key, case.ranger, case.decided, "blind", _write_time(case.logged_at)


def list_outcomes(cases: list[CameraCase]) -> Iterator[Row]:
    """Yield rows of `outcomes`: what tracks showed on the next round."""
    yield "case_key", "label", "outcome_at"
    for case in cases:
        yield case.key, case.visit.label, _write_time(case.at + ROUND_AFTER)


def list_planted(cases: list[CameraCase]) -> Iterator[Row]:
    """Yield rows of `planted`: declared before the season."""
    yield "case_key", "declared_at"
    declared = datetime(FIRST_DAY.year, FIRST_DAY.month, FIRST_DAY.day, tzinfo=UTC)
    for case in cases:
        if case.planted:
            yield case.key, _write_time(declared)


def _write_time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def write_records(folder: Path, seed: int) -> None:
    """Write the files of the season into a folder."""
    cases = build_season(seed)
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
