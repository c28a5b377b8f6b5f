"""Pairs of numbers of a streamed file: on which side of the tolerance each is, and the losses.

The model's number becomes `agree`, `under`, `over`, outside or failed against the human's, so that
the counts are as few as for labels.
"""

from dataclasses import dataclass

import narwhals as nw
import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import AGREE, FAILED, OUTSIDE
from rollout.reports.inputs.counted import PairCounts, count_pairs, select_top_losses
from rollout.reports.inputs.losses import MAX_LISTED
from rollout.tally.number_answers import (
    NUMBER_PATTERN,
    compute_number_cost,
    is_in_range,
    is_within_tolerance,
    parse_number,
)
from rollout.tally.units import UNLISTED

MAX_NUMBER_LABELS = 20  # distinct numbers up to which answers are labels, as in `rollout init`
MAX_INTEGER_LABELS = 1000  # the same of whole numbers, which often name classes


@dataclass(frozen=True, slots=True)
class NumberPairCounts:
    """Counts and losses of pairs of numbers, and the pairs themselves.

    `pairs` has version, x and y (the numbers of human and model), agrees, cost, and unit: each
    pair is its own.
    """

    counts: PairCounts
    pairs: pl.DataFrame


def count_number_pairs(
    pairs: pl.LazyFrame, lever: Lever, *, limit: int = MAX_LISTED
) -> NumberPairCounts:
    """Return the counts, losses and numbers of streamed pairs.

    Raises:
        ValueError: an answer is neither a number nor blank.
    """
    _check_numbers(pairs)
    compared = _compare_numbers(pairs, lever)
    sides = compared.with_columns(human=pl.col("human_side"), model=pl.col("model_side"))
    counts = count_pairs(sides.select(pairs.collect_schema().names()), limit=0)
    version = pl.col("version") if "version" in pairs.collect_schema() else pl.lit(None, pl.String)
    numbers = compared.filter(pl.col("x").is_not_null()).select(
        version.alias("version"), "x", "y", "agrees", "cost"
    )
    if counts.confidence_count:
        differing = compared.filter(~pl.col("agrees") & pl.col("y").is_not_null())
        losses = select_top_losses(differing, limit).collect(engine="streaming")
        counts = PairCounts(
            counts.table,
            losses,
            counts.confidence_count,
            counts.min_confidence,
            counts.max_confidence,
        )
    rows = numbers.collect(engine="streaming").with_row_index("unit")
    return NumberPairCounts(counts, rows.with_columns(pl.col("unit").cast(pl.Int64)))


def find_number_answers(table: pl.DataFrame) -> int:
    """Return how many different numbers humans gave, 0 if the answers look like labels.

    Many different numbers make no useful table: those with decimals from 21 on, whole ones from
    1,001 on.
    """
    answers = table["human"].drop_nulls().unique()
    model_answers = table["model"].drop_nulls().unique()
    both = pl.concat([answers, model_answers])
    if both.n_unique() <= MAX_NUMBER_LABELS or not both.str.contains(NUMBER_PATTERN).all():
        return 0
    has_decimals = both.str.contains(r"[.eE]").any()
    return len(answers) if has_decimals or both.n_unique() > MAX_INTEGER_LABELS else 0


def _check_numbers(pairs: pl.LazyFrame) -> None:
    for side in ("human", "model"):
        answer = pl.col(side)
        is_wrong = (answer.str.strip_chars() != "") & ~answer.str.contains(NUMBER_PATTERN)
        wrong = pairs.select(n=is_wrong.sum(), first=answer.filter(is_wrong).first())
        ((n, first),) = wrong.collect(engine="streaming").rows()
        if n:
            raise ValueError(
                f"column {side}: {n:,} answers are no numbers, first {first!r}; the lever compares"
                " numbers with a decimal point: correct the answers, or leave them blank"
            )


def _compare_numbers(pairs: pl.LazyFrame, lever: Lever) -> pl.LazyFrame:
    """Add x (human), y (model), agrees, cost, and the sides that are counted."""
    assert lever.number is not None  # noqa: S101 - only called for numeric levers
    frame = nw.from_native(pairs).with_columns(
        x=parse_number(nw.col("human")), y=parse_number(nw.col("model"))
    )
    x, y = nw.col("x"), nw.col("y")
    has_human, has_model = ~x.is_null(), ~y.is_null()
    human_valid = is_in_range(lever.number, x).fill_null(value=False)
    model_valid = is_in_range(lever.number, y).fill_null(value=False)
    is_close = is_within_tolerance(lever.number, y, x).fill_null(value=False)
    agrees = human_valid & model_valid & is_close
    beyond = nw.when(y < x).then(nw.lit("under")).otherwise(nw.lit("over"))
    side = nw.when(agrees | ~has_human).then(nw.lit(AGREE)).otherwise(beyond)
    side = nw.when(model_valid).then(side).otherwise(nw.lit(OUTSIDE))
    human_side = nw.when(human_valid).then(nw.lit(AGREE)).otherwise(nw.lit(UNLISTED))
    cost = compute_number_cost(lever, y, x)
    largest = nw.lit(float(lever.largest_cost))
    return frame.with_columns(
        agrees=agrees,
        cost=nw.when(human_valid & model_valid).then(cost).otherwise(largest),
        human_side=nw.when(has_human).then(human_side),
        model_side=nw.when(has_model).then(side).otherwise(nw.lit(FAILED)),
    ).to_native()
