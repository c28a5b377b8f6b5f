"""Rows of files: separated text with the physical line of each, JSON and Parquet."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from rollout.core.records.row_remarks import RemarkReason
from rollout.formats.records.rejected_rows import RecordError
from rollout.formats.records.text_rows import (
    NOT_UTF8,
    TextRows,
    build_unparsed_frame,
    check_unique_names,
    decode_lines,
    replace_blanks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


UNCLOSED_QUOTE = "a quote is never closed, or is inside a field that does not begin with one"


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Separator and column names of one file."""

    separator: str
    names: tuple[str, ...]


def read_delimited(content: bytes, *, file: str, separator: str) -> TextRows:
    """Read the rows of a file; its first line that is not blank is the header.

    Blank lines are skipped.

    Raises:
        RecordError: the header is missing or unreadable.
    """
    line, header, start = _find_header(content, file)
    layout = RowLayout(separator, _parse_header(header, separator, file, line))
    cells = _read_fast(content, layout, start) if line == 1 else None
    if cells is None:
        return _read_line_by_line(content[start:], layout, line + 1)
    lines = pl.int_range(2, 2 + cells.height, eager=True)
    return TextRows(replace_blanks(cells), lines, build_unparsed_frame([]))


def _find_header(content: bytes, file: str) -> tuple[int, bytes, int]:
    """Return the header's line number, its text, and the offset after it."""
    end = 0
    for number, line in enumerate(io.BytesIO(content), start=1):
        end += len(line)
        if line.strip(b"\r\n"):
            return number, line.rstrip(b"\r\n"), end
    raise RecordError(file, None, None, "header", "the file is empty; its first line names columns")


def _parse_header(header: bytes, separator: str, file: str, line: int) -> tuple[str, ...]:
    try:
        text = header.decode()
    except UnicodeDecodeError as error:
        detail = (
            f"the header is not UTF-8 ({error.reason}); save the file as UTF-8, or name its"
            " encoding: --encoding of `rollout init`, or `import` of the policy"
        )
        raise RecordError(file, line, None, RemarkReason.BAD_ENCODING, detail) from error
    fields = _split_fields(text, separator)
    if fields is None:
        raise RecordError(
            file, line, None, RemarkReason.BAD_QUOTING, f"the header: {UNCLOSED_QUOTE}"
        )
    if "\r" in text:
        detail = "lines end in CR alone; save the file with LF or CRLF"
        raise RecordError(file, line, None, "header", detail)
    if len(fields) == 1 and (separator_match := re.search(r"[;,\t|]", text)):
        separator_name = "tabs" if separator_match[0] == "\t" else f"'{separator_match[0]}'"
        detail = (
            f"columns are separated by {separator_name}; a .csv has commas and a .tsv has tabs,"
            " unless --delimiter of `rollout init` or `import` of the policy says otherwise"
        )
        raise RecordError(file, line, None, "header", detail)
    return tuple(check_unique_names(file, fields))


def _build_field_pattern(separator: str) -> str:
    """Return a regular expression for one well-formed field."""
    return f'(?:"(?:[^"]|"")*"|[^"{re.escape(separator)}]*)'


def _build_row_pattern(separator: str) -> str:
    """Return a regular expression for a row of any number of well-formed fields."""
    field = _build_field_pattern(separator)
    return f"^{field}(?:{re.escape(separator)}{field})*$"


def _split_fields(row: str, separator: str) -> list[str] | None:
    """Return the fields of a row, which can span lines; None if it is malformed."""
    if re.fullmatch(_build_row_pattern(separator), row) is None:
        return None
    fields = re.findall(f"(?:^|{re.escape(separator)})({_build_field_pattern(separator)})", row)
    return [field[1:-1].replace('""', '"') if field.startswith('"') else field for field in fields]


def _read_fast(content: bytes, layout: RowLayout, start: int) -> pl.DataFrame | None:
    """Read a file without quotes and with well-formed lines; return None for others.

    Polars rejects lines with too many fields. So if the total of separators from `start` on is
    right, no line has too few fields or is blank.
    """
    row_count = content.count(b"\n", start) + (start < len(content) and not content.endswith(b"\n"))
    expected = row_count * (len(layout.names) - 1)
    separator_count = content.count(layout.separator.encode(), start)
    if not expected or separator_count != expected or b'"' in content:
        return None
    try:
        return _parse_rows(content, layout, row_count, skip=1)
    except pl.exceptions.PolarsError:  # too many fields, or bytes that are not UTF-8
        return None


def _parse_rows(lines: bytes, layout: RowLayout, row_count: int, skip: int = 0) -> pl.DataFrame:
    """Return the cells of well-formed lines after the first `skip`."""
    if not row_count:
        return pl.DataFrame(schema=dict.fromkeys(layout.names, pl.String))
    return pl.read_csv(
        lines,
        has_header=False,
        skip_rows=skip,
        separator=layout.separator,
        schema=dict.fromkeys(layout.names, pl.String),
    )


