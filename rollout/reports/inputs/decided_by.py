"""Who decided each case: the stage its cell stood on, the acting version, and the draw.

The engine looks at units; a price is paid by cases. Here every case of the history is placed on
the ladder as it stood when the case occurred.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime

import numpy as np
import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import TakenOver, Widened
from rollout.core.statistics.sampling import draws
from rollout.reports.inputs.inputs import Era, Inputs
from rollout.tally.frames import VALUE
from rollout.tally.slots import EPOCH, MICROSECOND, micros, slot_after
from rollout.tally.stage_history import Timeline, bands, shares_of
from rollout.tally.unit_arrays import Bools, Ints

PERSON, CONFIRM, MODEL = "person", "confirms", "model"
"""Who decides: a person unseen, a person who is shown the proposal, or the model."""

SCHEMA = {
    "case_key": pl.String,
    "site": pl.String,
    "window": pl.String,
    "unit": pl.String,
    "t": pl.Int64,
    "rung": pl.Int64,
    "version": pl.String,
    "decider": pl.String,
    "audited": pl.Boolean,
}


def standing(inputs: Inputs) -> pl.DataFrame:
    """Return every placed case with the rung and version that it met, and who decided it.

    Columns: case_key, site, window, unit, t, rung, version (null in shadow), decider, audited.
    A case that the acting version did not answer, or answered below the confidence floor, is
    decided by a person.
    """
    acting_versions = holders_of(inputs)
    parts = [
        _of_cell(part, Cell(str(site), str(window)), period, inputs, acting_versions)
        for period, cases in _by_era(inputs)
        for (site, window), part in cases.sort("case_key")
        .partition_by("site", "window", as_dict=True)
        .items()
    ]
    decided_cases = pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)
    return _unanswered_by_people(decided_cases, inputs).sort("case_key")


def holders_of(inputs: Inputs) -> Mapping[Cell, list[tuple[datetime, str]]]:
    """Return per cell since when which version has the place; narrowing does not change it."""
    acting_versions: dict[Cell, list[tuple[datetime, str]]] = {}
    for event in inputs.events:
        if isinstance(event, Widened | TakenOver):
            changes = acting_versions.setdefault(event.cell, [])
            if not changes or changes[-1][1] != event.version:
                changes.append((event.at, event.version))
    return acting_versions


def _by_era(inputs: Inputs) -> Iterator[tuple[Era, pl.DataFrame]]:
    """Yield each policy that was in force with the cases that occurred under it.

    Shares and stages are those of their time. Cases from before the first policy go with it.
    """
    policy_periods = inputs.eras or (Era(inputs.first, inputs.policy, inputs.timelines),)
    starts = [(period.since - EPOCH) // MICROSECOND for period in policy_periods]
    for index, period in enumerate(policy_periods):
        next_start = starts[index + 1] if index + 1 < len(policy_periods) else None
        is_after = pl.lit(value=True) if index == 0 else pl.col("t") >= starts[index]
        is_before = pl.lit(value=True) if next_start is None else pl.col("t") < next_start
        yield period, inputs.cases.filter(is_after & is_before)


def _of_cell(
    part: pl.DataFrame,
    cell: Cell,
    era: Era,
    inputs: Inputs,
    holders: Mapping[Cell, list[tuple[datetime, str]]],
) -> pl.DataFrame:
    policy, shares = era.policy, shares_of(era.policy)
    occurred = part["t"].to_numpy() // micros(policy.tick)
    stage_levels = era.timelines.get(cell, Timeline()).at(occurred)
    buckets = np.zeros(len(stage_levels), dtype=np.int64)
    is_above_shadow = stage_levels > 0
    if is_above_shadow.any():
        keys = part.filter(pl.Series(is_above_shadow))["unit"].to_list()
        buckets[is_above_shadow] = bands(shares, draws(inputs.salt, "stage", keys))
    is_sampled = np.where(is_above_shadow, buckets < shares.seen[stage_levels], True)
    is_blind = np.where(is_above_shadow, buckets < shares.blind[stage_levels], True)
    decider = np.where(is_blind, PERSON, np.where(shares.decides[stage_levels], MODEL, CONFIRM))
    return part.select("case_key", "site", "window", "unit", "t").with_columns(
        rung=pl.Series(stage_levels),
        version=_versions(policy, holders.get(cell, []), occurred, is_above_shadow),
        decider=pl.Series(decider.astype(str)),
        audited=pl.Series(is_sampled & ~is_blind),
    )


def _versions(
    policy: Policy,
    since: list[tuple[datetime, str]],
    occurred: Ints,
    above: Bools,
) -> pl.Series:
    """Return the version that acted in each slot, null in shadow."""
    slots = np.array([slot_after(at, policy.tick) for at, _ in since], dtype=np.int64)
    names = np.array([None, *(version for _, version in since)], dtype=object)
    indices = np.where(above, np.searchsorted(slots, occurred, side="right"), 0)
    return pl.Series(names[indices].tolist(), dtype=pl.String)


def _unanswered_by_people(placed: pl.DataFrame, inputs: Inputs) -> pl.DataFrame:
    """Hand to people what the acting version did not answer, or not surely enough."""
    answers = [pl.col(VALUE + lever.id).is_not_null() for lever in inputs.policy.levers]
    is_usable = pl.all_horizontal(answers)
    confidence_floor = inputs.policy.evidence.confidence_floor
    if confidence_floor is not None:
        is_usable &= (pl.col("confidence") >= confidence_floor).fill_null(value=False)
    answered = inputs.records.predictions.select("case_key", "version", usable=is_usable)
    joined = placed.join(answered, on=["case_key", "version"], how="left")
    has_answer = pl.col("usable").fill_null(value=False)
    return joined.with_columns(
        decider=pl.when(has_answer).then("decider").otherwise(pl.lit(PERSON)),
        audited=pl.col("audited") & has_answer,
    ).drop("usable")
