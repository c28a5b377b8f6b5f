"""Whether what comes in, what people say and what versions say is still as it was at the start.

At each site the last days are held against the first ones, thing by thing: attributes, people's
labels, each version's labels and its confidence. Cases of one day are alike (weather, a batch, a
person's shift), so days are dealt out anew, never cases: a difference counts where few deals of
the same days give one as large. Both spans are equally long, and of whole weeks where there are
enough days, so that weekends are in both alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.measures import FAILED
from rollout.core.scope.events import TakenOver, Widened
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.inputs.pairs import UNSEEN
from rollout.reports.text.formatting import number, per_cent, several
from rollout.tally.frames import ATTRIBUTE, VALUE

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SPANS = ((28, 14), (14, 7))  # of so many days on, spans of so many
SHORTEST = 4  # days with cases in each span
DEALS = 4999
SEED = 1935
ALPHA = 0.05
FEW_NUMBERS = 20  # different ones; up to here they are compared as words
MANY_WORDS = 200  # different ones; above, they name cases and say nothing about them
POINTS = 50  # at which numbers are compared
MOST = 40  # rows of a report, and values never seen in shadow
WORDS, NUMBERS = "total variation", "Kolmogorov–Smirnov"
METHOD = "permutation of days, 95 %, Holm over all that was compared"
ABSENT = "(none)"


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing at one site: its last days against its first.

    Attributes:
        site: where.
        thing: `attribute`, `people's answer`, `model's answer` or `confidence`.
        name: of the attribute or lever; empty for confidence.
        version: whose answers or confidence; None for what no version says.
        measure: `total variation`, the share of cases that would have to change their value; or
            for numbers `Kolmogorov–Smirnov`, the largest gap of the two cumulated shares.
        distance: of the two spans, 0 (alike) to 1.
        by_chance: what 95 of 100 deals of the same days stay within.
        p: share of deals at least as far apart, before allowance for the others.
        differs: whether it is named, with that allowance.
        first, last: days of the spans, inclusive, on the site's calendar.
        n_first, n_last: cases in them.
        words: what moved most.
    """

    site: str
    thing: str
    name: str
    version: str | None
    measure: str
    distance: float
    by_chance: float
    p: float
    differs: bool
    first: tuple[date, date]
    last: tuple[date, date]
    n_first: int
    n_last: int
    words: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """A value of an attribute that came first after the site had left shadow.

    `of` are the site's cases since then that have a value; `at` is when the first one occurred.
    """

    site: str
    attribute: str
    value: str
    count: int
    of: int
    first_case: str
    at: datetime
    words: str


