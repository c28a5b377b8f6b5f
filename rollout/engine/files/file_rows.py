"""Rows of a file as text, the first step for every format, and the recognition of its encoding.

The reader of each format (separated text, JSON lines, Parquet) returns text cells with the physical
line of each row, and lists the malformed rows. Cells are interpreted later, by column.

A text file is converted to UTF-8. Every file is valid Latin-1, so this encoding is only recognized
by its letters: each byte above ASCII is a Western European letter beside an ASCII letter, or a sign
that is not inside a word. Bytes 80 to 9F are letters in other encodings (Mac Roman, code page 850),
so as letters they are not recognized.

Lines of separated text that are no rows are listed apart: blank ones, a repeated header, `sep=;`,
totals.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from rollout.engine.files.mapped_rows import RecordError
from rollout.engine.records.records import RemarkReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path


NOT_UTF8 = "bytes that are not UTF-8; save the file as UTF-8"


SKIPPED_SCHEMA = {"line": pl.Int64(), "detail": pl.String()}


@dataclass(frozen=True, slots=True)
class TextRows:
    """The rows of one file.

    Attributes:
        cells: text columns in the order of the file; an empty cell is null.
        lines: the first physical line of each row of `cells`.
        unparsed: `line`, `reason` and `detail` of the malformed rows.
        others: number of rows that were not chosen.
        skipped: `line` and `detail` of lines that are no rows, such as totals.
    """

    cells: pl.DataFrame
    lines: pl.Series
    unparsed: pl.DataFrame
    others: int = 0
    skipped: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SKIPPED_SCHEMA))

    @property
    def count(self) -> int:
        """Number of rows in the file, without those not chosen."""
        return self.lines.len() + self.unparsed.height


def build_unparsed_frame(rows: Iterable[tuple[int, RemarkReason, str]]) -> pl.DataFrame:
    """Build `TextRows.unparsed` from (line, reason, detail)."""
    schema = {"line": pl.Int64, "reason": pl.String, "detail": pl.String}
    return pl.DataFrame(
        [(line, reason.value, detail) for line, reason, detail in rows], schema=schema, orient="row"
    ).sort("line")


ARCHIVE_MARKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")
"""How workbooks, zip archives and files packed with gzip begin."""
ARCHIVE_TEXT: Final = (
    "it is a workbook or an archive; save its sheet, or the file in it, as CSV; one packed with"
    " gzip ends in .csv.gz"
)


def read_unpacked(path: Path) -> bytes:
    """Return the content of a file, unpacked if `.gz`.

    Raises:
        RecordError: the packed file is damaged, or a spreadsheet or archive.
        OSError: the file is missing or unreadable.
    """
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise RecordError(path.name, None, None, "damaged", f"not unpacked: {error}") from error
    if content.startswith(ARCHIVE_MARKS):
        raise RecordError(path.name, None, None, "no text", ARCHIVE_TEXT)
    return content


def decode_lines(content: bytes) -> tuple[str, frozenset[int]]:
    """Return the text, with U+FFFD for bad bytes, and the indices of their lines."""
    if is_utf8(content):
        return content.decode(), frozenset()
    invalid_lines = (index for index, line in enumerate(content.split(b"\n")) if not is_utf8(line))
    return content.decode(errors="replace"), frozenset(invalid_lines)


def is_utf8(content: bytes) -> bool:
    """Return whether the bytes are UTF-8."""
    try:
        return content.isascii() or content.decode() is not None
    except UnicodeDecodeError:
        return False


def replace_blanks(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the cells with null for each empty or blank one."""
    # A header can have `*` or `^a$`, which Polars treats as patterns in expressions, even inside
    # methods of a series; so each column is processed without its name.
    return pl.DataFrame(
        {name: _replace_column_blanks(cells.get_column(name).alias("")) for name in cells.columns}
    )


def _replace_column_blanks(column: pl.Series) -> pl.Series:
    is_blank = column.str.contains(r"^\s*$")
    return column.set(is_blank, None) if is_blank.any() else column


def check_unique_names(file: str, names: Sequence[str]) -> list[str]:
    """Return the column names, `column N` for a blank header.

    Raises:
        RecordError: two columns have the same name.
    """
    column_names = [name.strip() or f"column {index}" for index, name in enumerate(names, start=1)]
    duplicates = sorted({name for name in column_names if column_names.count(name) > 1})
    if duplicates:
        detail = f"each column needs its own name, found twice: {', '.join(duplicates)}"
        raise RecordError(file, 1, None, "header", detail)
    return column_names


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
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated!r} is written twice")
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


BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
ZERO_SHARE = 0.4
"""Share of zero bytes at even or odd positions from which a text is UTF-16."""
_SAMPLE_BYTES = 65536
_LETTERS = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüý"
_SIGNS = "°§€£µ²³ºª«»¿¡–—‘’“”\u00a0"
_WESTERN = re.compile(
    f"(?<![A-Za-z])[{_SIGNS}]|[{_SIGNS}](?![A-Za-z])"
    f"|(?<=[A-Za-z])[{_LETTERS}]{{1,2}}|[{_LETTERS}]{{1,2}}(?=[A-Za-z])"
)
SINGLE_BYTE = ("latin-1", "cp1252")
"""Encodings that are recognized by their letters; nothing in the file proves them."""


def recognize_encoding(content: bytes) -> str:
    """Return the codec of a text; `utf-8` also for damaged text that no codec explains."""
    for mark, encoding in BOMS.items():
        if content.startswith(mark):
            return encoding
    sample = content[:_SAMPLE_BYTES]
    if sample and b"\0" in sample:
        if sample[1::2].count(0) > ZERO_SHARE * len(sample) / 2:
            return "utf-16-le"
        if sample[::2].count(0) > ZERO_SHARE * len(sample) / 2:
            return "utf-16-be"
    return "utf-8" if is_utf8(content) else _recognize_single_byte(content)


def _recognize_single_byte(content: bytes) -> str:
    if not content.decode(errors="ignore").isascii():  # UTF-8 with damaged rows
        return "utf-8"
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return "utf-8"
    if not _WESTERN.sub("", text).isascii():
        return "utf-8"
    return "cp1252" if re.search(rb"[\x80-\x9f]", content) else "latin-1"


def convert_to_utf8(content: bytes, encoding: str | None, file: str) -> bytes:
    """Return a text in UTF-8 without byte order mark; bytes that are not UTF-8 stay.

    Raises:
        RecordError: the text is not in `encoding`.
    """
    if encoding is None or codecs.lookup(encoding).name == "utf-8":
        return content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode(encoding).removeprefix("\ufeff").encode()
    except UnicodeError as error:
        detail = f"the file is not {encoding}; name its encoding with --encoding"
        raise RecordError(file, None, None, RemarkReason.BAD_ENCODING, detail) from error


BLANK, HEADER, TOTALS, SEPARATOR = "no value", "a repeated header", "totals", "the separator"
_TOTAL_WORDS = ("total", "totals", "grand total", "subtotal", "sum", "total:", "gesamt", "summe")
_SEPARATOR_LINE = re.compile(rb'^\xef\xbb\xbf?"?sep=(.)"?\r?\n|^"?sep=(.)"?\r?\n', re.IGNORECASE)


def cut_separator_line(content: bytes) -> tuple[bytes, str | None]:
    r"""Return the content with a blank first line instead of `sep=;`, and the separator.

    >>> cut_separator_line(b"sep=;\na;b\n"), cut_separator_line(b"a;b\n")
    ((b'\na;b\n', ';'), (b'a;b\n', None))
    """
    line = _SEPARATOR_LINE.match(content)
    if line is None:
        return content, None
    return b"\n" + content[line.end() :], (line[1] or line[2]).decode(errors="replace")


def add_separator_line(rows: TextRows) -> TextRows:
    """Return the rows with the first line among the skipped ones."""
    line = pl.DataFrame({"line": [1], "detail": [SEPARATOR]}, schema=rows.skipped.schema)
    return replace(rows, skipped=pl.concat([line, rows.skipped]))


def skip_lines(rows: TextRows) -> TextRows:
    """Return the rows without lines that are none; those are listed in `skipped`.

    The first cell tells: it is blank, the column's name, or a word for totals.
    """
    if not rows.cells.width or not rows.cells.height:
        return rows
    cells = rows.cells
    first, others = cells.to_series(0).alias(""), cells.get_columns()[1:]
    is_doubtful = first.is_null() | (first == cells.columns[0]).fill_null(value=False)
    is_doubtful |= first.str.to_lowercase().is_in(_TOTAL_WORDS).fill_null(value=False)
    places = is_doubtful.arg_true()
    if not places.len():
        return rows
    details = [_describe_line(cells.row(place), cells.columns) for place in places]
    skipped = pl.DataFrame({"line": rows.lines.gather(places), "detail": details}).drop_nulls()
    if not skipped.height or not others:
        return rows
    is_row = ~rows.lines.is_in(skipped["line"].implode())
    return replace(
        rows, cells=cells.filter(is_row), lines=rows.lines.filter(is_row), skipped=skipped
    )


def _describe_line(texts: tuple[str | None, ...], names: list[str]) -> str | None:
    """Return why a line is no row, or None."""
    first, *others = texts
    if first is None:
        return BLANK if not any(others) else None
    if first == names[0]:
        is_header = all(text in {name, None} for text, name in zip(texts, names, strict=True))
        return HEADER if is_header else None
    return TOTALS if 2 * sum(text is None for text in others) >= len(others) else None
