"""Drift of cases, human labels and model answers since the first days of a site.

At each site the last days are compared with the first ones: attributes, human labels, and labels
and confidence of each version. Cases of one day are alike (weather, a batch, a shift), so the test
permutes days, not cases. Both spans have equal length, in whole weeks if there are enough days, so
that both have the same share of weekends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, MEDIA_COLUMN, VALUE_PREFIX
from rollout.engine.words.formatting import format_count, format_percent, format_quantity
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.inputs.pairs import UNASSISTED_EXPOSURES
from rollout.kernel.arrays import Bools, Floats, Ints
from rollout.kernel.units import FAILED

MAX_CATEGORICAL_NUMBERS = 20  # an attribute with more distinct numbers is numeric
MAX_CATEGORIES = 200  # an attribute with more distinct texts identifies cases
MISSING_VALUE = "(none)"


@dataclass(frozen=True, slots=True)
class DriftFeature:
    """A feature to compare: columns site, day, value; `value` is text or a number."""

    kind: str
    name: str
    version: str | None
    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class SiteValues:
    """A feature's values at one site with their days, both of shape (cases,).

    Values are indices in `names`, which are in order; numbers are themselves, and have no names.
    """

    days: Ints
    values: NDArray[Any]
    names: Sequence[str] | None

    def select_days(self, first: int, last: int) -> "SiteValues":
        """Return the values from the first day to the last."""
        is_inside = (self.days >= first) & (self.days <= last)
        return SiteValues(self.days[is_inside], self.values[is_inside], self.names)


def build_drift_features(inputs: ReportInputs) -> tuple[list[DriftFeature], list[str]]:
    """Return the features, and texts about those that can't be compared."""
    days = inputs.cases.select("case_key", "day")
    cases = inputs.records.cases.join(days, on="case_key").drop_nulls("day")
    features, excluded = _build_attribute_features(cases)
    locations = cases.select("case_key", "site", "day")
    return [*features, *_build_answer_features(inputs, locations)], excluded


def _build_attribute_features(cases: pl.DataFrame) -> tuple[list[DriftFeature], list[str]]:
    features, excluded = [], list[str]()
    for column in cases.columns:
        if not column.startswith(ATTRIBUTE_PREFIX) or column == MEDIA_COLUMN:
            continue  # a picture's address names a case, also where few pictures stand for many
        name, values = column.removeprefix(ATTRIBUTE_PREFIX), cases[column].drop_nulls()
        distinct = values.n_unique()
        numbers = values.cast(pl.Float64, strict=False)
        if distinct > MAX_CATEGORICAL_NUMBERS and not numbers.null_count():
            value, missing = pl.col(column).cast(pl.Float64), cases[column].null_count()
            excluded += (
                [f"{name}: {format_quantity(missing, 'case')} without it"] if missing else []
            )
        elif distinct > MAX_CATEGORIES:
            excluded.append(
                f"{name}: {format_count(distinct)} different values name cases, not kinds"
            )
            continue
        else:
            value = pl.col(column).fill_null(MISSING_VALUE)
        frame = cases.select("case_key", "site", "day", value=value).drop_nulls()
        features.append(DriftFeature("attribute", name, None, frame))
    return features, excluded


def _build_answer_features(inputs: ReportInputs, locations: pl.DataFrame) -> Iterator[DriftFeature]:
    """Yield human answers, then answers and confidence of each version."""
    records, levers = inputs.records, inputs.policy.levers
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    for lever in levers:
        answers = unassisted.select(
            "case_key", value=_build_value_expression(lever.id, numbers=lever.number is not None)
        )
        yield _build_feature("human label", lever.id, None, answers, locations)
    for (version,), predictions in sorted(
        records.predictions.partition_by("version", as_dict=True).items()
    ):
        for lever in levers:
            value = _build_value_expression(lever.id, numbers=lever.number is not None)
            value = value if lever.number is not None else value.fill_null(FAILED)
            answers = predictions.select("case_key", value=value)
            yield _build_feature("model's answer", lever.id, str(version), answers, locations)
        yield _build_feature(
            "confidence",
            "",
            str(version),
            predictions.select("case_key", value="confidence"),
            locations,
        )


def _build_value_expression(lever: str, *, numbers: bool) -> pl.Expr:
    column = pl.col(VALUE_PREFIX + lever)
    return column.cast(pl.Float64, strict=False) if numbers else column


