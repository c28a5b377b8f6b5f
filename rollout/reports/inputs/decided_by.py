"""The decider of each case, from the stage, acting version and sampling value at its time.

The engine counts units; costs are of cases, so every case is assigned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rollout.core.calendar.instants import count_micros, to_micros
from rollout.core.calendar.sites import Cell
from rollout.core.late_modules import LateModule
from rollout.core.policy.familiarity import (
    FamiliarityRule,
    decode_unit_values,
    format_value,
)
from rollout.core.scope.projection import list_effective_times
from rollout.tally.familiar_history import FamiliarHistories, FamiliarHistory
from rollout.tally.frames import VALUE_PREFIX
from rollout.tally.slots import find_slot_after
from rollout.tally.stage_history import StageHistory, build_stage_shares, draw_buckets
from rollout.tally.tallied_units import fill_attribute_values
from rollout.tally.unit_values import encode_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import narwhals as nw

    from rollout.core.policy.policy import Policy
    from rollout.reports.inputs.inputs import PolicyPeriod, ReportInputs
    from rollout.tally.unit_arrays import BoolArray, IntArray
else:
    nw = LateModule("narwhals")


def find_unfamiliar_values(
    cases: pl.DataFrame, occurred: IntArray, history: FamiliarHistory, rule: FamiliarityRule
) -> pl.Series:
    """Return the unfamiliar values of each case in words, null if all were familiar.

    Args:
        cases: of one cell, with their attributes.
        occurred: the slot of each.
        history: of the acting version in the cell.
        rule: of the policy.
    """
    texts = encode_values(cases, rule)
    unfamiliar: list[list[str]] = [[] for _ in range(cases.height)]
    for text in texts.unique(maintain_order=True):
        places = np.flatnonzero((texts == text).to_numpy())
        (values,) = decode_unit_values(f"[{text}]")
        for value in sorted(values):
            is_familiar = history.find_familiar(value, occurred[places])
            for place in places[~is_familiar].tolist():
                unfamiliar[place].append(format_value(value))
    return pl.Series([", ".join(names) or None for names in unfamiliar], dtype=pl.String)


HUMAN, HUMAN_CONFIRMS, MODEL = "person", "confirms", "model"
"""Deciders: a human blind, a human who sees the model's answer, or the model."""

DECIDER_SCHEMA = {
    "case_key": pl.String,
    "site": pl.String,
    "window": pl.String,
    "unit": pl.String,
    "occurred_us": pl.Int64,
    "rung": pl.Int64,
    "version": pl.String,
    "decider": pl.String,
    "audited": pl.Boolean,
    "reviewed_share": pl.Float64,
    "unfamiliar": pl.String,
    "stage_decider": pl.String,
}


def assign_deciders(inputs: ReportInputs) -> pl.DataFrame:
    """Return every case in a cell with its decider.

    Columns: case_key, site, window, unit (its number), t, rung (stage level), version (null in
    shadow), decider, audited, reviewed_share (decided blind; 1 in shadow),
    unfamiliar (values in words with which the acting version was not familiar, null without any),
    stage_decider (the decider if all values had been familiar). Unfamiliar cases, and those without
    a usable answer of the acting version, are decided by a human.
    """
    acting_versions = find_acting_versions(inputs)
    histories = build_familiar_histories(inputs)
    parts = [
        _reassign_unfamiliar(
            _assign_cell_deciders(
                part, Cell(str(site), str(window)), period, inputs, acting_versions
            ),
            part,
            period.policy,
            histories,
        )
        for period, cases in split_by_policy_period(inputs, inputs.cases)
        for (site, window), part in cases.sort("case_key")
        .partition_by("site", "window", as_dict=True)
        .items()
    ]
    decided_cases = pl.concat(parts) if parts else pl.DataFrame(schema=DECIDER_SCHEMA)
    decided_cases = decided_cases.with_columns(pl.col("unit").rank("dense"))
    return _reassign_unanswered(decided_cases, inputs).sort("case_key")


