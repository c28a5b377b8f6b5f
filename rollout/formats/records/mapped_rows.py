"""Rows of one file under our column names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from rollout.core.records.row_remarks import RemarkReason
from rollout.formats.records.column_layout import ColumnLayout, arrange_columns
from rollout.formats.records.outcome_values import expand_values
from rollout.formats.records.rejected_rows import build_empty_remarks
from rollout.tally.frames import ATTRIBUTE_PREFIX, REMARK_SCHEMA, RecordKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollout.formats.records.column_map import FileColumns
    from rollout.formats.records.text_rows import TextRows


@dataclass(frozen=True, slots=True)
class MappedRows:
    """Text cells under our names, including `value:<lever>` and `attribute:<name>`.

    Attributes:
        file: file name without folders.
        cells: a text column for each name in the file or the map; blank cells are null.
        lines: the physical line of each row.
        remarks: on what was cleared from the cells, as rows of `RecordFrames.notes`.
    """

    kind: RecordKind
    file: str
    cells: pl.DataFrame
    lines: pl.Series
    layout: ColumnLayout
    remarks: pl.DataFrame = field(default_factory=build_empty_remarks)

    def get_texts(self, name: str) -> pl.Series:
        """Return a column by our name; all null if the file lacks it."""
        if name in self.cells.columns:
            return self.cells[name]
        return pl.repeat(None, self.cells.height, dtype=pl.String, eager=True).alias(name)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the case attributes in the file, with prefix."""
        return tuple(name for name in self.cells.columns if name.startswith(ATTRIBUTE_PREFIX))

    def select_rows(self, rows: pl.Series) -> MappedRows:
        """Return the rows at the given indices."""
        return replace(self, cells=self.cells[rows], lines=self.lines[rows])

    def build_remarks(self, faults: pl.DataFrame) -> pl.DataFrame:
        """Convert faults to rows of `RecordFrames.rejected` and `.notes`."""
        if not faults.height:
            return build_empty_remarks()
        file_columns = {
            name: self.layout.get_file_column(name)
            for name in faults["column"].unique().drop_nulls()
        }
        return faults.select(
            records=pl.lit(self.kind.value),
            file=pl.lit(self.file),
            line=self.lines.gather(faults["row"]),
            column=pl.col("column").replace(file_columns),
            reason=pl.col("reason"),
            detail=pl.col("detail"),
            case_key=self.get_texts("case_key").gather(faults["row"]),
        ).cast(REMARK_SCHEMA)  # type: ignore[arg-type]


def map_rows(
    kind: RecordKind,
    file: str,
    rows: TextRows,
    columns: FileColumns,
    levers: Sequence[str],
    outcomes: Sequence[str] = (),
) -> MappedRows:
    """Return the rows of a file under our column names.

    Raises:
        ColumnError: a mapped or required column is missing, or a value's outcome is unknown.
    """
    if not rows.cells.width and not rows.lines.len():  # JSON lines without rows have no columns
        return MappedRows(kind, file, rows.cells, rows.lines, ColumnLayout({}, {}, ()))
    file_cells = rows.cells
    if kind is RecordKind.OUTCOMES:
        file_cells = expand_values(file, file_cells, outcomes)
    layout = arrange_columns(kind, file, file_cells.columns, columns, levers, outcomes)
    cells = pl.DataFrame(
        {
            our_name: file_cells.get_column(file_column)
            for our_name, file_column in layout.columns.items()
        }
    )
    cells = cells.with_columns(
        pl.lit(text).alias(our_name) for our_name, text in layout.constants.items()
    )
    return MappedRows(kind, file, cells, rows.lines, layout)


def list_unparsed_rows(kind: RecordKind, file: str, rows: TextRows) -> pl.DataFrame:
    """Return the malformed rows as rows of `RecordFrames.rejected`."""
    return rows.unparsed.select(
        pl.lit(kind.value).alias("records"),
        pl.lit(file).alias("file"),
        "line",
        pl.lit(None, pl.String).alias("column"),
        "reason",
        "detail",
        pl.lit(None, pl.String).alias("case_key"),
    )


def list_ignored_columns(rows: MappedRows) -> pl.DataFrame:
    """Return a note for each unused column."""
    detail = (
        f"this column is not used; to keep it, list it under `{rows.kind}: {{attributes: […]}}`"
    )
    ignored = [
        (rows.kind.value, rows.file, None, name, RemarkReason.IGNORED.value, detail, None)
        for name in rows.layout.ignored
    ]
    return pl.DataFrame(ignored, schema=REMARK_SCHEMA, orient="row")
