"""Counts of pairs by version, lever, cell, human answer and model answer.

Confusion matrices, label figures, agreement of cells and kappas are sums over these counts, for
the pairs of a report, of a file with ten million pairs, or of the store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.number_answers import (
    NUMBER_PATTERN,
    compute_number_cost,
    is_in_range,
    is_within_tolerance,
    parse_number,
)
from rollout.engine.evidence.units import UNLISTED
from rollout.engine.records.reviews import MAX_LISTED
from rollout.features.reports.inputs.count_columns import COUNT_COLUMN, KEY_COLUMNS
from rollout.features.reports.inputs.losses import MIN_PROBABILITY
from rollout.features.reports.inputs.pairs import compare_pairs
from rollout.kernel.late_modules import LateModule
from rollout.kernel.units import AGREE, FAILED, OUTSIDE, PAIR_SIGN, SEPARATOR, is_label_set

if TYPE_CHECKING:
    import narwhals as nw

    from rollout.kernel.policy.levers import Lever
else:
    nw = LateModule("narwhals")

PAIR_COLUMNS = ("case_key", *KEY_COLUMNS, "confidence")
"""Possible columns of pairs; human and model are required."""
ConfidenceSummary = tuple[int, float | None, float | None]
FIRST_ROWS = 20_000
"""Pairs whose surest divergences bound those of all, for a fiftieth of a million's cost."""


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


def count_combinations(pairs: pl.LazyFrame) -> pl.DataFrame:
    """Return how often each combination of `KEY_COLUMNS` occurs, in column n.

    >>> frame = pl.LazyFrame({"human": ["bear", "bear"], "model": ["bear", "bear"]})
    >>> count_combinations(frame).rows()
    [('bear', 'bear', 2)]
    """
    columns = pairs.collect_schema().names()
    present = [name for name in KEY_COLUMNS if name in columns]
    return pairs.group_by(present).agg(n=pl.len()).collect(engine="streaming")


def count_pairs(
    pairs: pl.LazyFrame,
    lever: Lever | None = None,
    combinations: pl.DataFrame | None = None,
    confidences: ConfidenceSummary | None = None,
    *,
    limit: int = MAX_LISTED,
) -> PairCounts:
    """Return the counts and largest losses of streamed pairs, in constant memory.

    Args:
        pairs: columns of `PAIR_COLUMNS`, at least human and model; confidence in [0, 1], null or
            NaN without one.
        lever: gives the costs; without it each divergence costs 1.
        combinations: the result of `count_combinations`, if it is known.
        confidences: number, smallest and largest, if known; NaN may be in the number.
        limit: number of losses to keep.
    """
    # One query for each part: in a common query Polars would keep every row in memory.
    if combinations is None:
        combinations = count_combinations(pairs)
    absent = [name for name in KEY_COLUMNS if name not in combinations.columns]
    keys = combinations.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
    table = keys.select(*KEY_COLUMNS, COUNT_COLUMN)
    is_blank = [pl.col(name) == "" for name in ("human", "model")]
    has_blanks = table.select(pl.any_horizontal(is_blank).any()).item()
    if has_blanks:
        table = _replace_blanks(table)
    if "confidence" not in pairs.collect_schema().names():
        return PairCounts(table, pl.DataFrame(), 0, None, None)
    answered = _drop_blanks(pairs) if has_blanks else pairs
    if lever is None:
        answered = _drop_small_losses(answered, limit)
    if lever is None and confidences is not None and not has_blanks:
        top_losses = _find_losses_without_nan(answered, limit)
        if top_losses is not None:
            return PairCounts(table, top_losses, *confidences)
    confidence = pl.col("confidence").fill_nan(None)
    summary = pairs.select(known=confidence.count(), least=confidence.min(), most=confidence.max())
    ((confidence_count, min_confidence, max_confidence),) = summary.collect(
        engine="streaming"
    ).rows()
    losses = select_top_losses(_select_divergences(answered, lever), limit)
    top_losses = losses.collect(engine="streaming")
    return PairCounts(table, top_losses, confidence_count, min_confidence, max_confidence)


def _find_losses_without_nan(pairs: pl.LazyFrame, limit: int) -> pl.DataFrame | None:
    """Return the largest losses, None if any pair has the confidence NaN.

    NaN sorts above all numbers, so one pass sees both: pairs are kept if they differ or have one.
    """
    confidence = pl.col("confidence")
    rows = pairs.filter((pl.col("human") != pl.col("model")) | confidence.is_nan())
    losses = _sort_losses(rows, max(limit, 1)).collect(engine="streaming")
    return None if losses["confidence"].is_nan().any() else losses.head(limit)


def _drop_blanks(pairs: pl.LazyFrame) -> pl.LazyFrame:
    return pairs.filter((pl.col("human") != "") & (pl.col("model") != ""))


def _drop_small_losses(pairs: pl.LazyFrame, limit: int) -> pl.LazyFrame:
    """Return the pairs at least as sure as the last listed loss of the first ones.

    What is less sure is in no list. Of a Parquet file the other columns are then read for few rows.
    """
    confidences = _select_divergences(pairs.head(FIRST_ROWS), None).select("confidence")
    first_losses = confidences.filter(pl.col("confidence").is_not_nan()).top_k(
        limit, by="confidence"
    )
    sure = first_losses.collect(engine="streaming")["confidence"]
    return pairs.filter(pl.col("confidence") >= sure.min()) if 0 < limit == len(sure) else pairs


def _select_divergences(pairs: pl.LazyFrame, lever: Lever | None) -> pl.LazyFrame:
    """Return the divergent pairs, with a lever also their cost."""
    differing = pairs.filter(pl.col("human") != pl.col("model"))
    return differing if lever is None else _add_costs(differing, lever)


def select_top_losses(differing: pl.LazyFrame, limit: int) -> pl.LazyFrame:
    """Return the divergent pairs with the largest cost times loss; each costs 1 without costs."""
    return _sort_losses(differing.filter(pl.col("confidence").is_not_nan()), limit)


def _sort_losses(differing: pl.LazyFrame, limit: int) -> pl.LazyFrame:
    names = differing.collect_schema().names()
    has_costs = "cost" in names
    differing = differing.filter(pl.col("confidence").is_not_null())
    others = [pl.col(name) for name in KEY_COLUMNS if name in names]  # of cases with the same key
    sort_keys = [pl.col("confidence"), pl.col("case_key"), *others]  # a loss grows with confidence
    if has_costs:
        sort_keys = [pl.col("cost") * _build_loss_expression(), *sort_keys]
    descending = [True] * (1 + has_costs) + [False] * (1 + len(others))
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
    answers = [pl.col(name).replace("", None) for name in ("human", "model")]
    return (
        counts.with_columns(answers)
        .group_by(KEY_COLUMNS)
        .agg(pl.col(COUNT_COLUMN).sum())
        .select(*KEY_COLUMNS, COUNT_COLUMN)
    )


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
