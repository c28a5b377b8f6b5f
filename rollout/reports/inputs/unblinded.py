"""Assisted decisions and adjudications; never evidence.

With exposure `assisted` the reviewer saw the model's answer. With exposure `revealed` and without a
blind review task the decision is an adjudication. The first of each kind counts for a case.
"""

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import combine_levers, compare_pairs
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

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
    parts = [_build_lever_pairs(records, lever) for lever in policy.levers]
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


def _build_lever_pairs(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    model = records.predictions.select(
        "case_key", "version", model=pl.col(VALUE_PREFIX + lever.id).fill_null(FAILED)
    )
    joined = _find_first_decisions(records, lever, ASSISTED).join(model, on="case_key")
    comparison = compare_pairs(lever, joined).select("human", "model", "agrees")
    pairs = joined.join(comparison, on=["human", "model"]).with_columns(lever=pl.lit(lever.id))
    return pairs.select(COLUMNS[:6])
