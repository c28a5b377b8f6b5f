"""What each case with different answers is: a confident error, a split, a suspected human error.

A version is confident in an answer if its confidence reaches its mean confidence in this label over
the cases with this human label. Each version and label is thus compared with itself. This is the
threshold of confident learning (Northcutt, Jiang and Chuang, Journal of Artificial Intelligence
Research 70 (2021) 1373), with the probabilities of `label_probabilities`. A confident model alone
does not prove a human error; without an outcome or other reviewers the case counts as a confident
error. Other cases in which model, human or outcome differ are unsure: they rank last.

Most cases have one vote and most agree: votes are grouped only in cases with several, and kinds and
costs are computed only where something differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.kernel.units import FAILED
from rollout.reports.inputs.label_probabilities import (
    STORED_ROW,
    StoredProbabilities,
    add_probability,
    add_stored_rows,
    select_probabilities,
)
from rollout.reports.inputs.pairs import UNASSISTED_EXPOSURES, compare_pairs, find_single_answers
from rollout.tally.frames import VALUE_PREFIX, RecordFrames, select_rows

CONFIDENT_DIFFERENT = "confident and different"
REVIEWERS_SPLIT = "split reviewers"
SUSPECTED_HUMAN_ERROR = "suspected human error"
UNSURE = "model unsure and different"
CONFIDENT_KINDS = (CONFIDENT_DIFFERENT, REVIEWERS_SPLIT, SUSPECTED_HUMAN_ERROR)
KINDS = (*CONFIDENT_KINDS, UNSURE)
MIN_PROBABILITY = 1e-6  # lower limit: records have at most six digits
ROUNDING_TOLERANCE = 1e-9  # a mean of equal confidences can exceed them by rounding
ANY_LABEL = "any"  # of the one threshold of numbers and sets

ANSWER_COLUMNS = ("case_key", "model", "confidence", STORED_ROW)
LOSS_SCHEMA = {
    "case_key": pl.String,
    "version": pl.String,
    "lever": pl.String,
    "human": pl.String,
    "model": pl.String,
    "confidence": pl.Float64,
    "loss": pl.Float64,
    "cost": pl.Float64,
    "kind": pl.String,
}


@dataclass(frozen=True, slots=True)
class ConfidenceThreshold:
    """The confidence from which a version is confident in a label, and its n cases."""

    label: str
    confidence: float
    n: int


@dataclass(frozen=True, slots=True)
class ClassifiedCases:
    """The cases that a version answered and humans decided, on one lever.

    Attributes:
        losses: those in which model, human or outcome differ, as `LOSS_SCHEMA`.
        compared: the number of all.
        without_confidence: the number of those without a probability.
        thresholds: the confidence threshold of each label.
    """

    losses: pl.DataFrame
    compared: int
    without_confidence: int
    thresholds: tuple[ConfidenceThreshold, ...]


def classify_cases(records: RecordFrames, version: str, lever: Lever) -> ClassifiedCases:
    """Return the kind, loss and cost of every case in which answers differ."""
    probabilities = select_probabilities(records, version, lever)
    answers = add_stored_rows(_select_answers(records, version, lever), probabilities)
    reviewed = _review_cases(records, lever, answers, probabilities)
    if lever.number is None:
        paired = reviewed.filter(pl.col("labels") == 1)
        paired = paired.select("human", "model", probability="human_probability")
    else:
        paired = _pair_numbers(records, lever, answers, probabilities)
    thresholds = compute_confidence_thresholds(paired, lever)
    reviewed = _add_outcomes(records, lever, reviewed)
    mute = add_probability(
        reviewed.filter(pl.col("confidence").is_null()), probabilities, "model", pl.lit(value=True)
    )
    is_disproven = ~pl.col("proven").fill_null(value=True)
    losses = reviewed.filter((pl.col("n_against") > 0) | is_disproven)
    losses = add_probability(losses, probabilities, "model", pl.lit(value=True))
    losses = add_probability(
        losses, probabilities, "outcome", pl.lit(value=False), "outcome_probability"
    )
    habit = pl.col("model") if lever.has_single_labels else pl.lit(ANY_LABEL)
    losses = losses.with_columns(habit=habit, version=pl.lit(version), lever=pl.lit(lever.id))
    losses = losses.join(_build_threshold_frame(thresholds), on="habit", how="left")
    losses = losses.with_columns(
        kind=_build_kind_expression(is_pairwise=not lever.has_single_labels),
        loss=_build_surprise_expression(),
    )
    return ClassifiedCases(
        _add_costs(losses, lever).select(*LOSS_SCHEMA),
        reviewed.height,
        mute["probability"].null_count(),
        thresholds,
    )


def compute_confidence_thresholds(
    pairs: pl.DataFrame, lever: Lever
) -> tuple[ConfidenceThreshold, ...]:
    """Return the confidence threshold of each label; numbers and sets share one threshold.

    `pairs` are of one version and lever: the one human answer, the model's, and the probability
    that the version gave to the human answer.

    >>> rows = {"human": ["a", "a", "b"], "model": ["a", "b", "b"], "probability": [0.9, 0.2, 0.6]}
    >>> thresholds = compute_confidence_thresholds(pl.DataFrame(rows), Lever("x", ("a", "b")))
    >>> [(s.label, round(s.confidence, 3), s.n) for s in thresholds]
    [('a', 0.55, 2), ('b', 0.6, 1)]
    """
    answered = select_rows(pairs, pl.col("model") != FAILED).drop_nulls("probability")
    if answered.is_empty():  # a constant makes one group of no rows
        return ()
    label = pl.col("human") if lever.has_single_labels else pl.lit(ANY_LABEL)
    groups = answered.group_by(label=label).agg("probability").sort("label")
    return tuple(  # exact sums: Polars adds in an order that changes from run to run
        ConfidenceThreshold(name, fsum(values) / len(values), len(values))
        for name, values in groups.iter_rows()
    )


def _select_answers(records: RecordFrames, version: str, lever: Lever) -> pl.DataFrame:
    """Return a version's answers: case_key, model, confidence."""
    predictions = select_rows(records.predictions, pl.col("version") == version)
    return predictions.select("case_key", "confidence", model=VALUE_PREFIX + lever.id).drop_nulls(
        "model"
    )


