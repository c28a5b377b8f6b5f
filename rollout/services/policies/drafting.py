"""Draft a policy for recorded files: recognize how they are written, then read them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from rollout.core.policy.file_readings import FileReading
from rollout.formats.policy.draft import draft_policy
from rollout.formats.policy.scalars import (
    read_date_format,
    read_delimiter,
    read_encoding,
    read_flag,
)
from rollout.formats.policy.time_outliers import clear_outliers
from rollout.formats.records.backtests import count_backtest, find_backtest_question
from rollout.formats.records.column_map import (
    DEFAULT_COLUMN_MAP,
    WHERE,
    ColumnMap,
    parse_column_flags,
    read_column_map,
)
from rollout.formats.records.file_choices import NO_CHOICES, FileChoices
from rollout.formats.records.files import RecordPaths, build_records
from rollout.formats.records.labelled_cases import MAX_UNASKED, select_labelled
from rollout.formats.records.questions import Choice, MissingLabels, ReadingQuestion
from rollout.formats.records.recognition import (
    RecognizedFile,
    compare_read_sides,
    recognize_files,
)
from rollout.formats.records.times import SiteZones
from rollout.tally.case_draws import drop_undrawn
from rollout.tally.frames import VALUE_PREFIX, RecordFrames, RecordKind

DRAFT_LEVER = "answer"  # lever id in a draft; its author renames it


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Options of `rollout init`.

    Attributes:
        columns: a file with the names of the records' columns.
        column_mappings: the same as flags; they override it.
        readings: what the options say about each file; the rest is recognized.
        choices: what the options say about both.
        now: times after it are in the future; None to trust all.
    """

    sources: RecordPaths
    rollout: str
    timezone: str
    columns: Path | None = None
    column_mappings: tuple[str, ...] = ()
    readings: Mapping[RecordKind, FileReading] = field(default_factory=dict)
    choices: FileChoices = NO_CHOICES
    now: datetime | None = None


def apply_reading_option(reading: FileReading, option: str, text: str) -> FileReading:
    """Return a reading with one more option of `rollout init`.

    Raises:
        ValueError: the value is not valid; the text says which are.
    """
    try:
        return READING_OPTIONS[option](reading, text)
    except ValueError as error:
        raise ValueError(f"{option} {error}") from error


def _add_date_format(reading: FileReading, text: str) -> FileReading:
    return replace(reading, date_formats=(*(reading.date_formats or ()), read_date_format(text)))


def _add_label(reading: FileReading, text: str) -> FileReading:
    column = VALUE_PREFIX + DRAFT_LEVER
    return replace(reading, listed={column: (*reading.listed.get(column, ()), text)})


def _set_decimal(reading: FileReading, text: str) -> FileReading:
    if text not in {".", ","}:
        raise ValueError(f"{text!r}: write . or ,")
    return replace(reading, decimal=text)


READING_OPTIONS: Mapping[str, Callable[[FileReading, str], FileReading]] = {
    "--encoding": lambda reading, text: replace(reading, encoding=read_encoding(text)),
    "--delimiter": lambda reading, text: replace(reading, delimiter=read_delimiter(text)),
    "--date-format": _add_date_format,
    "--unsure": lambda reading, text: replace(reading, unsure=(*(reading.unsure or ()), text)),
    "--label": _add_label,
    "--percent": lambda reading, text: replace(reading, percent=read_flag(text)),
    "--decimal": _set_decimal,
}
"""What each option of `rollout init` does to a reading."""


def apply_answer(request: DraftRequest, question: ReadingQuestion, answer: Choice) -> DraftRequest:
    """Return the request with the answer to a question about one file, or about both."""
    if answer.option not in READING_OPTIONS:
        return replace(request, choices=request.choices.add(answer))
    readings = dict(request.readings)
    for kind in RecordKind if question.records is None else (question.records,):
        reading = readings.get(kind, FileReading())
        readings[kind] = apply_reading_option(reading, answer.option, answer.value)
    return replace(request, readings=readings)


def recognize_draft_files(request: DraftRequest) -> Mapping[RecordKind, RecognizedFile]:
    """Return the files of a request with what was recognized and what is open.

    Raises:
        ColumnError: a required column is missing; the text says how to map it.
        RecordError: a file is unreadable, or a field holds several labels.
    """
    columns = _read_columns(request)
    sources, readings = request.sources, request.readings
    return recognize_files(sources, readings, columns, DRAFT_LEVER, request.choices)


def _read_columns(request: DraftRequest) -> ColumnMap:
    levers = [DRAFT_LEVER]
    base = (
        DEFAULT_COLUMN_MAP
        if request.columns is None
        else read_column_map(request.columns, levers=levers)
    )
    flags = (*request.column_mappings, *request.choices.mappings)
    return parse_column_flags(flags, levers=levers, base=base)


def read_draft_records(
    request: DraftRequest, files: Mapping[RecordKind, RecognizedFile]
) -> RecordFrames:
    """Return the records of files without open questions."""
    rows = compare_read_sides(files, DRAFT_LEVER, request.choices).rows
    texts = {kind: file.texts for kind, file in files.items() if file.texts is not None}
    zones = SiteZones({}, request.timezone)
    records = drop_undrawn(build_records(rows, texts, levers=[DRAFT_LEVER], site_zones=zones))
    return count_backtest(select_labelled(records, request.choices.labels), request.choices)


def find_population_questions(
    request: DraftRequest, records: RecordFrames
) -> list[ReadingQuestion]:
    """Return the questions about which predicted cases count, as far as no option says it."""
    file, choices = request.sources.predictions.name, request.choices
    questions = (
        _find_missing_labels(request, records),
        find_backtest_question(file, records, choices),
    )
    return [question for question in questions if question is not None]


def _find_missing_labels(request: DraftRequest, records: RecordFrames) -> MissingLabels | None:
    """Return a question if many predicted cases have no decision, and no option says why."""
    coverage = records.labels
    if (
        coverage is None
        or not coverage.labelled
        or request.choices.labels is not None
        or coverage.missing_share <= MAX_UNASKED
    ):
        return None
    return MissingLabels(
        file=request.sources.predictions.name,
        predicted=coverage.predicted,
        without=coverage.missing,
    )


def draft_policy_text(
    request: DraftRequest, files: Mapping[RecordKind, RecognizedFile], records: RecordFrames
) -> str:
    """Return a commented policy draft that reads the files in the same way.

    Raises:
        ValueError: the files hold no label or no site.
    """
    columns = _read_columns(request)
    readings = {
        kind.value: _build_import(request.sources, file, columns) for kind, file in files.items()
    }
    records = clear_outliers(records, request.now)
    return draft_policy(
        records, rollout=request.rollout, timezone=request.timezone, readings=readings
    )


def _build_import(sources: RecordPaths, file: RecognizedFile, columns: ColumnMap) -> FileReading:
    """Return a file's reading with its columns, without what the suffix says already."""
    path = dict(sources.list_files())[file.kind]
    default = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    is_default = file.reading.delimiter == default
    file_columns = columns.get_file(file.kind)
    return replace(
        file.reading,
        delimiter=None if is_default else file.reading.delimiter,
        columns=_rename_lever(file_columns.columns)
        | ({WHERE: file_columns.where} if file_columns.where else {}),
        constants=_rename_lever(file_columns.constants),
        attributes=file_columns.attributes,
    )


def _rename_lever(names: Mapping[str, str]) -> dict[str, str]:
    return {
        "label" if name == VALUE_PREFIX + DRAFT_LEVER else name: text
        for name, text in names.items()
    }
