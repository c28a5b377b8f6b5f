"""Make the records of three clinics that triage skin pictures. Everything is invented.

Model v1 learned from pictures that a search engine found, which mostly show light skin; v2 also
learned from pictures of dark skin, taken by daylight. The error rates below are inputs of the
story, no findings about people or about any real model. The same seed gives byte-equal files.

Example:
    python examples/skin/generate.py --seed 5 --out examples/skin/records
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import spots

from rollout.features.demo.catalog import run_generator, write_pictures, write_tables

ZONE: Final = ZoneInfo("Europe/Lisbon")
FIRST_DAY: Final = date(2025, 9, 1)  # a Monday
DAYS: Final = 84
SUNDAY: Final = 6  # clinics are closed
HOURS: Final = {"day": (8, 17), "evening": (17, 22)}
CASES_A_DAY: Final = {
    ("harbour", "day"): 34,
    ("harbour", "evening"): 30,
    ("hill", "day"): 30,
    ("hill", "evening"): 4,  # too few of the smaller group to say anything of it
    ("valley", "day"): 20,
    ("valley", "evening"): 10,
}
DARK_PERCENT: Final = {"harbour": 25, "hill": 25, "valley": 0}  # of patients, dark skin
LABELS: Final = ("urgent", "routine", "home")
LABEL_SHARES: Final = (0.15, 0.35, 0.50)  # of the truth, the same in both groups
CLINICIANS: Final = {
    "harbour": ("ines", "rui", "vera"),
    "hill": ("joana", "luis"),
    "valley": ("ana", "pedro"),
}
CLINICIAN_WRONG: Final = 0.02  # in both groups
NO_DECISION: Final = 0.01  # cases that nobody judges
V1_WRONG: Final = {"light": 0.025, "dark": 0.28}
V2_WRONG: Final = {"light": 0.02, "dark": 0.025}
V2_LAMP_WRONG: Final = 0.26  # dark skin under the evening lamp of the harbour: v2 never saw it
LAMP: Final = ("harbour", "evening")
SENT_HOME: Final = 0.6  # of wrong answers on urgent cases: the costly mistake
LEAST_SURE, SURE_SPREAD = 80, 19  # confidence in per cent; it says little about being right
V2_READS_FROM: Final = datetime(2025, 9, 28, 23, tzinfo=UTC)
ANSWERS_AFTER: Final = {"v1": timedelta(seconds=2), "v2": timedelta(seconds=3)}
FOLLOW_UP: Final = timedelta(days=10)  # then a biopsy or a second visit shows what was right
PICTURES: Final = 5  # drawings of one tone, label and light

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SkinCase:
    """One patient's picture; `number` counts from 0 in order of time."""

    number: int
    site: str
    window: str
    at: datetime
    tone: str
    truth: str

    @property
    def key(self) -> str:
        """Return the key that all files share."""
        return f"s{self.number:05}"


def open_stream(seed: int, purpose: str) -> np.random.RandomState:
    """Return the random numbers of one purpose; NumPy never changes what `RandomState` draws."""
    return np.random.RandomState([seed, zlib.crc32(purpose.encode())])


def make_cases(seed: int) -> list[SkinCase]:
    """Return all cases in order of time."""
    arrivals = sorted(
        (at, site, window)
        for site, window in CASES_A_DAY
        for at in _draw_arrivals(open_stream(seed, f"arrivals {site} {window}"), site, window)
    )
    tones, labels = open_stream(seed, "tones"), open_stream(seed, "truth")
    return [
        SkinCase(
            number=number,
            site=site,
            window=window,
            at=at,
            tone="dark" if tones.randint(100) < DARK_PERCENT[site] else "light",
            truth=LABELS[int(labels.choice(len(LABELS), p=LABEL_SHARES))],
        )
        for number, (at, site, window) in enumerate(arrivals)
    ]


def _draw_arrivals(stream: np.random.RandomState, site: str, window: str) -> Iterator[datetime]:
    opens, closes = HOURS[window]
    for day in (FIRST_DAY + timedelta(days=number) for number in range(DAYS)):
        if day.weekday() != SUNDAY:
            for _ in range(stream.poisson(CASES_A_DAY[site, window])):
                second = int(stream.randint((closes - opens) * 3600))
                local = datetime.combine(day, time(opens), ZONE) + timedelta(seconds=second)
                yield local.astimezone(UTC)


