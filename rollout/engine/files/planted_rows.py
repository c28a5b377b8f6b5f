"""Rows of a file that declares planted cases: their keys, and when each was declared."""

from datetime import datetime
from pathlib import Path
from typing import Final

from rollout.engine.files.files import read_text_rows
from rollout.engine.files.mapped_rows import RecordError
from rollout.engine.records.records import PlantedDeclaration
from rollout.kernel.policy.evidence_sources import FileReading

COLUMNS: Final = ("case_key", "declared_at")


def read_planted_rows(path: Path) -> tuple[PlantedDeclaration, ...]:
    """Return the declarations of a file: CSV, TSV, JSON lines or Parquet.

    Raises:
        RecordError: a column is missing or unknown, or a row can't be used; nothing is skipped.
        OSError: the file is missing.
    """
    rows = read_text_rows(path, FileReading())
    for fault in rows.unparsed.head(1).iter_rows(named=True):
        raise RecordError(path.name, fault["line"], None, fault["reason"], fault["detail"])
    for column in sorted({*COLUMNS} ^ {*rows.cells.columns}):
        reason = "missing" if column in COLUMNS else "unknown"
        raise RecordError(path.name, None, column, reason, f"columns are {', '.join(COLUMNS)}")
    lines_by_key: dict[str, int] = {}
    declarations = []
    for line, row in zip(rows.lines, rows.cells.iter_rows(named=True), strict=True):
        declaration = _read_row(path.name, line, row)
        if declaration.key in lines_by_key:
            text = (
                f"{declaration.key} is declared in line {lines_by_key[declaration.key]}; remove one"
            )
            raise RecordError(path.name, line, "case_key", "duplicate", text)
        lines_by_key[declaration.key] = line
        declarations.append(declaration)
    return tuple(declarations)


def _read_row(file: str, line: int, row: dict[str, str | None]) -> PlantedDeclaration:
    key, text = row["case_key"], row["declared_at"]
    if not key:
        raise RecordError(file, line, "case_key", "missing-value", "name the case")
    try:
        declared_at = datetime.fromisoformat(text or "")
    except ValueError:
        declared_at = None
    if declared_at is None or declared_at.tzinfo is None:
        example = "write a time with its offset, such as 2026-11-01T08:00Z"
        raise RecordError(file, line, "declared_at", "unreadable-time", f"{text!r}; {example}")
    return PlantedDeclaration(key, declared_at)
