"""The mail room's letters with their predictions, decisions and outcomes, by time."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from json import loads
from pathlib import Path

from rollout.services.support.package_data import find_package_data


@dataclass(frozen=True, slots=True)
class DemoPrediction:
    """A version's prediction for a letter."""

    version: str
    label: str
    confidence: float
    at: datetime


@dataclass(frozen=True, slots=True)
class DemoDecision:
    """A clerk's decision on a letter."""

    reviewer: str
    label: str
    unsure: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class DemoLetter:
    """A letter with all its records; `true_label` becomes known at `known_at`."""

    key: str
    site: str
    at: datetime
    episode: str
    attributes: dict[str, str]
    predictions: tuple[DemoPrediction, ...]
    decisions: tuple[DemoDecision, ...]
    true_label: str
    known_at: datetime | None


def load_letters() -> tuple[DemoLetter, ...]:
    """Return the shipped letters by time of arrival."""
    folder = find_package_data("mail-room")
    predictions, decisions = defaultdict(list), defaultdict(list)
    for row in _read_rows(folder, "predictions"):
        at = _parse_time(row["predicted_at"])
        prediction = DemoPrediction(
            row["model_version"], row["label"], float(row["confidence"]), at
        )
        predictions[row["case_key"]].append(prediction)
    for row in _read_rows(folder, "decisions"):
        unsure = row["unsure"] == "true"
        at = _parse_time(row["decided_at"])
        decisions[row["case_key"]].append(DemoDecision(row["reviewer"], row["label"], unsure, at))
    outcomes = {row["case_key"]: row for row in _read_rows(folder, "outcomes")}
    unsorted_letters = (
        _build_letter(row, predictions, decisions, outcomes) for row in _read_rows(folder, "cases")
    )
    return tuple(sorted(unsorted_letters, key=lambda letter: (letter.at, letter.key)))


def load_training_ends() -> dict[str, str]:
    """Return the end of each version's training data, as recorded by its maker."""
    metadata = loads((find_package_data("mail-room") / "about.json").read_text(encoding="utf-8"))
    return {
        version_id: version["trained_until"] for version_id, version in metadata["versions"].items()
    }


def load_policy_text() -> str:
    """Return the mail room's policy file."""
    path = find_package_data("config") / "policies" / "mail-room.yaml"
    return path.read_text(encoding="utf-8")


def _build_letter(
    row: dict[str, str],
    predictions: dict[str, list[DemoPrediction]],
    decisions: dict[str, list[DemoDecision]],
    outcomes: dict[str, dict[str, str]],
) -> DemoLetter:
    key = row["case_key"]
    outcome = outcomes.get(key)
    return DemoLetter(
        key=key,
        site=row["site"],
        at=_parse_time(row["occurred_at"]),
        episode=row["episode"],
        attributes={name: row[name] for name in ("image", "scanner", "form")},
        predictions=tuple(predictions[key]),
        decisions=tuple(sorted(decisions[key], key=lambda decision: decision.at)),
        true_label="" if outcome is None else outcome["label"],
        known_at=None if outcome is None else _parse_time(outcome["outcome_at"]),
    )


def _read_rows(folder: Path, table_name: str) -> Iterator[dict[str, str]]:
    with gzip.open(folder / f"{table_name}.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)
