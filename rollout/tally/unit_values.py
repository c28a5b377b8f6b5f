"""The attribute values of units, by which cases are familiar or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rollout.core.calendar.instants import count_micros
from rollout.core.late_modules import LateModule
from rollout.core.policy.familiarity import FamiliarityRule, encode_case_values
from rollout.tally.frames import ATTRIBUTE_PREFIX

if TYPE_CHECKING:
    import narwhals as nw

    from rollout.core.policy.policy import Policy
else:
    nw = LateModule("narwhals")


def build_band_columns(policy: Policy) -> dict[str, nw.Expr]:
    """Return the column `band` of units under a policy that treats confidences differently.

    With several confidence floors it is how many above the lowest the confidence reaches; a missing
    confidence reaches none, as does one above 1. A silent version counts against all floors: nobody
    knows how sure it would have been. Other policies have no such column.
    """
    confidence, floors = nw.col("confidence"), policy.evidence.higher_floors
    if not floors:
        return {}
    reached = (
        ((confidence >= floor) & (confidence <= 1)).fill_null(value=False).cast(nw.Int64)
        for floor in floors
    )
    is_silent = ~nw.col("silent").is_null()
    band = nw.when(is_silent).then(nw.lit(len(floors))).otherwise(nw.sum_horizontal(*reached))
    return {"band": band}


def add_unit_values(units: pl.DataFrame, cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return units with the column `attribute_values`; "" if the policy asks for none.

    It holds the values of each case of the unit, the judged one first. Of an episode those cases
    count that had occurred and arrived by the unit's slot, so later ones change nothing.

    Args:
        units: rows as `rollout.tally.units.resolve_units` returns them.
        cases: the placed cases, with their attributes.
        policy: for the rule and the tick.
    """
    rule = policy.evidence.familiar
    if rule is None:
        return units.with_columns(attribute_values=pl.lit(""))
    values = cases.select(
        "case_key",
        "unit",
        "is_registered",
        arrived=pl.max_horizontal("occurred_us", "received"),
        values=encode_values(cases, rule),
    )
    own = values.select("case_key", own="values")
    units = units.join(own, on="case_key", how="left", maintain_order="left")
    others = pl.lit("")
    if policy.evidence.unit == "episode":
        units = _join_other_values(units, values, count_micros(policy.tick))
        others = pl.col("others")
    return units.with_columns(attribute_values=pl.format("[{}{}]", "own", others)).drop(
        "own", "others", strict=False
    )


def _join_other_values(units: pl.DataFrame, values: pl.DataFrame, tick: int) -> pl.DataFrame:
    """Add the values of an episode's other registered cases that differ from the judged one's."""
    keys = ("unit", "slot", "own")
    others = (
        units.select(keys)
        .unique()
        .join(values.filter("is_registered"), on="unit")
        .filter(pl.col("arrived") <= pl.col("slot") * tick, pl.col("values") != pl.col("own"))
        .group_by(keys)
        .agg(others="," + pl.col("values").unique().sort().str.join(","))
    )
    joined = units.join(others, on=keys, how="left", maintain_order="left")
    return joined.with_columns(pl.col("others").fill_null(""))


def encode_values(cases: pl.DataFrame, rule: FamiliarityRule) -> pl.Series:
    """Return the stored text of each case's values; equal cases are read once."""
    names = sorted(rule.attribute_names)
    columns = [
        pl.col(column) if column in cases.columns else pl.lit(None, pl.String)
        for column in (ATTRIBUTE_PREFIX + name for name in names)
    ]
    attributes = cases.select(
        column.cast(pl.String).alias(name) for name, column in zip(names, columns, strict=True)
    )
    different = attributes.unique()
    texts = [
        encode_case_values(rule.list_values({n: v for n, v in row.items() if v is not None}))
        for row in different.iter_rows(named=True)
    ]
    encoded = different.with_columns(text=pl.Series(texts, dtype=pl.String))
    return attributes.join(encoded, on=names, how="left", nulls_equal=True, maintain_order="left")[
        "text"
    ]
