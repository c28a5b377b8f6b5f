"""How long versions took to answer, how often too long, and how often they failed and why."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy, duration_text
from rollout.reports.statistics.intervals import LEVEL, Share, share
from rollout.tally.frames import VALUE, Records
from rollout.tally.slots import micros

Floats = NDArray[np.float64]

PERCENTS = (50, 95, 99)
ORDER = "order statistics, 95 %"
UNBOUNDED = "too few answers for an interval"
TOP = 20  # different errors that are named
UNNAMED = "no answer, and no word why"


@dataclass(frozen=True, slots=True)
class Quantile:
    """The time within which `percent` of the answers came, in milliseconds.

    `low` and `high` are answers of the records themselves; an end is None where so few records
    cannot bound it.
    """

    percent: int
    value: float
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True, slots=True)
class Lateness:
    """Answers for one lever that came after `answer_within`, of those with a time.

    `answer_within` is in seconds, `limit` the same as policies write it.
    """

    lever: str
    answer_within: float
    limit: str
    late: Share


@dataclass(frozen=True, slots=True)
class Latency:
    """How one version answered, everywhere (site None) or at one site.

    Attributes:
        version, site: whose answers, and where.
        asked: cases that the version was asked about.
        timed: those of which the records say how long the answer took.
        quantiles: of these; empty without any.
        late: per lever whose policy says how long an answer is of use; an answer's time counts,
            or without one how long it took.
        failed: cases without an answer for some lever.
        errors: why, the most frequent first, at most 20.
    """

    version: str
    site: str | None
    asked: int
    timed: int
    quantiles: tuple[Quantile, ...]
    late: tuple[Lateness, ...]
    failed: Share
    errors: tuple[tuple[str, int], ...]


def latencies(records: Records, cases: pl.DataFrame, policy: Policy) -> tuple[Latency, ...]:
    """Return the figures of every version everywhere, and behind them those of its sites.

    Args:
        records: for predictions.
        cases: the cases that could be placed, with t; others have no time to be late against.
        policy: says how long an answer is of use.
    """
    case_times = cases.select("case_key", "t")
    sites = records.cases.select("case_key", "site")
    predictions = records.predictions.join(sites, on="case_key", how="left")
    predictions = predictions.join(case_times, on="case_key", how="left")
    order = [site.id for site in policy.sites]
    figures = []
    for (version,), part in sorted(predictions.partition_by("version", as_dict=True).items()):
        figures.append(_latency(part, str(version), None, policy))
        parts_by_site = part.partition_by("site", as_dict=True)
        if len(parts_by_site) > 1:
            site_parts = [
                (site, parts_by_site[(site,)]) for site in order if (site,) in parts_by_site
            ]
            figures += [
                _latency(site_part, str(version), site, policy) for site, site_part in site_parts
            ]
    return tuple(figures)


def quantile(values: Floats, percent: int) -> Quantile | None:
    """Return a quantile with an interval that needs no shape, None without values.

    The value is the smallest within which at least `percent` in 100 of the values lie. The number
    of values below the true quantile is binomial, so two order statistics bound it.

    Args:
        values: shape (answers,), in any order.
        percent: in 1 … 99.

    >>> quantile(np.arange(1.0, 101.0), 50)
    Quantile(percent=50, value=50.0, low=40.0, high=61.0, method='order statistics, 95 %')

    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1.
    """
    n = len(values)
    if not n:
        return None
    ranked, q, tail = np.sort(values), percent / 100, (1 - LEVEL) / 2
    index = max(int(np.ceil(q * n)), 1)
    counts = range(n + 1)  # of the values below the true quantile
    below = bisect_left(counts, tail, key=lambda k: float(scipy.special.bdtr(k, n, q)))
    above = bisect_left(counts, -tail, key=lambda k: -float(scipy.special.bdtrc(k, n, q))) + 1
    return Quantile(
        percent=percent,
        value=float(ranked[index - 1]),
        low=float(ranked[below - 1]) if below >= 1 else None,
        high=float(ranked[above - 1]) if above <= n else None,
        method=ORDER if below >= 1 or above <= n else UNBOUNDED,
    )


def _latency(part: pl.DataFrame, version: str, site: str | None, policy: Policy) -> Latency:
    times = part["latency_ms"].drop_nulls().to_numpy()
    has_missing_answer = pl.any_horizontal(
        pl.col(VALUE + lever.id).is_null() for lever in policy.levers
    )
    failed = part.filter(has_missing_answer)
    reasons = failed.select(error=pl.col("error").fill_null(UNNAMED)).group_by("error").len()
    top = reasons.sort("len", "error", descending=[True, False]).head(TOP)
    quantiles = [quantile(times, percent) for percent in PERCENTS]
    return Latency(
        version=version,
        site=site,
        asked=part.height,
        timed=len(times),
        quantiles=tuple(quantile for quantile in quantiles if quantile is not None),
        late=tuple(_lateness(part, lever) for lever in policy.levers if lever.answer_within),
        failed=share(failed.height, part.height),
        errors=tuple(top.iter_rows()),
    )


def _lateness(part: pl.DataFrame, lever: Lever) -> Lateness:
    assert lever.answer_within is not None  # noqa: S101 - asked of levers that have one
    max_micros = micros(lever.answer_within)
    waiting_time = pl.coalesce(
        pl.col("at").dt.epoch("us") - pl.col("t"), pl.col("latency_ms") * 1000
    )
    answered = part.drop_nulls(VALUE + lever.id).select(late=waiting_time > max_micros).drop_nulls()
    late = share(int(answered["late"].sum()), answered.height)
    seconds, limit = lever.answer_within.total_seconds(), duration_text(lever.answer_within)
    return Lateness(lever.id, seconds, limit, late)
