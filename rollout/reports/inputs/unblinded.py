"""Verdicts of people who were shown answers before they gave theirs: no evidence, shown apart.

Two kinds are told apart by their exposure. `assisted`: the person confirmed or changed the model's
answer. `revealed` and outside a blind seat: the person settled a case after others, an
adjudication. Each counts once a case: the first that was given.
"""

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED, WHOLE
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import case_facts, compared
from rollout.tally.frames import VALUE, Records

ASSISTED = pl.col("exposure") == "assisted"
SETTLED = (pl.col("exposure") == "revealed") & pl.col("seat").is_null()

COLUMNS = ("case_key", "version", "lever", "human", "model", "agrees", "unit", "site", "window")


def seen_pairs(records: Records, cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return assisted verdicts beside what each version said.

    Args:
        records: the records as read; which version's answer was shown does not stand in them.
        cases: the cases that could be placed.
        policy: for levers and tolerances.

    Returns:
        One row per case, version and lever, with several levers one for all of them (`*`), which
        agree where each does. Columns: case_key, version, lever, human, model, agrees, unit, site,
        window.
    """
    facts = case_facts(records, cases).select("case_key", "unit", "site", "window")
    parts = [_of_lever(records, lever) for lever in policy.levers]
    if len(parts) > 1:
        parts.append(_together(parts))
    return pl.concat(parts).join(facts, on="case_key", how="left").select(COLUMNS)


def settled_labels(records: Records, lever: Lever) -> pl.DataFrame:
    """Return how cases were adjudicated: case_key, truth."""
    return _first(records, lever, SETTLED).rename({"human": "truth"})


def _first(records: Records, lever: Lever, which: pl.Expr) -> pl.DataFrame:
    """Return the first such verdict on each case that has an answer: case_key, human."""
    decisions = records.decisions.filter(which).drop_nulls(VALUE + lever.id)
    first = decisions.sort("at", "reviewer", nulls_last=True).unique("case_key", keep="first")
    return first.select("case_key", human=VALUE + lever.id)


def _of_lever(records: Records, lever: Lever) -> pl.DataFrame:
    model = records.predictions.select(
        "case_key", "version", model=pl.col(VALUE + lever.id).fill_null(FAILED)
    )
    joined = _first(records, lever, ASSISTED).join(model, on="case_key")
    comparison = compared(lever, joined).select("human", "model", "agrees")
    pairs = joined.join(comparison, on=["human", "model"]).with_columns(lever=pl.lit(lever.id))
    return pairs.select(COLUMNS[:6])


def _together(parts: list[pl.DataFrame]) -> pl.DataFrame:
    text = pl.lit(None, pl.String)
    combined = (
        pl.concat(parts)
        .group_by("case_key", "version")
        .agg(
            lever=pl.lit(WHOLE),
            human=text,
            model=text,
            agrees=pl.col("agrees").all(),
            levers=pl.len(),
        )
    )
    return combined.filter(pl.col("levers") == len(parts)).select(COLUMNS[:6])
