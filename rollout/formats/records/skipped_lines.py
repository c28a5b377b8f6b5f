"""Lines of separated text that are no rows: blank ones, a repeated header, `sep=;`, totals."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from rollout.formats.records.text_rows import TextRows

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
    blanks = sum(text is None for text in others)
    return TOTALS if 2 * blanks >= len(others) else None
