"""Choose the rows of a file that hold one side's records, as `identified_by!=Computer vision`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rollout.formats.records.column_map import ColumnError

if TYPE_CHECKING:
    from rollout.formats.records.text_rows import TextRows


@dataclass(frozen=True, slots=True)
class RowCondition:
    """A column of a file, under its own name, that has a text, or another one."""

    column: str
    text: str
    is_equal: bool

    def __str__(self) -> str:
        return f"{self.column}{'=' if self.is_equal else '!='}{self.text}"


def parse_row_condition(text: str) -> RowCondition:
    """Read `COLUMN=TEXT` or `COLUMN!=TEXT`.

    Raises:
        ValueError: the text is neither.

    >>> parse_row_condition("by!=model").is_equal, parse_row_condition("by=a=b").text
    (False, 'a=b')
    """
    column, equals, value = text.partition("=")
    if not (equals and column.removesuffix("!") and value):
        raise ValueError(f"{text!r} chooses no rows; write COLUMN=TEXT or COLUMN!=TEXT")
    return RowCondition(column.removesuffix("!"), value, not column.endswith("!"))


def choose_rows(rows: TextRows, where: str, file: str) -> TextRows:
    """Return the rows that meet a condition; all of them for "".

    Raises:
        ColumnError: the file has no such column, or no row that meets the condition.
        ValueError: the text is no condition.
    """
    if not where:
        return rows
    condition = parse_row_condition(where)
    if condition.column not in rows.cells.columns:
        names = ", ".join(rows.cells.columns) or "no columns"
        raise ColumnError(
            [f"{file}: no column {condition.column!r} to choose rows by; found: {names}"]
        )
    is_equal = rows.cells[condition.column].eq_missing(condition.text)
    is_chosen = is_equal if condition.is_equal else ~is_equal
    if not is_chosen.any():
        raise ColumnError([f"{file}: no row has {condition}; correct the text"])
    return replace(
        rows,
        cells=rows.cells.filter(is_chosen),
        lines=rows.lines.filter(is_chosen),
        others=int((~is_chosen).sum()),
    )