def _review_cases(
    records: RecordFrames,
    lever: Lever,
    answers: pl.DataFrame,
    probabilities: StoredProbabilities | None,
) -> pl.DataFrame:
    """Return the answered cases with the votes with and against the model.

    Columns: `ANSWER_COLUMNS`, and labels (their number), n_with, n_against, human (the most
    frequent answer against the model, or with it if none is), human_probability (of the only
    label), surprise (the mean of −ln of the model's probability over the votes), missing (labels
    without a probability).
    """
    singles, several = _count_votes(records, lever)

    def compare(votes: pl.DataFrame) -> pl.DataFrame:
        joined = _add_agreement(_join_answers(votes, answers), lever, "label")
        return add_probability(joined, probabilities, "label", pl.col("agrees"))

    reviewed = _summarize_single_votes(compare(singles))
    if several.is_empty():
        return reviewed
    return pl.concat([reviewed, _summarize_votes(compare(several))])


def _count_votes(records: RecordFrames, lever: Lever) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the unassisted answers of cases with one, and of others the number of each answer.

    Columns: case_key, label, n.
    """
    unassisted = select_rows(records.decisions, pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    votes = unassisted.select("case_key", label=VALUE_PREFIX + lever.id).drop_nulls()
    if votes["case_key"].n_unique() == votes.height:
        singles, others = votes, votes.clear()
    else:
        is_single = votes["case_key"].is_unique()
        singles, others = votes.filter(is_single), votes.filter(~is_single)
    return singles, others.group_by("case_key", "label").agg(n=pl.len())


def _join_answers(votes: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    """Return the votes about answered cases; nothing is looked up where both are in one order."""
    if votes["case_key"].equals(answers["case_key"]):
        return votes.hstack(answers.drop("case_key"))
    return votes.join(answers, on="case_key")


def _add_agreement(
    frame: pl.DataFrame, lever: Lever, column: str, name: str = "agrees"
) -> pl.DataFrame:
    """Return whether each answer in `column` agrees with the model's; null without an answer."""
    if lever.has_single_labels:
        return frame.with_columns((pl.col(column) == pl.col("model")).alias(name))
    pairs = frame.select(human=column, model="model").drop_nulls()
    compared = compare_pairs(lever, pairs).select(
        pl.col("human").alias(column), "model", pl.col("agrees").alias(name)
    )
    return frame.join(compared, on=[column, "model"], how="left")


def _summarize_single_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """Return the summary of cases with one vote: nothing is grouped."""
    return votes.select(
        *ANSWER_COLUMNS,
        labels=pl.lit(1, pl.UInt32),
        n_with=pl.col("agrees").cast(pl.UInt32),
        n_against=(~pl.col("agrees")).cast(pl.UInt32),
        human="label",
        human_probability="probability",
        surprise=_build_surprise("probability"),
        missing=pl.col("probability").is_null().cast(pl.UInt32),
    )


