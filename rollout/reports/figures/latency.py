"""Latency of versions: answer times, late answers, failures and their reasons."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from rollout.core.calendar.instants import count_micros, format_duration
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.reports.statistics.intervals import (
    CONFIDENCE_LEVEL,
    Estimate,
    Share,
    compute_unit_share,
)
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

Floats = NDArray[np.float64]

PERCENTS = (50, 95, 99)
ORDER_METHOD = "order statistics, 95 %"
UNBOUNDED_METHOD = "too few answers for an interval"
MAX_ERRORS = 20  # distinct errors in a report
NO_ERROR_TEXT = "no answer, and no word why"


@dataclass(frozen=True, slots=True)
class LatencyQuantile(Estimate):
    """The time within which `percent` of the answers came, in milliseconds.

    `low` and `high` are order statistics; an end is None with too few answers to bound it.
    """

    percent: int


@dataclass(frozen=True, slots=True)
class Lateness:
    """Share of timed answers on one lever that came after `answer_within`.

    `answer_within` is in seconds, `limit` is the same in the notation of policies.
    """

    lever: str
    answer_within: float
    limit: str
    late: Share


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one version, everywhere (site None) or at one site.

    Attributes:
        version, site: whose answers, and where.
        predictions: cases with a prediction of the version.
        timed: cases with a latency.
        quantiles: of these latencies; empty without any.
        late: per lever with a time limit; from the answer's time, else from its latency.
        failed: cases without an answer on some lever.
        errors: at most 20 reasons of failures, the most frequent first.
    """

    version: str
    site: str | None
    predictions: int
    timed: int
    quantiles: tuple[LatencyQuantile, ...]
    late: tuple[Lateness, ...]
    failed: Share
    errors: tuple[tuple[str, int], ...]


def compute_latencies(
    records: RecordFrames, cases: pl.DataFrame, policy: Policy
) -> tuple[Latency, ...]:
    """Return the latency of every version, in all and then by site.

    `cases`: the cases in a cell, with t and unit; other cases can't be late, and are each a unit.
    """
    case_times = cases.select("case_key", "occurred_us", "unit")
    sites = records.cases.select("case_key", "site")
    predictions = records.predictions.join(sites, on="case_key", how="left")
    predictions = predictions.join(case_times, on="case_key", how="left").with_columns(
        unit=pl.coalesce("unit", "case_key").rank("dense")
    )
    order = [site.id for site in policy.sites]
    figures = []
    for (version,), part in sorted(predictions.partition_by("version", as_dict=True).items()):
        figures.append(_compute_latency(part, str(version), None, policy))
        parts_by_site = part.partition_by("site", as_dict=True)
        if len(parts_by_site) > 1:
            site_parts = [
                (site, parts_by_site[(site,)]) for site in order if (site,) in parts_by_site
            ]
            figures += [
                _compute_latency(site_part, str(version), site, policy)
                for site, site_part in site_parts
            ]
    return tuple(figures)


def compute_quantile(values: Floats, percent: int) -> LatencyQuantile | None:
    """Return a quantile with a distribution-free interval, None without values.

    The value is the smallest that is at least as large as `percent` in 100 of the values. The
    number of values below the true quantile is binomial, so two order statistics bound it.

    Args:
        values: shape (answers,), in any order.
        percent: in 1 … 99.

    >>> quantile = compute_quantile(np.arange(1.0, 101.0), 50)
    >>> quantile.value, quantile.low, quantile.high, quantile.method
    (50.0, 40.0, 61.0, 'order statistics, 95 %')

    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1.
    """
    n = len(values)
    if not n:
        return None
    ranked, q, tail = np.sort(values), percent / 100, (1 - CONFIDENCE_LEVEL) / 2
    index = max(int(np.ceil(q * n)), 1)
    counts = range(n + 1)  # of the values below the true quantile
    below = bisect_left(counts, tail, key=lambda k: float(scipy.special.bdtr(k, n, q)))
    above = bisect_left(counts, -tail, key=lambda k: -float(scipy.special.bdtrc(k, n, q))) + 1
    return LatencyQuantile(
        n=n,
        percent=percent,
        value=float(ranked[index - 1]),
        low=float(ranked[below - 1]) if below >= 1 else None,
        high=float(ranked[above - 1]) if above <= n else None,
        method=ORDER_METHOD if below >= 1 or above <= n else UNBOUNDED_METHOD,
    )


def _compute_latency(part: pl.DataFrame, version: str, site: str | None, policy: Policy) -> Latency:
    times = part["latency_ms"].drop_nulls().to_numpy()
    has_missing_answer = pl.any_horizontal(
        pl.col(VALUE_PREFIX + lever.id).is_null() for lever in policy.levers
    )
    failed = part.filter(has_missing_answer)
    reasons = failed.select(error=pl.col("error").fill_null(NO_ERROR_TEXT)).group_by("error").len()
    top = reasons.sort("len", "error", descending=[True, False]).head(MAX_ERRORS)
    quantiles = [compute_quantile(times, percent) for percent in PERCENTS]
    return Latency(
        version=version,
        site=site,
        predictions=part.height,
        timed=len(times),
        quantiles=tuple(quantile for quantile in quantiles if quantile is not None),
        late=tuple(
            _compute_lateness(part, lever) for lever in policy.levers if lever.answer_within
        ),
        failed=compute_unit_share(part, has_missing_answer),
        errors=tuple(top.iter_rows()),
    )


def _compute_lateness(part: pl.DataFrame, lever: Lever) -> Lateness:
    assert lever.answer_within is not None  # noqa: S101 - only called for levers with a limit
    max_micros = count_micros(lever.answer_within)
    waiting_time = pl.coalesce(
        pl.col("at").dt.epoch("us") - pl.col("occurred_us"), pl.col("latency_ms") * 1000
    )
    is_late = waiting_time > max_micros
    answered = part.drop_nulls(VALUE_PREFIX + lever.id).select("unit", late=is_late).drop_nulls()
    late = compute_unit_share(answered, "late")
    seconds, limit = lever.answer_within.total_seconds(), format_duration(lever.answer_within)
    return Lateness(lever.id, seconds, limit, late)
