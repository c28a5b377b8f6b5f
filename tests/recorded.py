"""Small recorded files that several tests read."""

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2027, 3, 1, tzinfo=UTC)


def write_records(folder: Path, cases: int = 1200, every: int = 60) -> None:
    """Write predictions.csv and decisions.csv: one site, a case every half hour.

    Model and person differ in every `every`-th case.
    """
    predictions, decisions = [], []
    for number in range(cases):
        at = START + timedelta(minutes=30 * number)
        label = "damaged" if number % 10 == 0 else "sound"
        other = "sound" if label == "damaged" else "damaged"
        human_label = other if number % every == 7 else label
        key = f"c-{number:05}"
        predictions.append([key, "ramp-a", at.isoformat(), "v1", human_label, "0.9"])
        decided = (at + timedelta(minutes=20)).isoformat()
        decisions.append([key, f"r-{number % 3}", label, decided, "blind"])
    head = ["case_key", "site", "occurred_at", "model_version", "label", "confidence"]
    _write(folder / "predictions.csv", head, predictions)
    head = ["case_key", "reviewer", "label", "decided_at", "exposure"]
    _write(folder / "decisions.csv", head, decisions)


def _write(path: Path, head: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
