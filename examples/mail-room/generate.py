"""Make the records of the mail room: real digits and classifiers, simulated offices and clerks.

Writes cases, predictions, decisions, outcomes, pictures and digits as packed CSV, and about.json
with the figures of the run, which it also prints. Takes about ten seconds; the same seed gives the
same rows. Needs NumPy and scikit-learn, nothing of the product.

Example:
    python examples/mail-room/generate.py --seed 7 --out out/mail-room-7
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import images
import numpy as np
from clerks import Decision, decisions, staff
from images import Digits, Integers, Reading
from offices import OFFICES, WORN_AT, Letter, is_night, letters

from rollout.features.demo.catalog import build_parser, write_tables

V2_TRAINED_UNTIL: Final = datetime(2025, 10, 23, 23, tzinfo=UTC)
V2_READS_FROM: Final = datetime(2025, 10, 24, 8, tzinfo=UTC)
V1_TRAINED_UNTIL: Final = datetime(2025, 9, 26, 17, tzinfo=UTC)
ANSWERS_AFTER: Final = {"v1": timedelta(seconds=1), "v2": timedelta(seconds=2)}
OUTCOME_AFTER: Final = timedelta(days=2)
LARGEST_SEED: Final = 2**32 - 1

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MailRoom:
    """All that happened in one run: letters in order of time, what was read, what was true."""

    seed: int
    digits: Digits
    letters: list[Letter]
    truth: list[int]
    scans: Integers
    readings: dict[str, Reading]
    decisions: list[Decision]


def happen(seed: int) -> MailRoom:
    """Let the six weeks happen once, the same for the same seed."""
    digits = images.load(seed)
    arrived: list[Letter] = []
    decided: list[Decision] = []
    for office in OFFICES:
        own = letters(office, digits, seed)
        arrived += own
        decided += decisions(office, own, _truth(digits, own), seed)
    arrived.sort(key=lambda letter: (letter.at, letter.key))
    decided.sort(key=lambda decision: (decision.at, decision.letter.key, decision.seat))
    scans = _scan(digits, arrived, seed)
    readings = {name: images.read(it, scans) for name, it in images.train(digits, seed).items()}
    return MailRoom(seed, digits, arrived, _truth(digits, arrived), scans, readings, decided)


def _truth(digits: Digits, arrived: list[Letter]) -> list[int]:
    return [int(digits.labels[letter.image]) for letter in arrived]


def _scan(digits: Digits, arrived: list[Letter], seed: int) -> Integers:
    shown = np.array([letter.image for letter in arrived], dtype=np.int64)
    wear = np.array([letter.wear for letter in arrived], dtype=np.int64)
    new_form = np.array([letter.new_form for letter in arrived], dtype=np.bool_)
    return images.scan_letters(digits, shown, wear, new_form, seed)


def reads(version: str, letter: Letter) -> bool:
    """Say whether a version was asked about a letter: v2 only since it was installed."""
    return version == "v1" or letter.at >= V2_READS_FROM


def cases(room: MailRoom) -> Iterator[Row]:
    """Rows of `cases`: what came where, when, on which form, under which scanner."""
    yield "case_key", "site", "occurred_at", "episode", "image", "scanner", "form"
    for letter in room.letters:
        scanner = "worn" if letter.wear else "clean"
        form = "new" if letter.new_form else "old"
        where, when = letter.office.site, letter.local.isoformat()
        yield letter.key, where, when, letter.episode, str(letter.image), scanner, form


def predictions(room: MailRoom) -> Iterator[Row]:
    """Rows of `predictions`: every version's answer to each letter it was asked about."""
    yield "case_key", "model_version", "label", "confidence", "predicted_at"
    for number, letter in enumerate(room.letters):
        for version, reading in room.readings.items():
            if reads(version, letter):
                label = str(reading.digits[number])
                sure = f"{reading.hundredths[number] / 100:.2f}"
                yield letter.key, version, label, sure, _utc(letter.at + ANSWERS_AFTER[version])


def verdicts(room: MailRoom) -> Iterator[Row]:
    """Rows of `decisions`: every clerk's verdict; an unsure one has no label."""
    yield "case_key", "reviewer", "label", "unsure", "exposure", "task_number", "decided_at"
    for it in room.decisions:
        label, unsure = ("", "true") if it.digit is None else (str(it.digit), "false")
        yield it.letter.key, it.reviewer, label, unsure, "blind", str(it.seat), _utc(it.at)