def find_acting_versions(inputs: ReportInputs) -> Mapping[Cell, list[tuple[datetime, str]]]:
    """Return the acting versions of each cell, and from when they hold for units."""
    acting_versions: dict[Cell, list[tuple[datetime, str]]] = {}
    for event, at in list_effective_times(inputs.events):
        if event.opened_key:
            cell, version = event.opened_key
            changes = acting_versions.setdefault(cell, [])
            if not changes or changes[-1][1] != version:
                changes.append((at, version))
    return acting_versions


def build_familiar_histories(inputs: ReportInputs) -> FamiliarHistories:
    """Return which attribute values were familiar when, by cell and version."""
    histories = FamiliarHistories()
    for event, at in list_effective_times(inputs.events):
        histories.add_event(event, find_slot_after(at, inputs.policy.tick))
    return histories


def split_by_policy_period(
    inputs: ReportInputs, rows: pl.DataFrame
) -> Iterator[tuple[PolicyPeriod, pl.DataFrame]]:
    """Yield each policy period with its rows by `occurred_us`; earlier ones go to the first."""
    policy_periods = inputs.all_policy_periods
    starts = [to_micros(period.since) for period in policy_periods]
    for index, period in enumerate(policy_periods):
        next_start = starts[index + 1] if index + 1 < len(policy_periods) else None
        is_after = pl.lit(value=True) if index == 0 else pl.col("occurred_us") >= starts[index]
        is_before = pl.lit(value=True) if next_start is None else pl.col("occurred_us") < next_start
        yield period, rows.filter(is_after & is_before)


def _assign_cell_deciders(
    part: pl.DataFrame,
    cell: Cell,
    period: PolicyPeriod,
    inputs: ReportInputs,
    acting_versions: Mapping[Cell, list[tuple[datetime, str]]],
) -> pl.DataFrame:
    policy, shares = period.policy, build_stage_shares(period.policy)
    occurred = part["occurred_us"].to_numpy() // count_micros(policy.tick)
    stage_levels, buckets = _find_levels_and_buckets(part, cell, period, inputs)
    is_above_shadow = stage_levels > 0
    versions = _find_versions(policy, acting_versions.get(cell, []), occurred, is_above_shadow)
    is_sampled = ~is_above_shadow | shares.find_reviewed(buckets, stage_levels)
    is_blind = np.where(is_above_shadow, buckets < shares.blind_buckets[stage_levels], True)
    decider = np.where(
        is_blind, HUMAN, np.where(shares.model_decides[stage_levels], MODEL, HUMAN_CONFIRMS)
    )
    return part.select("case_key", "site", "window", "unit", "occurred_us").with_columns(
        rung=pl.Series(stage_levels),
        version=versions,
        decider=pl.Series(decider.astype(str)),
        audited=pl.Series(is_sampled & ~is_blind),
        reviewed_share=pl.Series(shares.reviewed_shares[stage_levels]),
    )


def find_drawn_units(
    part: pl.DataFrame, cell: Cell, period: PolicyPeriod, inputs: ReportInputs
) -> BoolArray:
    """Return which rows were in shadow, or drawn for a blind decision above it.

    `part` are rows of one cell and policy period, with `unit` and `occurred_us`.
    """
    stage_levels, buckets = _find_levels_and_buckets(part, cell, period, inputs)
    is_reviewed = build_stage_shares(period.policy).find_reviewed(buckets, stage_levels)
    return np.asarray((stage_levels == 0) | is_reviewed)


def _find_levels_and_buckets(
    part: pl.DataFrame, cell: Cell, period: PolicyPeriod, inputs: ReportInputs
) -> tuple[IntArray, IntArray]:
    """Return the stage level and the sampling bucket of each row; buckets are 0 in shadow."""
    occurred = part["occurred_us"].to_numpy() // count_micros(period.policy.tick)
    stage_levels = period.timelines.get(cell, StageHistory()).find_levels(occurred)
    buckets = np.zeros(len(stage_levels), dtype=np.int64)
    is_above_shadow = stage_levels > 0
    if is_above_shadow.any():
        keys = part.filter(pl.Series(is_above_shadow))["unit"].to_list()
        shares = build_stage_shares(period.policy)
        salts = inputs.salt, inputs.audit_salt or inputs.salt
        buckets[is_above_shadow] = draw_buckets(shares, *salts, keys)
    return stage_levels, buckets


