"""How long verdicts took: from when a person began on a case to when the verdict was given."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy

from rollout.reports.statistics.intervals import LEVEL, NO_DATA
from rollout.tally.frames import Records

HASTY = 0.2  # of everybody's median: below that share of it a verdict is hasty
ORDER = "order statistics, at least 95 %"
FEW = "order statistics; fewer than 6 give no interval"


@dataclass(frozen=True, slots=True)
class Spent:
    """The median of n decision times in seconds, with its interval; None where nothing is known."""

    n: int
    seconds: float | None
    low: float | None
    high: float | None
    method: str


NO_TIMES = Spent(0, None, None, None, NO_DATA)


def times_spent(records: Records) -> pl.DataFrame:
    """Return each verdict whose beginning was noted: reviewer, seconds.

    Those on known cases are among them. A verdict before its beginning says that a clock was wrong,
    and is left out.
    """
    columns = ["reviewer", "at", "started_at"]
    parts = [records.decisions.select(columns)]
    if not records.known.is_empty():
        parts.append(records.known.select(columns))
    timed = pl.concat(parts).drop_nulls()
    seconds = (pl.col("at") - pl.col("started_at")).dt.total_microseconds() / 1e6
    return timed.select("reviewer", seconds=seconds).filter(pl.col("seconds") >= 0)


def spent_by(times: pl.DataFrame) -> dict[str, Spent]:
    """Return the median time of each person."""
    parts = times.sort("seconds").partition_by("reviewer", as_dict=True, maintain_order=True)
    return {str(name): median_time(part["seconds"].to_list()) for (name,), part in parts.items()}


def median_time(ordered: list[float]) -> Spent:
    """Return the median of times in ascending order, with an interval that assumes no law.

    The interval ends at two of the times themselves: the true median lies below the k-th smallest
    with the chance that fewer than k of n coins fall heads.

    >>> median_time([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    Spent(n=8, seconds=4.5, low=1.0, high=8.0, method='order statistics, at least 95 %')

    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1.
    """
    n = len(ordered)
    if not n:
        return NO_TIMES
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    k = int(np.sum(scipy.special.bdtr(np.arange(n // 2 + 1), n, 0.5) <= (1 - LEVEL) / 2))
    if not k:
        return Spent(n, middle, None, None, FEW)
    return Spent(n, middle, ordered[k - 1], ordered[n - k], ORDER)
