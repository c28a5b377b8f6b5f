"""Rows that are set aside, and notes on rows that are used: how they are put into words.

While a file is read, what is wrong is kept by row: `row` (its index), `column` (our name), reason
and detail. At the end each gets the file's name, the physical line and the file's own name for
the column, as `Records.set_aside` and `Records.notes` hold them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rollout.tally.frames import REMARK_SCHEMA, UNREADABLE, Kind, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FAULT_SCHEMA = {"row": pl.Int64, "column": pl.String, "reason": pl.String, "detail": pl.String}
SHOWN = 60
"""Letters of a cell that a detail quotes."""


class RecordFault(ValueError):  # noqa: N818 - a fault is what the user is shown, with its place
    """A row, or a whole file, that cannot be read.

    `line` is the 1-based physical line (Parquet: row), None for a whole file; `column` is None
    for a whole row.
    """

    def __init__(
        self, file: str, line: int | None, column: str | None, reason: str, detail: str
    ) -> None:
        location = file if line is None else f"{file}:{line}"
        problem = reason if column is None else f"{column}: {reason}"
        super().__init__(f"{location}: {problem}: {detail}")
        self.file, self.line, self.column = file, line, column
        self.reason, self.detail = reason, detail


def faults(
    wrong: pl.Series, column: str | None, reason: Reason, says: str, text: pl.Series | None = None
) -> pl.DataFrame:
    """Return one fault for each row where `wrong` is true; null counts as false.

    The detail is `says`, after the cell itself where its `text` is given: `'bear' is no number`.
    """
    rows = wrong.arg_true()
    frame = pl.DataFrame({"row": rows.cast(pl.Int64)})
    detail = pl.lit(says)
    if text is not None:
        frame = frame.with_columns(cell=text.gather(rows).str.slice(0, SHOWN))
        detail = pl.format("'{}' {}", "cell", detail)
    return frame.select(
        "row", column=pl.lit(column, pl.String), reason=pl.lit(reason.value), detail=detail
    )


def no_faults() -> pl.DataFrame:
    """Return an empty frame of faults."""
    return pl.DataFrame(schema=FAULT_SCHEMA)


def first_per_row(found: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return one fault per row, the first that was found; a row is set aside once."""
    combined = pl.concat([no_faults(), *found])
    return combined.unique("row", keep="first", maintain_order=True).sort("row")


def left_over(rows: int, aside: pl.DataFrame) -> pl.Series:
    """Return the indices of the rows that no fault sets aside, in order."""
    return pl.int_range(rows, eager=True).filter(~_marked(rows, aside["row"]))


def no_remarks() -> pl.DataFrame:
    """Return an empty `set_aside` or `notes`."""
    return pl.DataFrame(schema=REMARK_SCHEMA)


def counted(remarks: pl.DataFrame, kind: Kind) -> dict[str, int]:
    """Count remarks on one kind of records by reason, in alphabetical order.

    >>> counted(no_remarks(), Kind.DECISIONS)
    {}
    """
    own_remarks = remarks.filter(pl.col("records") == kind.value)
    return dict(own_remarks.group_by("reason").len().sort("reason").iter_rows())


def in_order(remarks: pl.DataFrame) -> pl.DataFrame:
    """Sort remarks by kind, line, reason and column."""
    order = {kind.value: index for index, kind in enumerate(Kind)}
    kind = pl.col("records").replace_strict(order, return_dtype=pl.Int8)
    return remarks.sort(kind, "line", "reason", "column")


def stop_at_first(remarks: Sequence[pl.DataFrame]) -> None:
    """Raise RecordFault at the first remark on something that could not be read, if there is one.

    The order is that of the kinds, then of the lines.
    """
    unreadable = in_order(pl.concat(remarks)).filter(
        pl.col("reason").is_in([reason.value for reason in UNREADABLE])
    )
    for row in unreadable.head(1).iter_rows(named=True):
        raise RecordFault(row["file"], row["line"], row["column"], row["reason"], row["detail"])


def _marked(rows: int, at: pl.Series) -> pl.Series:
    marked = pl.repeat(value=False, n=rows, eager=True, dtype=pl.Boolean)
    return marked.scatter(at, values=True) if at.len() else marked
