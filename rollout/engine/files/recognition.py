"""Recognize from the rows of recorded files how they are written, and which times are outliers.

What an option names is not recognized. Where several readings fit the rows, the file gets a
question instead of the first that fits.

Outliers are times that are far from all others, as of a clock that was reset; they shape no draft.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordKind
from rollout.engine.files.file_rows import (
    convert_to_utf8,
    cut_separator_line,
    read_unpacked,
    recognize_encoding,
)
from rollout.engine.files.files import DELIMITED, find_open_sides, find_suffix, parse_rows
from rollout.engine.files.label_set_texts import list_set_labels
from rollout.engine.files.mapped_rows import (
    NUMBER_COLUMNS,
    RecordError,
    find_doubtful,
    find_placeholders,
    map_rows,
    normalize_rows,
)
from rollout.engine.files.parts import choose_rows
from rollout.engine.files.policy_draft import MAX_LABELS
from rollout.engine.files.questions import (
    NO_CHOICES,
    DelimiterQuestion,
    DoubtfulLabel,
    FileChoices,
    ReadingQuestion,
)
from rollout.engine.files.side_comparison import ComparedSides, SharedNames, compare_sides
from rollout.engine.files.text_formats import (
    UNSURE_WORDS,
    find_several_labels,
    recognize_date_formats,
    recognize_decimal,
    recognize_percent,
    recognize_unsure,
    rewrite_decimals,
)
from rollout.engine.records.records import RemarkReason
from rollout.kernel.policy.evidence_sources import FileReading
from rollout.kernel.policy_files.fields import DELIMITERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from rollout.engine.evidence.frames import RecordFrames
    from rollout.engine.files.column_map import ColumnMap
    from rollout.engine.files.file_rows import TextRows
    from rollout.engine.files.files import RecordPaths
    from rollout.engine.files.mapped_rows import MappedRows


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
    columns = tuple(
        ("tab" if split.delimiter == "\t" else split.delimiter, split.columns)
        for split in candidates
    )
    return DelimiterQuestion(file=file, columns=columns)


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


Form = TypeVar("Form")
SEVERAL_LABELS = (
    "holds several labels; join the labels of a set with `;`, each once, or write a list of JSON"
)


@dataclass(frozen=True, slots=True)
class RecognizedFile:
    """The rows of a file as text, how to read them, and what is open.

    Attributes:
        rows: under our names, not normalized; None as long as the delimiter is open.
        texts: the same rows, with the malformed ones.
    """

    kind: RecordKind
    reading: FileReading
    questions: tuple[ReadingQuestion, ...] = ()
    rows: MappedRows | None = None
    texts: TextRows | None = None

    def get_name(self) -> str:
        """Return the file's name; its delimiter must be known."""
        assert self.rows is not None  # noqa: S101 - a file without rows has a question
        return self.rows.file


def recognize_files(
    sources: RecordPaths,
    options: Mapping[RecordKind, FileReading],
    columns: ColumnMap,
    lever: str,
    choices: FileChoices = NO_CHOICES,
) -> Mapping[RecordKind, RecognizedFile]:
    """Return each file with its rows, its reading and its open questions.

    Raises:
        ColumnError: a required column is missing; the text names the one that it could be.
        RecordError: a file is unreadable, or a field holds several labels.
        OneFileError: one file is given for both sides, and nothing says which rows are whose.
        OSError: a file is missing.
    """
    files = {
        kind: _read_file(kind, path, options.get(kind, FileReading()), columns, lever)
        for kind, path in sources.list_files()
    }
    if any(file.questions for file in files.values()):
        return files
    files, doubts = _recognize_placeholders(files, lever)
    labels = {kind: _list_labels(file, lever) for kind, file in files.items()}
    number_levers = frozenset([lever] if _are_numbers(labels) else [])
    for kind, file in files.items():
        reading = replace(file.reading, number_levers=number_levers)
        files[kind] = _recognize_cells(replace(file, reading=reading), lever, labels)
    decisions = files[RecordKind.DECISIONS]
    doubts += _compare_sides(sources, columns, files, lever, choices)
    files[RecordKind.DECISIONS] = replace(decisions, questions=(*decisions.questions, *doubts))
    if any(file.questions for file in files.values()):
        return files
    set_labels = _recognize_sets(files, lever, labels)
    return {
        kind: replace(file, reading=replace(file.reading, set_labels=set_labels))
        for kind, file in files.items()
    }


