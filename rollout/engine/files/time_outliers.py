"""Times that are far from all others, as of a clock that was reset; they shape no draft."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rollout.engine.evidence.frames import RecordFrames


MAX_DISTANCE = timedelta(days=5 * 365.25)
MAX_NAMED = 4


@dataclass(frozen=True, slots=True)
class TimeOutliers:
    """The times of one column that lie far from the median, or in the future.

    Attributes:
        column: what the times are of.
        median: of all times; if it is in the future itself, the future is no outlier.
        rows: columns case_key and at.
    """

    column: str
    median: datetime
    rows: pl.DataFrame


def list_outliers(records: RecordFrames, now: datetime | None) -> list[TimeOutliers]:
    """Return the outliers of cases and of decisions, where there are any."""
    columns = {
        "cases occurred": records.cases.select("case_key", at="occurred_at"),
        "decisions were made": records.decisions.select("case_key", "at"),
    }
    each = (_find_in_column(column, rows.drop_nulls(), now) for column, rows in columns.items())
    return [outliers for outliers in each if outliers is not None]


def _find_in_column(column: str, rows: pl.DataFrame, now: datetime | None) -> TimeOutliers | None:
    if not rows.height:
        return None
    median = cast("datetime", rows["at"].sort()[rows.height // 2])
    is_outlier = (pl.col("at") - median).abs() > MAX_DISTANCE
    if now is not None and median <= now:
        is_outlier |= pl.col("at") > now
    outliers = rows.filter(is_outlier).sort("at", "case_key")
    return TimeOutliers(column, median, outliers) if outliers.height else None


def clear_outliers(records: RecordFrames, now: datetime | None) -> RecordFrames:
    """Return the records without the times that lie far from all others."""
    cleared = records
    for outliers in list_outliers(records, now):
        times = outliers.rows["at"].unique().implode()
        if outliers.column == "cases occurred":
            is_far = pl.col("occurred_at").is_in(times)
            times_left = pl.when(~is_far).then("occurred_at").alias("occurred_at")
            cases = cleared.cases.with_columns(times_left)
            cleared = replace(cleared, cases=cases)
        else:
            is_far = pl.col("at").is_in(times)
            decisions = cleared.decisions.with_columns(pl.when(~is_far).then("at").alias("at"))
            cleared = replace(cleared, decisions=decisions)
    return cleared


def describe_outliers(records: RecordFrames, now: datetime | None) -> Iterator[str]:
    """Yield a line for each column with outliers, with some of them."""
    for outliers in list_outliers(records, now):
        examples = [
            f"{key} ({at:%Y-%m-%d})" for key, at in outliers.rows.head(MAX_NAMED).iter_rows()
        ]
        more = outliers.rows.height - len(examples)
        yield (
            f"{outliers.rows.height:,} {outliers.column} in the future or more than five years from"
            f" the others (median {outliers.median:%Y-%m-%d}), and shape no part of the draft:"
            f" {', '.join(examples)}{f' and {more:,} more' if more else ''}"
        )
