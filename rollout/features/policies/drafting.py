"""Draft a policy for recorded files, `rollout.draft_policy`, and report how each file was read.

It is first recognized how the files are written; then they are read.

A report says what `rollout init` read, used and rejected of a file, and how it read it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordFrames, RecordKind
from rollout.engine.evidence.version_uses import drop_undrawn
from rollout.engine.files.cases import count_backtest, find_backtest_question
from rollout.engine.files.column_map import (
    DEFAULT_COLUMN_MAP,
    WHERE,
    ColumnMap,
    parse_column_flags,
    read_column_map,
)
from rollout.engine.files.file_rows import SINGLE_BYTE
from rollout.engine.files.files import (
    DEFAULT_READINGS,
    MAX_UNASKED,
    RecordPaths,
    build_records,
    select_labelled,
)
from rollout.engine.files.mapped_rows import MappedRows, RecordError, find_doubtful
from rollout.engine.files.policy_draft import format_draft
from rollout.engine.files.questions import (
    NO_CHOICES,
    Choice,
    FileChoices,
    MissingLabels,
    OpenQuestionsError,
    ReadingQuestion,
)
from rollout.engine.files.recognition import (
    RecognizedFile,
    clear_outliers,
    compare_read_sides,
    recognize_files,
)
from rollout.engine.files.text_formats import SiteZones, has_local_times
from rollout.engine.records.records import UNREADABLE_REASONS, RemarkReason
from rollout.engine.words.formatting import format_percent
from rollout.features.replay.requests import to_path
from rollout.kernel.policy.evidence_sources import FileReading
from rollout.kernel.policy_files.fields import (
    read_date_format,
    read_delimiter,
    read_encoding,
    read_flag,
)
from rollout.kernel.units import EMPTY_SET

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


def draft_policy(  # noqa: PLR0913 - what decides how files are read
    predictions: str | Path,
    decisions: str | Path,
    *,
    rollout: str = "my-rollout",
    timezone: str = "UTC",
    cases: str | Path | None = None,
    columns: str | Path | None = None,
    mapped: Sequence[str] = (),
    readings: Mapping[RecordKind, FileReading] = DEFAULT_READINGS,
    choices: FileChoices = NO_CHOICES,
    allow_rejected: float = 0.1,
) -> str:
    """Draft a minimal policy for two recorded files; return its text.

    Args:
        timezone: of times without an offset.
        columns: YAML file with the names of the columns.
        mapped: the same as texts, such as `predictions.case_key=image`; they override it.
        readings: how the files are written, as far as it is not to be recognized.
        choices: answers to questions about both files.
        allow_rejected: share of a file's rows that may be unreadable.

    Raises:
        OpenQuestionsError: the files can be read in several ways; the text has the choices.
        RolloutError: a file can't be read, or a column is missing.
        ValueError: too many rows can't be read.
    """
    request = DraftRequest(
        RecordPaths(Path(predictions), Path(decisions), to_path(cases)),
        rollout=rollout,
        timezone=timezone,
        columns=to_path(columns),
        column_mappings=tuple(mapped),
        readings=readings,
        choices=choices,
        now=datetime.now(UTC),
    )
    files, records = read_draft_files(request)
    if refusals := list_refusals(report_files(files, records, timezone), allow_rejected):
        raise ValueError("\n".join(refusals))
    return draft_policy_text(request, files, records)


def read_draft_files(
    request: DraftRequest,
) -> tuple[Mapping[RecordKind, RecognizedFile], RecordFrames]:
    """Return the recognized files of a request, with their records.

    Raises:
        OpenQuestionsError: an option has to say how a file is read, or which cases count.
    """
    files = recognize_draft_files(request)
    if questions := [question for file in files.values() for question in file.questions]:
        raise OpenQuestionsError(questions)
    records = read_draft_records(request, files)
    if questions := find_population_questions(request, records):
        raise OpenQuestionsError(questions)
    return files, records


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
    return format_draft(
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


WARNING_SHARE = 0.01
UNREADABLE = [reason.value for reason in UNREADABLE_REASONS]
REMEDIES = {
    RemarkReason.UNREADABLE_TIME: "--date-format",
    RemarkReason.IMPOSSIBLE_TIME: "--date-format",
    RemarkReason.BAD_NUMBER: "--decimal or --percent",
    RemarkReason.BAD_ENCODING: "--encoding",
    RemarkReason.FIELD_COUNT: "--delimiter",
    RemarkReason.BAD_QUOTING: "--delimiter",
    RemarkReason.CONFLICT: "--predictions-where COLUMN=TEXT for one row a case",
}
"""The option that may make rows readable, or usable, by reason."""


@dataclass(frozen=True, slots=True)
class FileReport:
    """What came of the rows of one file.

    Attributes:
        reading: how the file is written, in words.
        lost: rows by reason that can't be read or used, without repeated rows.
        lost_rows: their number; a row counts once.
        unreadable_rows: those that can't be read; every row if none is used.
        examples: the first lost row for each reason.
        hints: what may be missed, with the option that adds it.
    """

    file: str
    rows: int
    used: int
    rejected: Mapping[str, int]
    lost: Mapping[str, int]
    lost_rows: int
    unreadable_rows: int
    reading: str
    examples: tuple[str, ...]
    hints: tuple[str, ...]

    @property
    def lost_share(self) -> float:
        """Share of the file's rows that can't be read or used."""
        return self.lost_rows / self.rows if self.rows else 0.0

    @property
    def unreadable_share(self) -> float:
        """Share of the file's rows that can't be read."""
        return self.unreadable_rows / self.rows if self.rows else 0.0


def report_files(
    files: Mapping[RecordKind, RecognizedFile], records: RecordFrames, timezone: str
) -> tuple[FileReport, ...]:
    """Return a report for each file; `timezone` is that of times without an offset."""
    has_sets = any(file.reading.set_labels for file in files.values())
    return tuple(
        _report_file(file, records, timezone, has_sets=has_sets) for file in files.values()
    )


def _report_file(
    file: RecognizedFile, records: RecordFrames, timezone: str, *, has_sets: bool
) -> FileReport:
    count = records.row_counts[file.kind]
    lost = _list_lost_rows(file.kind, records)
    counts = dict(lost.group_by("reason").agg(pl.col("line").n_unique()).sort("reason").rows())
    examples = lost.unique("reason", keep="first", maintain_order=True).sort("reason")
    unreadable = lost.filter(pl.col("reason").is_in(UNREADABLE))
    return FileReport(
        file=count.file,
        rows=count.rows,
        used=count.used,
        rejected=count.rejected,
        lost=counts,
        lost_rows=lost["line"].n_unique(),
        unreadable_rows=unreadable["line"].n_unique() if count.used else count.rows,
        reading=_describe_reading(file, timezone),
        examples=tuple(
            str(RecordError(*(row[n] for n in ("file", "line", "column", "reason", "detail"))))
            for row in examples.iter_rows(named=True)
        ),
        hints=(
            *_list_skipped(file),
            *_list_placeholders(file.kind, records),
            *_list_clock_changes(file.kind, records),
            *_list_doubtful_labels(file),
            *_list_hints(file, records),
            *(_list_blanks(file, records) if has_sets else ()),
        ),
    )


def _list_lost_rows(kind: RecordKind, records: RecordFrames) -> pl.DataFrame:
    """Return the remarks on rows that are lost, or that have no readable time."""
    lost = records.rejected.filter(pl.col("reason") != RemarkReason.DUPLICATE.value)
    timeless = records.notes.filter(pl.col("reason").is_in(UNREADABLE))
    return pl.concat([lost, timeless]).filter(pl.col("records") == kind.value).sort("line")


def _describe_reading(file: RecognizedFile, timezone: str) -> str:
    """Return how a file is read, as `UTF-8, columns separated by ";"`."""
    assert file.rows is not None  # noqa: S101 - only read files have a report
    reading, names = file.reading, file.rows.cells.columns
    parts = [] if reading.encoding is None else [_describe_encoding(reading.encoding, file.rows)]
    if reading.delimiter is not None:
        mark = "tabs" if reading.delimiter == "\t" else f'"{reading.delimiter}"'
        parts.append(f"columns separated by {mark}")
    if reading.decimal == ",":
        parts.append("decimal commas")
    times = [file.rows.cells[name] for name in names if name.endswith("_at")]
    if times:
        zone = f" in {timezone}" if any(map(has_local_times, times)) else ""
        parts.append(f"times {' or '.join((*(reading.date_formats or ()), 'ISO 8601'))}{zone}")
    if "confidence" in names:
        is_empty = file.rows.cells["confidence"].null_count() == file.rows.cells.height
        scale = f"from 0 to {100 if reading.percent else 1}"
        parts.append("no confidence" if is_empty else f"confidence {scale}")
    if file.texts is not None and file.texts.others:
        chosen = file.texts.count
        parts.append(f"{chosen:,} of {chosen + file.texts.others:,} rows by --{file.kind}-where")
    if unsure := [label for label in reading.unsure or () if label]:
        parts.append(f"no answer: {', '.join(map(repr, unsure))}")
    return ", ".join(parts)


def _describe_encoding(encoding: str, rows: MappedRows) -> str:
    """Return the encoding; a guess from letters has a word to check it by."""
    if encoding not in SINGLE_BYTE:
        return encoding.upper()
    columns = (column.drop_nulls() for column in rows.cells.get_columns())
    words = (column.filter(column.str.contains(r"[^\x00-\x7f]")).head(1) for column in columns)
    example = next((word[0] for word in words if word.len()), "")
    return f"{encoding.upper()} (as in {example!r})" if example else encoding.upper()


def _list_skipped(file: RecognizedFile) -> Iterator[str]:
    """Yield which lines are no rows, by kind with the first of each."""
    assert file.texts is not None  # noqa: S101 - only read files have a report
    counts = file.texts.skipped.group_by("detail", maintain_order=True).agg(
        pl.len(), first=pl.col("line").min()
    )
    for detail, n, first in counts.iter_rows():
        yield f"skipped {n:,} {'line' if n == 1 else 'lines'}, from line {first} on: {detail}"


def _list_placeholders(kind: RecordKind, records: RecordFrames) -> Iterator[str]:
    """Yield by column which texts were read as missing, and how often."""
    is_placeholder = pl.col("reason") == RemarkReason.PLACEHOLDER.value
    cleared = records.notes.filter(is_placeholder & (pl.col("records") == kind.value))
    counts = cleared.group_by("column", "detail", maintain_order=True).len()
    for column, part in counts.partition_by("column", as_dict=True, maintain_order=True).items():
        texts = ", ".join(f"{detail} ({n:,})" for _, detail, n in part.iter_rows())
        yield f"read as missing, in {column[0]}: {texts}"


def _list_clock_changes(kind: RecordKind, records: RecordFrames) -> Iterator[str]:
    """Yield how many local times clocks skip or show twice, with the first of each."""
    reasons = [RemarkReason.GAP_TIME.value, RemarkReason.AMBIGUOUS_TIME.value]
    is_doubtful = pl.col("reason").is_in(reasons) & (pl.col("records") == kind.value)
    doubtful = (
        records.notes.filter(is_doubtful).sort("line").group_by("reason", maintain_order=True)
    )
    for _, n, line, detail in doubtful.agg(pl.len(), pl.first("line", "detail")).iter_rows():
        yield f"warning: times that need their offset: {n:,}, first in line {line}: {detail}"


def _list_doubtful_labels(file: RecognizedFile) -> Iterator[str]:
    """Yield which labels of decisions are texts that can mean a missing answer."""
    assert file.rows is not None  # noqa: S101 - only read files have a report
    for column, listed in file.reading.listed.items():
        if file.kind is RecordKind.DECISIONS and listed:
            answers = file.rows.get_texts(column)
            for text in sorted(find_doubtful(answers.drop_nulls().unique()) & {*listed}):
                count = int((answers.str.strip_chars().str.to_lowercase() == text).sum())
                yield f"{text!r} ({count:,}) is a label; if it means no answer: --unsure {text}"


def _list_hints(file: RecognizedFile, records: RecordFrames) -> Iterator[str]:
    assert file.rows is not None  # noqa: S101 - only read files have a report
    yield from file.rows.layout.hints
    unknown = int((records.decisions["exposure"] == "unknown").sum())
    if unknown and file.kind is RecordKind.DECISIONS:
        yield (
            f"{unknown:,} decisions have an unknown exposure and are not counted as evidence;"
            " if no reviewer saw the prediction before deciding, run init with --exposure blind"
        )


def _list_blanks(file: RecognizedFile, records: RecordFrames) -> Iterator[str]:
    """Yield how many answers of a file with sets are blank, and what to write instead."""
    blank_reasons = [RemarkReason.FAILED.value, RemarkReason.UNSURE.value]
    is_blank = pl.col("reason").is_in(blank_reasons) & (pl.col("records") == file.kind.value)
    blank = records.notes.filter(is_blank)["line"].n_unique()
    if blank:
        yield (
            f"{blank:,} {file.kind.value} have no answer, and agree with nothing; for a set without"
            f" labels write [] or {EMPTY_SET}"
        )


def format_file_report(report: FileReport) -> Iterator[str]:
    """Yield the lines of a report: counts first, then how the file was read, then problems."""
    rejected = report.rows - report.used
    counts = (
        f"{report.file}: {report.rows:,} rows read, {report.used:,} used, {rejected:,} rejected"
    )
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.rejected.items())
    yield counts + (f" ({reasons})" if reasons else "")
    yield f"  read as {report.reading}"
    timeless = {reason: n for reason, n in report.lost.items() if reason not in report.rejected}
    if timeless:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in timeless.items())
        yield f"  used rows without a readable time, which are never evidence: {reasons}"
    if report.lost_share >= WARNING_SHARE:
        unreadable = format_percent(report.unreadable_share)
        yield (
            f"  warning: {format_percent(report.lost_share)} of the rows can't be used;"
            f" {unreadable} can't be read"
        )
    yield from (f"  {example}" for example in report.examples)
    yield from (f"  {hint}" for hint in report.hints)


def list_refusals(reports: Iterable[FileReport], allowed: float) -> list[str]:
    """Return why files with too many unreadable rows are refused, and what to do."""
    return [_format_refusal(each, allowed) for each in reports if each.unreadable_share > allowed]


def _format_refusal(report: FileReport, allowed: float) -> str:
    options = dict.fromkeys(
        REMEDIES[RemarkReason(reason)] for reason in report.lost if RemarkReason(reason) in REMEDIES
    )
    attempt = f"try {', '.join(options)}, or correct" if options else "correct"
    problem = f"{format_percent(report.unreadable_share)} of the rows can't be read"
    if not report.used:
        problem = "none of the rows can be used"
    needed = min(100, int(report.unreadable_share * 100) + 1)
    return (
        f"{report.file}: {problem}, and more than"
        f" {format_percent(allowed, 0)} is refused; {attempt} the file, or allow it with"
        f" --allow-rejected {needed}%"
    )
