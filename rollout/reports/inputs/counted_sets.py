"""Pairs of sets of labels of a streamed file: which agree by their overlap, and the losses."""

from dataclasses import dataclass, replace

import polars as pl

from rollout.core.policy.label_sets import PAIR_SIGN, SEPARATOR, is_label_set
from rollout.core.policy.levers import Lever
from rollout.reports.inputs.counted import PairCounts, count_pairs, select_top_losses
from rollout.reports.inputs.losses import MAX_LISTED
from rollout.reports.inputs.pairs import compare_pairs

SIDES = ["human", "model"]


@dataclass(frozen=True, slots=True)
class SetPairCounts:
    """Counts and losses of pairs of sets.

    `table` has the sets of both sides. In the table of `counts` different sets that agree have the
    text of both, as in counted units, so that both columns are equal where a pair agrees.
    """

    counts: PairCounts
    table: pl.DataFrame


def count_set_pairs(pairs: pl.LazyFrame, lever: Lever, *, limit: int = MAX_LISTED) -> SetPairCounts:
    """Return the counts and largest losses of streamed pairs with canonical texts."""
    counts = count_pairs(pairs, limit=0)
    table = counts.table
    compared = compare_pairs(lever, table.drop_nulls(SIDES)).select(*SIDES, "agrees", "cost")
    joined = table.join(compared, on=SIDES, how="left")
    both = pl.concat_str("human", pl.lit(PAIR_SIGN), "model")
    is_pair = pl.col("agrees").fill_null(value=False) & (pl.col("human") != pl.col("model"))
    sides = [pl.when(is_pair).then(both).otherwise(pl.col(side)).alias(side) for side in SIDES]
    counts = replace(counts, table=joined.with_columns(sides).select(table.columns))
    if counts.confidence_count:
        costs = compared.filter(~pl.col("agrees")).select(*SIDES, "cost").lazy()
        differing = pairs.join(costs, on=SIDES)
        losses = select_top_losses(differing, limit).collect(engine="streaming")
        counts = replace(counts, losses=losses)
    return SetPairCounts(counts, table)


def count_set_labels(answers: pl.DataFrame) -> dict[str, int]:
    """Return how many answers have each label; "" has all of them.

    `answers` has the column n, and `model` with sets, null without an answer.
    """
    parts = answers.select("n", label=pl.col("model").str.split(SEPARATOR)).explode("label")
    counts = parts.drop_nulls("label").group_by("label").agg(pl.col("n").sum()).sort("label")
    return {**dict(counts.iter_rows()), "": int(answers["n"].sum())}


def count_wrong_sets(table: pl.DataFrame, side: str, lever: Lever) -> int:
    """Return how many answers of a side are no sets of the lever's labels."""
    answers = table.drop_nulls(side).group_by(side).agg(pl.col("n").sum())
    return sum(n for text, n in answers.iter_rows() if not is_label_set(text, lever.labels))
