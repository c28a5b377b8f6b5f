"""Cases to look at again: confident errors, split reviewers, suspected human errors.

A version is confident in an answer if its confidence reaches its mean confidence in this label over
the cases with this human label. Each version and label is thus compared with itself. This is the
threshold of confident learning (Northcutt, Jiang and Chuang, Journal of Artificial Intelligence
Research 70 (2021) 1373), with the probabilities of `label_probabilities`. A confident model alone
does not prove a human error; without an outcome or other reviewers the case counts as a confident
error. Other cases in which model, human or outcome differ are unsure: they rank last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import fsum, log

import polars as pl

from rollout.core.calendar.instants import from_micros
from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import MAX_LISTED
from rollout.reports.inputs.label_probabilities import (
    NO_PROBABILITIES,
    StoredProbabilities,
    add_probability,
    select_probabilities,
)
from rollout.reports.inputs.pairs import (
    UNASSISTED_EXPOSURES,
    Pairs,
    build_case_frame,
    compare_pairs,
    list_attributes,
)
from rollout.tally.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames

CONFIDENT_WRONG = "confident and wrong"
REVIEWERS_SPLIT = "split reviewers"
SUSPECTED_HUMAN_ERROR = "suspected human error"
UNSURE = "model unsure and different"
CONFIDENT_KINDS = (CONFIDENT_WRONG, REVIEWERS_SPLIT, SUSPECTED_HUMAN_ERROR)
KINDS = (*CONFIDENT_KINDS, UNSURE)
MIN_PROBABILITY = 1e-6  # lower limit: records have at most six digits
ROUNDING_TOLERANCE = 1e-9  # a mean of equal confidences can exceed them by rounding
NO_CONFIDENCES = "no confidences were sent"


@dataclass(frozen=True, slots=True)
class Loss:
    """One case to look at again.

    Attributes:
        case_key, version, lever: the case, and whose answer.
        site, window, occurred_at: None if the case has no usable time.
        human: the most frequent human answer that differs from the model; if all agree with the
            model and the outcome differs, their answer.
        model, confidence: the model's answer, and its confidence if known.
        loss: surprise in nats, −ln of the model's probability of the human answer (several: mean
            over the answers; if they are the model's: of the outcome). None without confidence.
        cost: of the wrong answer: the model's, or for `suspected human error` the human one, in
            the policy's unit.
        kind: one of `KINDS`.
        outcome: None if unknown.
        votes: all unassisted answers, the most frequent first.
        attributes: the case's attributes.
    """

    case_key: str
    version: str
    lever: str
    site: str | None
    window: str | None
    occurred_at: datetime | None
    human: str
    model: str
    confidence: float | None
    loss: float | None
    cost: float
    kind: str
    outcome: str | None
    votes: tuple[tuple[str, int], ...]
    attributes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ConfidenceThreshold:
    """The confidence from which a version is confident in a label, and its n cases."""

    label: str
    confidence: float
    n: int


@dataclass(frozen=True, slots=True)
class LossFigures:
    """The losses of one version on one lever.

    Attributes:
        version, lever: whose answers.
        compared: cases with an answer of the version and an unassisted decision.
        without_confidence: those without a confidence.
        missing_data: what data is missing; empty if none is.
        confidence_thresholds: threshold by label; empty without confidences. For numbers one row,
            label `any`.
        counts: cases of each kind.
        top: at most 20 of each kind but the unsure ones, the largest cost times loss first.
    """

    version: str
    lever: str
    compared: int
    without_confidence: int
    missing_data: str
    confidence_thresholds: tuple[ConfidenceThreshold, ...]
    counts: dict[str, int]
    top: tuple[Loss, ...]


def compute_losses(
    pairs: Pairs, records: RecordFrames, cases: pl.DataFrame, policy: Policy
) -> tuple[LossFigures, ...]:
    """Return the losses of every version and lever, sorted by version."""
    facts = build_case_frame(records, cases)
    return tuple(
        _compute_version_losses(pairs, records, facts, version, lever)
        for version in pairs.predicted
        for lever in policy.levers
    )


def list_top_losses(
    pairs: Pairs,
    records: RecordFrames,
    cases: pl.DataFrame,
    policy: Policy,
    *,
    limit: int | None = MAX_LISTED,
) -> tuple[Loss, ...]:
    """Return the losses of all versions and levers, costliest first in each kind.

    `limit` is per version, lever and kind; None returns all.
    """
    facts = build_case_frame(records, cases)
    return tuple(
        loss
        for version in pairs.predicted
        for lever in policy.levers
        for loss in _list_losses(
            _classify_cases(pairs, records, version, lever), facts, records, limit
        )
    )


def build_losses(
    loss_rows: pl.DataFrame, records: RecordFrames, cases: pl.DataFrame
) -> tuple[Loss, ...]:
    """Return stored losses with the records of their cases, in the same order.

    `loss_rows` has columns case_key, version, lever, human, model, confidence, loss, cost, kind.
    """
    levers = loss_rows["lever"].unique().to_list()
    outcomes = {
        lever: dict(records.outcomes.select("case_key", VALUE_PREFIX + lever).iter_rows())
        for lever in levers
    }
    votes = {lever: _collect_votes(records, lever, loss_rows) for lever in levers}
    joined = loss_rows.join(
        build_case_frame(records, cases), on="case_key", how="left", maintain_order="left"
    )
    names = _find_attributes(joined)
    return tuple(
        _build_loss(
            {**row, "outcome": outcomes[row["lever"]].get(row["case_key"])},
            votes[row["lever"]].get(row["case_key"], ()),
            names,
        )
        for row in joined.iter_rows(named=True)
    )


def compute_surprise(confidence: float) -> float:
    """Return −ln of the probability of all answers but the given one, in nats.

    >>> round(compute_surprise(0.9), 6), round(compute_surprise(1.0), 6)
    (2.302585, 13.815511)
    """
    return -log(max(1 - confidence, MIN_PROBABILITY))


def compute_confidence_thresholds(
    pairs: pl.DataFrame, lever: Lever, probabilities: StoredProbabilities = NO_PROBABILITIES
) -> tuple[ConfidenceThreshold, ...]:
    """Return the confidence threshold of each label; numbers share one threshold.

    `pairs` are of one version and lever, with human, model, agrees and confidence;
    `probabilities` are its stored ones.

    >>> rows = {"human": ["a", "a", "b"], "model": ["a", "b", "b"], "confidence": [0.9, 0.8, 0.6]}
    >>> frame = pl.DataFrame(rows).with_columns(agrees=pl.col("human") == pl.col("model"))
    >>> [
    ...     (s.label, round(s.confidence, 3), s.n)
    ...     for s in compute_confidence_thresholds(frame, Lever("x", ("a", "b")))
    ... ]
    [('a', 0.55, 2), ('b', 0.6, 1)]
    """
    answered = pairs.filter(pl.col("model") != FAILED)
    answered = add_probability(answered, probabilities, "human", "agrees").drop_nulls("probability")
    if answered.is_empty():  # a constant makes one group of no rows
        return ()
    label = pl.col("human") if lever.has_single_labels else pl.lit("any")
    groups = answered.group_by(label=label).agg("probability").sort("label")
    return tuple(  # exact sums: Polars adds in an order that changes from run to run
        ConfidenceThreshold(name, fsum(values) / len(values), len(values))
        for name, values in groups.iter_rows()
    )


def _compute_version_losses(
    pairs: Pairs, records: RecordFrames, facts: pl.DataFrame, version: str, lever: Lever
) -> LossFigures:
    classified = _classify_cases(pairs, records, version, lever)
    missing = classified["probability"].null_count()
    probabilities = select_probabilities(records, version, lever)
    counts = dict(classified.drop_nulls("kind").group_by("kind").len().iter_rows())
    return LossFigures(
        version=version,
        lever=lever.id,
        compared=classified.height,
        without_confidence=missing,
        missing_data=NO_CONFIDENCES if classified.height and missing == classified.height else "",
        confidence_thresholds=compute_confidence_thresholds(
            pairs.select(version, lever.id), lever, probabilities
        ),
        counts={kind: counts.get(kind, 0) for kind in KINDS},
        top=tuple(_list_losses(classified, facts, records, MAX_LISTED, kinds=CONFIDENT_KINDS)),
    )


def _classify_cases(
    pairs: Pairs, records: RecordFrames, version: str, lever: Lever
) -> pl.DataFrame:
    """Return every answered and decided case with its kind of loss.

    Columns: case_key, version, lever, model, confidence, probability (of the answer), outcome,
    human, kind, loss, cost.
    """
    probabilities = select_probabilities(records, version, lever)
    answers = _select_answers(records, version, lever, probabilities)
    answer_columns = answers.select("case_key", "model", "confidence")
    votes = _count_votes(records, lever).join(answer_columns, on="case_key")
    votes = votes.join(_compare_column(lever, votes, "label"), on=["label", "model"])
    votes = add_probability(votes, probabilities, "label", "agrees")
    reviewed = _summarize_votes(votes).join(answers, on="case_key")
    with_outcome = reviewed.filter(pl.col("outcome").is_not_null())
    proven = _compare_column(lever, with_outcome, "outcome").rename({"agrees": "proven"})
    reviewed = reviewed.join(proven, on=["outcome", "model"], how="left")
    thresholds = compute_confidence_thresholds(
        pairs.select(version, lever.id), lever, probabilities
    )
    reviewed = reviewed.join(_build_threshold_frame(thresholds), on="habit", how="left")
    classified = reviewed.with_columns(
        kind=_build_kind_expression(is_pairwise=not lever.has_single_labels),
        loss=_build_surprise_expression(),
    )
    return _add_costs(classified, lever)


def _select_answers(
    records: RecordFrames, version: str, lever: Lever, probabilities: StoredProbabilities
) -> pl.DataFrame:
    """Return a version's answers, with the probabilities of answer and outcome."""
    column = VALUE_PREFIX + lever.id
    outcomes = records.outcomes.select("case_key", outcome=column)
    threshold_label = pl.col("model") if lever.has_single_labels else pl.lit("any")
    predictions = records.predictions.filter(pl.col("version") == version).drop_nulls(column)
    predictions = predictions.select(
        "case_key", "version", "confidence", lever=pl.lit(lever.id), model=column
    )
    answers = predictions.join(outcomes, on="case_key", how="left")
    of_outcome = add_probability(answers, probabilities, "outcome", pl.lit(value=False))
    answers = answers.with_columns(of_outcome["probability"].alias("outcome_probability"))
    answers = add_probability(answers, probabilities, "model", pl.lit(value=True))
    return answers.with_columns(habit=threshold_label)


