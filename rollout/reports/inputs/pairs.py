"""The pairs behind record-level figures: what people said of a case, and what each version said.

Record-level figures take every case on which people without the model's answer in sight (blind,
or imported without a word about it) gave exactly one label between them. They include cases
without a usable time, and cases that are no evidence; they decide nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED, WHOLE
from rollout.core.policy.policy import Policy
from rollout.tally.frames import ATTRIBUTE, VALUE, Records

UNSEEN = ("blind", "unknown")
"""Exposures of verdicts in record-level figures."""

OTHER_ACTION = "(no action)"  # what a label outside the lever's leads to

FACTS = ("site", "window", "unit", "t", "hour_written", "occurred_text")


@dataclass(frozen=True, slots=True)
class Pairs:
    """All pairs of a history.

    Attributes:
        frame: one row per case, version and lever, and with several levers one for all of them
            (lever `*`). Columns: case_key, version, lever, human, model, agrees, human_action,
            model_action, same_action, cost, confidence, outcome, the cases' facts and attributes.
            For lever `*` labels and actions are null.
        predicted: per version the cases that it was asked about.
    """

    frame: pl.DataFrame
    predicted: dict[str, int]

    def of(self, version: str, lever: str) -> pl.DataFrame:
        """Return the rows of one version and lever."""
        return self.frame.filter((pl.col("version") == version) & (pl.col("lever") == lever))


def pair_up(records: Records, cases: pl.DataFrame, policy: Policy) -> Pairs:
    """Return every pair of a history.

    Args:
        records: the records as read.
        cases: the cases that could be placed, with site, window, unit and t.
        policy: for levers, actions and costs.
    """
    facts = case_facts(records, cases)
    parts = [_of_lever(records, lever) for lever in policy.levers]
    if len(parts) > 1:
        parts.append(_together(parts))
    frame = pl.concat(parts).join(facts, on="case_key", how="left")
    prediction_counts = records.predictions.group_by("version").len().sort("version")
    return Pairs(frame.sort("version", "lever", "case_key"), dict(prediction_counts.iter_rows()))


def case_facts(records: Records, cases: pl.DataFrame) -> pl.DataFrame:
    """Return what is known of each case; a case that could not be placed is its own unit."""
    placed_cases = cases.select("case_key", "window", "unit", "t")
    joined = records.cases.join(placed_cases, on="case_key", how="left")
    joined = joined.with_columns(unit=pl.coalesce("unit", "episode", "case_key"))
    names = [name for name in joined.columns if name.startswith(ATTRIBUTE)]
    return joined.select("case_key", *FACTS, *names)


def about_of(row: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Return the attributes that a row of a case has: name and value; a picture's bytes are none.

    >>> about_of({"case_key": "c1", "attribute:lens": "snow", "attribute:mode": None})
    (('lens', 'snow'),)
    """
    return tuple(
        (name.removeprefix(ATTRIBUTE), str(value))
        for name, value in row.items()
        if name.startswith(ATTRIBUTE) and value is not None and not str(value).startswith("data:")
    )


def single_verdicts(records: Records, column: str) -> pl.DataFrame:
    """Return the cases on which unseeing people gave exactly one answer: case_key, human."""
    decisions = records.decisions.filter(
        pl.col("exposure").is_in(UNSEEN) & pl.col(column).is_not_null()
    )
    labels = decisions.group_by("case_key").agg(
        human=pl.col(column).first(), different=pl.col(column).n_unique()
    )
    return labels.filter(pl.col("different") == 1).drop("different")


def _of_lever(records: Records, lever: Lever) -> pl.DataFrame:
    column = VALUE + lever.id
    model = records.predictions.select(
        "case_key", "version", model=pl.col(column).fill_null(FAILED), confidence="confidence"
    )
    outcomes = records.outcomes.select("case_key", outcome=column)
    joined = model.join(single_verdicts(records, column), on="case_key")
    joined = joined.join(outcomes, on="case_key", how="left").with_columns(lever=pl.lit(lever.id))
    return joined.join(compared(lever, joined), on=["human", "model"], how="left").select(
        "case_key", "version", "lever", "human", "model", "agrees", "human_action",
        "model_action", "same_action", "cost", "confidence", "outcome",
    )  # fmt: skip


def compared(lever: Lever, both: pl.DataFrame) -> pl.DataFrame:
    """Return for each different (human, model) whether they agree, their actions and the cost."""
    rows = [
        (human, model, *compare(lever, human, model))
        for human, model in both.select("human", "model").unique().sort("human", "model").rows()
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


def compare(lever: Lever, human: str, model: str) -> tuple[bool, str, str, bool, float]:
    """Return whether model and human agree, both actions, whether these are one, and the cost.

    A model that failed, and a label outside the lever's, cost the largest possible, as they do
    for the engine. A number is its own action, and within the tolerance it is the same one.
    """
    if lever.number is not None:
        return _compare_numbers(lever, human, model)
    model_action, human_action = lever.action(model), lever.action(human)
    cost = (
        lever.largest_cost
        if model_action is None or human_action is None
        else lever.cost(model_action, human_action)
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
    assert lever.number is not None  # noqa: S101 - asked of number levers alone
    if model == FAILED or not lever.number.low <= float(model) <= lever.number.high:
        return False, human, model, False, lever.largest_cost
    difference = abs(float(model) - float(human))
    agrees = difference <= lever.number.tolerance.at(float(human))
    return agrees, human, model, agrees, lever.cost_of_number(float(model), float(human))


def _together(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the rows that stand for all levers of a case together; all must have a verdict."""
    text = pl.lit(None, pl.String)
    combined = (
        pl.concat(parts)
        .group_by("case_key", "version")
        .agg(
            lever=pl.lit(WHOLE),
            human=text,
            model=text,
            agrees=pl.col("agrees").all(),
            human_action=text,
            model_action=text,
            same_action=pl.col("same_action").all(),
            cost=pl.col("cost").sum(),
            confidence=pl.col("confidence").first(),
            outcome=text,
            levers=pl.len(),
        )
    )
    return combined.filter(pl.col("levers") == len(parts)).drop("levers").select(parts[0].columns)
