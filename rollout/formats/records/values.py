"""Parse the text cells of records by column: numbers, words and times."""

from __future__ import annotations

from dataclasses import dataclass
from sys import float_info
from typing import TYPE_CHECKING

import polars as pl

from rollout.core.records.row_remarks import RemarkReason
from rollout.formats.records.column_map import (
    CASE_COLUMNS,
    COLUMN_NAMES,
    RECEIVED_AT,
    REQUIRED_COLUMNS,
)
from rollout.formats.records.rejected_rows import (
    build_empty_faults,
    build_faults,
    select_first_per_row,
)
from rollout.formats.records.times import convert_to_instants, parse_times
from rollout.tally.frames import (
    CONTENT,
    EXPOSURES,
    OUTCOME_PREFIX,
    SAMPLED_ARM,
    SAMPLED_ARMS,
    VALUE_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rollout.formats.records.mapped_rows import MappedRows

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
        if name.endswith("_at"):
            column, fault_frame, note_frame = _parse_times(
                rows.get_texts(name), name, zone_indices, zones
            )
            notes.append(note_frame)
        else:
            column, fault_frame = _parse_column(rows.get_texts(name), name)
        columns.append(column.alias(name))
        fault_frames.append(fault_frame)
    return ParsedCells(
        pl.DataFrame(columns),
        select_first_per_row([*missing, *fault_frames]),
        select_first_per_row(notes),
    )


def find_time_faults(text: pl.Series, column: str, times: pl.DataFrame) -> pl.DataFrame:
    """Return faults for texts that `parse_times` rejected."""
    is_impossible = times["fault"] == RemarkReason.IMPOSSIBLE_TIME.value
    is_unreadable = times["fault"] == RemarkReason.UNREADABLE_TIME.value
    return pl.concat(
        [
            build_faults(is_impossible, column, RemarkReason.IMPOSSIBLE_TIME, NO_DATE_TEXT, text),
            build_faults(
                is_unreadable, column, RemarkReason.UNREADABLE_TIME, TIME_FORMAT_TEXT, text
            ),
        ]
    )


def find_time_notes(text: pl.Series, column: str, placed_times: pl.DataFrame) -> pl.DataFrame:
    """Return notes on local times in a gap or repeated hour of a clock change."""
    is_gap = placed_times["note"] == RemarkReason.GAP_TIME.value
    is_ambiguous = placed_times["note"] == RemarkReason.AMBIGUOUS_TIME.value
    return pl.concat(
        [
            build_faults(is_gap, column, RemarkReason.GAP_TIME, GAP_TEXT, text),
            build_faults(is_ambiguous, column, RemarkReason.AMBIGUOUS_TIME, AMBIGUOUS_TEXT, text),
        ]
    )


def _find_missing(rows: MappedRows, name: str) -> pl.DataFrame:
    return build_faults(rows.get_texts(name).is_null(), name, RemarkReason.MISSING_VALUE, "blank")


def _parse_times(
    text: pl.Series, name: str, zone_indices: pl.Series, zones: Sequence[str]
) -> tuple[pl.Series, pl.DataFrame, pl.DataFrame]:
    times = parse_times(text)
    placed_times = convert_to_instants(times, zone_indices, zones)
    return (
        placed_times["at"],
        find_time_faults(text, name, times),
        find_time_notes(text, name, placed_times),
    )


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
    number = number.zip_with(number.is_finite(), _build_nulls(number))
    is_wrong = text.is_not_null() & number.is_null()
    return number, build_faults(is_wrong, name, RemarkReason.BAD_NUMBER, "is no number", text)


def _parse_number(text: pl.Series, maximum: float) -> pl.Series:
    number = text.cast(pl.Float64, strict=False)
    # NaN is above every bound in Polars, so it becomes null.
    return number.zip_with(number.is_between(0.0, maximum), _build_nulls(number))


def _parse_task_number(text: pl.Series) -> pl.Series:
    number = text.cast(pl.Int16, strict=False)
    return number.zip_with(number >= 0, _build_nulls(number))


def _parse_unsure(text: pl.Series) -> pl.Series:
    meanings = dict.fromkeys(TRUE_WORDS, True) | dict.fromkeys(FALSE_WORDS, False)
    words = text.str.to_lowercase()
    return words.replace_strict(meanings, default=None, return_dtype=pl.Boolean)


def _parse_exposure(text: pl.Series) -> pl.Series:
    words = text.str.to_lowercase()
    return words.zip_with(words.is_in(EXPOSURES), _build_nulls(words))


def _parse_arm(text: pl.Series) -> pl.Series:
    words = text.str.to_lowercase()
    return words.zip_with(words.is_in(SAMPLED_ARMS), _build_nulls(words))


def _parse_content(text: pl.Series) -> pl.Series:
    return text.zip_with(text.str.contains("^[0-9a-f]{64}$"), _build_nulls(text))


def _build_nulls(series: pl.Series) -> pl.Series:
    return pl.repeat(None, series.len(), dtype=series.dtype, eager=True)


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
        _parse_arm, RemarkReason.BAD_WORD, f"is none of {', '.join(SAMPLED_ARMS)}"
    ),
    CONTENT: ColumnParser(
        _parse_content,
        RemarkReason.BAD_WORD,
        "is no SHA-256 of a version: write its 64 hexadecimal digits in lower case; an attribute of"
        " the case is listed, `--map predictions.attributes=content`",
    ),
    "exposure": ColumnParser(
        _parse_exposure, RemarkReason.BAD_WORD, f"is none of {', '.join(EXPOSURES)}"
    ),
}
"""Parsers of the columns that are neither text nor times."""
