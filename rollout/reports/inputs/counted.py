"""Pairs counted: how often people said this where the model said that, by place.

One form for all: confusion, figures of labels, agreement of cells and kappas are sums over its
rows, whether these were counted from the pairs of a report, from a file of ten million pairs, or
as units came into the store.
"""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.reports.inputs.losses import SMALLEST, TOP
from rollout.reports.inputs.pairs import compared

KEY = ("version", "lever", "site", "window", "human", "model")
N = "n"
PAIR = ("case_key", *KEY, "confidence")
"""What may be known of a pair; people's answer and the model's always are."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What pairs come to, however many there are.

    Attributes:
        table: columns `KEY` and n, a row a combination that occurs, in no order; a key that the
            pairs do not have is null, and so is an answer that is blank.
        losses: the pairs that differ where the model was surest, weighted with what they cost;
            columns of `PAIR`, cost and loss, the largest cost times loss first. Empty without
            confidences.
        confidences: of how many pairs it is known how sure the model was.
        least, most: the lowest and highest of these; None without any.
    """

    table: pl.DataFrame
    losses: pl.DataFrame
    confidences: int
    least: float | None
    most: float | None


def counts_of(pairs: pl.LazyFrame) -> pl.LazyFrame:
    """Return how often each combination of `KEY` occurs, in column n.

    >>> frame = pl.LazyFrame({"human": ["bear", "bear"], "model": ["bear", "bear"]})
    >>> counts_of(frame).select("human", "model", "n").collect().rows()
    [('bear', 'bear', 2)]
    """
    columns = pairs.collect_schema().names()
    present = [name for name in KEY if name in columns]
    missing = [pl.lit(None, pl.String).alias(name) for name in KEY if name not in columns]
    return pairs.group_by(present).agg(n=pl.len()).with_columns(*missing).select(*KEY, N)


def count_pairs(pairs: pl.LazyFrame, lever: Lever | None = None, *, top: int = TOP) -> Counted:
    """Count pairs as they stream by: memory does not grow with how many there are.

    Each part reads the columns that it needs for itself. Asked for all of them at once, Polars
    keeps what they share, and that is every row.

    Args:
        pairs: any of the columns of `PAIR`, human and model among them; texts, confidence a
            number in [0, 1].
        lever: what a wrong answer costs; without it each costs 1.
        top: how many of the largest losses to keep.
    """
    table = _blank_is_null(counts_of(pairs).collect(engine="streaming"))
    if "confidence" not in pairs.collect_schema().names():
        return Counted(table, pl.DataFrame(), 0, None, None)
    confidence = pl.col("confidence")
    summary = pairs.select(known=confidence.count(), least=confidence.min(), most=confidence.max())
    ((confidence_count, min_confidence, max_confidence),) = summary.collect(
        engine="streaming"
    ).rows()
    losses = _surest(pairs, lever, top).collect(engine="streaming")
    return Counted(table, losses, confidence_count, min_confidence, max_confidence)


def _surest(pairs: pl.LazyFrame, lever: Lever | None, top: int) -> pl.LazyFrame:
    """Return the pairs that differ with the largest cost times loss; ties go by the case's key."""
    has_answers = (pl.col("human") != "") & (pl.col("model") != "")
    differing = pairs.filter((pl.col("human") != pl.col("model")) & has_answers)
    differing = differing.filter(pl.col("confidence").is_not_null())
    sort_keys = [pl.col("confidence"), pl.col("case_key")]  # a loss grows with confidence alone
    if lever is not None:
        differing = _priced(differing, lever)
        sort_keys = [pl.col("cost") * _loss(), *sort_keys]
    descending = [True] * (len(sort_keys) - 1) + [False]
    top_rows = differing.top_k(top, by=sort_keys, reverse=[not flag for flag in descending])
    losses = top_rows.sort(sort_keys, descending=descending).with_columns(loss=_loss())
    return losses if lever is not None else losses.with_columns(cost=pl.lit(1.0))


def _loss() -> pl.Expr:
    """Return −ln of the probability that the model left for any other answer, in nats."""
    return -(1 - pl.col("confidence")).clip(SMALLEST, 1.0).log()


def _priced(pairs: pl.LazyFrame, lever: Lever) -> pl.LazyFrame:
    labels = pl.DataFrame({"human": lever.labels}, schema={"human": pl.String})
    combinations = labels.join(labels.rename({"human": "model"}), how="cross")
    costs = compared(lever, combinations).select("human", "model", "cost").lazy()
    with_costs = pairs.join(costs, on=["human", "model"], how="left")
    return with_costs.with_columns(pl.col("cost").fill_null(lever.largest_cost))


def _blank_is_null(counts: pl.DataFrame) -> pl.DataFrame:
    """Fold blanks into nulls: a file without an answer says so in either way."""
    is_blank = [pl.col(name) == "" for name in ("human", "model")]
    if not counts.select(pl.any_horizontal(is_blank).any()).item():
        return counts
    answers = [pl.col(name).replace("", None) for name in ("human", "model")]
    return counts.with_columns(answers).group_by(KEY).agg(pl.col(N).sum()).select(*KEY, N)
