"""Counts of pairs by version, lever, cell, human answer and model answer.

Confusion matrices, label figures, agreement of cells and kappas are sums over these counts, for
the pairs of a report, of a file with ten million pairs, or of the store.
"""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.reports.inputs.losses import MAX_LISTED, MIN_PROBABILITY
from rollout.reports.inputs.pairs import compare_pairs

KEY_COLUMNS = ("version", "lever", "site", "window", "human", "model")
COUNT_COLUMN = "n"
PAIR_COLUMNS = ("case_key", *KEY_COLUMNS, "confidence")
"""Possible columns of pairs; human and model are required."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Counts and largest losses of any number of pairs.

    Attributes:
        table: columns `KEY_COLUMNS` and n, one unordered row per combination; missing keys and
            blank answers are null.
        losses: divergent pairs with the columns of `PAIR_COLUMNS`, cost and loss, the largest cost
            times loss first. Empty without confidences.
        confidence_count: number of pairs with a confidence.
        min_confidence, max_confidence: None without confidences.
    """

    table: pl.DataFrame
    losses: pl.DataFrame
    confidence_count: int
    min_confidence: float | None
    max_confidence: float | None


def count_combinations(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Return how often each combination of `KEY_COLUMNS` occurs, in column n.

    >>> frame = pl.LazyFrame({"human": ["bear", "bear"], "model": ["bear", "bear"]})
    >>> count_combinations(frame).select("human", "model", "n").collect().rows()
    [('bear', 'bear', 2)]
    """
    columns = pairs.collect_schema().names()
    present = [name for name in KEY_COLUMNS if name in columns]
    missing = [pl.lit(None, pl.String).alias(name) for name in KEY_COLUMNS if name not in columns]
    return (
        pairs.group_by(present)
        .agg(n=pl.len())
        .with_columns(*missing)
        .select(*KEY_COLUMNS, COUNT_COLUMN)
    )


def count_pairs(
    pairs: pl.LazyFrame, lever: Lever | None = None, *, limit: int = MAX_LISTED
) -> PairCounts:
    """Return the counts and largest losses of streamed pairs, in constant memory.

    Args:
        pairs: columns of `PAIR_COLUMNS`, at least human and model; confidence in [0, 1].
        lever: gives the costs; without it each divergence costs 1.
        limit: number of losses to keep.
    """
    # One query for each part: in a common query Polars would keep every row in memory.
    table = _replace_blanks(count_combinations(pairs).collect(engine="streaming"))
    if "confidence" not in pairs.collect_schema().names():
        return PairCounts(table, pl.DataFrame(), 0, None, None)
    confidence = pl.col("confidence")
    summary = pairs.select(known=confidence.count(), least=confidence.min(), most=confidence.max())
    ((confidence_count, min_confidence, max_confidence),) = summary.collect(
        engine="streaming"
    ).rows()
    differing = _select_divergences(pairs, lever)
    losses = select_top_losses(differing, limit).collect(engine="streaming")
    return PairCounts(table, losses, confidence_count, min_confidence, max_confidence)


def _select_divergences(pairs: pl.LazyFrame, lever: Lever | None) -> pl.LazyFrame:
    """Return the divergent pairs, with a lever also their cost."""
    has_answers = (pl.col("human") != "") & (pl.col("model") != "")
    differing = pairs.filter((pl.col("human") != pl.col("model")) & has_answers)
    return differing if lever is None else _add_costs(differing, lever)


def select_top_losses(differing: pl.LazyFrame, limit: int) -> pl.LazyFrame:
    """Return the divergent pairs with the largest cost times loss; each costs 1 without costs."""
    has_costs = "cost" in differing.collect_schema()
    differing = differing.filter(pl.col("confidence").is_not_null())
    sort_keys = [pl.col("confidence"), pl.col("case_key")]  # a loss grows with confidence
    if has_costs:
        sort_keys = [pl.col("cost") * _build_loss_expression(), *sort_keys]
    descending = [True] * (len(sort_keys) - 1) + [False]
    top_rows = differing.top_k(limit, by=sort_keys, reverse=[not flag for flag in descending])
    losses = top_rows.sort(sort_keys, descending=descending).with_columns(
        loss=_build_loss_expression()
    )
    return losses if has_costs else losses.with_columns(cost=pl.lit(1.0))


def _build_loss_expression() -> pl.Expr:
    """Return −ln of the probability of all other answers, in nats."""
    return -(1 - pl.col("confidence")).clip(MIN_PROBABILITY, 1.0).log()


def _add_costs(pairs: pl.LazyFrame, lever: Lever) -> pl.LazyFrame:
    labels = pl.DataFrame({"human": lever.labels}, schema={"human": pl.String})
    combinations = labels.join(labels.rename({"human": "model"}), how="cross")
    costs = compare_pairs(lever, combinations).select("human", "model", "cost").lazy()
    with_costs = pairs.join(costs, on=["human", "model"], how="left")
    return with_costs.with_columns(pl.col("cost").fill_null(lever.largest_cost))


def _replace_blanks(counts: pl.DataFrame) -> pl.DataFrame:
    """Return the counts with blank answers merged into nulls."""
    is_blank = [pl.col(name) == "" for name in ("human", "model")]
    if not counts.select(pl.any_horizontal(is_blank).any()).item():
        return counts
    answers = [pl.col(name).replace("", None) for name in ("human", "model")]
    return (
        counts.with_columns(answers)
        .group_by(KEY_COLUMNS)
        .agg(pl.col(COUNT_COLUMN).sum())
        .select(*KEY_COLUMNS, COUNT_COLUMN)
    )
