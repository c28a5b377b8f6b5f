"""Decision times: from opening a case to the decision."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy

from rollout.reports.statistics.intervals import CONFIDENCE_LEVEL, NO_DATA
from rollout.tally.frames import RecordFrames

HASTY_SHARE = 0.2  # of the median of all reviewers; faster decisions are hasty
ORDER_METHOD = "order statistics, at least 95 %"
FEW_METHOD = "order statistics; fewer than 6 give no interval"


@dataclass(frozen=True, slots=True)
class DecisionTime:
    """The median of n decision times in seconds, with its interval."""

    n: int
    seconds: float | None
    low: float | None
    high: float | None
    method: str


NO_TIMES = DecisionTime(0, None, None, None, NO_DATA)


def build_decision_times(records: RecordFrames) -> pl.DataFrame:
    """Return each timed decision: reviewer, seconds.

    Decisions on gold cases are included. A negative time means a wrong clock and is excluded.
    """
    columns = ["reviewer", "at", "started_at"]
    parts = [records.decisions.select(columns)]
    if not records.gold_decisions.is_empty():
        parts.append(records.gold_decisions.select(columns))
    timed = pl.concat(parts).drop_nulls()
    seconds = (pl.col("at") - pl.col("started_at")).dt.total_microseconds() / 1e6
    return timed.select("reviewer", seconds=seconds).filter(pl.col("seconds") >= 0)


def compute_median_times(times: pl.DataFrame) -> dict[str, DecisionTime]:
    """Return the median time of each reviewer."""
    parts = times.sort("seconds").partition_by("reviewer", as_dict=True, maintain_order=True)
    return {
        str(name): compute_median_time(part["seconds"].to_list()) for (name,), part in parts.items()
    }


def compute_median_time(ordered: list[float]) -> DecisionTime:
    """Return the median of ascending times, with a distribution-free interval.

    Its ends are order statistics: the true median lies below the k-th smallest time with the
    chance of fewer than k heads in n coin flips.

    >>> compute_median_time([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    DecisionTime(n=8, seconds=4.5, low=1.0, high=8.0, method='order statistics, at least 95 %')

    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1.
    """
    n = len(ordered)
    if not n:
        return NO_TIMES
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    k = int(np.sum(scipy.special.bdtr(np.arange(n // 2 + 1), n, 0.5) <= (1 - CONFIDENCE_LEVEL) / 2))
    if not k:
        return DecisionTime(n, middle, None, None, FEW_METHOD)
    return DecisionTime(n, middle, ordered[k - 1], ordered[n - k], ORDER_METHOD)
