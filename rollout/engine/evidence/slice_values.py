"""The attribute values of units: as stored with each unit, and as conditions need them."""

import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX
from rollout.kernel.policy.cell_evidence import (
    list_recorded_attributes,
    list_slice_attributes,
    select_values,
)
from rollout.kernel.policy.policy import Policy

SLICES = "slices"


def add_slices(cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Add each case's values of the recorded attributes as JSON; null for an absent one."""
    attributes = list_recorded_attributes(policy)
    if not attributes:
        return cases.with_columns(pl.lit("").alias(SLICES))
    columns = [
        (pl.col(name) if (name := ATTRIBUTE_PREFIX + a) in cases.columns else pl.lit(None)).alias(a)
        for a in attributes
    ]
    return cases.with_columns(pl.struct(columns).struct.json_encode().alias(SLICES))


def select_slices(units: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return units with the values that conditions need alone, so that classes are few."""
    attributes = list_slice_attributes(policy)
    if not attributes or SLICES not in units.columns:
        return units.with_columns(pl.lit("").alias(SLICES))
    texts = units[SLICES].fill_null("").unique().to_list()
    values = {text: select_values(text, attributes) for text in texts}
    column = pl.col(SLICES).fill_null("").replace_strict(values, return_dtype=pl.String)
    return units.with_columns(column)