def _build_feature(
    kind: str, name: str, version: str | None, values: pl.DataFrame, locations: pl.DataFrame
) -> DriftFeature:
    frame = values.drop_nulls().join(locations, on="case_key")
    return DriftFeature(kind, name, version, frame.select("case_key", "site", "day", "value"))


def split_by_site(feature: DriftFeature) -> dict[str, SiteValues]:
    """Return the days and values of a feature at each site; texts as numbers in their order."""
    frame, names = feature.frame, None
    if frame.schema["value"] != pl.Float64:
        names = frame["value"].unique().sort().to_list()
        numbers = {name: number for number, name in enumerate(names)}
        frame = frame.with_columns(pl.col("value").replace_strict(numbers, return_dtype=pl.Int64))
    parts = frame.select("site", "day", "value").partition_by("site", as_dict=True)
    return {
        str(site): SiteValues(part["day"].to_numpy(), part["value"].to_numpy(), names)
        for (site,), part in parts.items()
    }


SPAN_RULES = ((28, 14), (14, 7))  # minimal number of days, length of each span
MIN_DAYS = 4  # days with cases in each span
PERMUTATIONS = 4999
SEED = 1935
ALPHA = 0.05
GRID_POINTS = 50  # quantiles at which numbers are compared
MAX_ROWS = 40  # rows of a report, and values never seen in shadow
TOTAL_VARIATION, KOLMOGOROV_SMIRNOV = "total variation", "Kolmogorov–Smirnov"
METHOD = "permutation of days, 95 %, Holm over all that was compared"


@dataclass(frozen=True, slots=True)
class Drift:
    """One feature at one site: its last days compared with its first.

    Attributes:
        site: the site of the cases.
        feature: `attribute`, `human label`, `model's answer` or `confidence`.
        name: of the attribute or lever; empty for confidence.
        version: whose answers or confidence; None for attributes and human answers.
        measure: `total variation`, the share of cases that would have to change their value; or
            for numbers `Kolmogorov–Smirnov`, the largest gap of the two cumulated shares.
        distance: between the two spans, 0 (equal) to 1.
        by_chance: 95 % quantile of the distance over permutations of the days.
        p: share of permutations at least as far apart, uncorrected.
        differs: whether the difference is significant after correction for all comparisons.
        first, last: days of the spans, inclusive, on the site's calendar.
        n_first, n_last: cases in them.
        summary: the largest change, as text.
    """

    site: str
    feature: str
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
    summary: str


@dataclass(frozen=True, slots=True)
class NewValue:
    """A value of an attribute that first occurred after the site had left shadow.

    `cases_since` counts the site's cases with a value since then; `first_seen_at` is the time of
    the first one.
    """

    site: str
    attribute: str
    value: str
    count: int
    cases_since: int
    first_case: str
    first_seen_at: datetime
    summary: str


@dataclass(frozen=True, slots=True)
class DriftFigures:
    """Comparisons of first and last days, and values that are new since shadow.

    Attributes:
        compared: number of comparisons, over all sites.
        summary: the error rate as text, or why nothing was compared.
        method: of each comparison.
        changes: at most 40 comparisons: significant ones first, then by distance.
        left_out: features that could not be compared, as text.
        new_values: at most 40 values that never occurred in shadow, the most frequent first; empty
            if no site left shadow.
        left_shadow: sites that left shadow.
    """

    compared: int
    summary: str
    method: str
    changes: tuple[Drift, ...]
    left_out: tuple[str, ...]
    new_values: tuple[NewValue, ...]
    left_shadow: tuple[str, ...]


def compute_drift(inputs: ReportInputs) -> DriftFigures:
    """Return the drift at each site of the policy since its first days."""
    features, excluded = build_drift_features(inputs)
    parts = [(feature, split_by_site(feature)) for feature in features]
    drifts = [
        drift
        for site in inputs.policy.sites
        for feature, by_site in parts
        if site.id in by_site
        and (drift := _compute_drift(feature, site.id, by_site[site.id])) is not None
    ]
    marked = mark_significant(drifts)
    order = sorted(
        marked,
        key=lambda drift: (
            not drift.differs,
            -drift.distance,
            drift.site,
            drift.feature,
            drift.name,
        ),
    )
    return DriftFigures(
        compared=len(drifts),
        summary=_describe_error_rate(len(drifts)),
        method=METHOD,
        changes=tuple(order[:MAX_ROWS]),
        left_out=tuple(excluded),
        new_values=tuple(_find_new_values(inputs, features)),
        left_shadow=tuple(find_shadow_exits(inputs)),
    )


