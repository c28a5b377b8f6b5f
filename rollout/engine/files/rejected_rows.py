"""Build and select the remarks on rejected rows and notes on used rows.

During reading, a fault has `row` (index), `column` (our name), reason and detail. At the end it
becomes a remark with the file name, the physical line and the file's own column name, as in
`RecordFrames.rejected` and `RecordFrames.notes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.frames import REMARK_SCHEMA, RecordKind
from rollout.engine.records.records import UNREADABLE_REASONS, RemarkReason
from rollout.kernel.errors import RolloutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


FAULT_SCHEMA = {"row": pl.Int64, "column": pl.String, "reason": pl.String, "detail": pl.String}
MAX_QUOTED_LETTERS = 60
"""Characters of a cell that a detail quotes."""


class RecordError(RolloutError, ValueError):
    """An unreadable row or file.

    `line` is the physical line from 1 (Parquet: row), None for a whole file; `column` is None for
    a whole row.
    """

    def __init__(
        self, file: str, line: int | None, column: str | None, reason: str, detail: str
    ) -> None:
        location = file if line is None else f"{file}:{line}"
        problem = reason if column is None else f"{column}: {reason}"
        super().__init__(f"{location}: {problem}: {detail}")
        self.file, self.line, self.column = file, line, column
        self.reason, self.detail = reason, detail


def build_faults(
    is_wrong: pl.Series,
    column: str | None,
    reason: RemarkReason,
    message: str,
    cells: pl.Series | None = None,
) -> pl.DataFrame:
    """Return one fault for each row where `is_wrong` is true; null counts as false.

    The detail is `message`, after the quoted cell if `cells` is given: `'bear' is no number`.
    """
    rows = is_wrong.arg_true()
    frame = pl.DataFrame({"row": rows.cast(pl.Int64)})
    detail = pl.lit(message)
    if cells is not None:
        frame = frame.with_columns(cell=cells.gather(rows).str.slice(0, MAX_QUOTED_LETTERS))
        detail = pl.format("'{}' {}", "cell", detail)
    return frame.select(
        "row", column=pl.lit(column, pl.String), reason=pl.lit(reason.value), detail=detail
    )


def build_empty_faults() -> pl.DataFrame:
    """Return an empty frame of faults."""
    return pl.DataFrame(schema=FAULT_SCHEMA)


def select_first_per_row(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return the first fault of each row, because a row is rejected once."""
    combined = pl.concat([build_empty_faults(), *frames])
    return combined.unique("row", keep="first", maintain_order=True).sort("row")


def list_remaining_rows(rows: int, rejected: pl.DataFrame) -> pl.Series:
    """Return the indices of the rows that are not rejected."""
    return pl.int_range(rows, eager=True).filter(~_mark_rows(rows, rejected["row"]))


def build_empty_remarks() -> pl.DataFrame:
    """Return an empty frame of remarks."""
    return pl.DataFrame(schema=REMARK_SCHEMA)


def count_by_reason(remarks: pl.DataFrame, kind: RecordKind) -> dict[str, int]:
    """Count remarks on one kind of records by reason, in alphabetical order.

    >>> count_by_reason(build_empty_remarks(), RecordKind.DECISIONS)
    {}
    """
    own_remarks = remarks.filter(pl.col("records") == kind.value)
    return dict(own_remarks.group_by("reason").len().sort("reason").iter_rows())


def sort_remarks(remarks: pl.DataFrame) -> pl.DataFrame:
    """Sort remarks by kind, line, reason and column."""
    order = {kind.value: index for index, kind in enumerate(RecordKind)}
    kind = pl.col("records").replace_strict(order, return_dtype=pl.Int8)
    return remarks.sort(kind, "line", "reason", "column")


def raise_first_unreadable(remarks: Sequence[pl.DataFrame]) -> None:
    """Raise RecordError for the first unreadable row by kind and line, if any."""
    unreadable = sort_remarks(pl.concat(remarks)).filter(
        pl.col("reason").is_in([reason.value for reason in UNREADABLE_REASONS])
    )
    for row in unreadable.head(1).iter_rows(named=True):
        raise RecordError(row["file"], row["line"], row["column"], row["reason"], row["detail"])


def _mark_rows(rows: int, indices: pl.Series) -> pl.Series:
    marked = pl.repeat(value=False, n=rows, eager=True, dtype=pl.Boolean)
    return marked.scatter(indices, values=True) if indices.len() else marked
