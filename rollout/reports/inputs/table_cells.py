"""Escaping of table texts that a spreadsheet would run as formulas (= + - @).

Keys and labels are untrusted. Formulas get an apostrophe in front; numbers are unchanged, and
`unescape_cell` returns the original.
"""

import re
from typing import Final

import polars as pl

FORMULA_PATTERN: Final = r"^'*[=+\-@\t\r]"
NUMBER_PATTERN: Final = r"^[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"


def escape_cell(text: str) -> str:
    """Return a text with an apostrophe in front if it is a formula.

    >>> escape_cell("=1+1"), escape_cell("-4.5"), escape_cell("bear"), escape_cell("'=1")
    ("'=1+1", '-4.5', 'bear', "''=1")
    """
    is_formula = re.search(FORMULA_PATTERN, text) and not re.fullmatch(NUMBER_PATTERN, text)
    return f"'{text}" if is_formula else text


def unescape_cell(cell: str) -> str:
    """Return the original text of an escaped cell.

    >>> unescape_cell("'=1+1"), unescape_cell("-4.5"), unescape_cell("'tis"), unescape_cell("''=1")
    ('=1+1', '-4.5', "'tis", "'=1")
    """
    return cell[1:] if cell.startswith("'") and re.search(FORMULA_PATTERN, cell) else cell


def escape_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with escaped texts and column names."""
    texts = pl.col(pl.String)
    is_formula = texts.str.contains(FORMULA_PATTERN) & ~texts.str.contains(NUMBER_PATTERN)
    escaped = pl.when(is_formula).then(pl.lit("'") + texts).otherwise(texts)
    return frame.with_columns(escaped.name.keep()).rename(escape_cell)
