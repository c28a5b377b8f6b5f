"""Read rows of Parquet files as text.

Times become ISO 8601, with an offset if they have a zone; numbers and booleans their usual text;
lists and structures JSON. A site or label stored as a number has already lost its digits (46.10
is 46.1). The line of a row is its number, from 1.
"""

from __future__ import annotations

import io
import json

import polars as pl

from rollout.formats.records.rejected_rows import RecordError
from rollout.formats.records.text_rows import (
    TextRows,
    build_unparsed_frame,
    check_unique_names,
    replace_blanks,
)


def read_parquet(content: bytes, *, file: str) -> TextRows:
    """Read the rows of a file.

    Raises:
        RecordError: the file is not readable Parquet.
    """
    try:
        frame = pl.read_parquet(io.BytesIO(content))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RecordError(file, None, None, "damaged", f"no readable Parquet: {error}") from error
    frame = frame.rename(
        dict(zip(frame.columns, check_unique_names(file, frame.columns), strict=True))
    )
    cells = pl.DataFrame(
        {column.name: _to_text(column.alias("")) for column in frame.get_columns()}
    )
    lines = pl.int_range(1, frame.height + 1, eager=True)
    return TextRows(replace_blanks(cells), lines, build_unparsed_frame([]))


def _to_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        zone = "" if column.dtype.time_zone is None else "%:z"
        return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.f" + zone)
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        texts = [
            None if cell is None else json.dumps(cell, default=str) for cell in column.to_list()
        ]
        return pl.Series(texts, dtype=pl.String)
    return column.cast(pl.String)
