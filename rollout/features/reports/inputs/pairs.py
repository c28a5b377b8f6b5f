"""Pairs of human label and model answer, for record-level figures.

They cover every case with exactly one distinct label in its unassisted decisions (blind, or of
unknown exposure), or with numbers within the tolerance of each other; also cases without a usable
time and cases that are no evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.number_answers import (
    compute_number_cost,
    is_in_range,
    is_within_tolerance,
    parse_number,
)
from rollout.engine.evidence.reviewer_checks import are_numbers_equal
from rollout.kernel.late_modules import LateModule
from rollout.kernel.units import FAILED, WHOLE_UNIT, do_sets_agree

if TYPE_CHECKING:
    from collections.abc import Mapping

    import narwhals as nw

    from rollout.kernel.policy.levers import Lever, Number
    from rollout.kernel.policy.policy import Policy
else:
    nw = LateModule("narwhals")

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
    """Return facts and attributes of each case; a case without a cell is its own unit.

    Units are numbers in the order of their keys: figures only group and sort by them.
    """
    placed_cases = cases.lazy().select("case_key", "window", "unit", "occurred_us")
    joined = records.cases.lazy().join(placed_cases, on="case_key", how="left")
    joined = joined.with_columns(unit=pl.coalesce("unit", "episode", "case_key").rank("dense"))
    names = [name for name in records.cases.columns if name.startswith(ATTRIBUTE_PREFIX)]
    return joined.select("case_key", *CASE_COLUMNS, *names).collect()


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


def find_single_answers(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    """Return the cases with one unassisted answer: case_key, human.

    Labels of several reviewers must be equal. Numbers must lie within the tolerance of each other;
    the lower median counts.
    """
    column = VALUE_PREFIX + lever.id
    unassisted = pl.col("exposure").is_in(UNASSISTED_EXPOSURES)
    decisions = records.decisions.select("case_key", "exposure", column).filter(
        unassisted & pl.col(column).is_not_null()
    )
    if lever.number is not None:
        return _find_median_numbers(decisions, column, lever.number)
    labels = decisions.group_by("case_key").agg(
        human=pl.col(column).first(), different=pl.col(column).n_unique()
    )
    return labels.filter(pl.col("different") == 1).drop("different")


def _find_median_numbers(decisions: pl.DataFrame, column: str, number: Number) -> pl.DataFrame:
    """Return the lower median of each case whose numbers are within the tolerance."""
    value = pl.col(column).cast(pl.Float64, strict=False)
    numbers = decisions.select("case_key", human=column, value=value).drop_nulls()
    is_single = pl.len().over("case_key") == 1
    singles = numbers.filter(is_single).select("case_key", "human")
    ordered = numbers.filter(~is_single).sort("case_key", "value", "human")
    several = ordered.group_by("case_key", maintain_order=True).agg(
        pl.col("human").get((pl.len() - 1) // 2), low=pl.col("value").first(),
        high=pl.col("value").last(),
    )  # fmt: skip
    close = are_numbers_equal(number, pl.col("low"), pl.col("high"))
    return pl.concat([singles, several.filter(close).select("case_key", "human")])


def _build_lever_pairs(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    column = VALUE_PREFIX + lever.id
    model = records.predictions.select(
        "case_key", "version", model=pl.col(column).fill_null(FAILED), confidence="confidence"
    )
    outcomes = records.outcomes.select("case_key", outcome=column)
    joined = model.join(find_single_answers(records, lever), on="case_key")
    joined = joined.join(outcomes, on="case_key", how="left").with_columns(lever=pl.lit(lever.id))
    return joined.join(compare_pairs(lever, joined), on=["human", "model"], how="left").select(
        "case_key", "version", "lever", "human", "model", "agrees", "human_action",
        "model_action", "same_action", "cost", "confidence", "outcome",
    )  # fmt: skip


def compare_pairs(lever: Lever, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return agreement, actions and cost of each distinct (human, model)."""
    distinct = pairs.select("human", "model").unique()
    if lever.number is not None:
        return _compare_number_pairs(lever, distinct)
    rows = [
        (human, model, *compare_answers(lever, human, model))
        for human, model in distinct.sort("human", "model").rows()
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


def _compare_number_pairs(lever: Lever, distinct: pl.DataFrame) -> pl.DataFrame:
    """Return `compare_answers` of numbers, for all rows at once: a price has many values."""
    assert lever.number is not None  # noqa: S101 - only called for numeric levers
    # parsed into columns first: the rules below name both sides many times, and each time
    # would parse them anew
    parsed = nw.from_native(distinct).with_columns(
        human_number=parse_number(nw.col("human")), model_number=parse_number(nw.col("model"))
    )
    human, model = nw.col("human_number"), nw.col("model_number")
    is_valid = is_in_range(lever.number, model) & is_in_range(lever.number, human)
    is_valid = is_valid.fill_null(value=False)
    agrees = is_valid & is_within_tolerance(lever.number, model, human).fill_null(value=False)
    cost = compute_number_cost(lever, model, human)
    return (
        parsed.with_columns(
            agrees=agrees,
            human_action=nw.col("human"),
            model_action=nw.col("model"),
            same_action=agrees,
            cost=nw.when(is_valid).then(cost).otherwise(nw.lit(float(lever.largest_cost))),
        )
        .drop("human_number", "model_number")
        .to_native()
    )


def compare_answers(lever: Lever, human: str, model: str) -> tuple[bool, str, str, bool, float]:
    """Return agreement, human action, model action, whether they are the same, and cost.

    A failed prediction, an unlisted label and a number out of range have the largest cost, as in
    the engine. A number or a set is its own action, and where it agrees it is the same.
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
    if lever.many and model_action is not None and human_action is not None:
        agrees = do_sets_agree(human, model, lever.overlap)
    return (
        agrees,
        human_action or OTHER_ACTION,
        model_action or OTHER_ACTION,
        agrees or (model_action is not None and model_action == human_action),
        0.0 if agrees else cost,
    )


def _compare_numbers(lever: Lever, human: str, model: str) -> tuple[bool, str, str, bool, float]:
    assert lever.number is not None  # noqa: S101 - only called for numeric levers
    is_valid = model != FAILED and all(
        lever.number.low <= float(answer) <= lever.number.high for answer in (human, model)
    )
    if not is_valid:
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


ASSISTED = pl.col("exposure") == "assisted"
ADJUDICATED = (pl.col("exposure") == "revealed") & pl.col("seat").is_null()

COLUMNS = ("case_key", "version", "lever", "human", "model", "agrees", "unit", "site", "window")


def build_assisted_pairs(
    records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> pl.DataFrame:
    """Return assisted decisions with the answers of each version.

    The records don't say which version's answer was displayed. One row per case, version and lever,
    with several levers also one for all of them (`*`). Columns: `COLUMNS`.
    """
    places = facts.select("case_key", "unit", "site", "window")
    parts = [_build_unblinded_pairs(records, lever) for lever in policy.levers]
    if len(parts) > 1:
        parts.append(combine_levers(parts))
    return pl.concat(parts).join(places, on="case_key", how="left").select(COLUMNS)


def find_adjudicated_labels(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    """Return the adjudicated labels: case_key, truth."""
    return _find_first_decisions(records, lever, ADJUDICATED).rename({"human": "truth"})


def _find_first_decisions(records: RecordFrames, lever: Lever, condition: pl.Expr) -> pl.DataFrame:
    """Return the first answered decision of each case: case_key, human."""
    decisions = records.decisions.filter(condition).drop_nulls(VALUE_PREFIX + lever.id)
    first = decisions.sort("at", "reviewer", nulls_last=True).unique("case_key", keep="first")
    return first.select("case_key", human=VALUE_PREFIX + lever.id)


def _build_unblinded_pairs(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    model = records.predictions.select(
        "case_key", "version", model=pl.col(VALUE_PREFIX + lever.id).fill_null(FAILED)
    )
    joined = _find_first_decisions(records, lever, ASSISTED).join(model, on="case_key")
    comparison = compare_pairs(lever, joined).select("human", "model", "agrees")
    pairs = joined.join(comparison, on=["human", "model"]).with_columns(lever=pl.lit(lever.id))
    return pairs.select(COLUMNS[:6])