@dataclass(frozen=True, slots=True)
class Drifts:
    """What was compared, what differs, and what was never seen in shadow.

    Attributes:
        compared: how many things were, over all sites.
        said: the chance of error in words, or why nothing was compared.
        method: of each comparison.
        found: those that differ and after them the others, the farthest first, at most 40.
        left_out: what could not be compared, in words.
        unseen: values never seen in shadow, the most frequent first, at most 40; empty where no
            site ever left it.
        left_shadow: sites that did.
    """

    compared: int
    said: str
    method: str
    found: tuple[Drift, ...]
    left_out: tuple[str, ...]
    unseen: tuple[Unseen, ...]
    left_shadow: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that is looked at: columns site, day, value; `value` is text or a number."""

    thing: str
    name: str
    version: str | None
    frame: pl.DataFrame


def drifts_of(inputs: Inputs) -> Drifts:
    """Return what changed at each site of the policy since its first days."""
    features, excluded = _things(inputs)
    drifts = [
        drift
        for site in inputs.policy.sites
        for feature in features
        if (drift := _drift(feature, site.id)) is not None
    ]
    marked = holm(drifts)
    order = sorted(
        marked,
        key=lambda drift: (not drift.differs, -drift.distance, drift.site, drift.thing, drift.name),
    )
    return Drifts(
        compared=len(drifts),
        said=_chance_words(len(drifts)),
        method=METHOD,
        found=tuple(order[:MOST]),
        left_out=tuple(excluded),
        unseen=tuple(_unseen(inputs, features)),
        left_shadow=tuple(left_shadow_at(inputs)),
    )


def distances(counts: Ints, *, first: Bools) -> Floats:
    """Return how far the days of two spans are apart, for values without an order.

    Args:
        counts: cases by day and value, shape (days, values).
        first: which days belong to the first span, shape (deals, days).

    Returns:
        Total variation, shape (deals,), 0 to 1.
    """
    return np.asarray(np.abs(_gaps(counts, first)).sum(axis=1) / 2)


def ordered_distances(counts: Ints, *, first: Bools) -> Floats:
    """Return the same for values in order: the largest gap of the cumulated shares."""
    return np.asarray(np.abs(np.cumsum(_gaps(counts, first), axis=1)).max(axis=1))


def _gaps(counts: Ints, first: Bools) -> Floats:
    first_counts = first.astype(float) @ counts
    last_counts = counts.sum(axis=0) - first_counts
    shares = first_counts / np.maximum(first_counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(shares - last_counts / np.maximum(last_counts.sum(axis=1, keepdims=True), 1))


@cache
def _deals(days: int, first: int) -> Bools:
    """Return ways to deal out days to two spans, shape (deals, days); the same at every call."""
    random_values = np.random.default_rng(SEED).random((DEALS, days))
    return np.asarray(np.argsort(random_values, axis=1) < first)


def _things(inputs: Inputs) -> tuple[list[Thing], list[str]]:
    """Return all that is looked at, and in words what is not."""
    days = inputs.cases.select("case_key", "day")
    cases = inputs.records.cases.join(days, on="case_key").drop_nulls("day")
    features, excluded = _attributes(cases)
    locations = cases.select("case_key", "site", "day")
    return [*features, *_answers(inputs, locations)], excluded


def _attributes(cases: pl.DataFrame) -> tuple[list[Thing], list[str]]:
    features, excluded = [], list[str]()
    for column in cases.columns:
        if not column.startswith(ATTRIBUTE):
            continue
        name, values = column.removeprefix(ATTRIBUTE), cases[column].drop_nulls()
        distinct = values.n_unique()
        numbers = values.cast(pl.Float64, strict=False)
        if distinct > FEW_NUMBERS and not numbers.null_count():
            value, missing = pl.col(column).cast(pl.Float64), cases[column].null_count()
            excluded += [f"{name}: {several(missing, 'case')} without it"] if missing else []
        elif distinct > MANY_WORDS:
            excluded.append(f"{name}: {number(distinct)} different values name cases, not kinds")
            continue
        else:
            value = pl.col(column).fill_null(ABSENT)
        frame = cases.select("case_key", "site", "day", value=value).drop_nulls()
        features.append(Thing("attribute", name, None, frame))
    return features, excluded


def _answers(inputs: Inputs, where: pl.DataFrame) -> Iterator[Thing]:
    """Yield people's answers, then of each version its answers and its confidence."""
    records, levers = inputs.records, inputs.policy.levers
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNSEEN))
    for lever in levers:
        answers = unassisted.select(
            "case_key", value=_value(lever.id, numbers=lever.number is not None)
        )
        yield _placed("people's answer", lever.id, None, answers, where)
    for (version,), predictions in sorted(
        records.predictions.partition_by("version", as_dict=True).items()
    ):
        for lever in levers:
            value = _value(lever.id, numbers=lever.number is not None)
            value = value if lever.number is not None else value.fill_null(FAILED)
            answers = predictions.select("case_key", value=value)
            yield _placed("model's answer", lever.id, str(version), answers, where)
        yield _placed(
            "confidence",
            "",
            str(version),
            predictions.select("case_key", value="confidence"),
            where,
        )


def _value(lever: str, *, numbers: bool) -> pl.Expr:
    column = pl.col(VALUE + lever)
    return column.cast(pl.Float64, strict=False) if numbers else column


def _placed(
    thing: str, name: str, version: str | None, said: pl.DataFrame, where: pl.DataFrame
) -> Thing:
    frame = said.drop_nulls().join(where, on="case_key")
    return Thing(thing, name, version, frame.select("case_key", "site", "day", "value"))


def _drift(thing: Thing, site: str) -> Drift | None:
    """Return one comparison; None with too few days, or where there is one value alone."""
    rows = thing.frame.filter(pl.col("site") == site)
    spans = spans_of(rows["day"].unique().sort().to_numpy())
    if spans is None:
        return None
    early, late = (rows.filter(pl.col("day").is_between(*span)) for span in spans)
    combined = pl.concat([early, late])
    numbers = combined.schema["value"] == pl.Float64
    counts, days = _by_day(combined, numbers=numbers)
    if counts.shape[1] < 2:
        return None
    measure = ordered_distances if numbers else distances
    is_first = days <= spans[0][1]
    observed = float(measure(counts, first=is_first[None, :])[0])
    permuted = measure(counts, first=_deals(len(days), int(is_first.sum())))
    return Drift(
        site=site,
        thing=thing.thing,
        name=thing.name,
        version=thing.version,
        measure=NUMBERS if numbers else WORDS,
        distance=observed,
        by_chance=float(np.quantile(permuted, 1 - ALPHA)),
        p=float((1 + np.sum(permuted >= observed - 1e-12)) / (1 + DEALS)),
        differs=False,
        first=_dates(spans[0]),
        last=_dates(spans[1]),
        n_first=early.height,
        n_last=late.height,
        words=_moved(early, late, numbers=numbers),
    )