def _reassign_unfamiliar(
    cases: pl.DataFrame, attributes: pl.DataFrame, policy: Policy, histories: FamiliarHistories
) -> pl.DataFrame:
    """Return a cell's cases with humans as deciders where the acting version is not familiar.

    `attributes` are the same cases in the same order, with their attributes.
    """
    rule = policy.evidence.familiar
    cases = cases.with_columns(unfamiliar=pl.lit(None, pl.String), stage_decider=pl.col("decider"))
    if rule is None:
        return cases
    occurred = cases["occurred_us"].to_numpy() // count_micros(policy.tick)
    cell = Cell(*cases.select("site", "window").row(0))
    for version in cases["version"].drop_nulls().unique():
        values = find_unfamiliar_values(attributes, occurred, histories[cell, version], rule)
        is_own = pl.col("version").eq_missing(pl.lit(version))
        cases = cases.with_columns(unfamiliar=pl.when(is_own).then(values).otherwise("unfamiliar"))
    is_familiar = pl.col("unfamiliar").is_null()
    return cases.with_columns(
        decider=pl.when(is_familiar).then("decider").otherwise(pl.lit(HUMAN)),
        audited=pl.col("audited") & is_familiar,
    )


def _find_versions(
    policy: Policy,
    changes: list[tuple[datetime, str]],
    occurred: IntArray,
    is_above_shadow: BoolArray,
) -> pl.Series:
    """Return the acting version in each slot, null in shadow."""
    slots = np.array([find_slot_after(at, policy.tick) for at, _ in changes], dtype=np.int64)
    names = np.array([None, *(version for _, version in changes)], dtype=object)
    indices = np.where(is_above_shadow, np.searchsorted(slots, occurred, side="right"), 0)
    return pl.Series(names[indices].tolist(), dtype=pl.String)


def find_usable_answers(inputs: ReportInputs) -> pl.DataFrame:
    """Return whether each answer is complete and confident enough: case_key, version, usable.

    With several confidence floors that is the one in force when the case occurred.
    """
    levers, confidence_floor = inputs.policy.levers, inputs.policy.evidence.lowest_floor
    is_usable = pl.all_horizontal(pl.col(VALUE_PREFIX + lever.id).is_not_null() for lever in levers)
    if confidence_floor is not None:
        is_usable &= (pl.col("confidence") >= confidence_floor).fill_null(value=False)
    predictions = inputs.records.predictions
    if inputs.policy.evidence.higher_floors:
        predictions = predictions.join(_find_acting_floors(inputs), on="case_key", how="left")
        is_usable &= pl.col("floor").fill_null(0).eq(0) | (
            (pl.col("confidence") >= pl.col("floor")) & (pl.col("confidence") <= 1)
        ).fill_null(value=False)
    return predictions.select("case_key", "version", usable=is_usable)


def _find_acting_floors(inputs: ReportInputs) -> pl.DataFrame:
    """Return the acting confidence floor of each case: case_key, floor; 0 in shadow."""
    parts = [
        part.select("case_key").with_columns(
            floor=pl.Series(
                period.timelines.get(Cell(str(site), str(window)), StageHistory()).find_floors(
                    part["occurred_us"].to_numpy() // count_micros(period.policy.tick)
                )
            )
        )
        for period, cases in split_by_policy_period(inputs, inputs.cases)
        for (site, window), part in cases.partition_by("site", "window", as_dict=True).items()
    ]
    return (
        pl.concat(parts)
        if parts
        else pl.DataFrame(schema={"case_key": pl.String, "floor": pl.Float64})
    )


def _reassign_unanswered(cases: pl.DataFrame, inputs: ReportInputs) -> pl.DataFrame:
    """Return the cases with humans as deciders where no answer is usable."""
    joined = cases.join(find_usable_answers(inputs), on=["case_key", "version"], how="left")
    has_answer = pl.col("usable").fill_null(value=False)
    return joined.with_columns(
        decider=pl.when(has_answer).then("decider").otherwise(pl.lit(HUMAN)),
        audited=pl.col("audited") & has_answer,
    ).drop("usable")


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
            is_drawn = find_drawn_units(part, cell, period, inputs)
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
