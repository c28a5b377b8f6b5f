"""Texts in cells of CSV files: none is a formula when a spreadsheet opens the file.

A text that begins like a formula gets an apostrophe in front, and so does one that has apostrophes
before such a beginning, so that each cell has one original text. Signed numbers stay as they are.
The patterns are those of `re` and of Polars alike; frames are escaped where they are written.
"""

import re
from typing import Final

FORMULA_PATTERN: Final = r"^'*[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]"
"""The last four are full-width + - = @, which spreadsheets with an East Asian locale compute."""
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
