"""Stored decisions and outcomes: which one counts, and which are from no source of evidence."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import Row

from rollout.core.policy.evidence_sources import ACCOUNT, NOT_NAMED, OWN_PREDICTION, UNNAMED
from rollout.tally.frames import UNSOURCED_SCHEMA


def find_source_fault(row: Row[Any], own_predictions: AbstractSet[tuple[int, str]]) -> str:
    """Return why a decision or outcome is from no source of evidence, or ""."""
    kind = get_source_kind(row)
    if kind == UNNAMED:
        return NOT_NAMED
    if kind == ACCOUNT and (row.case_id, row.sender) in own_predictions:
        return OWN_PREDICTION
    return ""


def get_source_kind(row: Row[Any]) -> str | None:
    """Return the kind of a decision's or outcome's source; None before sources.

    The column `source` of an outcome is its sender's own text.
    """
    kind: str | None = row.source_kind if "source_kind" in row._fields else row.source
    return kind


def pick_harm(rows: Sequence[Row[Any]], faults: Sequence[str]) -> str | None:
    """Return the harm of a case's outcome, given its revisions in order.

    The newest revision holds, but one of no source takes back no harm.
    """
    for row, fault in zip(reversed(rows), reversed(faults), strict=True):
        if row.harm is not None or not fault:
            harm: str | None = row.harm
            return harm
    return None


def build_unsourced(keys: Mapping[int, str], rows: Iterable[tuple[Row[Any], str]]) -> pl.DataFrame:
    """Return decisions of no source of evidence as a frame."""
    values = [
        (keys[row.case_id], row.reviewer, row.sender, reason)
        for row, reason in rows
        if row.case_id in keys
    ]
    return pl.DataFrame(values, schema=UNSOURCED_SCHEMA, orient="row")


def find_first_decisions(rows: Iterable[Row[Any]]) -> dict[int, datetime]:
    """Return by case when a review task of it was first decided."""
    first_decisions: dict[int, datetime] = {}
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
