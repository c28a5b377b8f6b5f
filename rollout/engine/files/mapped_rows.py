"""Rows of one file under our column names: their cells rewritten and parsed, and remarks on them.

Cells are rewritten to the documented form, as the file's reading says. The column `values` of
outcomes is an object with a number for each outcome.

Placeholders are texts that scripts and spreadsheets write where a value is missing. They are no
label, site, reviewer, version or key, unless a policy lists such a label or site.

Remarks are on rejected rows, notes on used ones. During reading, a fault has `row` (index),
`column` (our name), reason and detail. At the end it becomes a remark with the file name, the
physical line and the file's own column name, as in `RecordFrames.rejected` and
`RecordFrames.notes`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from sys import float_info
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    CONTENT,
    EXPOSURES,
    OUTCOME_PREFIX,
    REMARK_SCHEMA,
    SAMPLED_ARM,
    SAMPLED_ARMS,
    VALUE_PREFIX,
    RecordKind,
)
from rollout.engine.files.column_map import (
    CASE_COLUMNS,
    COLUMN_NAMES,
    RECEIVED_AT,
    REQUIRED_COLUMNS,
    ColumnError,
    ColumnLayout,
    arrange_columns,
)
from rollout.engine.files.label_set_texts import rewrite_sets
from rollout.engine.files.text_formats import (
    build_nulls,
    convert_to_instants,
    parse_times,
    rewrite_decimals,
    rewrite_percents,
    rewrite_times,
)
from rollout.engine.records.records import UNREADABLE_REASONS, RemarkReason
from rollout.kernel.errors import RolloutError
from rollout.kernel.units import describe_unknown_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from rollout.engine.files.column_map import FileColumns
    from rollout.engine.files.file_rows import TextRows
    from rollout.kernel.policy.evidence_sources import FileReading


FAULT_SCHEMA = {"row": pl.Int64, "column": pl.String, "reason": pl.String, "detail": pl.String}
MAX_QUOTED_LETTERS = 60
"""Characters of a cell that a detail quotes."""


class RecordError(RolloutError, ValueError):
    """An unreadable row or file.

    `line` is the physical line from 1 (Parquet: row), None for a whole file; `column` is None for
    a whole row.
    """

    def __init__(
        self, file: str, line: int | None, column: str | None, reason: str, detail: str
    ) -> None:
        location = file if line is None else f"{file}:{line}"
        problem = reason if column is None else f"{column}: {reason}"
        super().__init__(f"{location}: {problem}: {detail}")
        self.file, self.line, self.column = file, line, column
        self.reason, self.detail = reason, detail


def build_faults(
    is_wrong: pl.Series,
    column: str | None,
    reason: RemarkReason,
    message: str,
    cells: pl.Series | None = None,
) -> pl.DataFrame:
    """Return one fault for each row where `is_wrong` is true; null counts as false.

    The detail is `message`, after the quoted cell if `cells` is given: `'bear' is no number`.
    """
    rows = is_wrong.arg_true()
    frame = pl.DataFrame({"row": rows.cast(pl.Int64)})
    detail = pl.lit(message)
    if cells is not None:
        frame = frame.with_columns(cell=cells.gather(rows).str.slice(0, MAX_QUOTED_LETTERS))
        detail = pl.format("'{}' {}", "cell", detail)
    return frame.select(
        "row", column=pl.lit(column, pl.String), reason=pl.lit(reason.value), detail=detail
    )


def build_empty_faults() -> pl.DataFrame:
    """Return an empty frame of faults."""
    return pl.DataFrame(schema=FAULT_SCHEMA)


def select_first_per_row(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return the first fault of each row, because a row is rejected once."""
    combined = pl.concat([build_empty_faults(), *frames])
    return combined.unique("row", keep="first", maintain_order=True).sort("row")


def list_remaining_rows(rows: int, rejected: pl.DataFrame) -> pl.Series:
    """Return the indices of the rows that are not rejected."""
    all_rows = pl.int_range(rows, eager=True)
    return all_rows.filter(~all_rows.is_in(rejected["row"].implode()))