def _read_file(
    kind: RecordKind, path: Path, options: FileReading, columns: ColumnMap, lever: str
) -> RecognizedFile:
    suffix, content, reading = find_suffix(path), read_unpacked(path), options
    if suffix != "parquet":
        reading = replace(reading, encoding=options.encoding or recognize_encoding(content))
        content = convert_to_utf8(content, reading.encoding, path.name)
    if suffix in DELIMITED:
        _, separator = cut_separator_line(content)
        delimiter = options.delimiter or separator or recognize_delimiter(content, path.name)
        if isinstance(delimiter, ReadingQuestion):
            return RecognizedFile(kind, reading, (replace(delimiter, records=kind),))
        reading = replace(reading, delimiter=delimiter)
    else:
        reading = replace(reading, delimiter=None)
    if suffix == "parquet":
        reading = replace(reading, encoding=None)
    file_columns = columns.get_file(kind)
    every_row = parse_rows(content, suffix, path.name, reading.delimiter)
    texts = choose_rows(every_row, file_columns.where, path.name)
    rows = map_rows(kind, path.name, texts, file_columns, [lever])
    return RecognizedFile(kind, reading, (), rows, texts)


def _recognize_placeholders(
    files: Mapping[RecordKind, RecognizedFile], lever: str
) -> tuple[dict[RecordKind, RecognizedFile], list[ReadingQuestion]]:
    """Return the files with the texts such as `none` that are labels, and questions on others.

    A text that the model gives a confidence wherever it answers it is a label.
    """
    column, doubtful = VALUE_PREFIX + lever, {}
    for kind, file in files.items():
        assert file.rows is not None  # noqa: S101 - a file without rows has a question
        doubtful[kind] = find_doubtful(file.rows.get_texts(column).drop_nulls().unique())
    unsure = {text for file in files.values() for text in file.reading.unsure or ()}
    labels = {text for file in files.values() for text in file.reading.listed.get(column, ())}
    words = set[str]().union(*doubtful.values()) - unsure
    if "" in unsure:  # every text is a label
        labels |= words
    sides = (RecordKind.PREDICTIONS, RecordKind.DECISIONS)
    shared = doubtful[sides[0]] & doubtful[sides[1]] & words - {*map(str.lower, labels)}
    names = " and ".join(files[kind].get_name() for kind in sides)
    scored = _list_scored_labels(files[RecordKind.PREDICTIONS], column)
    questions = [DoubtfulLabel(file=names, label=word) for word in sorted(shared - scored)]
    listed = {column: tuple(sorted(labels | shared))}  # an open question is asked as for a label
    return {
        kind: replace(file, reading=replace(file.reading, listed=listed))
        for kind, file in files.items()
    }, list(questions)


def _compare_sides(
    sources: RecordPaths,
    columns: ColumnMap,
    files: Mapping[RecordKind, RecognizedFile],
    lever: str,
    choices: FileChoices,
) -> list[ReadingQuestion]:
    """Return the questions on two sides that may be one."""
    texts = {kind: file.texts for kind, file in files.items() if file.texts is not None}
    rows = {kind: file.rows for kind, file in files.items() if file.rows is not None}
    open_sides = find_open_sides(sources, columns, texts, rows)
    if open_sides:
        return [*open_sides]
    return [*compare_read_sides(files, lever, choices).questions]


def compare_read_sides(
    files: Mapping[RecordKind, RecognizedFile], lever: str, choices: FileChoices
) -> ComparedSides:
    """Return the rows of files whose delimiters are known, normalized and compared.

    Raises:
        NothingSharedError: both sides have too few keys or labels in common.
    """
    rows = {
        kind: normalize_rows(file.rows, file.reading)
        for kind, file in files.items()
        if file.rows is not None
    }
    labels = frozenset[str]().union(*(_list_labels(file, lever) for file in files.values()))
    is_number = any(lever in file.reading.number_levers for file in files.values())
    is_set = not is_number and find_several_labels(sorted(labels)) is not None
    return compare_sides(
        rows, [lever], SharedNames([] if is_number or is_set else [lever]), choices
    )