def spans_of(days: Ints) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the first and the last days that are compared, inclusive; None where too few.

    Args:
        days: with cases, ascending, as `date.toordinal` counts, shape (days,).

    >>> spans_of(np.arange(100, 142)), spans_of(np.arange(7))
    (((100, 113), (128, 141)), None)
    """
    if not len(days):
        return None
    total_days = int(days[-1] - days[0]) + 1
    span_days = next((span for min_days, span in SPANS if total_days >= min_days), total_days // 2)
    early, late = (
        (int(days[0]), int(days[0]) + span_days - 1),
        (int(days[-1]) - span_days + 1, int(days[-1])),
    )
    has_enough_days = (days <= early[1]).sum() >= SHORTEST and (days >= late[0]).sum() >= SHORTEST
    return (early, late) if has_enough_days else None


def _by_day(both: pl.DataFrame, *, numbers: bool) -> tuple[Ints, Ints]:
    """Return cases by day and value, and the days; numbers are counted between a few points."""
    values = both["value"].to_numpy()
    if numbers:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, POINTS + 1)[1:], method="lower"))
        codes = np.searchsorted(edges, values, side="left")
    else:
        codes = both["value"].rank("dense").to_numpy().astype(np.int64) - 1
    days, day_index = np.unique(both["day"].to_numpy(), return_inverse=True)
    value_count = int(codes.max()) + 1
    counts = np.bincount(day_index * value_count + codes, minlength=len(days) * value_count)
    return counts.reshape(len(days), value_count), days


def _dates(span: tuple[int, int]) -> tuple[date, date]:
    return date.fromordinal(span[0]), date.fromordinal(span[1])


def _moved(early: pl.DataFrame, late: pl.DataFrame, *, numbers: bool) -> str:
    """Say what moved most: a value's share, or the mean."""
    if numbers:
        before, after = (float(part["value"].to_numpy().mean()) for part in (early, late))
        return f"mean {before:.3g} → {after:.3g}"
    shares = [
        part.group_by("value").agg(share=pl.len() / part.height).rename({"share": name})
        for name, part in (("before", early), ("after", late))
    ]
    joined = shares[0].join(shares[1], on="value", how="full", coalesce=True).fill_null(0.0)
    difference = (pl.col("after") - pl.col("before")).abs()
    value, before, after = joined.sort(difference, "value", descending=[True, False]).row(0)
    return f"{value}: {per_cent(before)} → {per_cent(after)}"


def holm(found: Sequence[Drift]) -> list[Drift]:
    """Mark those that differ, so that any false mark has a chance of at most 5 %.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    order = sorted(range(len(found)), key=lambda index: found[index].p)
    marked = list(found)
    for rank, index in enumerate(order):
        if found[index].p > ALPHA / (len(found) - rank):
            break
        marked[index] = replace(found[index], differs=True)
    return marked


def _chance_words(compared: int) -> str:
    if not compared:
        return f"nothing was compared: no site has two spans of at least {SHORTEST} days"
    return (
        f"{several(compared, 'comparison')}: the chance that any is named when nothing changed is "
        f"at most {per_cent(ALPHA, 0)} in one report, and anew in each. Days are taken to be "
        "exchangeable: a season that moves slowly is a change too."
    )


def left_shadow_at(inputs: Inputs) -> dict[str, datetime]:
    """Return when each site left shadow for the first time, in any window; others are absent."""
    exits: dict[str, datetime] = {}
    for event in inputs.events:
        if isinstance(event, Widened | TakenOver):
            site = event.cell.site
            exits[site] = min(exits.get(site, event.at), event.at)
    return exits


def _unseen(inputs: Inputs, things: list[Thing]) -> list[Unseen]:
    times = inputs.cases.select("case_key", "t")
    new_values = [
        new_value
        for site, since in left_shadow_at(inputs).items()
        for feature in things
        if feature.thing == "attribute" and feature.frame.schema["value"] == pl.String
        for new_value in _unseen_values(feature, site, since, times)
    ]
    return sorted(
        new_values,
        key=lambda new_value: (
            -new_value.count,
            new_value.site,
            new_value.attribute,
            new_value.value,
        ),
    )[:MOST]


def _unseen_values(
    thing: Thing, site: str, since: datetime, times: pl.DataFrame
) -> Iterator[Unseen]:
    own = thing.frame.filter((pl.col("site") == site) & (pl.col("value") != ABSENT))
    own = own.join(times, on="case_key").with_columns(
        at=pl.from_epoch("t", time_unit="us").dt.replace_time_zone("UTC")
    )
    before, after = own.filter(pl.col("at") < since), own.filter(pl.col("at") >= since)
    new = after.join(before.select("value").unique(), on="value", how="anti").sort("t", "case_key")
    counts = new.group_by("value", maintain_order=True).agg(
        count=pl.len(), first_case=pl.col("case_key").first(), at=pl.col("at").first()
    )
    for value, count, first_case, at in counts.iter_rows():
        text = f"{thing.name} {value} at {site}: {number(count)} of {number(after.height)} cases"
        yield Unseen(site, thing.name, value, count, after.height, first_case, at, text)