def _read_line_by_line(body: bytes, layout: RowLayout, first_line: int) -> TextRows:
    """Read the well-formed rows and list the others; numbers start at `first_line`."""
    text, invalid_lines = decode_lines(body)
    lines = _check_lines(text, invalid_lines, layout)
    well_formed, malformed = (
        lines.filter("good"),
        lines.filter(~pl.col("good") & (pl.col("text") != "")),
    )
    multiline_rows = list(
        _find_multiline_rows(
            malformed.filter("odd")["at"], well_formed["at"], lines["text"], layout
        )
    )
    faults = _list_faults(malformed, multiline_rows, invalid_lines, layout)
    complete_rows = [row for row in multiline_rows if invalid_lines.isdisjoint(row.lines)]
    cells = _parse_rows(
        well_formed["text"].str.join("\n").item().encode(), layout, well_formed.height
    )
    extra_cells = pl.DataFrame(
        [row.fields for row in complete_rows], schema=cells.schema, orient="row"
    )
    line_indices = pl.concat(
        [well_formed["at"], pl.Series([row.lines[0] for row in complete_rows], dtype=pl.Int64)]
    )
    order = line_indices.arg_sort()
    return TextRows(
        cells=replace_blanks(pl.concat([cells, extra_cells])[order]),
        lines=line_indices[order] + first_line,
        unparsed=build_unparsed_frame(
            (first_line + line_indices, reason, detail) for line_indices, reason, detail in faults
        ),
    )


def _check_lines(text: str, invalid_lines: Iterable[int], layout: RowLayout) -> pl.DataFrame:
    """Return the lines with what is known about each.

    The columns are `fields` (their number), `formed` (quotes are right), `odd` (a quote is open),
    `wrong` (not UTF-8) and `good` (readable on its own).
    """
    line = pl.col("text")
    unquoted = line.str.replace_all(r'"[^"]*"', "")
    return (
        pl.DataFrame({"text": pl.Series([text]).str.split("\n").explode().str.strip_suffix("\r")})
        .with_columns(
            at=pl.int_range(pl.len()),
            formed=line.str.contains(_build_row_pattern(layout.separator)),
            fields=unquoted.str.count_matches(layout.separator, literal=True) + 1,
            odd=line.str.count_matches('"', literal=True) % 2 == 1,
        )
        .with_columns(wrong=pl.col("at").is_in(list(invalid_lines)))
        .with_columns(
            good=pl.col("formed")
            & ~pl.col("wrong")
            & (pl.col("fields") == len(layout.names))
            & (line != "")
        )
    )


@dataclass(frozen=True, slots=True)
class _MultilineRow:
    """A row that spans lines: line indices and fields."""

    lines: range
    fields: list[str]


def _find_multiline_rows(
    opening_lines: pl.Series, well_formed: pl.Series, texts: pl.Series, layout: RowLayout
) -> Iterator[_MultilineRow]:
    """Yield the rows that span lines.

    The opening and the closing line of a quote both have an odd number of quotes.
    """
    preceding_counts = well_formed.search_sorted(opening_lines)
    position = 0
    while position + 1 < opening_lines.len():
        start, end = opening_lines[position], opening_lines[position + 1]
        fields = None
        if preceding_counts[position] == preceding_counts[position + 1]:
            fields = _split_fields("\n".join(texts[start : end + 1]), layout.separator)
        if fields is not None and len(fields) == len(layout.names):
            yield _MultilineRow(range(start, end + 1), fields)
            position += 1
        position += 1


def _list_faults(
    malformed: pl.DataFrame,
    multiline_rows: Sequence[_MultilineRow],
    invalid_lines: frozenset[int],
    layout: RowLayout,
) -> Iterator[tuple[int, RemarkReason, str]]:
    """Yield first line, reason and detail of each unreadable row."""
    joined_lines = {index for row in multiline_rows for index in row.lines}
    for row in multiline_rows:
        if not invalid_lines.isdisjoint(row.lines):
            yield row.lines[0], RemarkReason.BAD_ENCODING, NOT_UTF8
    for line in malformed.filter(~pl.col("at").is_in(list(joined_lines))).iter_rows(named=True):
        if line["wrong"]:
            yield line["at"], RemarkReason.BAD_ENCODING, NOT_UTF8
        elif not line["formed"]:
            yield line["at"], RemarkReason.BAD_QUOTING, UNCLOSED_QUOTE
        else:
            detail = f"{line['fields']} fields where the header has {len(layout.names)}"
            yield line["at"], RemarkReason.FIELD_COUNT, detail


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
