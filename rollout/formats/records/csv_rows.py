"""Rows of comma- and tab-separated files, with the physical line of each.

Polars reads quickly and forgives what must not be forgiven (short rows become nulls, a stray
quote swallows lines), so every line is judged first: it is well formed when each field is bare,
without quotes, or wholly in quotes with inner ones doubled (RFC 4180), and there are as many
fields as the header has. Only such lines reach Polars. A line with a quote left open is joined
with those below it, up to the line that closes the quote, unless a well-formed row stands between
them: then the quote was a slip, and the lines are judged one by one.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.rejected_rows import RecordFault
from rollout.formats.records.text_rows import (
    NOT_UTF8,
    TextRows,
    blanks_to_null,
    decoded,
    torn,
    unique_names,
)
from rollout.tally.frames import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
    layout = Shape(separator, _names(header, separator, file, line))
    cells = _read_at_once(content, layout, start) if line == 1 else None
    if cells is None:
        return _judged(content[start:], layout, line + 1)
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
    if "\r" in text:
        detail = "lines end in CR alone; save the file with LF or CRLF"
        raise RecordFault(file, line, None, "header", detail)
    if len(fields) == 1 and (separator_match := re.search(r"[;,\t|]", text)):
        separator_name = "tabs" if separator_match[0] == "\t" else f"'{separator_match[0]}'"
        detail = f"columns are separated by {separator_name}; a .csv has commas and a .tsv has tabs"
        raise RecordFault(file, line, None, "header", detail)
    return tuple(unique_names(file, fields))


def _field(separator: str) -> str:
    """A regular expression for one well-formed field."""
    return f'(?:"(?:[^"]|"")*"|[^"{separator}]*)'


def _pattern(separator: str) -> str:
    """A regular expression for a row of well-formed fields, however many."""
    return f"^{_field(separator)}(?:{separator}{_field(separator)})*$"


def _fields(row: str, separator: str) -> list[str] | None:
    """Take apart one row, which may span lines; None when it is not well formed."""
    if re.fullmatch(_pattern(separator), row) is None:
        return None
    fields = re.findall(f"(?:^|{separator})({_field(separator)})", row)
    return [field[1:-1].replace('""', '"') if field.startswith('"') else field for field in fields]


def _read_at_once(content: bytes, shape: Shape, start: int) -> pl.DataFrame | None:
    """Read a file without quotes whose lines are all well formed; None for any other.

    Polars refuses a line with too many fields. So where the separators from `start` on are as
    many as the lines need, none has too few either, and none is blank.
    """
    row_count = content.count(b"\n", start) + (start < len(content) and not content.endswith(b"\n"))
    expected = row_count * (len(shape.names) - 1)
    separator_count = content.count(shape.separator.encode(), start)
    if not expected or separator_count != expected or b'"' in content:
        return None
    try:
        return _parsed(content, shape, row_count, skip=1)
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
    text, invalid_lines = decoded(body)
    lines = _judgements(text, invalid_lines, shape)
    well_formed, malformed = (
        lines.filter("good"),
        lines.filter(~pl.col("good") & (pl.col("text") != "")),
    )
    multiline_rows = list(
        _spanning(malformed.filter("odd")["at"], well_formed["at"], lines["text"], shape)
    )
    faults = _faults(malformed, multiline_rows, invalid_lines, shape)
    complete_rows = [row for row in multiline_rows if invalid_lines.isdisjoint(row.lines)]
    cells = _parsed(well_formed["text"].str.join("\n").item().encode(), shape, well_formed.height)
    extra_cells = pl.DataFrame(
        [row.fields for row in complete_rows], schema=cells.schema, orient="row"
    )
    line_indices = pl.concat(
        [well_formed["at"], pl.Series([row.lines[0] for row in complete_rows], dtype=pl.Int64)]
    )
    order = line_indices.arg_sort()
    return TextRows(
        cells=blanks_to_null(pl.concat([cells, extra_cells])[order]),
        lines=line_indices[order] + first,
        torn=torn(
            (first + line_indices, reason, detail) for line_indices, reason, detail in faults
        ),
    )


def _judgements(text: str, wrong: Iterable[int], shape: Shape) -> pl.DataFrame:
    """Say of each line: how many `fields` has it, is it well `formed`, is a quote left `odd`."""
    line = pl.col("text")
    unquoted = line.str.replace_all(r'"[^"]*"', "")
    return (
        pl.DataFrame({"text": pl.Series([text]).str.split("\n").explode().str.strip_suffix("\r")})
        .with_columns(
            at=pl.int_range(pl.len()),
            formed=line.str.contains(_pattern(shape.separator)),
            fields=unquoted.str.count_matches(shape.separator, literal=True) + 1,
            odd=line.str.count_matches('"', literal=True) % 2 == 1,
        )
        .with_columns(wrong=pl.col("at").is_in(list(wrong)))
        .with_columns(
            good=pl.col("formed")
            & ~pl.col("wrong")
            & (pl.col("fields") == len(shape.names))
            & (line != "")
        )
    )


@dataclass(frozen=True, slots=True)
class _Spanning:
    """A row that spans lines: their indices, and its fields."""

    lines: range
    fields: list[str]


def _spanning(
    opens: pl.Series, good: pl.Series, texts: pl.Series, shape: Shape
) -> Iterator[_Spanning]:
    """Yield the rows that span lines.

    A line that opens a quote has an odd number of them, and so has the line that closes it.
    """
    preceding_counts = good.search_sorted(opens)
    position = 0
    while position + 1 < opens.len():
        start, end = opens[position], opens[position + 1]
        fields = None
        if preceding_counts[position] == preceding_counts[position + 1]:
            fields = _fields("\n".join(texts[start : end + 1]), shape.separator)
        if fields is not None and len(fields) == len(shape.names):
            yield _Spanning(range(start, end + 1), fields)
            position += 1
        position += 1


def _faults(
    rest: pl.DataFrame, spanning: Sequence[_Spanning], wrong: frozenset[int], shape: Shape
) -> Iterator[tuple[int, Reason, str]]:
    """Yield where each row that cannot be taken apart begins, and why it cannot."""
    joined_lines = {index for row in spanning for index in row.lines}
    for row in spanning:
        if not wrong.isdisjoint(row.lines):
            yield row.lines[0], Reason.BAD_ENCODING, NOT_UTF8
    for line in rest.filter(~pl.col("at").is_in(list(joined_lines))).iter_rows(named=True):
        if line["wrong"]:
            yield line["at"], Reason.BAD_ENCODING, NOT_UTF8
        elif not line["formed"]:
            yield line["at"], Reason.BAD_QUOTING, UNCLOSED
        else:
            detail = f"{line['fields']} fields where the header has {len(shape.names)}"
            yield line["at"], Reason.FIELD_COUNT, detail
