"""The two populations of cases: those that occur, and those that users plant.

This is the only place that decides which figures a case belongs to. `split_populations` moves the
records of planted cases out of a history's frames, so what reads these can't count them. Planted
units get a track of their own, which only conditions and figures about planted cases read.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

import narwhals as nw
import polars as pl

from rollout.core.policy.policy import Policy
from rollout.tally.case_placement import PlacedHistory, place_cases
from rollout.tally.decision_resolution import Frame
from rollout.tally.frames import RecordFrames
from rollout.tally.reviewer_checks import compute_required_reliability
from rollout.tally.unit_values import add_unit_values
from rollout.tally.units import TRACKS, resolve_units

PLANTED_TRACK: Final = "planted"
CASES_AT_ONCE = 125_000
"""Cases whose units are resolved together; more would need more memory, and save no time."""
REPEATED_TEXTS = (
    *("track", "site", "window", "version", "lever", "predicted", "decided", "second"),
    *("reviewer", "excluded"),
)
SPLIT_FRAMES: Final = (
    *("cases", "predictions", "decisions", "outcomes", "earlier_outcomes"),
    "own_predictions",
    *("gold_decisions", "unsourced_decisions"),
    "probabilities",
)


def split_populations(records: RecordFrames, planted_keys: Collection[str]) -> RecordFrames:
    """Return the records of the cases that occur, with those of planted cases as `planted`."""
    if not planted_keys:
        return records
    keys = pl.Series(sorted(planted_keys), dtype=pl.String)
    is_planted = pl.col("case_key").is_in(keys.implode())
    frames = {name: getattr(records, name) for name in SPLIT_FRAMES}
    planted = {name: frame.filter(is_planted) for name, frame in frames.items()}
    natural = {name: frame.filter(~is_planted) for name, frame in frames.items()}
    return replace(records, **natural, planted=replace(records, **planted))


def resolve_natural_units(
    history: PlacedHistory, policy: Policy, *, tracks: Collection[str] = TRACKS
) -> pl.DataFrame:
    """Return the units of placed cases on their tracks, with their attribute values."""
    units = resolve_units(history.placed, policy, tracks=tracks).collect("polars").to_native()
    return add_unit_values(units, history.cases, policy)


def resolve_compact_units(history: PlacedHistory, policy: Policy) -> pl.DataFrame:
    """Return the result of `resolve_natural_units` with repeated texts as categories.

    Cases are resolved in parts, because joined rows are several times as large as their units.
    """
    part_count = -(-history.cases.height // CASES_AT_ONCE)
    if part_count < 2 or policy.evidence.unit != "case":
        return encode_repeated_texts(resolve_natural_units(history, policy))
    part_number = pl.col("case_key").hash() % part_count
    parts = (
        resolve_natural_units(_select_part(history, part_number == number), policy)
        for number in range(part_count)
    )
    return pl.concat([encode_repeated_texts(part) for part in parts], rechunk=True)


def encode_repeated_texts(units: pl.DataFrame) -> pl.DataFrame:
    """Return units with repeated texts as categories, a quarter of their size."""
    return units.with_columns(pl.col(REPEATED_TEXTS).cast(pl.Categorical))


def _select_part(history: PlacedHistory, condition: pl.Expr) -> PlacedHistory:
    """Return the placed records of the cases for which a condition on their key holds."""

    def select(frame: Frame) -> Frame:
        native: pl.LazyFrame = frame.to_native()
        return nw.from_native(native.filter(condition))

    placed, assisted = history.placed, history.placed.assisted_decisions
    return replace(
        history,
        cases=history.cases.filter(condition),
        placed=replace(
            placed,
            cases=select(placed.cases),
            predictions=select(placed.predictions),
            decisions=select(placed.decisions),
            assisted_decisions=None if assisted is None else select(assisted),
        ),
    )


def place_planted_cases(
    records: RecordFrames,
    policy: Policy,
    salt: bytes,
    trained_until: Mapping[str, datetime] | None = None,
) -> PlacedHistory | None:
    """Place the planted cases of a history; None without any.

    Reviewers are judged by the cases that occur alone. Units are made within each population, so a
    planted case can't change which case of an episode is counted.
    """
    if records.planted is None:
        return None
    reliability = compute_required_reliability(records, policy)
    planted = replace(records.planted, reliability=reliability)
    return place_cases(planted, policy, salt, trained_until)


def resolve_planted_units(history: PlacedHistory, policy: Policy) -> pl.DataFrame:
    """Return one row a planted unit, version and lever, which counts when the unit closes."""
    closed_units = resolve_natural_units(history, policy, tracks=("gate",))
    return closed_units.with_columns(track=pl.lit(PLANTED_TRACK))


def resolve_all_units(
    natural: PlacedHistory, planted: PlacedHistory | None, policy: Policy
) -> pl.DataFrame:
    """Return the units of both populations, told apart by their track."""
    natural_units = resolve_natural_units(natural, policy)
    if planted is None:
        return natural_units
    return pl.concat([natural_units, resolve_planted_units(planted, policy)])
