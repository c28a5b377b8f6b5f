"""What the cells of records mean: numbers, words and times, read from text by column."""

from __future__ import annotations

from dataclasses import dataclass
from sys import float_info
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.column_map import CASE_FACTS, NAMES, REQUIRED
from rollout.formats.records.rejected_rows import faults, first_per_row, no_faults
from rollout.formats.records.times import instants, read_times
from rollout.tally.frames import EXPOSURES, VALUE, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rollout.formats.records.mapped_rows import NamedRows

YES, NO = ("true", "yes", "1"), ("false", "no", "0")
TIME_FORM = "is no time; write it as 2027-05-03T14:05:09, with or without an offset"
NO_DATE = "is the form of a time, but there is no such date or hour"
GAP = "is left out by the spring change of clocks; read by the offset before it"
TWICE = "stands twice in the autumn change of clocks; the earlier instant is taken"


@dataclass(frozen=True, slots=True)
class CellForm:
    """How a column is read: `read` gives null for what it cannot take, which is then `reason`."""

    read: Callable[[pl.Series], pl.Series]
    reason: Reason
    says: str


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a file by our names, typed; faults by row, the first of each row; notes."""

    typed: pl.DataFrame
    faults: pl.DataFrame
    notes: pl.DataFrame


def read_cells(
    rows: NamedRows, levers: Sequence[str], places: pl.Series, zones: Sequence[str]
) -> Cells:
    """Read every column but those that describe cases.

    Args:
        rows: the rows of a file of predictions, decisions or outcomes.
        levers: the levers of the policy.
        places: for each row the index in `zones` of its site's zone.
        zones: the zones in use.
    """
    names = [name for name in NAMES[rows.kind] if name not in CASE_FACTS]
    missing = [_missing(rows, name) for name in REQUIRED[rows.kind]]
    columns = [rows.text(VALUE + lever).alias(VALUE + lever) for lever in levers]
    fault_frames, notes = [], []
    for name in names:
        if name.endswith("_at"):
            column, fault_frame, note_frame = _times(rows.text(name), name, places, zones)
            notes.append(note_frame)
        else:
            column, fault_frame = _plain(rows.text(name), name)
        columns.append(column.alias(name))
        fault_frames.append(fault_frame)
    return Cells(
        pl.DataFrame(columns), first_per_row([*missing, *fault_frames]), first_per_row(notes)
    )


def time_faults(text: pl.Series, column: str, times: pl.DataFrame) -> pl.DataFrame:
    """Return faults for texts which `read_times` could not take."""
    is_impossible = times["fault"] == Reason.IMPOSSIBLE_TIME.value
    is_unreadable = times["fault"] == Reason.UNREADABLE_TIME.value
    return pl.concat(
        [
            faults(is_impossible, column, Reason.IMPOSSIBLE_TIME, NO_DATE, text),
            faults(is_unreadable, column, Reason.UNREADABLE_TIME, TIME_FORM, text),
        ]
    )


def time_notes(text: pl.Series, column: str, placed: pl.DataFrame) -> pl.DataFrame:
    """Return notes on local times that a change of clocks leaves out or holds twice."""
    is_gap = placed["note"] == Reason.GAP_TIME.value
    is_ambiguous = placed["note"] == Reason.AMBIGUOUS_TIME.value
    return pl.concat(
        [
            faults(is_gap, column, Reason.GAP_TIME, GAP, text),
            faults(is_ambiguous, column, Reason.AMBIGUOUS_TIME, TWICE, text),
        ]
    )


def _missing(rows: NamedRows, name: str) -> pl.DataFrame:
    return faults(rows.text(name).is_null(), name, Reason.MISSING_VALUE, "blank")


def _times(
    text: pl.Series, name: str, places: pl.Series, zones: Sequence[str]
) -> tuple[pl.Series, pl.DataFrame, pl.DataFrame]:
    times = read_times(text)
    placed_times = instants(times, places, zones)
    return placed_times["at"], time_faults(text, name, times), time_notes(text, name, placed_times)


def _plain(text: pl.Series, name: str) -> tuple[pl.Series, pl.DataFrame]:
    parser = FORMS.get(name)
    if parser is None:
        return text, no_faults()
    if text.null_count() == text.len():  # most files lack most of these columns
        return parser.read(text.clear()).clear(text.len()), no_faults()
    column = parser.read(text.str.strip_chars())
    is_wrong = text.is_not_null() & column.is_null()
    return column, faults(is_wrong, name, parser.reason, parser.says, text)


def _number(text: pl.Series, highest: float) -> pl.Series:
    number = text.cast(pl.Float64, strict=False)
    # NaN is above every bound, so it is no number here.
    return number.zip_with(number.is_between(0.0, highest), _nulls(number))


def _task_number(text: pl.Series) -> pl.Series:
    number = text.cast(pl.Int16, strict=False)
    return number.zip_with(number >= 0, _nulls(number))


def _unsure(text: pl.Series) -> pl.Series:
    meanings = dict.fromkeys(YES, True) | dict.fromkeys(NO, False)
    words = text.str.to_lowercase()
    return words.replace_strict(meanings, default=None, return_dtype=pl.Boolean)


def _exposure(text: pl.Series) -> pl.Series:
    words = text.str.to_lowercase()
    return words.zip_with(words.is_in(EXPOSURES), _nulls(words))


def _nulls(like: pl.Series) -> pl.Series:
    return pl.repeat(None, like.len(), dtype=like.dtype, eager=True)


FORMS: Mapping[str, CellForm] = {
    "confidence": CellForm(
        lambda text: _number(text, 1.0), Reason.BAD_NUMBER, "is no number from 0 to 1"
    ),
    "latency_ms": CellForm(
        lambda text: _number(text, float_info.max), Reason.BAD_NUMBER, "is no number from 0 on"
    ),
    "task_number": CellForm(_task_number, Reason.BAD_NUMBER, "is no whole number from 0 to 32767"),
    "unsure": CellForm(_unsure, Reason.BAD_WORD, f"is none of {', '.join((*YES, *NO))}"),
    "exposure": CellForm(_exposure, Reason.BAD_WORD, f"is none of {', '.join(EXPOSURES)}"),
}
"""Columns that are more than text or a time."""
