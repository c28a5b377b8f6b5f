"""Rows of comma- and tab-separated files, with the physical line of each.

Polars reads quickly and forgives what must not be forgiven (short rows become nulls, a stray
quote swallows lines), so every line is judged first: it is well formed when each field is bare,
without quotes, or wholly in quotes with inner ones doubled (RFC 4180), and there are as many
fields as the header has. Only such lines reach Polars. A line with a quote left open is joined
with those below it, up to the line that closes the quote, unless a well-formed row stands between
them: then the quote was a slip, and the lines are judged one by one.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from rollout.formats.set_aside import RecordFault
from rollout.formats.text_rows import (
    NOT_UTF8,
    TextRows,
    blanks_to_null,
    decoded,
    torn,
    unique_names,
)
from rollout.tally.frames import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

UNCLOSED = "a quote is never closed, or stands inside a field that does not begin with one"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a well-formed row of one file looks like: its separator and its columns."""

    separator: str
    names: tuple[str, ...]


def read_delimited(content: bytes, *, file: str, separator: str) -> TextRows:
    """Read the rows of a file whose first line that is not blank names the columns.

    Blank lines are no rows. A file with a header alone has no rows.

    Raises:
        RecordFault: there is no header, or it cannot be read.
    """
    line, header, start = _header(content, file)
    shape = Shape(separator, _names(header, separator, file, line))
    cells = _read_at_once(content, shape, start) if line == 1 else None
    if cells is None:
        return _judged(content[start:], shape, line + 1)
    lines = pl.int_range(2, 2 + cells.height, eager=True)
    return TextRows(blanks_to_null(cells), lines, torn([]))


def _header(content: bytes, file: str) -> tuple[int, bytes, int]:
    """Return the number of the header's line, that line, and where the next one begins."""
    end = 0
    for number, line in enumerate(io.BytesIO(content), start=1):
        end += len(line)
        if line.strip(b"\r\n"):
            return number, line.rstrip(b"\r\n"), end
    raise RecordFault(file, None, None, "header", "the file is empty; its first line names columns")


def _names(header: bytes, separator: str, file: str, line: int) -> tuple[str, ...]:
    try:
        text = header.decode()
    except UnicodeDecodeError as error:
        detail = f"the header is not UTF-8; save the file as UTF-8 ({error.reason})"
        raise RecordFault(file, line, None, Reason.BAD_ENCODING, detail) from error
    fields = _fields(text, separator)
    if fields is None:
        raise RecordFault(file, line, None, Reason.BAD_QUOTING, f"the header: {UNCLOSED}")
    return tuple(unique_names(file, fields))


def _pattern(separator: str) -> str:
    """A regular expression for a row of well-formed fields, however many."""
    one = f'(?:"(?:[^"]|"")*"|[^"{separator}]*)'
    return f"^{one}(?:{separator}{one})*$"


def _fields(row: str, separator: str) -> list[str] | None:
    """Take apart one row, which may span lines; None when it is not well formed."""
    if re.match(_pattern(separator), row) is None:
        return None
    return next(csv.reader([row], delimiter=separator, strict=True))


def _read_at_once(content: bytes, shape: Shape, start: int) -> pl.DataFrame | None:
    """Read a file without quotes whose lines are all well formed; None for any other.

    Polars refuses a line with too many fields. So where the separators from `start` on are as
    many as the lines need, none has too few either, and none is blank.
    """
    rows = content.count(b"\n", start) + (start < len(content) and not content.endswith(b"\n"))
    expected = rows * (len(shape.names) - 1)
    found = content.count(shape.separator.encode(), start)
    if not expected or found != expected or b'"' in content:
        return None
    try:
        return _parsed(content, shape, rows, skip=1)
    except pl.exceptions.PolarsError:  # too many fields, or bytes that are not UTF-8
        return None


def _parsed(lines: bytes, shape: Shape, rows: int, skip: int = 0) -> pl.DataFrame:
    """Let Polars read lines that are known to be well formed, after the first `skip`."""
    if not rows:
        return pl.DataFrame(schema=dict.fromkeys(shape.names, pl.String))
    return pl.read_csv(
        lines,
        has_header=False,
        skip_rows=skip,
        separator=shape.separator,
        schema=dict.fromkeys(shape.names, pl.String),
    )


def _judged(body: bytes, shape: Shape, first: int) -> TextRows:
    """Judge each line, of which the top one is number `first`, and read the well-formed ones."""
    text, wrong = decoded(body)
    texts = [line.removesuffix("\r") for line in text.split("\n")]
    lines = _judgements(texts, shape).with_columns(wrong=pl.col("at").is_in(list(wrong)))
    good = lines.filter(pl.col("good") & ~pl.col("wrong"))
    rest = lines.filter(~(pl.col("good") & ~pl.col("wrong")) & (pl.col("text") != ""))
    joined = list(_joined(rest.filter("odd")["at"], good["at"], texts, shape))
    inside = {at for start, end, _ in joined for at in range(start, end + 1)}
    whole = [each for each in joined if wrong.isdisjoint(range(each[0], each[1] + 1))]
    broken = [start for start, end, _ in joined if not wrong.isdisjoint(range(start, end + 1))]
    faults = [
        *(
            (first + at, *_fault(line, shape))
            for line in rest.iter_rows(named=True)
            if (at := line["at"]) not in inside
        ),
        *((first + start, Reason.BAD_ENCODING, NOT_UTF8) for start in broken),
    ]
    cells = _parsed("\n".join(good["text"]).encode(), shape, good.height)
    at = good["at"]
    if whole:
        more = pl.DataFrame([fields for *_, fields in whole], schema=cells.schema, orient="row")
        at = pl.concat([at, pl.Series("at", [start for start, *_ in whole], dtype=at.dtype)])
        order = at.arg_sort()
        cells, at = pl.concat([cells, more])[order], at[order]
    return TextRows(blanks_to_null(cells), at + first, torn(faults))


def _judgements(texts: Sequence[str], shape: Shape) -> pl.DataFrame:
    """Say of each line: is it well formed, how many `fields` has it, is a quote left `odd`."""
    text = pl.col("text")
    bare = text.str.replace_all(r'"[^"]*"', "")
    return (
        pl.DataFrame({"text": texts}, schema={"text": pl.String})
        .with_columns(
            at=pl.int_range(pl.len()),
            formed=text.str.contains(_pattern(shape.separator)),
            fields=bare.str.count_matches(shape.separator, literal=True) + 1,
            odd=text.str.count_matches('"', literal=True) % 2 == 1,
        )
        .with_columns(good=pl.col("formed") & (pl.col("fields") == len(shape.names)) & (text != ""))
    )


def _joined(
    opens: pl.Series, good: pl.Series, texts: Sequence[str], shape: Shape
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield first line, last line and fields of the rows that span lines.

    A line that opens a quote has an odd number of them, and so has the line that closes it.
    """
    before = good.search_sorted(opens)
    position = 0
    while position + 1 < opens.len():
        start, end = opens[position], opens[position + 1]
        fields = None
        if before[position] == before[position + 1]:
            fields = _fields("\n".join(texts[start : end + 1]), shape.separator)
        if fields is not None and len(fields) == len(shape.names):
            yield start, end, fields
            position += 1
        position += 1


def _fault(line: Mapping[str, Any], shape: Shape) -> tuple[Reason, str]:
    if line["wrong"]:
        return Reason.BAD_ENCODING, NOT_UTF8
    if not line["formed"]:
        return Reason.BAD_QUOTING, UNCLOSED
    detail = f"{line['fields']} fields where the header has {len(shape.names)}"
    return Reason.FIELD_COUNT, detail
