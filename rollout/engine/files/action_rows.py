"""Rows of a file of actions, in the form in which clients send actions."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rollout.engine.files.files import read_whole_rows
from rollout.engine.files.mapped_rows import RecordError
from rollout.engine.files.parse import ItemReader, SentItem
from rollout.engine.records.records import RejectedItem

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
    rows = read_whole_rows(path, REQUIRED_COLUMNS, OPTIONAL_COLUMNS)
    texts = [json.dumps(_build_item(row)).encode() for row in rows.cells.iter_rows(named=True)]
    items = item_reader.read_lines(texts) if texts else []
    for line, item in zip(rows.lines, items, strict=True):
        if isinstance(item, RejectedItem):
            raise RecordError(path.name, line, None, "action", f"{item.reason}; correct the row")
    return items


def _build_item(row: Mapping[str, str | None]) -> Mapping[str, Any]:
    """Return a row in the form of a sent action."""
    item: dict[str, Any] = {
        SENT_NAMES.get(name, name): text for name, text in row.items() if text is not None
    }
    if re.fullmatch("[0-9]{1,18}", item.get("revision", "")):
        item["revision"] = int(item["revision"])
    return {"kind": "action", **item}
