"""Rows of Parquet files, brought to text like those of all others.

Parquet has types of its own. Times become ISO 8601 with their offset, where they have one;
numbers and truth values become their usual letters; lists and structures become JSON. A site or
label that somebody stored as a number has lost its letters before it came here (46.10 is 46.1).
The line of a row is its number, from 1.
"""

from __future__ import annotations

import io
import json

import polars as pl

from rollout.formats.records.rejected_rows import RecordFault
from rollout.formats.records.text_rows import TextRows, blanks_to_null, torn, unique_names


def read_parquet(content: bytes, *, file: str) -> TextRows:
    """Read the rows of a file.

    Raises:
        RecordFault: the file is no Parquet file, or is damaged.
    """
    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RecordFault(file, None, None, "damaged", f"no readable Parquet: {error}") from error
    frame = frame.rename(dict(zip(frame.columns, unique_names(file, frame.columns), strict=True)))
    cells = pl.DataFrame({column.name: _text(column.alias("")) for column in frame.get_columns()})
    lines = pl.int_range(1, frame.height + 1, eager=True)
    return TextRows(blanks_to_null(cells), lines, torn([]))


def _text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        zone = "" if column.dtype.time_zone is None else "%:z"
        return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.f" + zone)
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        texts = [
            None if cell is None else json.dumps(cell, default=str) for cell in column.to_list()
        ]
        return pl.Series(texts, dtype=pl.String)
    return column.cast(pl.String)
