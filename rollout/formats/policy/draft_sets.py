"""Draft a lever with sets of labels: its labels by frequency, and their shares."""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from rollout.core.policy.file_readings import FileReading
from rollout.core.policy.label_sets import EMPTY_SET, SEPARATOR
from rollout.formats.policy.draft_import import quote_scalar
from rollout.tally.frames import VALUE_PREFIX, RecordFrames


def find_set_levers(readings: Mapping[str, FileReading]) -> dict[str, tuple[str, ...]]:
    """Return the levers whose answers are sets, with their labels."""
    return {
        lever: labels
        for reading in readings.values()
        for lever, labels in reading.set_labels.items()
    }


def sort_set_labels(records: RecordFrames, lever: str, labels: Sequence[str]) -> list[str]:
    """Return the labels of a lever, most frequent first."""
    column = VALUE_PREFIX + lever
    answers = pl.concat([frame[column] for frame in (records.decisions, records.predictions)])
    shares = dict(compute_set_shares(answers, labels))
    return sorted(labels, key=lambda label: (-shares[label], label))


def compute_set_shares(answers: pl.Series, labels: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield the share of sets that have each label."""
    parts = answers.drop_nulls().str.split(SEPARATOR)
    for label in labels:
        count = int(parts.list.contains(label).sum())
        yield label, count / parts.len() if parts.len() else 0.0


def draft_set_lever(lever: str, labels: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a lever."""
    yield f"  - id: {quote_scalar(lever)}"
    yield f"    labels: [{', '.join(quote_scalar(label) for label in labels)}]"
    yield "    many: true    # an answer is a set of them; equal sets agree"
    yield "    # overlap: 80%    # to let sets agree that have so much of their labels in common"


def describe_set_lever(records: RecordFrames, lever: str, labels: Sequence[str]) -> str:
    """Return in one line what was chosen for a lever, and why."""
    answers = records.decisions[VALUE_PREFIX + lever].drop_nulls()
    empty = int((answers == EMPTY_SET).sum())
    several = int(answers.str.contains(SEPARATOR, literal=True).sum())
    return (
        f"{lever}: {several:,} of {answers.len():,} decisions hold several labels, and {empty:,}"
        f" none of them, so an answer is a set of {len(labels)} labels (`many: true`)"
    )
