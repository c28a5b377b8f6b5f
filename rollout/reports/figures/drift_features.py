"""The features whose drift is compared: attributes, human labels, answers and confidence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.kernel.units import FAILED
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.inputs.pairs import UNASSISTED_EXPOSURES
from rollout.reports.text.formatting import format_count, format_quantity
from rollout.tally.frames import ATTRIBUTE_PREFIX, MEDIA_COLUMN, VALUE_PREFIX

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

    days: NDArray[np.int64]
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
