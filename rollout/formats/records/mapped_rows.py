"""The rows of one file under our names, whatever the file calls its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.column_map import Arrangement, FileColumns, arrange
from rollout.formats.records.rejected_rows import no_remarks
from rollout.tally.frames import ATTRIBUTE, REMARK_SCHEMA, Kind, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollout.formats.records.text_rows import TextRows


@dataclass(frozen=True, slots=True)
class NamedRows:
    """Text cells under our names, `value:<lever>` and `attribute:<name>` among them.

    Args:
        kind: what the file holds.
        file: its name, without folders.
        cells: one text column for each name that the file has or the map gives; blank = null.
        lines: the physical line of each row.
        names: where each of our names stands in the file.
    """

    kind: Kind
    file: str
    cells: pl.DataFrame
    lines: pl.Series
    names: Arrangement

    def text(self, name: str) -> pl.Series:
        """Return the cells of one of our names, all null where the file has no such column."""
        if name in self.cells.columns:
            return self.cells[name]
        return pl.repeat(None, self.cells.height, dtype=pl.String, eager=True).alias(name)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of cases that the file has, with prefix."""
        return tuple(name for name in self.cells.columns if name.startswith(ATTRIBUTE))

    def only(self, rows: pl.Series) -> NamedRows:
        """Return some of the rows, by their indices."""
        return NamedRows(self.kind, self.file, self.cells[rows], self.lines[rows], self.names)

    def remarks(self, faults: pl.DataFrame) -> pl.DataFrame:
        """Put faults into the form of `Records.set_aside` and `Records.notes`."""
        if not faults.height:
            return no_remarks()
        file_columns = {
            name: self.names.theirs(name) for name in faults["column"].unique().drop_nulls()
        }
        return faults.select(
            records=pl.lit(self.kind.value),
            file=pl.lit(self.file),
            line=self.lines.gather(faults["row"]),
            column=pl.col("column").replace(file_columns),
            reason=pl.col("reason"),
            detail=pl.col("detail"),
            case_key=self.text("case_key").gather(faults["row"]),
        ).cast(REMARK_SCHEMA)  # type: ignore[arg-type]


def named_rows(
    kind: Kind, file: str, rows: TextRows, columns: FileColumns, levers: Sequence[str]
) -> NamedRows:
    """Bring the cells of a file under our names.

    Raises:
        ColumnFault: a mapped column is not there, or a required one is missing.
    """
    if not rows.cells.width and not rows.lines.len():  # JSON lines without rows name no columns
        return NamedRows(kind, file, rows.cells, rows.lines, Arrangement({}, {}, ()))
    layout = arrange(kind, file, rows.cells.columns, columns, levers)
    cells = pl.DataFrame(
        {
            our_name: rows.cells.get_column(file_column)
            for our_name, file_column in layout.columns.items()
        }
    )
    cells = cells.with_columns(
        pl.lit(text).alias(our_name) for our_name, text in layout.constants.items()
    )
    return NamedRows(kind, file, cells, rows.lines, layout)


def torn_remarks(kind: Kind, file: str, rows: TextRows) -> pl.DataFrame:
    """Return the rows that could not be taken apart in the form of `Records.set_aside`."""
    return rows.torn.select(
        pl.lit(kind.value).alias("records"),
        pl.lit(file).alias("file"),
        "line",
        pl.lit(None, pl.String).alias("column"),
        "reason",
        "detail",
        pl.lit(None, pl.String).alias("case_key"),
    )


def ignored_remarks(rows: NamedRows) -> pl.DataFrame:
    """Return notes on the columns that nothing uses."""
    detail = (
        f"nothing uses this column; list it under `{rows.kind}: {{attributes: […]}}` to keep it"
    )
    ignored = [
        (rows.kind.value, rows.file, None, name, Reason.IGNORED.value, detail, None)
        for name in rows.names.ignored
    ]
    return pl.DataFrame(ignored, schema=REMARK_SCHEMA, orient="row")
