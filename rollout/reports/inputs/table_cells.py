"""Texts in tables that people open in spreadsheets, where what begins with = + - @ is computed.

Keys and labels are others' words. What a spreadsheet would compute stands behind an apostrophe;
numbers stay numbers, and `said_in` gives back what was said.
"""

import re
from typing import Final

import polars as pl

COMPUTED: Final = r"^'*[=+\-@\t\r]"
NUMBER: Final = r"^[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"


def as_text(said: str) -> str:
    """Return a text as it is written into a table.

    >>> as_text("=1+1"), as_text("-4.5"), as_text("bear"), as_text("'=1")
    ("'=1+1", '-4.5', 'bear', "''=1")
    """
    is_formula = re.search(COMPUTED, said) and not re.fullmatch(NUMBER, said)
    return f"'{said}" if is_formula else said


def said_in(cell: str) -> str:
    """Return what was said from how it stands in a table.

    >>> said_in("'=1+1"), said_in("-4.5"), said_in("'tis"), said_in("''=1")
    ('=1+1', '-4.5', "'tis", "'=1")
    """
    return cell[1:] if cell.startswith("'") and re.search(COMPUTED, cell) else cell


def as_texts(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with its texts, and the names of its columns, as they are written."""
    texts = pl.col(pl.String)
    is_formula = texts.str.contains(COMPUTED) & ~texts.str.contains(NUMBER)
    escaped = pl.when(is_formula).then(pl.lit("'") + texts).otherwise(texts)
    return frame.with_columns(escaped.name.keep()).rename(as_text)
