"""Units and dimensions of the slice search.

Each unit counts once, by the first decision on its first case.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames
from rollout.features.reports.inputs.pairs import UNASSISTED_EXPOSURES, compare_pairs
from rollout.kernel.policy.levers import Lever
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.arrays import Ints
from rollout.kernel.units import FAILED

Codes = Ints
SliceName = tuple[tuple[str, str], ...]

MIN_UNITS = 30  # in a slice, and in the rest of the same cells
MAX_VALUES = 500  # most frequent values of a dimension
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ABSENT = -1
LABEL_KIND = "label"


@dataclass(frozen=True, slots=True)
class SliceDimension:
    """A partition of units into slices, and the strata in which they are compared.

    `codes` and `strata` have shape (units,); the code is `ABSENT` for a unit without a value.
    `names` has the (kind, value) of each code.
    """

    names: tuple[SliceName, ...]
    codes: Codes
    strata: Codes


def find_first_decisions(
    records: RecordFrames, facts: pl.DataFrame, version: str, lever: Lever
) -> pl.DataFrame:
    """Return one row per unit: the first decision on its first decided case.

    The choice depends on keys, review tasks and times, never on an answer. Columns: the case's
    facts with hour and weekday, reviewer, human, model, differs, and model_right by a witness (the
    outcome, else another reviewer), null without one.
    """
    column = VALUE_PREFIX + lever.id
    decisions = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES)).drop_nulls(
        column
    )
    decisions = decisions.sort("case_key", "seat", "at", "reviewer", nulls_last=True)
    decisions = decisions.select("case_key", "reviewer", human=column)
    model = records.predictions.filter(pl.col("version") == version)
    model = model.select("case_key", model=pl.col(column).fill_null(FAILED))
    joined = decisions.join(model, on="case_key", maintain_order="left")
    joined = joined.join(facts, on="case_key", how="left", maintain_order="left")
    first = joined.sort("unit", "case_key", maintain_order=True).unique(
        "unit", keep="first", maintain_order=True
    )
    first = first.join(_find_witnesses(decisions, records, column), on="case_key", how="left")
    return _add_agreement(first, lever).sort("unit")


def _find_witnesses(decisions: pl.DataFrame, records: RecordFrames, column: str) -> pl.DataFrame:
    """Return the outcome of each case, else the answer of a second reviewer.

    `decisions` are sorted by case.
    """
    key = pl.col("case_key")
    is_second = (key == key.shift(1)) & key.ne_missing(key.shift(2))
    second = decisions.filter(is_second)
    second = second.select("case_key", second="human")
    outcomes = records.outcomes.select("case_key", outcome=column).drop_nulls()
    joined = outcomes.join(second, on="case_key", how="full", coalesce=True)
    return joined.select("case_key", witness=pl.coalesce("outcome", "second"))


def _add_agreement(first: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    comparison = compare_pairs(lever, first).select("human", "model", differs=~pl.col("agrees"))
    witnessed = first.filter(pl.col("witness").is_not_null()).select(human="witness", model="model")
    witness_comparison = compare_pairs(lever, witnessed).select(
        "model", witness="human", model_right="agrees"
    )
    return first.join(comparison, on=["human", "model"]).join(
        witness_comparison, on=["witness", "model"], how="left"
    )


def add_clock(facts: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Add hour and weekday on each site's clock; null without a usable time."""
    at = pl.from_epoch("occurred_us", time_unit="us").dt.replace_time_zone("UTC")
    hour = pl.lit(None, pl.Int8)
    weekday = pl.lit(None, pl.Int8)
    for zone, sites in _group_sites_by_zone(policy).items():
        in_zone, local_time = pl.col("site").is_in(sites), at.dt.convert_time_zone(zone)
        hour = pl.when(in_zone).then(local_time.dt.hour()).otherwise(hour)
        weekday = pl.when(in_zone).then(local_time.dt.weekday()).otherwise(weekday)
    names = dict(enumerate(WEEKDAYS, start=1))
    return facts.with_columns(
        hour=pl.format("{}:00", hour.cast(pl.String).str.zfill(2)),
        weekday=weekday.replace_strict(names, default=None, return_dtype=pl.String),
    )


def _group_sites_by_zone(policy: Policy) -> dict[str, list[str]]:
    zones: dict[str, list[str]] = {}
    for site in policy.sites:
        zones.setdefault(site.timezone, []).append(site.id)
    return zones


def build_dimensions(
    frame: pl.DataFrame, policy: Policy, lever: Lever
) -> tuple[SliceDimension, ...]:
    """Return all dimensions of the rows of `find_first_decisions`, pairs last.

    A site is compared with others in the same window, a window with others of the same site, a
    reviewer with others in the same cell on cases of equal attributes and model label. Human labels
    are a dimension, numbers and sets are not.
    """
    attributes = {
        a: ATTRIBUTE_PREFIX + a for a in policy.slices if ATTRIBUTE_PREFIX + a in frame.columns
    }
    cell, unit_count = _encode_combinations(frame, ["site", "window"]), frame["site"].len()
    # nearly every number or set is another one, so equal ones leave no one to compare
    answers = ["model"] if lever.has_single_labels else []
    case_mix = _encode_combinations(frame, ["site", "window", *answers, *attributes.values()])
    single_columns = {"site": "site", "window": "window", **attributes}
    columns = {**single_columns, "hour": "hour", "weekday": "weekday", "person": "reviewer"}
    strata_by_kind = {
        "site": _encode_combinations(frame, ["window"]),
        "window": _encode_combinations(frame, ["site"]),
        "person": case_mix,
    }
    if lever.has_single_labels:
        columns[LABEL_KIND] = "human"
    dimensions = [
        _build_dimension(frame, {kind: column}, strata_by_kind.get(kind, cell))
        for kind, column in columns.items()
    ]
    for first, second in combinations(single_columns, 2):
        strata = (
            np.zeros(unit_count, dtype=np.int64) if (first, second) == ("site", "window") else cell
        )
        pair = {first: single_columns[first], second: single_columns[second]}
        dimensions.append(_build_dimension(frame, pair, strata))
    return tuple(dimensions)


def _encode_combinations(frame: pl.DataFrame, columns: list[str]) -> Codes:
    """Return a code for each distinct combination of values, including nulls."""
    return (frame.select(pl.struct(columns).rank("dense")).to_series().to_numpy() - 1).astype(
        np.int64
    )


def _build_dimension(frame: pl.DataFrame, columns: dict[str, str], strata: Codes) -> SliceDimension:
    """Return the dimension of one or two columns; rare and absent values are no slice."""
    names = list(columns.values())
    counts = frame.select(names).drop_nulls().group_by(names).agg(units=pl.len())
    counts = _drop_redundant(frame, counts, names) if len(names) > 1 else counts
    counts = counts.filter(pl.col("units") >= MIN_UNITS)
    counts = counts.sort("units", *names, descending=[True, *[False] * len(names)])
    values = counts.head(MAX_VALUES).drop("units").with_row_index("code")
    codes = frame.select(names).join(values, on=names, how="left", maintain_order="left")["code"]
    return SliceDimension(
        tuple(
            tuple(zip(columns, map(str, row), strict=True))
            for row in values.select(names).iter_rows()
        ),
        codes.cast(pl.Int64).fill_null(ABSENT).to_numpy(),
        strata,
    )


def _drop_redundant(frame: pl.DataFrame, counts: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Return the counts without combinations equal to one of their values alone."""
    for name in names:
        alone = frame.group_by(name).agg(alone=pl.len())
        counts = counts.join(alone, on=name).filter(pl.col("units") < pl.col("alone")).drop("alone")
    return counts
