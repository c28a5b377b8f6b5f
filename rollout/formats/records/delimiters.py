"""Recognize the character between the columns of a text file."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

from rollout.formats.policy.scalars import DELIMITERS
from rollout.formats.records.reading_questions import ReadingQuestion

MIN_SHARE = 0.9
"""Share of rows that must have as many fields as the header."""
_SAMPLE_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class _Split:
    """How one delimiter splits the first rows."""

    delimiter: str
    columns: int
    share: float


def recognize_delimiter(content: bytes, file: str) -> str | ReadingQuestion:
    """Return the delimiter that fits the header and the first rows, or what is open.

    `content` is UTF-8. A file with one column has the delimiter of its suffix.
    """
    lines = _read_sample(content)
    splits = [split for split in (_split(lines, mark) for mark in DELIMITERS) if split.columns > 1]
    default = "\t" if file.lower().removesuffix(".gz").endswith(".tsv") else ","
    candidates = [split for split in splits if split.share >= MIN_SHARE] or splits
    if not candidates:
        return default
    if len(candidates) == 1:
        return candidates[0].delimiter
    columns = ", ".join(
        f"{split.columns} with {format_delimiter(split.delimiter)}" for split in candidates
    )
    text = f"{file}: several characters can separate the columns ({columns})"
    return ReadingQuestion(
        "--delimiter", text, tuple(format_delimiter(split.delimiter) for split in candidates)
    )


def _read_sample(content: bytes) -> list[str]:
    sample = content[:_SAMPLE_BYTES]
    if len(content) > _SAMPLE_BYTES:
        sample = sample[: sample.rfind(b"\n") + 1]
    text = sample.decode(errors="replace")
    return [line + "\n" for line in io.StringIO(text).read().splitlines() if line.strip()]


def _split(lines: list[str], delimiter: str) -> _Split:
    rows = csv.reader(lines, delimiter=delimiter)
    try:
        counts = [len(row) for row in rows]
    except csv.Error:  # a quote that is never closed, in a very large field
        return _Split(delimiter, 0, 0.0)
    if not counts:
        return _Split(delimiter, 0, 0.0)
    columns, rest = counts[0], counts[1:]
    return _Split(delimiter, columns, rest.count(columns) / len(rest) if rest else 1.0)


def format_delimiter(delimiter: str) -> str:
    """Return a delimiter as an option has it."""
    return "tab" if delimiter == "\t" else delimiter
