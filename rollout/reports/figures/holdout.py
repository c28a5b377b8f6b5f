"""The hold-out: units that go to people unseen, beside those in which the model has a hand.

Which side a unit is on is drawn, so whatever turns out otherwise on one side than on the other,
beyond chance, was made so by who decided.
"""

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.reports.figures.label_sources import stage_share
from rollout.reports.inputs.decided_by import PERSON, standing
from rollout.reports.inputs.inputs import Inputs
from rollout.tally.frames import VALUE

SIDES = ("case_key", "version", "unit", "site", "t", "held", "share")
"""Columns of `sides`: `held` where people decide unseen; `share`: of units that the draw holds."""


def sides(inputs: Inputs) -> pl.DataFrame:
    """Return one case of each unit above shadow, and on which side it is.

    A service knows who was to decide. The files of a replay say what people had seen: who was
    assisted had the model's answer, and after the first such case in a cell, who was blind is its
    hold-out. Nothing is returned where the model never had a hand in anything.
    """
    sides = _recorded(inputs) if inputs.simulated else _assigned(inputs)
    return sides.sort("case_key").unique(["version", "unit"], keep="first").sort("case_key")


def _assigned(inputs: Inputs) -> pl.DataFrame:
    """Return the cases that the acting version answered surely enough to have them."""
    cases = standing(inputs).filter(pl.col("version").is_not_null() & (pl.col("rung") > 0))
    answered = inputs.records.predictions.filter(_usable(inputs.policy))
    usable = cases.join(answered.select("case_key", "version"), on=["case_key", "version"])
    return usable.with_columns(
        held=pl.col("decider") == PERSON, share=stage_share(inputs, lambda stage: stage.blind)
    ).select(*SIDES)


def _usable(policy: Policy) -> pl.Expr:
    is_usable = pl.all_horizontal(pl.col(VALUE + lever.id).is_not_null() for lever in policy.levers)
    confidence_floor = policy.evidence.confidence_floor
    return (
        is_usable
        if confidence_floor is None
        else is_usable & (pl.col("confidence") >= confidence_floor)
    )


def _recorded(inputs: Inputs) -> pl.DataFrame:
    counts_unknown = inputs.policy.evidence.outside_blind
    exposure = pl.col("exposure")
    is_unassisted = (exposure == "blind") | ((exposure == "unknown") & counts_unknown)
    exposures = inputs.records.decisions.group_by("case_key").agg(
        told=(exposure == "assisted").any(), unseen=is_unassisted.all()
    )
    cases = inputs.cases.join(exposures, on="case_key")
    first_assisted = pl.col("t").filter("told").min().over("site", "window")
    eligible = cases.filter((pl.col("told") | pl.col("unseen")) & (pl.col("t") > first_assisted))
    predictions = inputs.records.predictions.select("case_key", "version")
    return (
        eligible.join(predictions, on="case_key")
        .with_columns(held=~pl.col("told"), rung=pl.lit(1))  # assisted is the lowest stage
        .with_columns(share=stage_share(inputs, lambda stage: stage.blind))
        .select(*SIDES)
    )
