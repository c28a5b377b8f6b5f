"""What `rollout init` read, used and rejected of each file, and how it read it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from rollout.core.records.row_remarks import UNREADABLE_REASONS, RemarkReason
from rollout.formats.records.column_layout import format_suggestion
from rollout.formats.records.column_map import COLUMN_NAMES
from rollout.formats.records.encodings import SINGLE_BYTE
from rollout.formats.records.mapped_rows import MappedRows
from rollout.formats.records.placeholders import find_doubtful
from rollout.formats.records.recognition import RecognizedFile
from rollout.formats.records.rejected_rows import RecordError
from rollout.formats.records.text_formats import has_local_times
from rollout.kernel.label_sets import EMPTY_SET
from rollout.reports.text.formatting import format_percent
from rollout.tally.frames import ATTRIBUTE_PREFIX, RecordFrames, RecordKind

WARNING_SHARE = 0.01
UNREADABLE = [reason.value for reason in UNREADABLE_REASONS]
REMEDIES = {
    RemarkReason.UNREADABLE_TIME: "--date-format",
    RemarkReason.IMPOSSIBLE_TIME: "--date-format",
    RemarkReason.BAD_NUMBER: "--decimal or --percent",
    RemarkReason.BAD_ENCODING: "--encoding",
    RemarkReason.FIELD_COUNT: "--delimiter",
    RemarkReason.BAD_QUOTING: "--delimiter",
}
"""The option that may make rows readable, by reason."""


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
    names = file.rows.cells.columns
    extra = [
        column
        for name, column in file.rows.layout.columns.items()
        if name.startswith(ATTRIBUTE_PREFIX)
    ] + list(file.rows.layout.ignored)
    for name in COLUMN_NAMES[file.kind]:
        suggestion = "" if name in names else format_suggestion(file.kind, name, extra)
        if suggestion:
            yield f"no column {name}{suggestion}"
    if file.kind is RecordKind.DECISIONS:
        unknown = int((records.decisions["exposure"] == "unknown").sum())
        if unknown:
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


def format_refusal(report: FileReport, allowed: float) -> str:
    """Return why a file with too many unreadable rows is refused, and what to do."""
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
