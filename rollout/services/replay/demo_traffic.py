"""The mail room's letters one by one, as live traffic: what comes in when, and what clerks say."""

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from json import loads
from pathlib import Path

from rollout.services.support.package_data import shipped


@dataclass(frozen=True, slots=True)
class Reading:
    """One version's answer to a letter."""

    version: str
    label: str
    confidence: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """One clerk's answer to a letter."""

    reviewer: str
    label: str
    unsure: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter with everything that is ever said of it; `truth` is found out at `known_at`."""

    key: str
    site: str
    at: datetime
    episode: str
    attributes: dict[str, str]
    readings: tuple[Reading, ...]
    verdicts: tuple[Verdict, ...]
    truth: str
    known_at: datetime | None


def letters() -> tuple[Letter, ...]:
    """Return the shipped letters in the order in which they come in."""
    folder = shipped("mail-room")
    predictions, decisions = defaultdict(list), defaultdict(list)
    for row in _rows(folder, "predictions"):
        at = _instant(row["predicted_at"])
        prediction = Reading(row["model_version"], row["label"], float(row["confidence"]), at)
        predictions[row["case_key"]].append(prediction)
    for row in _rows(folder, "decisions"):
        unsure = row["unsure"] == "true"
        at = _instant(row["decided_at"])
        decisions[row["case_key"]].append(Verdict(row["reviewer"], row["label"], unsure, at))
    outcomes = {row["case_key"]: row for row in _rows(folder, "outcomes")}
    unsorted_letters = (
        _letter(row, predictions, decisions, outcomes) for row in _rows(folder, "cases")
    )
    return tuple(sorted(unsorted_letters, key=lambda letter: (letter.at, letter.key)))


def trained_until() -> dict[str, str]:
    """Return up to when the training cases of each version reach, as its maker wrote it."""
    metadata = loads((shipped("mail-room") / "about.json").read_text(encoding="utf-8"))
    return {
        version_id: version["trained_until"] for version_id, version in metadata["versions"].items()
    }


def policy_text() -> str:
    """Return the mail room's policy file."""
    path = shipped("config") / "policies" / "mail-room.yaml"
    return path.read_text(encoding="utf-8")


def _letter(
    row: dict[str, str],
    readings: dict[str, list[Reading]],
    verdicts: dict[str, list[Verdict]],
    truths: dict[str, dict[str, str]],
) -> Letter:
    key = row["case_key"]
    outcome = truths.get(key)
    return Letter(
        key=key,
        site=row["site"],
        at=_instant(row["occurred_at"]),
        episode=row["episode"],
        attributes={name: row[name] for name in ("image", "scanner", "form")},
        readings=tuple(readings[key]),
        verdicts=tuple(sorted(verdicts[key], key=lambda decision: decision.at)),
        truth="" if outcome is None else outcome["label"],
        known_at=None if outcome is None else _instant(outcome["outcome_at"]),
    )


def _rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
    with gzip.open(folder / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