def outcomes(room: MailRoom) -> Iterator[Row]:
    """Rows of `outcomes`: the digit that was written, known two days later."""
    yield "case_key", "label", "outcome_at"
    for letter, digit in zip(room.letters, room.truth, strict=True):
        yield letter.key, str(digit), _utc(letter.at + OUTCOME_AFTER)


def pictures(room: MailRoom) -> Iterator[Row]:
    """Rows of `pictures`: the scans of divergent letters, 64 hex digits each, row by row.

    Divergent is a letter that any version read otherwise than the first clerk who was sure. The
    two fullest of the 17 levels of ink are both written as f.
    """
    yield "case_key", "pixels"
    first = first_verdicts(room.decisions)
    for number, letter in enumerate(room.letters):
        digit = first.get(letter.key)
        read = {int(r.digits[number]) for v, r in room.readings.items() if reads(v, letter)}
        if digit is not None and read != {digit}:
            yield letter.key, _write_pixels(room.scans[number])


def digit_images(room: MailRoom) -> Iterator[Row]:
    """Rows of `digits`: the images that letters show, before any scan, 64 hex digits each."""
    yield "image", "pixels"
    for image in sorted({letter.image for letter in room.letters}):
        yield str(image), _write_pixels(room.digits.pixels[image])


def _write_pixels(pixels: Integers) -> str:
    return "".join(f"{min(pixel, 15):x}" for pixel in pixels)


def first_verdicts(decided: Iterable[Decision]) -> dict[str, int]:
    """First digit that any clerk was sure of, by letter; decisions come in order of time."""
    first: dict[str, int] = {}
    for decision in decided:
        if decision.digit is not None:
            first.setdefault(decision.letter.key, decision.digit)
    return first


def about(room: MailRoom) -> dict[str, Any]:
    """Sum up a run: its seed, its size, what each version got right, and since when it is."""
    decided = {decision.letter.key for decision in room.decisions if decision.digit is not None}
    return {
        "seed": room.seed,
        "letters": len(room.letters),
        "episodes": len({letter.episode for letter in room.letters}),
        "letters_without_decision": len(room.letters) - len(decided),
        "second_decisions": sum(decision.seat == 2 for decision in room.decisions),
        "clerks_errors_in_1000": {
            name: errors for office in OFFICES for name, errors in staff(office, room.seed).items()
        },
        "versions": {
            "v1": {"trained_until": _utc(V1_TRAINED_UNTIL)},
            "v2": {"trained_until": _utc(V2_TRAINED_UNTIL), "first_seen_at": _utc(V2_READS_FROM)},
        },
        "percent_right": {version: _percent_right(room, version) for version in room.readings},
    }


def _percent_right(room: MailRoom, version: str) -> dict[str, float]:
    """Percentages over all letters, asked about or not, so that versions can be compared."""
    right = room.readings[version].digits == np.array(room.truth)
    wear = np.array([letter.wear for letter in room.letters])
    new_form = np.array([letter.new_form for letter in room.letters])
    worn_office = np.array([letter.office.site == WORN_AT for letter in room.letters])
    night = np.array([is_night(letter.local) for letter in room.letters])
    kinds = {
        "clean": (wear == 0) & ~new_form,
        "new_form": new_form,
        "worn": wear > 0,
        "halifax_night": worn_office & night,
    }
    return {kind: round(100 * float(right[here].mean()), 1) for kind, here in kinds.items()}


def _utc(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def write(room: MailRoom, folder: Path) -> None:
    """Write the six tables and `about.json` into `folder`, which is made if need be."""
    tables = {
        "cases": cases,
        "predictions": predictions,
        "decisions": verdicts,
        "outcomes": outcomes,
        "pictures": pictures,
        "digits": digit_images,
    }
    write_tables(folder, {name: list_rows(room) for name, list_rows in tables.items()})
    (folder / "about.json").write_text(json.dumps(about(room), indent=2) + "\n", encoding="utf-8")


def _seed(text: str) -> int:
    """Read a seed, or say what one is."""
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST_SEED):
        raise argparse.ArgumentTypeError(f"{text} is no seed; give a whole number from 0 to 2^32-1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make the records, say what was made."""
    parser = build_parser(__doc__)
    parser.add_argument("--seed", type=_seed, required=True, help="whole number from 0 on")
    asked = parser.parse_args(arguments)
    room = happen(asked.seed)
    write(room, asked.out)
    print(json.dumps(about(room), indent=2))


if __name__ == "__main__":
    main()
