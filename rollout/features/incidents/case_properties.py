"""Judged units with the properties of their cases, from the stored columns.

Everything is done by column: a cell may have 100,000 units.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import polars as pl

from rollout.data.counting.closed_units import JudgedUnitStore
from rollout.features.reports.figures.incident_cause import JudgedUnits
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.value_search import ANSWER, ATTRIBUTE, MIN_CASES, Codes, ValueKind
from rollout.kernel.units import MISSING

HOUR: Final = "hour"
WEEKDAY: Final = "weekday"
REVIEWER: Final = "reviewer"
SITE, WINDOW = "site", "window"
LeverAnswers: TypeAlias = Mapping[str, Mapping[int, tuple[str, str]]]
WEEKDAYS: Final = (
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
    *("Saturday", "Sunday"),
)
HOURS: Final = tuple(f"{hour:02}–{hour + 1:02}" for hour in range(24))
OTHER_VALUE: Final = r'":\s*[^"\sn]'
"""Pattern of a value that is neither a text nor null, or of some texts with quotes."""
HUMAN, MODEL = "human:", "model:"
"""Prefixes of the columns with the answers on a lever."""


def load_lever_answers(store: JudgedUnitStore, policy: Policy) -> LeverAnswers:
    """Return the answers of each class of the levers that units are compared on."""
    levers = {policy.whole_unit_lever, *policy.levers_by_id}
    return {lever: store.load_answers(lever) for lever in levers}


def select_with_attributes(units: pl.DataFrame, attributes: Mapping[str, str]) -> pl.DataFrame:
    """Return the units whose cases have all of some attribute values."""
    if not attributes:
        return units
    texts = units["attributes"].unique().to_list()
    pairs = attributes.items()
    matching = [
        text
        for text, values in zip(texts, _decode_texts(texts), strict=True)
        if all(_format_value(values.get(name)) == value for name, value in pairs)
    ]
    return units.filter(pl.col("attributes").is_in(matching))


def build_judged_units(
    units: pl.DataFrame, answers: LeverAnswers, policy: Policy, *, names_reviewers: bool
) -> JudgedUnits:
    """Return the units with the properties of their cases, those that the policy's levers count.

    Sites and windows are properties where the units are of several.

    Args:
        units: rows as `JudgedUnitStore.load_occurred` returns them, of any cells.
    """
    human, model = (prefix + policy.whole_unit_lever for prefix in (HUMAN, MODEL))
    judged = (
        units.join(_build_answers(units["classes"], answers), on="classes", maintain_order="left")
        .filter(pl.col(human).is_not_null() & (pl.col(human) != MISSING))
        .sort("occurred", "case_id")
    )
    hours, weekdays = _find_local_times(judged, policy)
    kinds = [
        *_build_attributes(judged["attributes"]),
        *(
            _build_kind(
                "human answer" if len(policy.levers) == 1 else f"human answer on {lever.id}",
                judged[HUMAN + lever.id],
                ANSWER,
            )
            for lever in policy.levers
            if lever.has_single_labels
        ),
        ValueKind(HOUR, HOURS, hours, HOUR),
        ValueKind(WEEKDAY, WEEKDAYS, weekdays, WEEKDAY),
        *(_build_kind(name, judged[name], name) for name in _list_varied(judged, (SITE, WINDOW))),
    ]
    if names_reviewers:
        kinds.append(_build_kind(REVIEWER, judged["reviewer"], REVIEWER))
    return JudgedUnits(
        judged["occurred"].to_numpy(),
        judged["day"].to_numpy(),
        judged.select(pl.col(human) != pl.col(model)).to_series().to_numpy(),
        tuple(kinds),
    )


def _build_answers(classes: pl.Series, answers: LeverAnswers) -> pl.DataFrame:
    """Return a row for each distinct text of class numbers, with the answers on each lever."""
    texts = classes.unique().to_list()
    class_ids = [json.loads(text) for text in texts]
    columns: dict[str, list[str | None]] = {}
    for lever, classes_by_id in answers.items():
        pairs = [
            next((classes_by_id[i] for i in ids if i in classes_by_id), (None, None))
            for ids in class_ids
        ]
        columns[HUMAN + lever] = [human for human, _ in pairs]
        columns[MODEL + lever] = [model for _, model in pairs]
    return pl.DataFrame(
        {"classes": texts, **columns},
        schema=dict.fromkeys(("classes", *columns), pl.String()),
    )


def _find_local_times(judged: pl.DataFrame, policy: Policy) -> tuple[Codes, Codes]:
    """Return the hour and the weekday of each case by the clock of its site."""
    hours, weekdays = np.zeros((2, judged.height), dtype=np.int64)
    sites = judged["site"]
    times = judged["occurred"].cast(pl.Datetime("us", "UTC"))
    zones = {site: policy.get_timezone(site) for site in sites.unique()}
    for zone in set(zones.values()):
        is_there = sites.is_in([site for site, name in zones.items() if name == zone])
        local_times, mask = times.filter(is_there).dt.convert_time_zone(zone), is_there.to_numpy()
        hours[mask] = local_times.dt.hour().cast(pl.Int64).to_numpy()
        weekdays[mask] = local_times.dt.weekday().cast(pl.Int64).to_numpy() - 1
    return hours, weekdays


def _list_varied(judged: pl.DataFrame, names: Collection[str]) -> list[str]:
    """Return the columns with several values."""
    return [name for name in names if judged[name].n_unique() > 1]


def _build_attributes(texts: pl.Series) -> list[ValueKind]:
    """Return a kind for each attribute of any case."""
    return [_build_kind(column.name, column) for column in _split_attributes(texts)]


def _split_attributes(texts: pl.Series) -> list[pl.Series]:
    """Return a column of texts for each attribute, by name."""
    distinct = texts.unique(maintain_order=True)
    if len(distinct) and not distinct.str.contains(OTHER_VALUE).any():
        decoded = distinct.str.json_decode(infer_schema_length=None).struct.unnest()
        columns = decoded.select(pl.all().cast(pl.String))
    else:  # polars writes numbers and flags in another way than the pages
        attributes = _decode_texts(distinct.to_list())
        names: list[str] = sorted(set().union(*attributes))
        columns = pl.DataFrame(
            {name: [_format_value(values.get(name)) for values in attributes] for name in names},
            schema=dict.fromkeys(names, pl.String()),
        )
    numbers = pl.DataFrame({"text": distinct}).with_row_index("number")
    positions = pl.DataFrame({"text": texts}).join(numbers, on="text", maintain_order="left")
    return [columns[name].gather(positions["number"]) for name in sorted(columns.columns)]


def _decode_texts(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the attributes of stored JSON, all decoded at once."""
    decoded: list[dict[str, Any]] = msgspec.json.decode(f"[{','.join(texts)}]")
    return decoded


def _format_value(value: object) -> str | None:
    return None if value is None else str(value)


def _build_kind(name: str, values: pl.Series, source: str = ATTRIBUTE) -> ValueKind:
    """Return a kind of the values that are frequent enough to be compared; others have no code."""
    numbers = values.drop_nulls().value_counts(name="n")
    ordered = numbers.filter(pl.col("n") >= MIN_CASES)[values.name].sort()
    codes = values.cast(pl.Enum(ordered), strict=False).to_physical().cast(pl.Int64)
    return ValueKind(name, tuple(ordered), codes.fill_null(-1).to_numpy(), source)