def build_empty_remarks() -> pl.DataFrame:
    """Return an empty frame of remarks."""
    return pl.DataFrame(schema=REMARK_SCHEMA)


def count_by_reason(remarks: pl.DataFrame, kind: RecordKind) -> dict[str, int]:
    """Count remarks on one kind of records by reason, in alphabetical order.

    >>> count_by_reason(build_empty_remarks(), RecordKind.DECISIONS)
    {}
    """
    return dict(
        remarks.filter(pl.col("records") == kind.value)
        .group_by("reason")
        .len()
        .sort("reason")
        .iter_rows()
    )


def sort_remarks(remarks: pl.DataFrame) -> pl.DataFrame:
    """Sort remarks by kind, line, reason and column."""
    order = {kind.value: index for index, kind in enumerate(RecordKind)}
    kind = pl.col("records").replace_strict(order, return_dtype=pl.Int8)
    return remarks.sort(kind, "line", "reason", "column")


def raise_first_unreadable(remarks: Sequence[pl.DataFrame]) -> None:
    """Raise RecordError for the first unreadable row by kind and line, if any."""
    unreadable = sort_remarks(pl.concat(remarks)).filter(
        pl.col("reason").is_in([reason.value for reason in UNREADABLE_REASONS])
    )
    for row in unreadable.head(1).iter_rows(named=True):
        raise RecordError(row["file"], row["line"], row["column"], row["reason"], row["detail"])


VALUES = "values"


def expand_values(file: str, cells: pl.DataFrame, outcomes: Sequence[str]) -> pl.DataFrame:
    """Return the cells with a column for each outcome instead of `values`.

    Raises:
        ColumnError: a cell is no object, or names an outcome that the policy lacks.
    """
    if VALUES not in cells.columns or not outcomes:
        return cells
    rows = [_parse_values(file, text) for text in cells[VALUES]]
    unknown = sorted({name for row in rows for name in row} - set(outcomes))
    if unknown:
        raise ColumnError([f"{file}: {describe_unknown_outcome(unknown[0], outcomes)}"])
    columns = {
        outcome: [row.get(outcome) for row in rows]
        for outcome in outcomes
        if any(outcome in row for row in rows)
    }
    expanded = cells.drop(VALUES)
    return expanded.with_columns(
        pl.Series(name, values, dtype=pl.String) for name, values in columns.items()
    )


def _parse_values(file: str, text: str | None) -> Mapping[str, str | None]:
    if text is None:
        return {}
    try:
        content = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(
        value is None or isinstance(value, str) for value in content.values()
    ):
        raise ColumnError(
            [f'{file}: values is {text[:80]!r}; write an object such as {{"profit": 12.5}}']
        )
    return content


