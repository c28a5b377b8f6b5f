"""Rows of JSON lines: one object a line, every scalar kept as the letters in the file.

A number keeps its digits (a site written 46.10 without quotes stays `46.10`), true and false are
these words, null is blank, a list or an object stays JSON. The columns are the keys of all rows;
a row without one of them has a blank there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from rollout.formats.text_rows import NOT_UTF8, TextRows, blanks_to_null, decoded, torn
from rollout.tally.frames import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

EVERY = 100_000
"""Rows between two calls of `progress`."""


def read_json_lines(content: bytes, *, progress: Callable[[float], None]) -> TextRows:
    """Read the rows of a file; blank lines are no rows, and an empty file has none.

    `progress` is told the share of lines read, from time to time.
    """
    text, wrong = decoded(content)
    lines = text.split("\n")
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    faults: list[tuple[int, Reason, str]] = []
    for number, line in enumerate(lines, start=1):
        if number % EVERY == 0:
            progress(number / len(lines))
        if number - 1 in wrong:
            faults.append((number, Reason.BAD_ENCODING, NOT_UTF8))
        elif line and not line.isspace():
            row = _object(line)
            if isinstance(row, str):
                faults.append((number, Reason.BAD_JSON, row))
            else:
                rows.append(row)
                numbers.append(number)
    return TextRows(blanks_to_null(_cells(rows)), pl.Series(numbers, dtype=pl.Int64), torn(faults))


def _object(line: str) -> dict[str, Any] | str:
    """Read one line, or say what is wrong with it."""
    try:
        row = _DECODER.decode(line.strip())
        if "\\u" in line:
            _as_text(row).encode()
    except UnicodeEncodeError:
        return "half a letter: a surrogate escape without its pair"
    except (ValueError, RecursionError) as error:
        return f"not a JSON object: {error}"
    return row if isinstance(row, dict) else "not a JSON object; write one object a line"


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key is named twice")
    return row


_DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_once
)


def _cells(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    names = _names(rows)
    columns = {name: [_as_text(row.get(name)) for row in rows] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))


def _names(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return all keys in order of first mention; most rows have those of the row before."""
    names: dict[str, None] = {}
    for row in rows:
        if row.keys() - names:
            names.update(dict.fromkeys(row))
    return list(names)


def _as_text(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
