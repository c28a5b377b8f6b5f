"""Predictions under several names of one version: the first received one of a case counts."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import polars as pl
from sqlalchemy import Row

PredictionKey = tuple[int, str]
Receipt = tuple[int, int]  # in microseconds
BEFORE_ALL = -(2**63)  # of a prediction without a time of its own


def find_first_receipts(rows: Iterable[Row[Any]]) -> dict[PredictionKey, Receipt]:
    """Return when the first revision of each prediction was received, and its own time."""
    receipts: dict[PredictionKey, Receipt] = {}
    for row in rows:
        own_time = BEFORE_ALL if row.at is None else row.at
        key, receipt = (row.case_id, row.version), (row.received_at, own_time)
        receipts[key] = min(receipts.get(key, receipt), receipt)
    return receipts


def select_first_received(
    rows: Collection[Row[Any]],
    receipts: Mapping[PredictionKey, Receipt],
    first_names: Mapping[str, str],
) -> list[Row[Any]]:
    """Return one prediction a case and version, of all its names the one received first.

    Of several that came in one batch it is the first by its time, as in a replay of files, then
    that of the version's first name, then of its older one. A sender could otherwise choose among
    answers after the human decision.
    """
    places = {name: place for place, name in enumerate(first_names, start=1)}
    ordered = sorted(
        rows,
        key=lambda row: (receipts[row.case_id, row.version], places.get(row.version, 0)),
    )
    selected: dict[PredictionKey, Row[Any]] = {}
    for row in ordered:
        selected.setdefault((row.case_id, first_names.get(row.version, row.version)), row)
    row_ids = {id(row) for row in selected.values()}
    return [row for row in rows if id(row) in row_ids]


def use_first_names(frame: pl.DataFrame, first_names: Mapping[str, str]) -> pl.DataFrame:
    """Return a frame with a column `version`, with the first name of each version."""
    return frame.with_columns(pl.col("version").replace(dict(first_names)))
