"""Which units gates could count: all in shadow, above it those drawn for a blind decision."""

import numpy as np
import polars as pl

from rollout.core.calendar.instants import count_micros
from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import decode_unit_values
from rollout.reports.inputs.decided_by import (
    build_familiar_histories,
    find_drawn_units,
    split_by_policy_period,
)
from rollout.reports.inputs.inputs import ReportInputs
from rollout.tally.familiar_history import FamiliarHistory
from rollout.tally.unit_arrays import BoolArray, fill_attribute_values

NOT_DRAWN = "not sampled for a blind review or an audit"
UNFAMILIAR = "a value was not familiar to the version"


def mark_uncounted_units(inputs: ReportInputs, units: pl.DataFrame) -> pl.DataFrame:
    """Return units with `uncounted`: why gates do not count them, null if they do.

    `units`: rows of `ReportInputs.units` in a window; each stage asks for its share of them, under
    the policy in force when they occurred.
    """
    histories = build_familiar_histories(inputs)
    occurred_us = pl.col("occurred") * count_micros(inputs.policy.tick)
    rows = fill_attribute_values(units).with_columns(occurred_us=occurred_us)
    parts = []
    for period, period_rows in split_by_policy_period(inputs, rows):
        groups = period_rows.partition_by("site", "window", "version", as_dict=True)
        for (site, window, version), part in groups.items():
            cell = Cell(str(site), str(window))
            is_drawn = find_drawn_units(part, cell, period, inputs.salt)
            is_familiar = _find_familiar(part, histories[cell, str(version)])
            reason = (
                pl.when(~pl.Series(is_drawn)).then(pl.lit(NOT_DRAWN))
                .when(~pl.Series(is_familiar)).then(pl.lit(UNFAMILIAR))
            )  # fmt: skip
            parts.append(part.with_columns(uncounted=reason))
    return pl.concat(parts) if parts else rows.with_columns(uncounted=pl.lit(None, pl.String))


def _find_familiar(part: pl.DataFrame, history: FamiliarHistory) -> BoolArray:
    """Return which units had only values that were familiar when they occurred."""
    is_familiar = np.ones(part.height, dtype=bool)
    occurred, texts = part["occurred"].to_numpy(), part["attribute_values"]
    for text in texts.unique().to_list():
        places = np.flatnonzero((texts == text).to_numpy())
        for value in frozenset().union(*decode_unit_values(text)):
            is_familiar[places] &= history.find_familiar(value, occurred[places])
    return is_familiar
