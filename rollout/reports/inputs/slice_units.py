"""Units to look for slices in, and the ways in which they are cut.

Each unit counts once, by the first verdict on its first case, so no burst counts twice.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import UNSEEN, compared
from rollout.tally.frames import ATTRIBUTE, VALUE, Records

Codes = NDArray[np.int64]
Name = tuple[tuple[str, str], ...]

SMALLEST = 30  # units of a slice, and as many elsewhere in the same cells
MOST_VALUES = 500  # of one dimension, the most frequent ones
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
ABSENT = -1
LABEL = "label"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One way to cut units: the slice of each by number, and within what it is compared.

    `codes` and `strata` have shape (units,); `ABSENT` where a unit has no value. `names` has the
    (kind, value) of each code.
    """

    names: tuple[Name, ...]
    codes: Codes
    strata: Codes


def first_verdicts(
    records: Records, facts: pl.DataFrame, version: str, lever: Lever
) -> pl.DataFrame:
    """Return one row per unit: the first verdict on the unit's first case that has one.

    Which case that is, and whose verdict, depends on keys, seats and times, never on an answer.
    Columns: the case's facts with hour and weekday, reviewer, human, model, differs, and whether
    a witness (the outcome, else another person) proves the model right, null without one.
    """
    column = VALUE + lever.id
    decisions = records.decisions.filter(pl.col("exposure").is_in(UNSEEN)).drop_nulls(column)
    decisions = decisions.sort("case_key", "seat", "at", "reviewer", nulls_last=True)
    decisions = decisions.select("case_key", "reviewer", human=column)
    model = records.predictions.filter(pl.col("version") == version)
    model = model.select("case_key", model=pl.col(column).fill_null(FAILED))
    joined = decisions.join(model, on="case_key", maintain_order="left")
    joined = joined.join(facts, on="case_key", how="left", maintain_order="left")
    first = joined.sort("unit", "case_key", maintain_order=True).unique(
        "unit", keep="first", maintain_order=True
    )
    first = first.join(_witnesses(decisions, records, column), on="case_key", how="left")
    return _with_answers(first, lever).sort("unit")


def _witnesses(said: pl.DataFrame, records: Records, column: str) -> pl.DataFrame:
    """Return the outcome of each case, else what a second person said."""
    second = said.filter(pl.int_range(pl.len()).over("case_key") == 1)
    second = second.select("case_key", second="human")
    outcomes = records.outcomes.select("case_key", outcome=column).drop_nulls()
    joined = outcomes.join(second, on="case_key", how="full", coalesce=True)
    return joined.select("case_key", witness=pl.coalesce("outcome", "second"))


def _with_answers(first: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    comparison = compared(lever, first).select("human", "model", differs=~pl.col("agrees"))
    witnessed = first.filter(pl.col("witness").is_not_null()).select(human="witness", model="model")
    witness_comparison = compared(lever, witnessed).select(
        "model", witness="human", model_right="agrees"
    )
    return first.join(comparison, on=["human", "model"]).join(
        witness_comparison, on=["witness", "model"], how="left"
    )


def with_clock(facts: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Add hour and weekday on each site's clock; null where a case has no usable time."""
    at = pl.from_epoch("t", time_unit="us").dt.replace_time_zone("UTC")
    hour = pl.lit(None, pl.Int8)
    weekday = pl.lit(None, pl.Int8)
    for zone, sites in _sites_by_zone(policy).items():
        in_zone, local_time = pl.col("site").is_in(sites), at.dt.convert_time_zone(zone)
        hour = pl.when(in_zone).then(local_time.dt.hour()).otherwise(hour)
        weekday = pl.when(in_zone).then(local_time.dt.weekday()).otherwise(weekday)
    names = dict(enumerate(WEEKDAYS, start=1))
    return facts.with_columns(
        hour=pl.format("{}:00", hour.cast(pl.String).str.zfill(2)),
        weekday=weekday.replace_strict(names, default=None, return_dtype=pl.String),
    )


def _sites_by_zone(policy: Policy) -> dict[str, list[str]]:
    zones: dict[str, list[str]] = {}
    for site in policy.sites:
        zones.setdefault(site.timezone, []).append(site.id)
    return zones


def dimensions(frame: pl.DataFrame, policy: Policy, lever: Lever) -> tuple[Dimension, ...]:
    """Return every way in which the units of a frame are cut, pairs after single ones.

    Args:
        frame: as `first_verdicts` gives it.
        policy: names the attributes.
        lever: people's labels are slices too, their numbers are not.

    A site is held against others in the same window, a window against others of the same site, a
    person against others in the same cell on cases of the same attributes and model's answer.
    """
    attributes = {a: ATTRIBUTE + a for a in policy.slices if ATTRIBUTE + a in frame.columns}
    cell, unit_count = _joined(frame, ["site", "window"]), frame["site"].len()
    case_mix = _joined(frame, ["site", "window", "model", *attributes.values()])
    single_columns = {"site": "site", "window": "window", **attributes}
    columns = {**single_columns, "hour": "hour", "weekday": "weekday", "person": "reviewer"}
    strata_by_kind = {
        "site": _joined(frame, ["window"]),
        "window": _joined(frame, ["site"]),
        "person": case_mix,
    }
    if lever.number is None:
        columns[LABEL] = "human"
    dimensions = [
        _dimension(frame, {kind: column}, strata_by_kind.get(kind, cell))
        for kind, column in columns.items()
    ]
    for first, second in combinations(single_columns, 2):
        strata = (
            np.zeros(unit_count, dtype=np.int64) if (first, second) == ("site", "window") else cell
        )
        pair = {first: single_columns[first], second: single_columns[second]}
        dimensions.append(_dimension(frame, pair, strata))
    return tuple(dimensions)


def _joined(frame: pl.DataFrame, columns: list[str]) -> Codes:
    """Return a number for each different combination of the columns' values, nulls among them."""
    return (frame.select(pl.struct(columns).rank("dense")).to_series().to_numpy() - 1).astype(
        np.int64
    )


def _dimension(frame: pl.DataFrame, columns: dict[str, str], strata: Codes) -> Dimension:
    """Cut by one column or by several at once; rare values and absent ones are no slice."""
    names = list(columns.values())
    counts = frame.select(names).drop_nulls().group_by(names).agg(units=pl.len())
    counts = _more_than_one_name(frame, counts, names) if len(names) > 1 else counts
    counts = counts.filter(pl.col("units") >= SMALLEST)
    counts = counts.sort("units", *names, descending=[True, *[False] * len(names)])
    values = counts.head(MOST_VALUES).drop("units").with_row_index("code")
    codes = frame.select(names).join(values, on=names, how="left", maintain_order="left")["code"]
    return Dimension(
        tuple(
            tuple(zip(columns, map(str, row), strict=True))
            for row in values.select(names).iter_rows()
        ),
        codes.cast(pl.Int64).fill_null(ABSENT).to_numpy(),
        strata,
    )


def _more_than_one_name(
    frame: pl.DataFrame, counts: pl.DataFrame, names: list[str]
) -> pl.DataFrame:
    """Leave out combinations that one of their values alone describes as well."""
    for name in names:
        alone = frame.group_by(name).agg(alone=pl.len())
        counts = counts.join(alone, on=name).filter(pl.col("units") < pl.col("alone")).drop("alone")
    return counts