def _list_scored_labels(file: RecognizedFile, column: str) -> set[str]:
    """Return the answers, in lower case, that never lack a confidence."""
    assert file.rows is not None  # noqa: S101 - a file without rows has a question
    answers = file.rows.get_texts(column).str.strip_chars().str.to_lowercase()
    unscored = answers.filter(file.rows.get_texts("confidence").is_null())
    return {*answers.drop_nulls().unique()} - {*unscored.drop_nulls().unique()}


def _list_labels(file: RecognizedFile, lever: str) -> frozenset[str]:
    """Return the different answers of a file, without placeholders."""
    assert file.rows is not None  # noqa: S101 - a file without rows has a question
    column = VALUE_PREFIX + lever
    answers = frozenset(file.rows.get_texts(column).drop_nulls().unique())
    return answers - {*find_placeholders(answers, file.reading.listed.get(column, ()))}


def _recognize_cells(
    file: RecognizedFile, lever: str, labels: Mapping[RecordKind, frozenset[str]]
) -> RecognizedFile:
    """Return the file with the form of its cells, or with questions."""
    assert file.rows is not None  # noqa: S101 - a file without rows has a question
    rows, reading = file.rows, file.reading
    times = [rows.cells[name] for name in rows.cells.columns if name.endswith("_at")]
    questions: list[ReadingQuestion] = []
    decimal = _choose(reading.decimal, _recognize_decimal(rows, reading, lever), questions)
    confidence = rewrite_decimals(rows.get_texts("confidence"), decimal)
    percent = _choose(reading.percent, recognize_percent(confidence, rows.file), questions)
    date_formats = _choose(
        None, recognize_date_formats(times, rows.file, reading.date_formats or ()), questions
    )
    unsure = reading.unsure
    if file.kind is RecordKind.DECISIONS and "" not in (unsure or ()):
        decided = {*(unsure or ()), *reading.listed.get(VALUE_PREFIX + lever, ())}
        recognized = recognize_unsure(
            labels[RecordKind.DECISIONS] - decided, labels[RecordKind.PREDICTIONS], rows.file
        )
        unsure = (*(unsure or ()), *(_choose(None, recognized, questions) or ()))
    reading = replace(
        reading, decimal=decimal, percent=percent, date_formats=date_formats, unsure=unsure
    )
    return replace(
        file,
        reading=reading,
        questions=tuple(replace(question, records=file.kind) for question in questions),
    )


def _choose(
    chosen: Form | None, recognized: Form | ReadingQuestion, questions: list[ReadingQuestion]
) -> Form | None:
    """Return the chosen or else the recognized form; append what is open to `questions`."""
    if chosen is not None:
        return chosen
    if isinstance(recognized, ReadingQuestion):
        questions.append(recognized)
        return None
    return recognized


def _are_numbers(labels: Mapping[RecordKind, frozenset[str]]) -> bool:
    """Return whether the answers of all files are many different numbers."""
    answers = frozenset[str]().union(*labels.values())
    numbers = [answer for answer in answers if answer.strip().lower() not in UNSURE_WORDS]
    return len(numbers) > MAX_LABELS and all(_is_number(answer) for answer in numbers)


def _recognize_decimal(rows: MappedRows, reading: FileReading, lever: str) -> str | ReadingQuestion:
    numbers = [rows.get_texts(name) for name in NUMBER_COLUMNS[1:]]
    if lever in reading.number_levers:
        numbers.append(rows.get_texts(VALUE_PREFIX + lever))
    return recognize_decimal(rows.get_texts("confidence"), numbers, rows.file)


def _recognize_sets(
    files: Mapping[RecordKind, RecognizedFile],
    lever: str,
    labels: Mapping[RecordKind, frozenset[str]],
) -> dict[str, tuple[str, ...]]:
    """Return the labels of the lever if its answers are sets.

    Raises:
        RecordError: a field holds several labels, joined by another sign than `;`.
    """
    kinds = [kind for kind in files if kind is not RecordKind.CASES]
    unsure = [text for kind in kinds for text in files[kind].reading.unsure or ()]
    every_label = sorted(frozenset[str]().union(*(labels[kind] for kind in kinds)) - {*unsure})
    is_number = any(lever in files[kind].reading.number_levers for kind in kinds)
    label = None if is_number else find_several_labels(every_label)
    if label is None:
        return {}
    set_labels = list_set_labels(every_label)
    if set_labels is not None and find_several_labels(set_labels) is None:
        return {lever: set_labels}
    _raise_several_labels(files, kinds, lever, label)
    return {}


