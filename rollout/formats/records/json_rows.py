"""Rows of JSON lines: one object a line, every scalar kept as the letters in the file.

A number keeps its digits (a site written 46.10 without quotes stays `46.10`), true and false are
these words, null is blank, a list or an object stays JSON. The columns are the keys of all rows;
a row without one of them has a blank there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from rollout.formats.records.text_rows import NOT_UTF8, TextRows, blanks_to_null, decoded, torn
from rollout.tally.frames import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EVERY = 100_000
"""Rows between two calls of `progress`."""


@dataclass(slots=True)
class _Alike:
    """The rows that have the same keys in the same order: their lines, and all values in turn."""

    lines: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


def read_json_lines(content: bytes, *, progress: Callable[[float], None]) -> TextRows:
    """Read the rows of a file; blank lines are no rows, and an empty file has none.

    `progress` is told the share of lines read, from time to time.
    """
    text, invalid_lines = decoded(content)
    lines = text.split("\n")
    groups: dict[tuple[str, ...], _Alike] = {}
    faults: list[tuple[int, Reason, str]] = []
    for number, line_text in enumerate(lines, start=1):
        if number % EVERY == 0:
            progress(number / len(lines))
        if number - 1 in invalid_lines:
            faults.append((number, Reason.BAD_ENCODING, NOT_UTF8))
        elif line_text and not line_text.isspace():
            row = _object(line_text)
            if isinstance(row, str):
                faults.append((number, Reason.BAD_JSON, row))
            else:
                # Kept flat: a million small objects would keep the garbage collector busy.
                group = groups.setdefault(tuple(row), _Alike())
                group.lines.append(number)
                group.values.extend(row.values())
    # Longer than every key, so that it is none of them.
    line_column = "line" + max((name for names in groups for name in names), key=len, default="")
    empty = pl.DataFrame(schema={line_column: pl.Int64})
    frames = [_frame(line_column, names, group) for names, group in groups.items()]
    cells = pl.concat([empty, *frames], how="diagonal").sort(line_column)
    return TextRows(blanks_to_null(cells.drop(line_column)), cells[line_column], torn(faults))


def _object(line: str) -> dict[str, Any] | str:
    """Read one line, or say what is wrong with it."""
    try:
        row = _DECODER.decode(line.strip())
        if "\\u" in line:
            _as_text(row).encode()
    except UnicodeEncodeError:
        return "half a letter: a surrogate escape without its pair"
    except (ValueError, RecursionError) as error:
        return f"not a JSON object: {error}; write one object a line"
    return row if isinstance(row, dict) else "not a JSON object; write one object a line"


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key is named twice")
    return row


_DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_once
)


def _frame(line: str, names: Sequence[str], rows: _Alike) -> pl.DataFrame:
    columns = {name: _column(rows.values[index :: len(names)]) for index, name in enumerate(names)}
    return pl.DataFrame({line: pl.Series(rows.lines, dtype=pl.Int64), **columns})


def _column(values: list[Any]) -> pl.Series:
    try:
        return pl.Series(values, dtype=pl.String)
    except TypeError:  # truth values, lists and objects among the texts
        return pl.Series([_as_text(value) for value in values], dtype=pl.String)


def _as_text(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