def _count_votes(records: RecordFrames, lever: Lever) -> pl.DataFrame:
    """Return the number of unassisted answers by case and label: case_key, label, n."""
    decisions = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    decisions = decisions.select("case_key", label=VALUE_PREFIX + lever.id).drop_nulls()
    return decisions.group_by("case_key", "label").agg(n=pl.len())


def _compare_column(lever: Lever, frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Return whether each distinct pair of `column` and model agrees."""
    pairs = frame.select(human=column, model="model")
    return compare_pairs(lever, pairs).select(pl.col("human").alias(column), "model", "agrees")


def _summarize_votes(votes: pl.DataFrame) -> pl.DataFrame:
    """Return the votes with and against the model of each case, and the human answer.

    `surprise` is the mean of −ln of the model's probability over the votes.
    """
    against = pl.col("label").filter(~pl.col("agrees"))
    ordered = votes.sort("n", "label", descending=[True, False])
    return ordered.group_by("case_key").agg(
        labels=pl.len(),
        n_with=pl.col("n").filter("agrees").sum(),
        n_against=pl.col("n").filter(~pl.col("agrees")).sum(),
        human=pl.coalesce(against.first(), pl.col("label").first()),
        surprise=(pl.col("n") * _build_surprise("probability")).sum() / pl.col("n").sum(),
        missing=pl.col("probability").null_count(),
    )


def _build_surprise(column: str) -> pl.Expr:
    """Return the expression of −ln of a probability, in nats."""
    return -pl.col(column).clip(MIN_PROBABILITY, 1.0).log()


def _build_threshold_frame(thresholds: tuple[ConfidenceThreshold, ...]) -> pl.DataFrame:
    rows = [(s.label, s.confidence) for s in thresholds]
    return pl.DataFrame(rows, schema={"habit": pl.String, "sure": pl.Float64}, orient="row")


def _build_kind_expression(*, is_pairwise: bool) -> pl.Expr:
    """Return the expression of the kind of loss, null for other cases.

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
        .then(pl.lit(CONFIDENT_WRONG))
        .when(is_split)
        .then(pl.lit(REVIEWERS_SPLIT))
        .when(some_against | (has_proof & ~is_proven))
        .then(pl.lit(UNSURE))
    )