def _raise_several_labels(
    files: Mapping[RecordKind, RecognizedFile], kinds: Sequence[RecordKind], lever: str, label: str
) -> None:
    """Raise RecordError for the first field with this text."""
    for kind in kinds:
        rows = files[kind].rows
        assert rows is not None  # noqa: S101 - a file without rows has a question
        name = VALUE_PREFIX + lever
        lines = rows.lines.filter((rows.get_texts(name) == label).fill_null(value=False))
        if lines.len():
            column = rows.layout.get_file_column(name)
            detail = f"{label!r} {SEVERAL_LABELS}"
            raise RecordError(rows.file, lines[0], column, RemarkReason.SEVERAL_LABELS, detail)


def _is_number(label: str) -> bool:
    return re.fullmatch(r"[+-]?\d[\d.]*(,\d+)?", label) is not None


MAX_DISTANCE = timedelta(days=5 * 365.25)
MAX_NAMED = 4


@dataclass(frozen=True, slots=True)
class TimeOutliers:
    """The times of one column that lie far from the median, or in the future.

    Attributes:
        column: what the times are of.
        median: of all times; if it is in the future itself, the future is no outlier.
        rows: columns case_key and at.
    """

    column: str
    median: datetime
    rows: pl.DataFrame


def list_outliers(records: RecordFrames, now: datetime | None) -> list[TimeOutliers]:
    """Return the outliers of cases and of decisions, where there are any."""
    columns = {
        "cases occurred": records.cases.select("case_key", at="occurred_at"),
        "decisions were made": records.decisions.select("case_key", "at"),
    }
    each = (_find_in_column(column, rows.drop_nulls(), now) for column, rows in columns.items())
    return [outliers for outliers in each if outliers is not None]


def _find_in_column(column: str, rows: pl.DataFrame, now: datetime | None) -> TimeOutliers | None:
    if not rows.height:
        return None
    median = cast("datetime", rows["at"].sort()[rows.height // 2])
    is_outlier = (pl.col("at") - median).abs() > MAX_DISTANCE
    if now is not None and median <= now:
        is_outlier |= pl.col("at") > now
    outliers = rows.filter(is_outlier).sort("at", "case_key")
    return TimeOutliers(column, median, outliers) if outliers.height else None


def clear_outliers(records: RecordFrames, now: datetime | None) -> RecordFrames:
    """Return the records without the times that lie far from all others."""
    cleared = records
    for outliers in list_outliers(records, now):
        times = outliers.rows["at"].unique().implode()
        if outliers.column == "cases occurred":
            is_far = pl.col("occurred_at").is_in(times)
            times_left = pl.when(~is_far).then("occurred_at").alias("occurred_at")
            cleared = replace(cleared, cases=cleared.cases.with_columns(times_left))
        else:
            is_far = pl.col("at").is_in(times)
            decisions = cleared.decisions.with_columns(pl.when(~is_far).then("at").alias("at"))
            cleared = replace(cleared, decisions=decisions)
    return cleared


def describe_outliers(records: RecordFrames, now: datetime | None) -> Iterator[str]:
    """Yield a line for each column with outliers, with some of them, and for a future history."""
    times = records.cases["occurred_at"].drop_nulls()
    ahead = times.clear() if now is None else times.filter(times > now)
    if len(ahead) and 2 * len(ahead) >= len(times):  # then the median is, and none is an outlier
        yield (
            f"warning: {len(ahead):,} of {len(times):,} cases occurred in the future, until"
            f" {cast('datetime', ahead.max()):%Y-%m-%d}; check the dates and --date-format"
        )
    for outliers in list_outliers(records, now):
        examples = [
            f"{key} ({at:%Y-%m-%d})" for key, at in outliers.rows.head(MAX_NAMED).iter_rows()
        ]
        more = outliers.rows.height - len(examples)
        yield (
            f"{outliers.rows.height:,} {outliers.column} in the future or more than five years from"
            f" the others (median {outliers.median:%Y-%m-%d}), and shape no part of the draft:"
            f" {', '.join(examples)}{f' and {more:,} more' if more else ''}"
        )
