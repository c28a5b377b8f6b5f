"""Pairs of human label and model answer, for record-level figures.

They cover every case with exactly one distinct label in its unassisted decisions (blind, or of
unknown exposure), also cases without a usable time and cases that are no evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED, WHOLE_UNIT
from rollout.core.policy.policy import Policy
from rollout.tally.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames

UNASSISTED_EXPOSURES = ("blind", "unknown")
"""Exposures of the decisions in record-level figures."""

OTHER_ACTION = "(no action)"  # action of a label that the lever doesn't list

NO_TEXT = pl.lit(None, pl.String)
CASE_COLUMNS = ("site", "window", "unit", "occurred_us", "hour_written", "occurred_text")


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of a history.

    Attributes:
        frame: one row per case, version and lever, and with several levers one for all of them
            (lever `*`). Columns: case_key, version, lever, human, model, agrees, human_action,
            model_action, same_action, cost, confidence, outcome, the cases' facts and attributes.
            For lever `*` labels and actions are null.
        predicted: number of predictions by version.
    """

    frame: pl.DataFrame
    predicted: dict[str, int]

    def select(self, version: str, lever: str) -> pl.DataFrame:
        """Return the rows of one version and lever."""
        return self.frame.filter((pl.col("version") == version) & (pl.col("lever") == lever))


def build_pairs(records: RecordFrames, cases: pl.DataFrame, policy: Policy) -> Pairs:
    """Return every pair of a history.

    `cases` are the cases in a cell, with site, window, unit and t.
    """
    facts = build_case_frame(records, cases)
    parts = [_build_lever_pairs(records, lever) for lever in policy.levers]
    if len(parts) > 1:
        parts.append(_combine_pairs(parts))
    frame = pl.concat(parts).join(facts, on="case_key", how="left")
    prediction_counts = records.predictions.group_by("version").len().sort("version")
    return Pairs(frame.sort("version", "lever", "case_key"), dict(prediction_counts.iter_rows()))


def build_case_frame(records: RecordFrames, cases: pl.DataFrame) -> pl.DataFrame:
    """Return facts and attributes of each case; a case without a cell is its own unit."""
    placed_cases = cases.select("case_key", "window", "unit", "occurred_us")
    joined = records.cases.join(placed_cases, on="case_key", how="left")
    joined = joined.with_columns(unit=pl.coalesce("unit", "episode", "case_key"))
    names = [name for name in joined.columns if name.startswith(ATTRIBUTE_PREFIX)]
    return joined.select("case_key", *CASE_COLUMNS, *names)


def list_attributes(row: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return names and values of a case's attributes, without embedded pictures.

    >>> list_attributes({"case_key": "c1", "attribute:lens": "snow", "attribute:mode": None})
    (('lens', 'snow'),)
    """
    return tuple(
        (name.removeprefix(ATTRIBUTE_PREFIX), str(value))
        for name, value in row.items()
        if name.startswith(ATTRIBUTE_PREFIX)
        and value is not None
        and not str(value).startswith("data:")
    )


def find_single_labels(records: RecordFrames, column: str) -> pl.DataFrame:
    """Return the cases with exactly one distinct unassisted answer: case_key, human."""
    decisions = records.decisions.filter(
        pl.col("exposure").is_in(UNASSISTED_EXPOSURES) & pl.col(column).is_not_null()
    )
    labels = decisions.group_by("case_key").agg(
        human=pl.col(column).first(), different=pl.col(column).n_unique()
    )
    return labels.filter(pl.col("different") == 1).drop("different")


def _build_lever_pairs(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    column = VALUE_PREFIX + lever.id
    model = records.predictions.select(
        "case_key", "version", model=pl.col(column).fill_null(FAILED), confidence="confidence"
    )
    outcomes = records.outcomes.select("case_key", outcome=column)
    joined = model.join(find_single_labels(records, column), on="case_key")
    joined = joined.join(outcomes, on="case_key", how="left").with_columns(lever=pl.lit(lever.id))
    return joined.join(compare_pairs(lever, joined), on=["human", "model"], how="left").select(
        "case_key", "version", "lever", "human", "model", "agrees", "human_action",
        "model_action", "same_action", "cost", "confidence", "outcome",
    )  # fmt: skip


def compare_pairs(lever: Lever, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return agreement, actions and cost of each distinct (human, model)."""
    rows = [
        (human, model, *compare_answers(lever, human, model))
        for human, model in pairs.select("human", "model").unique().sort("human", "model").rows()
    ]
    schema = {
        "human": pl.String,
        "model": pl.String,
        "agrees": pl.Boolean,
        "human_action": pl.String,
        "model_action": pl.String,
        "same_action": pl.Boolean,
        "cost": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def compare_answers(lever: Lever, human: str, model: str) -> tuple[bool, str, str, bool, float]:
    """Return agreement, human action, model action, whether they are the same, and cost.

    A failed prediction and an unlisted label have the largest cost, as in the engine. A number is
    its own action, and within the tolerance it is the same.
    """
    if lever.number is not None:
        return _compare_numbers(lever, human, model)
    model_action, human_action = lever.find_action(model), lever.find_action(human)
    cost = (
        lever.largest_cost
        if model_action is None or human_action is None
        else lever.compute_cost(model_action, human_action)
    )
    agrees = human == model
    return (
        agrees,
        human_action or OTHER_ACTION,
        model_action or OTHER_ACTION,
        agrees or (model_action is not None and model_action == human_action),
        0.0 if agrees else cost,
    )


def _compare_numbers(lever: Lever, human: str, model: str) -> tuple[bool, str, str, bool, float]:
    assert lever.number is not None  # noqa: S101 - only called for numeric levers
    if model == FAILED or not lever.number.low <= float(model) <= lever.number.high:
        return False, human, model, False, lever.largest_cost
    difference = abs(float(model) - float(human))
    agrees = difference <= lever.number.tolerance.compute_distance(float(human))
    return agrees, human, model, agrees, lever.compute_number_cost(float(model), float(human))


def _combine_pairs(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return combine_levers(
        parts,
        human_action=NO_TEXT,
        model_action=NO_TEXT,
        same_action=pl.col("same_action").all(),
        cost=pl.col("cost").sum(),
        confidence=pl.col("confidence").first(),
        outcome=NO_TEXT,
    )


def combine_levers(parts: list[pl.DataFrame], **aggregates: pl.Expr) -> pl.DataFrame:
    """Return the rows for all levers together, of cases with a decision on each."""
    combined = (
        pl.concat(parts)
        .group_by("case_key", "version")
        .agg(
            lever=pl.lit(WHOLE_UNIT),
            human=NO_TEXT,
            model=NO_TEXT,
            agrees=pl.col("agrees").all(),
            levers=pl.len(),
            **aggregates,
        )
    )
    return combined.filter(pl.col("levers") == len(parts)).select(parts[0].columns)