def _build_surprise_expression() -> pl.Expr:
    """Return the expression of the loss, null without probabilities.

    If all votes are the model's answer, the surprise is that of the outcome.
    """
    rest = (1 - pl.col("probability")).clip(MIN_PROBABILITY, 1.0)
    other = pl.coalesce(_build_surprise("outcome_probability"), -rest.log())
    votes = pl.when(pl.col("missing") == 0).then(pl.col("surprise"))
    return pl.when(pl.col("n_against") > 0).then(votes).otherwise(other)


def _add_costs(classified: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    """Add the cost of the wrong answer: the model's, or a suspected human error."""
    is_slip = pl.col("kind") == SUSPECTED_HUMAN_ERROR
    correct_label = pl.coalesce("outcome", "human")
    actions = classified.drop_nulls("kind").select(
        "case_key",
        human=pl.when(is_slip).then("model").otherwise(correct_label),
        model=pl.when(is_slip).then("human").otherwise("model"),
    )
    costs = compare_pairs(lever, actions).select("human", "model", "cost")
    case_costs = actions.join(costs, on=["human", "model"]).select("case_key", "cost")
    return classified.join(case_costs, on="case_key", how="left")


def _list_losses(
    classified: pl.DataFrame,
    facts: pl.DataFrame,
    records: RecordFrames,
    limit: int | None,
    kinds: Sequence[str] = KINDS,
) -> Iterator[Loss]:
    """Yield the losses by kind, the largest cost times loss first."""
    ordered = classified.drop_nulls("kind").with_columns(weight=pl.col("cost") * pl.col("loss"))
    sort_keys = ["weight", "loss", "cost", "case_key"]
    ordered = ordered.sort(sort_keys, descending=[True, True, True, False], nulls_last=True)
    parts = [ordered.filter(pl.col("kind") == kind).head(limit or ordered.height) for kind in kinds]
    joined = pl.concat(parts).join(facts, on="case_key", how="left", maintain_order="left")
    lever = str(joined["lever"][0]) if joined.height else ""
    votes = _collect_votes(records, lever, joined) if joined.height else {}
    names = _find_attributes(joined)
    for row in joined.iter_rows(named=True):
        yield _build_loss(row, votes[row["case_key"]], names)


def _collect_votes(
    records: RecordFrames, lever: str, cases: pl.DataFrame
) -> dict[str, tuple[tuple[str, int], ...]]:
    decisions = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES)).join(
        cases.select("case_key"), on="case_key", how="semi"
    )
    counts = (
        decisions.drop_nulls(VALUE_PREFIX + lever).group_by("case_key", VALUE_PREFIX + lever).len()
    )
    votes: dict[str, tuple[tuple[str, int], ...]] = {}
    for key, label, n in counts.sort(
        "len", VALUE_PREFIX + lever, descending=[True, False]
    ).iter_rows():
        votes[key] = (*votes.get(key, ()), (label, n))
    return votes


def _find_attributes(frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the columns with attributes, found once: a list may have 100,000 losses."""
    return tuple(name for name in frame.columns if name.startswith(ATTRIBUTE_PREFIX))


def _build_loss(
    row: dict[str, object], votes: tuple[tuple[str, int], ...], attribute_names: Sequence[str]
) -> Loss:
    about = list_attributes({name: row[name] for name in attribute_names})
    names = ("case_key", "version", "lever", "site", "window", "human", "model", "confidence",
             "loss", "cost", "kind", "outcome")  # fmt: skip
    at = None if row["occurred_us"] is None else from_micros(int(str(row["occurred_us"])))
    values = {name: row[name] for name in names}
    return Loss(**values, occurred_at=at, votes=votes, attributes=about)  # type: ignore[arg-type]
