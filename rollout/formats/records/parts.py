"""What each file gives to the records: the rows that are used, those set aside, and notes.

The rules that `record_files` states are applied here, file by file and in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.column_map import REQUIRED
from rollout.formats.records.duplicate_rows import repeats, several_labels
from rollout.formats.records.rejected_rows import faults, first_per_row, left_over, no_remarks
from rollout.formats.records.values import read_cells
from rollout.tally.frames import (
    VALUE,
    Kind,
    Reason,
    Schema,
    decisions_schema,
    outcomes_schema,
    predictions_schema,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollout.formats.records.cases import CaseFacts
    from rollout.formats.records.mapped_rows import NamedRows

UNKNOWN_CASE = "no file says at which site this case was"
NOTHING_SAID = "neither an answer nor a harm"
BESIDE = {
    Kind.PREDICTIONS: "there is an error beside it, so the prediction counts as failed",
    Kind.DECISIONS: "it is marked unsure, so the decision counts as unsure",
}


@dataclass(frozen=True, slots=True)
class Part:
    """What one file gives. `used` is typed as `tally.frames` says; cases stay text."""

    used: pl.DataFrame
    set_aside: pl.DataFrame
    notes: pl.DataFrame


def cases_part(rows: NamedRows) -> tuple[NamedRows, Part]:
    """Sift a cases file: each row needs a key and a site, and each key counts once.

    Returns the rows left, for the cases to be gathered from, and what became of the others.
    """
    blank_faults = [
        faults(rows.text(name).is_null(), name, Reason.MISSING_VALUE, "blank")
        for name in ("case_key", "site")
    ]
    rejected = first_per_row(blank_faults)
    remaining = left_over(rows.cells.height, rejected)
    repeated = repeats(rows.cells[remaining], ["case_key"])
    rejected = first_per_row(
        [rejected, repeated.with_columns(row=remaining.gather(repeated["row"]))]
    )
    used_rows = rows.only(left_over(rows.cells.height, rejected))
    return used_rows, Part(used_rows.cells, rows.remarks(rejected), no_remarks())


def records_part(
    rows: NamedRows, facts: CaseFacts, levers: Sequence[str], zones: Sequence[str]
) -> Part:
    """Sift a file of predictions, decisions or outcomes."""
    cells = read_cells(rows, levers, facts.places[rows.kind], zones)
    typed, dropped_answers = _answered(rows.kind, cells.typed, levers)
    unknown_cases = faults(~facts.described[rows.kind], None, Reason.NO_CASE_YET, UNKNOWN_CASE)
    rejected = first_per_row([cells.faults, *_silent(rows.kind, typed, levers), unknown_cases])
    remaining = left_over(typed.height, rejected)
    repeated_rows = remaining.filter(facts.again[rows.kind].gather(remaining))
    repeated = _repeated(rows.kind, typed[repeated_rows], levers)
    rejected = first_per_row(
        [rejected, repeated.with_columns(row=repeated_rows.gather(repeated["row"]))]
    )
    remaining = left_over(typed.height, rejected)
    notes = pl.concat([dropped_answers, *_unanswered(rows.kind, typed, levers)])
    notes = notes.filter(pl.col("row").is_in(remaining.implode()))
    return Part(
        used=_form(
            rows.kind, typed if remaining.len() == typed.height else typed[remaining], levers
        ),
        set_aside=rows.remarks(rejected),
        notes=rows.remarks(pl.concat([cells.notes, notes])),
    )


def _answered(
    kind: Kind, typed: pl.DataFrame, levers: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take away answers beside an error or beside "unsure", and note each."""
    if kind is Kind.OUTCOMES:
        return typed, faults(pl.Series([], dtype=pl.Boolean), None, Reason.DROPPED_ANSWER, "")
    names = [VALUE + lever for lever in levers]
    is_ignored = pl.col("error").is_not_null()
    if kind is Kind.DECISIONS:
        is_ignored = pl.col("unsure").fill_null(value=False)
    has_answer = pl.any_horizontal(pl.col(name).is_not_null() for name in names)
    has_both = typed.select(is_ignored & has_answer).to_series()
    cleaned = typed.with_columns(
        pl.when(~is_ignored).then(pl.col(name)).alias(name) for name in names
    )
    if kind is Kind.DECISIONS:
        is_unsure = pl.any_horizontal(pl.col(name).is_null() for name in names)
        cleaned = cleaned.with_columns(
            unsure=is_unsure, exposure=pl.col("exposure").fill_null("unknown")
        )
    return cleaned, faults(has_both, None, Reason.DROPPED_ANSWER, BESIDE[kind])


def _silent(kind: Kind, typed: pl.DataFrame, levers: Sequence[str]) -> list[pl.DataFrame]:
    """Find the outcomes that say nothing."""
    if kind is not Kind.OUTCOMES:
        return []
    columns = ["harm", *(VALUE + lever for lever in levers)]
    is_empty = typed.select(
        pl.all_horizontal(pl.col(name).is_null() for name in columns)
    ).to_series()
    return [faults(is_empty, None, Reason.MISSING_VALUE, NOTHING_SAID)]


def _repeated(kind: Kind, typed: pl.DataFrame, levers: Sequence[str]) -> pl.DataFrame:
    if kind is Kind.DECISIONS:
        return several_labels(typed, REQUIRED[kind], [VALUE + lever for lever in levers])
    return repeats(typed, REQUIRED[kind])


def _unanswered(kind: Kind, typed: pl.DataFrame, levers: Sequence[str]) -> list[pl.DataFrame]:
    """Note each lever that a prediction or a decision leaves without an answer."""
    reasons = {Kind.PREDICTIONS: Reason.FAILED, Kind.DECISIONS: Reason.UNSURE}
    if kind not in reasons:
        return []
    names = [VALUE + lever for lever in levers]
    return [faults(typed[name].is_null(), name, reasons[kind], "no answer") for name in names]


def _form(kind: Kind, typed: pl.DataFrame, levers: Sequence[str]) -> pl.DataFrame:
    """Bring the columns under the names and into the order that `tally.frames` gives."""
    schemas = {
        Kind.PREDICTIONS: predictions_schema,
        Kind.DECISIONS: decisions_schema,
        Kind.OUTCOMES: outcomes_schema,
    }
    schema: Schema = schemas[kind](levers)
    names = {"model_version": "version", "task_number": "seat"} | dict.fromkeys(
        ("predicted_at", "decided_at", "outcome_at"), "at"
    )
    renamed = typed.rename({name: names[name] for name in typed.columns if name in names})
    return renamed.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
