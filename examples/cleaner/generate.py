"""Make the records of three batches of annotations whose wrong labels a model corrects.

Digits are scikit-learn's. Wrong labels are planted: by chance in all batches, and in batch-c the
same digit again and again, which the model learns as the truth. The same seed gives byte-equal
files. `digit_readings.py` has digits, errors and models, `label_story.py` the days, and
`train_again.py` trains on the corrected labels.

Example:
    python examples/cleaner/generate.py --seed 5 --out examples/cleaner/records
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from digit_readings import load_digit_set, open_stream
from label_story import HALVES, ZONE, CleaningStory, has_wrong_label, make_story

from rollout.features.demo.catalog import run_generator, write_tables

CHECKERS: Final = ("anil", "deepa", "kavya", "rohan")
MISSES: Final = 0.03  # of the wrong labels, by a checker
FALSE_ALARMS: Final = 0.003  # of the right labels; the checker then writes the same digit again
NO_DECISION: Final = 0.01
ANSWERS_AFTER: Final = timedelta(seconds=1)
FINAL_READING: Final = timedelta(days=14)  # then experts have read every label once more
FULLEST_INK: Final = 15  # one hex digit a pixel: the two darkest of 17 levels are one

Row = tuple[str, ...]


def list_cases(story: CleaningStory) -> Iterator[Row]:
    """Yield the rows of `cases`: which image has which label."""
    yield "case_key", "site", "occurred_at", "half", "given", "image"
    for check in story.checks:
        batch, number = story.batches[check.batch], check.number
        local, half = check.at.astimezone(ZONE).isoformat(), HALVES[batch.halves[number]]
        given, image = str(batch.given[number]), str(batch.images[number])
        yield check.key, check.batch, local, half, given, image


def list_predictions(story: CleaningStory) -> Iterator[Row]:
    """Yield the rows of `predictions`: keep or correct, by the votes for the label."""
    yield "case_key", "model_version", "label", "confidence", "predicted_at"
    for check in story.checks:
        batch, number = story.batches[check.batch], check.number
        votes = int(batch.votes[number, batch.given[number]])
        corrects = bool(batch.corrects[number])
        total = int(batch.votes[number].sum())
        confidence = f"{(total - votes if corrects else votes) / total:.2f}"
        label = "correct" if corrects else "keep"
        yield check.key, "v1", label, confidence, format_time(check.at + ANSWERS_AFTER)


def list_readings(story: CleaningStory) -> Iterator[Row]:
    """Yield the rows of `readings`: the digit that the model reads, for the work list."""
    yield "case_key", "model_version", "label", "confidence"
    for check in story.checks:
        votes = story.batches[check.batch].votes[check.number]
        yield check.key, "v1", str(votes.argmax()), f"{votes.max() / votes.sum():.2f}"


def list_annotations(story: CleaningStory) -> Iterator[Row]:
    """Yield the rows of `annotations`: the labels as they came, as decisions on digits."""
    yield "case_key", "reviewer", "label"
    for check in story.checks:
        batch = story.batches[check.batch]
        half = HALVES[batch.halves[check.number]]
        yield check.key, f"annotator-{check.batch[-1]}-{half}", str(batch.given[check.number])


def list_decisions(story: CleaningStory) -> Iterator[Row]:
    """Yield the rows of `decisions`: what each label's checker decided, blind."""
    yield "case_key", "reviewer", "label", "exposure", "decided_at"
    stream = open_stream(story.seed, "checkers")
    for check in story.checks:
        who, minutes = CHECKERS[stream.randint(len(CHECKERS))], int(stream.randint(2, 90))
        luck, slip = stream.random_sample(2)
        is_wrong = has_wrong_label(story, check)
        slips = slip < (MISSES if is_wrong else FALSE_ALARMS)
        if luck >= NO_DECISION:
            label = "correct" if is_wrong != slips else "keep"
            yield check.key, who, label, "blind", format_time(check.at + timedelta(minutes=minutes))


def list_outcomes(story: CleaningStory) -> Iterator[Row]:
    """Yield the rows of `outcomes`: what experts find in the end."""
    yield "case_key", "label", "outcome_at"
    for check in story.checks:
        label = "correct" if has_wrong_label(story, check) else "keep"
        yield check.key, label, format_time(check.at + FINAL_READING)


def list_digits(story: CleaningStory) -> Iterator[Row]:
    """Yield the rows of `digits`: the images before any scan, which reviewers see in the demo."""
    yield "image", "pixels"
    digit_set = load_digit_set(story.seed)
    for image in sorted(digit_set.annotated):
        pixels = np.minimum(digit_set.pixels[image], FULLEST_INK)
        yield str(image), "".join(f"{pixel:x}" for pixel in pixels)


TABLES: Final[dict[str, Callable[[CleaningStory], Iterator[Row]]]] = {
    "cases": list_cases,
    "predictions": list_predictions,
    "readings": list_readings,
    "annotations": list_annotations,
    "decisions": list_decisions,
    "outcomes": list_outcomes,
    "digits": list_digits,
}


def format_time(at: datetime) -> str:
    """Return an instant in UTC, in whole seconds."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def write_records(folder: Path, seed: int) -> None:
    """Write all tables into the folder."""
    story = make_story(seed)
    write_tables(folder, {name: list_rows(story) for name, list_rows in TABLES.items()})


if __name__ == "__main__":
    run_generator(write_records, __doc__)
