"""Rows of files of actions and of planted cases.

Rows of a file of actions, in the form in which clients send actions.

Rows of a file that declares planted cases: their keys, and when each was declared.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rollout.engine.files.files import read_text_rows
from rollout.engine.files.parse import ItemReader, SentItem
from rollout.engine.files.rejected_rows import RecordError
from rollout.engine.records.records import PlantedDeclaration, RejectedItem
from rollout.kernel.policy.evidence_sources import FileReading

REQUIRED_COLUMNS: Final = ("case_key", "lever", "action", "by", "at")
OPTIONAL_COLUMNS: Final = ("model_version", "permit", "revision")
SENT_NAMES: Final[Mapping[str, str]] = {"case_key": "key", "model_version": "version"}
"""Names in a sent action that differ from the columns of recorded files."""


def read_action_rows(path: Path, item_reader: ItemReader) -> Sequence[SentItem]:
    """Return the actions of a file: CSV, TSV, JSON lines or Parquet.

    Raises:
        RecordError: a column is missing or unknown, or a row can't be used; nothing is skipped.
        OSError: the file is missing.
    """
    rows = read_text_rows(path, FileReading())
    for fault in rows.unparsed.head(1).iter_rows(named=True):
        raise RecordError(path.name, fault["line"], None, fault["reason"], fault["detail"])
    _check_columns(path.name, rows.cells.columns)
    texts = [json.dumps(_build_item(row)).encode() for row in rows.cells.iter_rows(named=True)]
    items = item_reader.read_lines(texts) if texts else []
    for line, item in zip(rows.lines, items, strict=True):
        if isinstance(item, RejectedItem):
            raise RecordError(path.name, line, None, "action", f"{item.reason}; correct the row")
    return items


def _check_columns(file: str, columns: Sequence[str]) -> None:
    known_columns = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    unknown = [column for column in columns if column not in known_columns]
    for column in (*missing, *unknown):
        reason = "missing" if column in missing else "unknown"
        raise RecordError(file, None, column, reason, f"columns are {', '.join(known_columns)}")


def _build_item(row: Mapping[str, str | None]) -> Mapping[str, Any]:
    """Return a row in the form of a sent action."""
    item: dict[str, Any] = {
        SENT_NAMES.get(name, name): text for name, text in row.items() if text is not None
    }
    revision = item.get("revision", "")
    if revision.isascii() and revision.isdigit():
        item["revision"] = int(revision)
    return {"kind": "action", **item}


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
