"""Rows as text: what every file is brought to first, whatever its format.

Each format's reader gives the cells as text and the physical line of each row, and sets aside the
rows that it cannot take apart. What a cell means is decided later, by its column.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.rejected_rows import RecordFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rollout.tally.frames import Reason


NOT_UTF8 = "bytes that are not UTF-8; save the file as UTF-8"


@dataclass(frozen=True, slots=True)
class TextRows:
    """The rows of one file.

    Args:
        cells: one text column per column of the file, in its order; an empty cell is null.
        lines: the physical line on which each row of `cells` begins.
        torn: `line`, `reason`, `detail` of the rows that could not be taken apart.
    """

    cells: pl.DataFrame
    lines: pl.Series
    torn: pl.DataFrame

    @property
    def count(self) -> int:
        """Number of rows that the file holds."""
        return self.lines.len() + self.torn.height


def torn(rows: Iterable[tuple[int, Reason, str]]) -> pl.DataFrame:
    """Build `TextRows.torn` from (line, reason, detail)."""
    schema = {"line": pl.Int64, "reason": pl.String, "detail": pl.String}
    return pl.DataFrame(
        [(line, reason.value, detail) for line, reason, detail in rows], schema=schema, orient="row"
    ).sort("line")


def unpacked(path: Path) -> bytes:
    """Return the bytes of a file, of a `.gz` what is packed in it, without a byte order mark.

    Raises:
        RecordFault: the packed file is damaged.
        OSError: there is no such file, or it may not be read.
    """
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise RecordFault(path.name, None, None, "damaged", f"not unpacked: {error}") from error
    return content.removeprefix(b"\xef\xbb\xbf")


def decoded(content: bytes) -> tuple[str, frozenset[int]]:
    """Return the text and the indices of its lines that are not UTF-8, U+FFFD for their bytes."""
    if is_text(content):
        return content.decode(), frozenset()
    invalid_lines = (index for index, line in enumerate(content.split(b"\n")) if not is_text(line))
    return content.decode(errors="replace"), frozenset(invalid_lines)


def is_text(content: bytes) -> bool:
    """Say whether the bytes are UTF-8."""
    try:
        return content.isascii() or content.decode() is not None
    except UnicodeDecodeError:
        return False


def blanks_to_null(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the cells with null for every one that is empty or holds white space alone."""
    # A header may hold `*` or `^a$`, which Polars takes for patterns wherever a column is named
    # in an expression, behind the methods of a series too; so each is worked on without its name.
    return pl.DataFrame({name: _filled(cells.get_column(name).alias("")) for name in cells.columns})


def _filled(column: pl.Series) -> pl.Series:
    is_blank = column.str.contains(r"^\s*$")
    return column.set(is_blank, None) if is_blank.any() else column


def unique_names(file: str, names: Sequence[str]) -> list[str]:
    """Return the names of the columns, `column N` where the header is blank.

    Raises:
        RecordFault: two columns have one name.
    """
    column_names = [name.strip() or f"column {index}" for index, name in enumerate(names, start=1)]
    duplicates = sorted({name for name in column_names if column_names.count(name) > 1})
    if duplicates:
        detail = f"each column needs its own name, found twice: {', '.join(duplicates)}"
        raise RecordFault(file, 1, None, "header", detail)
    return column_names