def list_cases(cases: Iterable[SkinCase], seed: int) -> Iterator[Row]:
    """Yield the rows of `cases`: where, when, the group, and a drawing of the spot."""
    yield "case_key", "site", "occurred_at", "tone", "media"
    stream = open_stream(seed, "pictures")
    for case in cases:
        light = "lamp" if case.window == "evening" else "daylight"
        picture = spots.name_picture(case.tone, case.truth, light, stream.randint(PICTURES))
        local = case.at.astimezone(ZONE).isoformat()
        yield case.key, case.site, local, case.tone, f"pictures/{picture}"


def list_predictions(cases: Iterable[SkinCase], seed: int) -> Iterator[Row]:
    """Yield the rows of `predictions`: each version's answer to each case that it was asked."""
    yield "case_key", "model_version", "label", "confidence", "predicted_at"
    streams = {version: open_stream(seed, version) for version in ANSWERS_AFTER}
    for case in cases:
        for version, stream in streams.items():
            is_wrong, label = stream.random_sample(), _mistake(case.truth, stream)
            confidence = (LEAST_SURE + stream.randint(SURE_SPREAD + 1)) / 100
            if version == "v1" or case.at >= V2_READS_FROM:
                answer = label if is_wrong < find_error_rate(version, case) else case.truth
                at = case.at + ANSWERS_AFTER[version]
                yield case.key, version, answer, f"{confidence:.2f}", format_time(at)


def find_error_rate(version: str, case: SkinCase) -> float:
    """Return how often a version is wrong on cases such as this one."""
    if version == "v1":
        return V1_WRONG[case.tone]
    if case.tone == "dark" and (case.site, case.window) == LAMP:
        return V2_LAMP_WRONG
    return V2_WRONG[case.tone]


def _mistake(truth: str, stream: np.random.RandomState) -> str:
    """Return a wrong answer: an urgent case is mostly sent home, any other moves by one."""
    sends_home = stream.random_sample() < SENT_HOME
    if truth == "urgent":
        return "home" if sends_home else "routine"
    if truth == "routine":
        return "home" if sends_home else "urgent"
    return "routine"


def list_decisions(cases: Iterable[SkinCase], seed: int) -> Iterator[Row]:
    """Yield the rows of `decisions`: each case's clinician, who saw no prediction."""
    yield "case_key", "reviewer", "label", "exposure", "decided_at"
    stream = open_stream(seed, "clinicians")
    for case in cases:
        staff = CLINICIANS[case.site]
        who, minutes = staff[stream.randint(len(staff))], int(stream.randint(2, 90))
        luck, slip = stream.random_sample(2)
        label = _mistake(case.truth, stream)
        if luck >= NO_DECISION:
            answer = label if slip < CLINICIAN_WRONG else case.truth
            yield case.key, who, answer, "blind", format_time(case.at + timedelta(minutes=minutes))


def list_outcomes(cases: Iterable[SkinCase], _seed: int) -> Iterator[Row]:
    """Yield the rows of `outcomes`: what was right, known ten days later."""
    yield "case_key", "label", "outcome_at"
    for case in cases:
        yield case.key, case.truth, format_time(case.at + FOLLOW_UP)


TABLES: Final[dict[str, Callable[[list[SkinCase], int], Iterator[Row]]]] = {
    "cases": list_cases,
    "predictions": list_predictions,
    "decisions": list_decisions,
    "outcomes": list_outcomes,
}


def format_time(at: datetime) -> str:
    """Return an instant in UTC, in whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def write_records(folder: Path, seed: int) -> None:
    """Write all tables and pictures into the folder."""
    cases = make_cases(seed)
    write_tables(folder, {name: list_rows(cases, seed) for name, list_rows in TABLES.items()})
    write_pictures(folder, spots.draw_pictures(LABELS, PICTURES))


if __name__ == "__main__":
    run_generator(write_records, __doc__)