@dataclass(frozen=True, slots=True)
class MappedRows:
    """Text cells under our names, including `value:<lever>` and `attribute:<name>`.

    Attributes:
        file: file name without folders.
        cells: a text column for each name in the file or the map; blank cells are null.
        lines: the physical line of each row.
        remarks: on what was cleared from the cells, as rows of `RecordFrames.notes`.
    """

    kind: RecordKind
    file: str
    cells: pl.DataFrame
    lines: pl.Series
    layout: ColumnLayout
    remarks: pl.DataFrame = field(default_factory=build_empty_remarks)

    def get_texts(self, name: str) -> pl.Series:
        """Return a column by our name; all null if the file lacks it."""
        if name in self.cells.columns:
            return self.cells[name]
        return pl.repeat(None, self.cells.height, dtype=pl.String, eager=True).alias(name)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the case attributes in the file, with prefix."""
        return tuple(name for name in self.cells.columns if name.startswith(ATTRIBUTE_PREFIX))

    def select_rows(self, rows: pl.Series) -> MappedRows:
        """Return the rows at the given indices."""
        return replace(self, cells=self.cells[rows], lines=self.lines[rows])

    def build_remarks(self, faults: pl.DataFrame) -> pl.DataFrame:
        """Convert faults to rows of `RecordFrames.rejected` and `.notes`."""
        if not faults.height:
            return build_empty_remarks()
        file_columns = {
            name: self.layout.get_file_column(name)
            for name in faults["column"].unique().drop_nulls()
        }
        return faults.select(
            records=pl.lit(self.kind.value),
            file=pl.lit(self.file),
            line=self.lines.gather(faults["row"]),
            column=pl.col("column").replace(file_columns),
            reason=pl.col("reason"),
            detail=pl.col("detail"),
            case_key=self.get_texts("case_key").gather(faults["row"]),
        ).cast(REMARK_SCHEMA)  # type: ignore[arg-type]


def map_rows(
    kind: RecordKind,
    file: str,
    rows: TextRows,
    columns: FileColumns,
    levers: Sequence[str],
    outcomes: Sequence[str] = (),
) -> MappedRows:
    """Return the rows of a file under our column names.

    Raises:
        ColumnError: a mapped or required column is missing, or a value's outcome is unknown.
    """
    if not rows.cells.width and not rows.lines.len():  # JSON lines without rows have no columns
        return MappedRows(kind, file, rows.cells, rows.lines, ColumnLayout({}, {}, ()))
    file_cells = rows.cells
    if kind is RecordKind.OUTCOMES:
        file_cells = expand_values(file, file_cells, outcomes)
    layout = arrange_columns(kind, file, file_cells.columns, columns, levers, outcomes)
    cells = pl.DataFrame(
        {
            our_name: file_cells.get_column(file_column)
            for our_name, file_column in layout.columns.items()
        }
    )
    cells = cells.with_columns(
        pl.lit(text).alias(our_name) for our_name, text in layout.constants.items()
    )
    return MappedRows(kind, file, cells, rows.lines, layout)


def list_unparsed_rows(kind: RecordKind, file: str, rows: TextRows) -> pl.DataFrame:
    """Return the malformed rows as rows of `RecordFrames.rejected`."""
    return rows.unparsed.select(
        pl.lit(kind.value).alias("records"),
        pl.lit(file).alias("file"),
        "line",
        pl.lit(None, pl.String).alias("column"),
        "reason",
        "detail",
        pl.lit(None, pl.String).alias("case_key"),
    )


def list_column_notes(rows: MappedRows) -> pl.DataFrame:
    """Return a note for each unused column, and for each missing one that another may be."""
    detail = (
        f"this column is not used; to keep it, list it under `{rows.kind}: {{attributes: […]}}`"
    )
    notes = (
        *((name, RemarkReason.IGNORED.value, detail) for name in rows.layout.ignored),
        *((None, RemarkReason.NO_COLUMN.value, hint) for hint in rows.layout.hints),
    )
    cells = [(rows.kind.value, rows.file, None, *note, None) for note in notes]
    return pl.DataFrame(cells, schema=REMARK_SCHEMA, orient="row")


NAME_COLUMNS = ("case_key", "site", "reviewer", "model_version")
"""Columns in which a placeholder is no name, beside the answers of levers."""
DOUBTFUL = frozenset({"none", "na", "null", "-"})
"""Placeholders that some people use as a label."""
PLACEHOLDERS = DOUBTFUL | frozenset(
    {
        *("nan", "nil", "nat", "n/a", "n.a.", "n/d", "--", "---", "?", "??", "\\n", "undefined"),
        *("<na>", "<nan>", "<nat>", "<none>", "<null>", "<nil>", "(null)", "(none)", "(nan)"),
        *("[null]", "#n/a", "#na", "#n/a n/a", "1.#qnan", "-1.#ind", "-nan", "+nan"),
    }
)
PLACEHOLDER_PATTERN = rf"(?i)^\s*(?:{'|'.join(map(re.escape, sorted(PLACEHOLDERS)))})\s*$"


def find_placeholders(texts: Iterable[str], listed: Collection[str] = ()) -> list[str]:
    """Return the texts that stand for a missing value, sorted.

    >>> find_placeholders(["bear", "NaN", "None", " n/a "], ["none"])
    [' n/a ', 'NaN']
    """
    names = {text.strip().lower() for text in listed}
    return sorted({text for text in texts if text.strip().lower() in PLACEHOLDERS - names})


def find_doubtful(texts: Iterable[str]) -> set[str]:
    """Return the placeholders, in lower case, that can be labels too."""
    return {text.strip().lower() for text in texts} & DOUBTFUL


def clear_placeholders(rows: MappedRows, listed: Mapping[str, Collection[str]]) -> MappedRows:
    """Return the rows with null for each placeholder, and a remark on it.

    `listed` has by column the labels or sites that a policy lists.
    """
    columns, faults = [], []
    for name in rows.cells.columns:
        if name not in (*NAME_COLUMNS, *NUMBER_COLUMNS) and not name.startswith(VALUE_PREFIX):
            continue
        column = rows.cells[name]
        placeholders = _list_placeholders(column, listed.get(name, ()))
        faults += [
            build_faults(column == text, name, RemarkReason.PLACEHOLDER, repr(text))
            for text in placeholders
        ]
        if placeholders:
            blank = pl.repeat(None, column.len(), dtype=pl.String, eager=True)
            is_placeholder = column.is_in(placeholders).fill_null(value=False)
            columns.append(blank.zip_with(is_placeholder, column).alias(name))
    if not columns:
        return rows
    remarks = pl.concat([rows.remarks, rows.build_remarks(pl.concat(faults))])
    return replace(rows, cells=rows.cells.with_columns(columns), remarks=remarks)


def _list_placeholders(column: pl.Series, listed: Collection[str]) -> list[str]:
    """Return the placeholders of a column."""
    return find_placeholders(
        column.filter(column.str.contains(PLACEHOLDER_PATTERN)).unique(), listed
    )


NUMBER_COLUMNS = ("confidence", "latency_ms")


def normalize_rows(rows: MappedRows, reading: FileReading) -> MappedRows:
    """Return the rows with times, numbers and labels in the documented form.

    Placeholders such as `nan` become blank, with a remark on each. A cell that the reading does not
    fit stays, so that it is rejected with its own text.
    """
    rows = clear_placeholders(rows, reading.listed)
    changed = list(_rewrite_columns(rows, reading))
    return replace(rows, cells=rows.cells.with_columns(changed)) if changed else rows


def _rewrite_columns(rows: MappedRows, reading: FileReading) -> Iterator[pl.Series]:
    for name in rows.cells.columns:
        if name.endswith("_at") and reading.date_formats:
            yield rewrite_times(rows.cells[name], reading.date_formats).alias(name)
        elif name in NUMBER_COLUMNS or name.startswith(OUTCOME_PREFIX):
            column = rewrite_decimals(rows.cells[name], reading.decimal)
            if name == "confidence" and reading.percent:
                column = rewrite_percents(column)
            if column is not rows.cells[name]:
                yield column.alias(name)
        elif name.startswith(VALUE_PREFIX):
            yield from _rewrite_answers(rows.cells[name], reading)
    if rows.kind is RecordKind.DECISIONS and reading.exposure is not None:
        yield rows.get_texts("exposure").fill_null(reading.exposure).alias("exposure")


def _rewrite_answers(column: pl.Series, reading: FileReading) -> Iterator[pl.Series]:
    """Yield the answers of a lever if the reading changes them.

    Unsure labels become blank, numbers get a decimal point, sets their canonical text.
    """
    lever = column.name.removeprefix(VALUE_PREFIX)
    decimal = reading.decimal if lever in reading.number_levers else None
    labels = reading.set_labels.get(lever)
    if reading.unsure:
        is_unsure = column.is_in(reading.unsure)
        blank = pl.repeat(None, column.len(), dtype=pl.String, eager=True)
        answers = blank.zip_with(is_unsure.fill_null(value=False), column)
        answers = rewrite_decimals(answers, decimal)
        yield (answers if labels is None else rewrite_sets(answers, labels)).alias(column.name)
    elif labels is not None:
        yield rewrite_sets(column, labels).alias(column.name)
    elif decimal == ",":
        yield rewrite_decimals(column, decimal).alias(column.name)


TRUE_WORDS, FALSE_WORDS = ("true", "yes", "1"), ("false", "no", "0")
TIME_FORMAT_TEXT = "is no time; write it as 2027-05-03T14:05:09, with or without an offset"
NO_DATE_TEXT = "has the form of a time, but the date or hour does not exist"
GAP_TEXT = "does not exist, because clocks change in spring; read with the offset before it"
AMBIGUOUS_TEXT = "exists twice, because clocks change in autumn; the earlier instant is used"


@dataclass(frozen=True, slots=True)
class ColumnParser:
    """Parser of a column; cells that `parse` returns as null are faults with `reason`."""

    parse: Callable[[pl.Series], pl.Series]
    reason: RemarkReason
    text: str


@dataclass(frozen=True, slots=True)
class ParsedCells:
    """Typed cells by our names, with the first fault and note of each row."""

    typed: pl.DataFrame
    faults: pl.DataFrame
    notes: pl.DataFrame


def parse_cells(
    rows: MappedRows,
    levers: Sequence[str],
    zone_indices: pl.Series,
    zones: Sequence[str],
    outcomes: Sequence[str] = (),
) -> ParsedCells:
    """Parse all columns of predictions, decisions or outcomes except facts about cases.

    `zone_indices` has the index in `zones` of the zone of each row's site.
    """
    names = [
        name for name in COLUMN_NAMES[rows.kind] if name not in CASE_COLUMNS or name == RECEIVED_AT
    ]
    missing = [_find_missing(rows, name) for name in REQUIRED_COLUMNS[rows.kind]]
    columns = [rows.get_texts(VALUE_PREFIX + lever).alias(VALUE_PREFIX + lever) for lever in levers]
    fault_frames, notes = [], []
    for name in (OUTCOME_PREFIX + outcome for outcome in outcomes):
        column, fault_frame = parse_amounts(rows.get_texts(name), name)
        columns.append(column.alias(name))
        fault_frames.append(fault_frame)
    for name in names:
        text = rows.get_texts(name)
        if name.endswith("_at"):
            times = parse_times(text)
            placed_times = convert_to_instants(times, zone_indices, zones)
            column, fault_frame = placed_times["at"], find_time_faults(text, name, times)
            notes.append(find_time_notes(text, name, placed_times))
        else:
            column, fault_frame = _parse_column(text, name)
        columns.append(column.alias(name))
        fault_frames.append(fault_frame)
    return ParsedCells(
        pl.DataFrame(columns),
        select_first_per_row([*missing, *fault_frames]),
        select_first_per_row(notes),
    )


def find_time_faults(text: pl.Series, column: str, times: pl.DataFrame) -> pl.DataFrame:
    """Return faults for texts that `parse_times` rejected."""
    return pl.concat(
        build_faults(times["fault"] == reason.value, column, reason, detail, text)
        for reason, detail in (
            (RemarkReason.IMPOSSIBLE_TIME, NO_DATE_TEXT),
            (RemarkReason.UNREADABLE_TIME, TIME_FORMAT_TEXT),
        )
    )


def find_time_notes(text: pl.Series, column: str, placed_times: pl.DataFrame) -> pl.DataFrame:
    """Return notes on local times in a gap or repeated hour of a clock change."""
    return pl.concat(
        build_faults(placed_times["note"] == reason.value, column, reason, detail, text)
        for reason, detail in (
            (RemarkReason.GAP_TIME, GAP_TEXT),
            (RemarkReason.AMBIGUOUS_TIME, AMBIGUOUS_TEXT),
        )
    )


def _find_missing(rows: MappedRows, name: str) -> pl.DataFrame:
    return build_faults(rows.get_texts(name).is_null(), name, RemarkReason.MISSING_VALUE, "blank")


def _parse_column(text: pl.Series, name: str) -> tuple[pl.Series, pl.DataFrame]:
    parser = COLUMN_PARSERS.get(name)
    if parser is None:
        return text, build_empty_faults()
    if text.null_count() == text.len():  # most files lack most of these columns
        return parser.parse(text.clear()).clear(text.len()), build_empty_faults()
    column = parser.parse(text.str.strip_chars())
    is_wrong = text.is_not_null() & column.is_null()
    return column, build_faults(is_wrong, name, parser.reason, parser.text, text)


def parse_amounts(text: pl.Series, name: str) -> tuple[pl.Series, pl.DataFrame]:
    """Return finite numbers of any sign, and faults for other texts."""
    number = text.str.strip_chars().cast(pl.Float64, strict=False)
    number = number.zip_with(number.is_finite(), build_nulls(number))
    is_wrong = text.is_not_null() & number.is_null()
    return number, build_faults(is_wrong, name, RemarkReason.BAD_NUMBER, "is no number", text)


def _parse_number(text: pl.Series, maximum: float) -> pl.Series:
    number = text.cast(pl.Float64, strict=False)
    # NaN is above every bound in Polars, so it becomes null.
    return number.zip_with(number.is_between(0.0, maximum), build_nulls(number))


def _parse_task_number(text: pl.Series) -> pl.Series:
    number = text.cast(pl.Int16, strict=False)
    return number.zip_with(number >= 0, build_nulls(number))


def _parse_unsure(text: pl.Series) -> pl.Series:
    meanings = dict.fromkeys(TRUE_WORDS, True) | dict.fromkeys(FALSE_WORDS, False)
    return text.str.to_lowercase().replace_strict(meanings, default=None, return_dtype=pl.Boolean)


def _parse_word(text: pl.Series, accepted: Collection[str]) -> pl.Series:
    words = text.str.to_lowercase()
    return words.zip_with(words.is_in(accepted), build_nulls(words))


def _parse_content(text: pl.Series) -> pl.Series:
    return text.zip_with(text.str.contains("^[0-9a-f]{64}$"), build_nulls(text))


COLUMN_PARSERS: Mapping[str, ColumnParser] = {
    "confidence": ColumnParser(
        lambda text: _parse_number(text, 1.0), RemarkReason.BAD_NUMBER, "is no number from 0 to 1"
    ),
    "latency_ms": ColumnParser(
        lambda text: _parse_number(text, float_info.max),
        RemarkReason.BAD_NUMBER,
        "is no number from 0 on",
    ),
    "task_number": ColumnParser(
        _parse_task_number, RemarkReason.BAD_NUMBER, "is no whole number from 0 to 32767"
    ),
    "unsure": ColumnParser(
        _parse_unsure, RemarkReason.BAD_WORD, f"is none of {', '.join((*TRUE_WORDS, *FALSE_WORDS))}"
    ),
    SAMPLED_ARM: ColumnParser(
        lambda text: _parse_word(text, SAMPLED_ARMS),
        RemarkReason.BAD_WORD,
        f"is none of {', '.join(SAMPLED_ARMS)}",
    ),
    CONTENT: ColumnParser(
        _parse_content,
        RemarkReason.BAD_WORD,
        "is no SHA-256 of a version: write its 64 hexadecimal digits in lower case; an attribute of"
        " the case is listed, `--map predictions.attributes=content`",
    ),
    "exposure": ColumnParser(
        lambda text: _parse_word(text, EXPOSURES),
        RemarkReason.BAD_WORD,
        f"is none of {', '.join(EXPOSURES)}",
    ),
}
"""Parsers of the columns that are neither text nor times."""
