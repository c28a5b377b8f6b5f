"""Make the records of the mask door: two doors, two detectors, four porters, two months.

Writes cases, predictions, decisions and outcomes as packed CSV, and drawings of visitors as PNG.
All of it is invented; visits.py states who rings and how often a detector errs. The same seed gives
the same bytes. Needs NumPy, nothing of the product.

Example:
    python examples/mask-door/generate.py --seed 8 --out examples/mask-door/records
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Final

from door_pictures import draw_pictures, find_picture_name
from visits import BARRIER_HOUR, INSTEAD, ZONE, Picture, list_pictures, open_stream

from rollout.features.demo.catalog import run_generator, write_pictures, write_tables

# Porters, by the half of the day in which they work, with the share of pictures each misjudges.
PORTERS: Final = {
    "by-day": {"amara": 0.004, "bilal": 0.003},
    "evening": {"chloe": 0.004, "driss": 0.005},
}
NOT_ANSWERED: Final = 0.003  # share of pictures without a decision: the porter was called away
UNSURE: Final = 0.002  # share for which the porter presses "unsure"
# A porter acts at the door, and notes the answer when nobody waits.
ANSWER_SECONDS: Final = (30, 2400)
EVENING_HOUR: Final = 16

Row = tuple[str, ...]


def list_cases(pictures: list[Picture], seed: int) -> Iterator[Row]:
    """Yield the rows of cases.csv.gz."""
    yield "case_key", "site", "occurred_at", "episode", "light", "media"
    luck = open_stream(seed, "drawings")
    for it in pictures:
        media = find_picture_name(it.site, it.light, it.truth, int(luck.randint(1000)))
        yield it.key, it.site, format_time(it.at), it.visit, it.light, media


def list_predictions(pictures: list[Picture]) -> Iterator[Row]:
    """Yield the rows of predictions.csv.gz: v2 answers since it was installed."""
    yield "case_key", "model_version", "label", "confidence", "latency_ms"
    for it in pictures:
        for reading in it.readings:
            confidence, latency = f"{reading.hundredths / 100:.2f}", str(reading.latency_ms)
            yield it.key, reading.version, reading.label, confidence, latency


def list_decisions(pictures: list[Picture], seed: int) -> Iterator[Row]:
    """Yield the rows of decisions.csv.gz: a porter's own answer to each picture, seen blind."""
    yield "case_key", "reviewer", "label", "unsure", "exposure", "decided_at"
    luck, waits = open_stream(seed, "porters"), open_stream(seed, "answer times")
    for it in pictures:
        answered, unsure, slip = luck.random_sample(3).tolist()
        shift = PORTERS["by-day" if it.local.hour < EVENING_HOUR else "evening"]
        porter = sorted(shift)[int(luck.randint(len(shift)))]
        decided_at = format_time(it.at + timedelta(seconds=int(waits.randint(*ANSWER_SECONDS))))
        if answered < NOT_ANSWERED:
            continue
        if unsure < UNSURE:
            yield it.key, porter, "", "true", "blind", decided_at
            continue
        label = INSTEAD[it.truth] if slip < shift[porter] else it.truth
        yield it.key, porter, label, "false", "blind", decided_at


def list_outcomes(pictures: list[Picture]) -> Iterator[Row]:
    """Yield the rows of outcomes.csv.gz: tailgating, which the light barrier counts at night."""
    yield "case_key", "label", "harm", "outcome_at"
    for it in pictures:
        if it.followed:
            counted_at = datetime.combine(it.local.date(), time(BARRIER_HOUR), ZONE)
            yield it.key, "", "tailgating", format_time(counted_at)


def format_time(at: datetime) -> str:
    """Return a time in UTC, in whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_records(folder: Path, seed: int) -> None:
    """Write all tables and drawings of a seed."""
    pictures = list_pictures(seed)
    tables = {
        "cases": list_cases(pictures, seed),
        "predictions": list_predictions(pictures),
        "decisions": list_decisions(pictures, seed),
        "outcomes": list_outcomes(pictures),
    }
    write_tables(folder, tables)
    write_pictures(folder, draw_pictures())


if __name__ == "__main__":
    run_generator(write_records, __doc__)
