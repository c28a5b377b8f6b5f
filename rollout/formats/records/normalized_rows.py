"""Rewrite the cells of a file as its reading says, to the documented form."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.label_set_texts import rewrite_sets
from rollout.formats.records.placeholders import clear_placeholders
from rollout.formats.records.text_formats import rewrite_decimals, rewrite_percents, rewrite_times
from rollout.tally.frames import OUTCOME_PREFIX, VALUE_PREFIX, RecordKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rollout.core.policy.file_readings import FileReading
    from rollout.formats.records.mapped_rows import MappedRows

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
