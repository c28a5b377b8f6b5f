"""Rows of JSON and Parquet files."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from rollout.formats.records.rejected_rows import RecordError
from rollout.formats.records.text_rows import (
    NOT_UTF8,
    TextRows,
    build_unparsed_frame,
    check_unique_names,
    decode_lines,
    replace_blanks,
)
from rollout.tally.frames import RemarkReason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


PROGRESS_INTERVAL = 100_000
"""Rows between two calls of `progress`."""


@dataclass(slots=True)
class _RowGroup:
    """Rows with the same keys in the same order: line numbers and all values in turn."""

    lines: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


def read_json_lines(content: bytes, *, progress: Callable[[float], None]) -> TextRows:
    """Read the rows of a file; blank lines are skipped.

    `progress` is called with the share of lines read.
    """
    text, invalid_lines = decode_lines(content)
    lines = text.split("\n")
    groups: dict[tuple[str, ...], _RowGroup] = {}
    faults: list[tuple[int, RemarkReason, str]] = []
    for number, line_text in enumerate(lines, start=1):
        if number % PROGRESS_INTERVAL == 0:
            progress(number / len(lines))
        if number - 1 in invalid_lines:
            faults.append((number, RemarkReason.BAD_ENCODING, NOT_UTF8))
        elif line_text and not line_text.isspace():
            row = _parse_object(line_text)
            if isinstance(row, str):
                faults.append((number, RemarkReason.BAD_JSON, row))
            else:
                # A flat list, because a million small objects would slow the garbage collector.
                group = groups.setdefault(tuple(row), _RowGroup())
                group.lines.append(number)
                group.values.extend(row.values())
    # Longer than every key, so that it differs from all of them.
    line_column = "line" + max((name for names in groups for name in names), key=len, default="")
    empty = pl.DataFrame(schema={line_column: pl.Int64})
    frames = [_build_frame(line_column, names, group) for names, group in groups.items()]
    cells = pl.concat([empty, *frames], how="diagonal").sort(line_column)
    return TextRows(
        replace_blanks(cells.drop(line_column)), cells[line_column], build_unparsed_frame(faults)
    )


def _parse_object(line: str) -> dict[str, Any] | str:
    """Return the object of a line, or the text of its fault."""
    try:
        row = _DECODER.decode(line.strip())
        if "\\u" in line:
            _to_text(row).encode()
    except UnicodeEncodeError:
        return "half a letter: a surrogate escape without its pair"
    except (ValueError, RecursionError) as error:
        return f"not a JSON object: {error}; write one object a line"
    return row if isinstance(row, dict) else "not a JSON object; write one object a line"


def _build_unique_object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key is repeated")
    return row


_DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_build_unique_object
)


def _build_frame(line_column: str, names: Sequence[str], group: _RowGroup) -> pl.DataFrame:
    columns = {
        name: _build_column(group.values[index :: len(names)]) for index, name in enumerate(names)
    }
    return pl.DataFrame({line_column: pl.Series(group.lines, dtype=pl.Int64), **columns})


def _build_column(values: list[Any]) -> pl.Series:
    try:
        return pl.Series(values, dtype=pl.String)
    except TypeError:  # Booleans, lists and objects among the texts
        return pl.Series([_to_text(value) for value in values], dtype=pl.String)


def _to_text(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


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
        {column.name: _to_parquet_text(column.alias("")) for column in frame.get_columns()}
    )
    lines = pl.int_range(1, frame.height + 1, eager=True)
    return TextRows(replace_blanks(cells), lines, build_unparsed_frame([]))


def _to_parquet_text(column: pl.Series) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        zone = "" if column.dtype.time_zone is None else "%:z"
        return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.f" + zone)
    if column.dtype.is_nested() or column.dtype == pl.Binary:
        texts = [
            None if cell is None else json.dumps(cell, default=str) for cell in column.to_list()
        ]
        return pl.Series(texts, dtype=pl.String)
    return column.cast(pl.String)