def compute_distances(counts: Ints, *, first: Bools) -> Floats:
    """Return the total variation between two spans of days, for unordered values.

    Args:
        counts: cases by day and value, shape (days, values).
        first: which days belong to the first span, shape (permutations, days).

    Returns:
        Shape (permutations,), 0 to 1.
    """
    return np.asarray(np.abs(_compute_gaps(counts, first)).sum(axis=1) / 2)


def compute_ordered_distances(counts: Ints, *, first: Bools) -> Floats:
    """Return the Kolmogorov–Smirnov distances, for ordered values."""
    return np.asarray(np.abs(np.cumsum(_compute_gaps(counts, first), axis=1)).max(axis=1))


def _compute_gaps(counts: Ints, first: Bools) -> Floats:
    first_counts = first.astype(float) @ counts
    last_counts = counts.sum(axis=0) - first_counts
    shares = first_counts / np.maximum(first_counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(shares - last_counts / np.maximum(last_counts.sum(axis=1, keepdims=True), 1))


@cache
def _draw_permutations(days: int, first: int) -> Bools:
    """Return permutations of days over two spans, shape (permutations, days); always the same."""
    random_values = np.random.default_rng(SEED).random((PERMUTATIONS, days))
    return np.asarray(np.argsort(random_values, axis=1) < first)


def _compute_drift(feature: DriftFeature, site: str, rows: SiteValues) -> Drift | None:
    """Return one comparison; None with too few days or a single value."""
    spans = find_spans(np.unique(rows.days))
    if spans is None:
        return None
    early, late = (rows.select_days(*span) for span in spans)
    numbers = rows.names is None
    counts, days = _count_by_day(early, late)
    if counts.shape[1] < 2:
        return None
    measure = compute_ordered_distances if numbers else compute_distances
    is_first = days <= spans[0][1]
    observed = float(measure(counts, first=is_first[None, :])[0])
    permuted = measure(counts, first=_draw_permutations(len(days), int(is_first.sum())))
    return Drift(
        site=site,
        feature=feature.kind,
        name=feature.name,
        version=feature.version,
        measure=KOLMOGOROV_SMIRNOV if numbers else TOTAL_VARIATION,
        distance=observed,
        by_chance=float(np.quantile(permuted, 1 - ALPHA)),
        p=float((1 + np.sum(permuted >= observed - 1e-12)) / (1 + PERMUTATIONS)),
        differs=False,
        first=_to_dates(spans[0]),
        last=_to_dates(spans[1]),
        n_first=len(early.days),
        n_last=len(late.days),
        summary=_describe_change(early, late),
    )


def find_spans(days: Ints) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the compared first and last days, inclusive; None with too few days.

    Args:
        days: with cases, ascending, as `date.toordinal` counts, shape (days,).

    >>> find_spans(np.arange(100, 142)), find_spans(np.arange(7))
    (((100, 113), (128, 141)), None)
    """
    if not len(days):
        return None
    total_days = int(days[-1] - days[0]) + 1
    span_days = next(
        (span for min_days, span in SPAN_RULES if total_days >= min_days), total_days // 2
    )
    early = (int(days[0]), int(days[0]) + span_days - 1)
    late = (int(days[-1]) - span_days + 1, int(days[-1]))
    has_enough_days = (days <= early[1]).sum() >= MIN_DAYS and (days >= late[0]).sum() >= MIN_DAYS
    return (early, late) if has_enough_days else None


def _count_by_day(early: SiteValues, late: SiteValues) -> tuple[Ints, Ints]:
    """Return cases by day and value, and the days; numbers are binned."""
    values = np.concatenate([early.values, late.values])
    if early.names is None:
        edges = np.unique(
            np.quantile(values, np.linspace(0, 1, GRID_POINTS + 1)[1:], method="lower")
        )
        codes = np.searchsorted(edges, values, side="left")
    else:
        codes = np.unique(values, return_inverse=True)[1]
    days, day_index = np.unique(np.concatenate([early.days, late.days]), return_inverse=True)
    value_count = int(codes.max()) + 1
    counts = np.bincount(day_index * value_count + codes, minlength=len(days) * value_count)
    return counts.reshape(len(days), value_count), days


def _to_dates(span: tuple[int, int]) -> tuple[date, date]:
    return date.fromordinal(span[0]), date.fromordinal(span[1])


def _describe_change(early: SiteValues, late: SiteValues) -> str:
    """Describe the largest change: of the mean, or of a value's share."""
    if early.names is None:
        before, after = (float(part.values.mean()) for part in (early, late))
        return f"mean {before:.3g} → {after:.3g}"
    # products, as in reports so far: of two equal changes the last digit decides
    before_shares, after_shares = (
        np.bincount(part.values, minlength=len(early.names)) * (1 / len(part.values))
        for part in (early, late)
    )
    is_there = (before_shares > 0) | (after_shares > 0)
    largest = int(np.argmax(np.where(is_there, np.abs(after_shares - before_shares), -1.0)))
    before, after = (float(shares[largest]) for shares in (before_shares, after_shares))
    return f"{early.names[largest]}: {format_percent(before)} → {format_percent(after)}"


def mark_significant(drifts: Sequence[Drift]) -> list[Drift]:
    """Return the drifts with `differs` set, at a family-wise error rate of 5 %.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    order = sorted(range(len(drifts)), key=lambda index: drifts[index].p)
    marked = list(drifts)
    for rank, index in enumerate(order):
        if drifts[index].p > ALPHA / (len(drifts) - rank):
            break
        marked[index] = replace(drifts[index], differs=True)
    return marked


def _describe_error_rate(comparison_count: int) -> str:
    if not comparison_count:
        return f"nothing was compared: no site has two spans of at least {MIN_DAYS} days"
    return (
        f"{format_quantity(comparison_count, 'comparison')}: the chance that any is named when"
        f" nothing changed is at most {format_percent(ALPHA, 0)} in one report, and anew in each."
        " All days of a span are treated alike, so a slow change of season counts as a change too."
    )


def find_shadow_exits(inputs: ReportInputs) -> dict[str, datetime]:
    """Return when each site first left shadow in any window; others are absent."""
    exits: dict[str, datetime] = {}
    for event in inputs.events:
        if event.opened_key:
            site = event.opened_key[0].site
            exits[site] = min(exits.get(site, event.at), event.at)
    return exits


def _find_new_values(inputs: ReportInputs, features: list[DriftFeature]) -> list[NewValue]:
    times = inputs.cases.select("case_key", "occurred_us")
    new_values = [
        new_value
        for site, since in find_shadow_exits(inputs).items()
        for feature in features
        if feature.kind == "attribute" and feature.frame.schema["value"] == pl.String
        for new_value in _list_new_values(feature, site, since, times)
    ]
    return sorted(
        new_values,
        key=lambda new_value: (
            -new_value.count,
            new_value.site,
            new_value.attribute,
            new_value.value,
        ),
    )[:MAX_ROWS]


def _list_new_values(
    feature: DriftFeature, site: str, since: datetime, times: pl.DataFrame
) -> Iterator[NewValue]:
    rows = (
        feature.frame.filter(pl.col("site") == site)
        .join(times, on="case_key")
        .with_columns(at=pl.from_epoch("occurred_us", time_unit="us").dt.replace_time_zone("UTC"))
    )
    if rows.filter(pl.col("at") < since).is_empty():
        return  # the report has no case from shadow: every value would be new
    rows = rows.filter(pl.col("value") != MISSING_VALUE)
    before, after = rows.filter(pl.col("at") < since), rows.filter(pl.col("at") >= since)
    counts = (
        after.join(before.select("value").unique(), on="value", how="anti")
        .sort("occurred_us", "case_key")
        .group_by("value", maintain_order=True)
        .agg(count=pl.len(), first_case=pl.col("case_key").first(), at=pl.col("at").first())
    )
    for value, count, first_case, at in counts.iter_rows():
        text = (
            f"{feature.name} {value} at {site}: {format_count(count)} of"
            f" {format_count(after.height)} cases"
        )
        yield NewValue(site, feature.name, value, count, after.height, first_case, at, text)