def _summarize_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """Return the summary of cases with several votes, a row of `votes` for each answer."""
    against = pl.col("label").filter(~pl.col("agrees"))
    ordered = votes.sort("n", "label", descending=[True, False])
    return ordered.group_by(*ANSWER_COLUMNS).agg(
        labels=pl.len(),
        n_with=pl.col("n").filter("agrees").sum(),
        n_against=pl.col("n").filter(~pl.col("agrees")).sum(),
        human=pl.coalesce(against.first(), pl.col("label").first()),
        human_probability=pl.col("probability").first(),
        surprise=(pl.col("n") * _build_surprise("probability")).sum() / pl.col("n").sum(),
        missing=pl.col("probability").null_count(),
    )


def _pair_numbers(
    records: RecordFrames,
    lever: Lever,
    answers: pl.DataFrame,
    probabilities: StoredProbabilities | None,
) -> pl.DataFrame:
    """Return the one human number of each case, with its probability: human, model, that."""
    pairs = find_single_answers(records, lever).join(answers, on="case_key")
    pairs = _add_agreement(pairs, lever, "human")
    pairs = add_probability(pairs, probabilities, "human", pl.col("agrees"))
    return pairs.select("human", "model", "probability")


def _add_outcomes(records: RecordFrames, lever: Lever, reviewed: pl.DataFrame) -> pl.DataFrame:
    """Add the outcome of each case, and whether it proves the model right; null without one."""
    outcomes = records.outcomes.select("case_key", outcome=VALUE_PREFIX + lever.id).drop_nulls()
    if outcomes.is_empty():
        nothing = pl.lit(None, pl.String).alias("outcome"), pl.lit(None, pl.Boolean).alias("proven")
        return reviewed.with_columns(nothing)
    joined = reviewed.join(outcomes, on="case_key", how="left")
    return _add_agreement(joined, lever, "outcome", "proven")


def _build_surprise(column: str) -> pl.Expr:
    """Return the expression of −ln of a probability, in nats."""
    return -pl.col(column).clip(MIN_PROBABILITY, 1.0).log()


def _build_threshold_frame(thresholds: Sequence[ConfidenceThreshold]) -> pl.DataFrame:
    rows = [(s.label, s.confidence) for s in thresholds]
    return pl.DataFrame(rows, schema={"habit": pl.String, "sure": pl.Float64}, orient="row")


def _build_kind_expression(*, is_pairwise: bool) -> pl.Expr:
    """Return the expression of the kind of loss where answers differ.

    A label without human decisions has no threshold, so the model is never confident in it.
    Different numbers and sets can agree: with `is_pairwise` reviewers are split only where some
    agree with the model and some don't.
    """
    is_sure = (pl.col("probability") >= pl.col("sure") - ROUNDING_TOLERANCE).fill_null(value=False)
    has_no_confidence = pl.col("probability").is_null()
    is_proven, has_proof = pl.col("proven"), pl.col("proven").is_not_null()
    some_with, some_against = pl.col("n_with") > 0, pl.col("n_against") > 0
    is_majority = ~has_proof & some_with & (pl.col("n_with") >= pl.col("n_against"))
    is_slip = some_against & ((is_proven & (is_sure | has_no_confidence)) | (is_majority & is_sure))
    is_wrong = is_sure & ((has_proof & ~is_proven) | (~has_proof & some_against & ~some_with))
    is_split = (some_with & some_against) if is_pairwise else pl.col("labels") > 1
    return (
        pl.when(is_slip.fill_null(value=False))
        .then(pl.lit(SUSPECTED_HUMAN_ERROR))
        .when(is_wrong.fill_null(value=False))
        .then(pl.lit(CONFIDENT_DIFFERENT))
        .when(is_split)
        .then(pl.lit(REVIEWERS_SPLIT))
        .otherwise(pl.lit(UNSURE))
    )


def _build_surprise_expression() -> pl.Expr:
    """Return the expression of the loss, null without probabilities.

    If all votes are the model's answer, the surprise is that of the outcome.
    """
    rest = (1 - pl.col("probability")).clip(MIN_PROBABILITY, 1.0)
    other = pl.coalesce(_build_surprise("outcome_probability"), -rest.log())
    votes = pl.when(pl.col("missing") == 0).then(pl.col("surprise"))
    return pl.when(pl.col("n_against") > 0).then(votes).otherwise(other)


def _add_costs(losses: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    """Add the cost of the wrong answer: the model's, or a suspected human error."""
    is_slip = pl.col("kind") == SUSPECTED_HUMAN_ERROR
    correct_label = pl.coalesce("outcome", "human")
    did, right = pl.col("did"), pl.col("right")
    actions = losses.with_columns(
        right=pl.when(is_slip).then("model").otherwise(correct_label),
        did=pl.when(is_slip).then("human").otherwise("model"),
    )
    costs = compare_pairs(lever, actions.select(human=right, model=did))
    costs = costs.select("cost", right="human", did="model")
    return actions.join(costs, on=["right", "did"], how="left")
