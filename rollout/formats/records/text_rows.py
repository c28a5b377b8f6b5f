"""Rows of a file as text, the first step for every format.

The reader of each format returns text cells with the physical line of each row, and lists the
malformed rows. Cells are interpreted later, by column.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.rejected_rows import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rollout.core.records.row_remarks import RemarkReason


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


def read_unpacked(path: Path) -> bytes:
    """Return the content of a file, unpacked if `.gz`.

    Raises:
        RecordError: the packed file is damaged.
        OSError: the file is missing or unreadable.
    """
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise RecordError(path.name, None, None, "damaged", f"not unpacked: {error}") from error
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
