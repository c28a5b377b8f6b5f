"""Stored decisions: which one counts, and which are from no source of evidence."""

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import polars as pl
from sqlalchemy import Row

from rollout.core.policy.evidence_sources import ACCOUNT, NOT_NAMED, OWN_PREDICTION, UNNAMED
from rollout.tally.frames import UNSOURCED_SCHEMA


def find_source_fault(row: Row[Any], own_predictions: AbstractSet[tuple[int, str]]) -> str:
    """Return why a decision is from no source of evidence, or ""."""
    if row.source == UNNAMED:
        return NOT_NAMED
    if row.source == ACCOUNT and (row.case_id, row.sender) in own_predictions:
        return OWN_PREDICTION
    return ""


def build_unsourced(keys: Mapping[int, str], rows: Iterable[tuple[Row[Any], str]]) -> pl.DataFrame:
    """Return decisions of no source of evidence as a frame."""
    values = [
        (keys[row.case_id], row.reviewer, row.sender, reason)
        for row, reason in rows
        if row.case_id in keys
    ]
    return pl.DataFrame(values, schema=UNSOURCED_SCHEMA, orient="row")


def find_first_decisions(rows: Iterable[Row[Any]]) -> dict[int, int]:
    """Return by case when a review task of it was first decided, in microseconds."""
    first_decisions: dict[int, int] = {}
    for row in rows:
        if row.review is not None:
            first = first_decisions.get(row.case_id, row.received_at)
            first_decisions[row.case_id] = min(first, row.received_at)
    return first_decisions


def pick_decisions(rows: Iterable[Row[Any]]) -> Collection[Row[Any]]:
    """Return each reviewer's decision on a case, preferably from a review task."""
    rows_by_key: dict[tuple[Any, ...], Row[Any]] = {}
    for row in rows:
        previous = rows_by_key.get((row.case_id, row.reviewer))
        if previous is None or previous.review is None or row.review is not None:
            rows_by_key[row.case_id, row.reviewer] = row
    return rows_by_key.values()
