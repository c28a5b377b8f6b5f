"""Losses: cases to look at again where answers differ, with their kinds, sizes and records.

What each case with different answers is: a confident error, a split, a suspected human error. A
version is confident in an answer if its confidence reaches its mean confidence in this label over
the cases with this human label. Each version and label is thus compared with itself. This is the
threshold of confident learning (Northcutt, Jiang and Chuang, Journal of Artificial Intelligence
Research 70 (2021) 1373), with the probabilities below. A confident model alone does not prove a
human error; without an outcome or other reviewers the case counts as a confident error. Other cases
in which model, human or outcome differ are unsure: they rank last.

The probability that a version gave to a label is the stored one where the version sent
`probabilities`. A label that these leave out has at most what they leave. Without them the answer
has its confidence, and any other label at most the rest.

Of sets the stored probabilities are those of each label by itself. A set has the product of those
of its labels and of the rest of the others, as if labels were independent, so that its surprise is
the sum over the labels. If one of the lever's labels has none, the confidence is used.

Losses stay rows of a frame until they are shown. Only then are they joined with what was recorded
about their cases: of a million cases a list may have a hundred thousand, a page shows a hundred.
Most cases have one vote and most agree: votes are grouped only in cases with several, and kinds and
costs are computed only where something differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum, log
from typing import Final

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames, select_rows
from rollout.engine.records.reviews import MAX_LISTED
from rollout.features.reports.inputs.divergence_columns import Loss
from rollout.features.reports.inputs.pairs import (
    MIN_PROBABILITY,
    UNASSISTED_EXPOSURES,
    LeverFigures,
    build_case_frame,
    find_single_answers,
    join_comparison,
    list_attributes,
)
from rollout.kernel.arrays import Floats, Ints
from rollout.kernel.calendar.instants import from_micros
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import FAILED, Lever, group_pairs, is_label_set, split_label_set

STORED_ROW: Final = "stored_row"
"""Column with the row of a case in the stored probabilities."""
NONE: Final = -1  # no row, or no column


@dataclass(frozen=True, eq=False)
class StoredProbabilities:
    """Stored probabilities of a version: a row a case, a column a label, NaN where none is stored.

    `set_labels` are those of a lever with sets; empty for single labels.
    """

    case_keys: pl.Series
    labels: tuple[str, ...]
    values: Floats
    set_labels: tuple[str, ...] = ()

    @cached_property
    def _label_order(self) -> Sequence[int]:
        """The columns by label: sums are equal in whichever order labels were sent."""
        return sorted(range(len(self.labels)), key=self.labels.__getitem__)

    def read(self, rows: pl.Series, answers: pl.Series) -> pl.Series:
        """Return the probability of an answer in each row, null where the confidence decides."""
        row_array = rows.to_numpy()
        if self.set_labels:
            probabilities = self._read_sets(row_array, answers)
        else:
            probabilities = self._read_values(row_array, _find_places(answers, self.labels))
            is_left_out = np.isnan(probabilities) & (row_array != NONE)
            probabilities[is_left_out] = self._compute_rest(row_array[is_left_out])
        return pl.Series(probabilities).fill_nan(None)

    def _read_values(self, rows: Ints, columns: Ints) -> Floats:
        values = self.values[rows, columns]
        values[(rows == NONE) | (columns == NONE)] = np.nan
        return values

    def _compute_rest(self, rows: Ints) -> Floats:
        """Return what all labels leave."""
        total = np.zeros(len(rows))
        for column in self._label_order:
            total += np.nan_to_num(self.values[rows, column])
        return np.clip(1 - total, 0, None)

    def _read_sets(self, rows: Ints, answers: pl.Series) -> Floats:
        """Return the product over the labels, NaN where one has none or the answer is no set."""
        texts = [text for text in answers.unique().sort() if text is not None]
        sets = [text for text in texts if is_label_set(text, self.set_labels)]
        members = [split_label_set(text) for text in sets]
        places = _find_places(answers, sets)
        product = np.where(places == NONE, np.nan, 1.0)
        for label in self.set_labels:
            column = self.labels.index(label) if label in self.labels else NONE
            own = self._read_values(rows, np.full(len(rows), column))
            has_label = np.array([label in labels for labels in members] + [False])[places]
            product *= np.where(has_label, own, 1 - own)
        return product


def select_probabilities(
    records: RecordFrames, version: str, lever: Lever
) -> StoredProbabilities | None:
    """Return a version's stored probabilities; None without any.

    None with several levers: the record doesn't say whose labels they are.
    """
    if len(records.levers) > 1:
        return None
    frame = select_rows(records.probabilities, pl.col("version") == version)
    if frame.is_empty():
        return None
    keys = frame["case_key"]
    is_first = (keys != keys.shift(1)).fill_null(value=True)
    keys, labels, values = _read_blocks(frame, is_first) or _read_scattered(frame, is_first)
    return StoredProbabilities(keys, labels, values, lever.labels if lever.many else ())


def add_stored_rows(frame: pl.DataFrame, probabilities: StoredProbabilities | None) -> pl.DataFrame:
    """Return a frame with case_key and the column `STORED_ROW`, for `add_probability`."""
    if probabilities is None:
        return frame.with_columns(pl.lit(NONE, pl.Int64).alias(STORED_ROW))
    rows = find_rows(frame["case_key"], probabilities.case_keys)
    return frame.with_columns(rows.alias(STORED_ROW))


def find_rows(case_keys: pl.Series, index: pl.Series) -> pl.Series:
    """Return the row of each case in an index of cases, `NONE` for others.

    Nothing is looked up where both are the same cases in one order, as records mostly are.

    >>> find_rows(pl.Series(["c2", "c3"]), pl.Series(["c1", "c2"])).to_list()
    [1, -1]
    """
    if case_keys.equals(index):
        return pl.Series(np.arange(len(index)))
    rows = pl.DataFrame({"case_key": index}).with_row_index()
    cases = pl.DataFrame({"case_key": case_keys})
    matches = cases.join(rows, on="case_key", how="left", maintain_order="left")["index"]
    return matches.cast(pl.Int64).fill_null(NONE)


def add_probability(
    frame: pl.DataFrame,
    probabilities: StoredProbabilities | None,
    column: str,
    agrees: pl.Expr,
    name: str = "probability",
) -> pl.DataFrame:
    """Return a frame with the column `name`, in the same order.

    Args:
        frame: `STORED_ROW`, confidence and the answers in `column`.
        probabilities: the result of `select_probabilities`.
        column: the column of answers.
        agrees: whether the answer is the version's.
    """
    bound = pl.when(agrees).then(pl.col("confidence")).otherwise(1 - pl.col("confidence"))
    if probabilities is None:
        return frame.with_columns(bound.alias(name))
    return frame.with_columns(
        probabilities.read(frame[STORED_ROW], frame[column]).alias(name)
    ).with_columns(pl.coalesce(name, bound))


def _find_places(values: pl.Series, texts: Sequence[str]) -> Ints:
    """Return the place of each value among some texts, `NONE` for others and nulls."""
    if not texts:
        return np.full(len(values), NONE)
    places = values.cast(pl.Enum(texts), strict=False).to_physical().cast(pl.Int64)
    return places.fill_null(NONE).to_numpy()


def _read_blocks(
    frame: pl.DataFrame, is_first: pl.Series
) -> tuple[pl.Series, tuple[str, ...], Floats] | None:
    """Return the probabilities of cases that all list the same labels in the same order.

    A service stores what a model sends, and most models send each label each time. Then nothing is
    grouped, looked up or copied. None for other cases, or if the rows of one lie apart.
    """
    labels, other_starts = frame["label"], is_first.slice(1).arg_true()
    width = frame.height if other_starts.is_empty() else 1 + other_starts[0]
    case_keys = frame["case_key"].gather_every(width)
    if frame.height % width or labels.head(width).n_unique() != width:
        return None
    if not (labels.slice(width) == labels.slice(0, frame.height - width)).all():
        return None
    if is_first.to_numpy().reshape(-1, width)[:, 1:].any() or not _are_different(case_keys):
        return None
    return case_keys, tuple(labels.head(width)), frame["probability"].to_numpy().reshape(-1, width)


def _read_scattered(
    frame: pl.DataFrame, is_first: pl.Series
) -> tuple[pl.Series, tuple[str, ...], Floats]:
    """Return the probabilities of cases that list different labels, or whose rows lie apart."""
    case_keys, rows = frame["case_key"].filter(is_first), is_first.cast(pl.Int64).cum_sum() - 1
    if not _are_different(case_keys):
        case_keys = case_keys.unique()
        rows = find_rows(frame["case_key"], case_keys)
    labels = tuple(frame["label"].unique().sort())
    values = np.full((len(case_keys), len(labels)), np.nan)
    # backwards: of two probabilities of one label the first stays
    places = rows.to_numpy()[::-1], _find_places(frame["label"], labels)[::-1]
    values[places] = frame["probability"].to_numpy()[::-1]
    return case_keys, labels, values


def _are_different(values: pl.Series) -> bool:
    return values.n_unique() == len(values)


CONFIDENT_DIFFERENT = "confident and different"
REVIEWERS_SPLIT = "split reviewers"
SUSPECTED_HUMAN_ERROR = "suspected human error"
UNSURE = "model unsure and different"
CONFIDENT_KINDS = (CONFIDENT_DIFFERENT, REVIEWERS_SPLIT, SUSPECTED_HUMAN_ERROR)
KINDS = (*CONFIDENT_KINDS, UNSURE)
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
        paired = reviewed.filter(pl.col("labels") == 1).select(
            "human", "model", probability="human_probability"
        )
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
    threshold_frame = pl.DataFrame(
        [(threshold.label, threshold.confidence) for threshold in thresholds],
        schema={"habit": pl.String, "sure": pl.Float64},
        orient="row",
    )
    losses = (
        losses.with_columns(habit=habit, version=pl.lit(version), lever=pl.lit(lever.id))
        .join(threshold_frame, on="habit", how="left")
        .with_columns(
            kind=_build_kind_expression(is_pairwise=not lever.has_single_labels),
            loss=_build_surprise_expression(),
        )
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
    return join_comparison(lever, frame, column, **{name: "agrees"})


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
    actions = losses.with_columns(
        right=pl.when(is_slip).then("model").otherwise(correct_label),
        did=pl.when(is_slip).then("human").otherwise("model"),
    )
    return join_comparison(lever, actions, "right", "did", cost="cost")


NO_CONFIDENCES = "no confidences were sent"
WEIGHT = pl.col("cost") * pl.col("loss")


@dataclass(frozen=True, slots=True)
class LossFigures(LeverFigures):
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

    compared: int
    without_confidence: int
    missing_data: str
    confidence_thresholds: tuple[ConfidenceThreshold, ...]
    counts: dict[str, int]
    top: tuple[Loss, ...]


def compute_losses(
    records: RecordFrames, cases: pl.DataFrame, policy: Policy
) -> tuple[LossFigures, ...]:
    """Return the losses of every version and lever, sorted by version."""
    return tuple(
        _compute_version_losses(records, cases, version, lever)
        for version in _list_versions(records)
        for lever in policy.levers
    )


def rank_losses(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return the losses of all versions and levers: unsure ones last, then the costliest first.

    Those of equal cost times loss are ordered by version, lever and kind. The columns are those of
    `LOSS_SCHEMA`; `build_losses` adds what was recorded about their cases.
    """
    parts = [pl.DataFrame(schema=LOSS_SCHEMA)]
    parts += [
        classify_cases(records, version, lever).losses
        for version in _list_versions(records)
        for lever in policy.levers
    ]
    levers = pl.Enum([lever.id for lever in policy.levers])
    return sort_losses(
        pl.concat(parts),
        (pl.col("kind") == UNSURE, False),
        (_round_noise(WEIGHT.fill_null(0.0)), True),
        (pl.col("version"), False),
        (pl.col("lever").cast(levers), False),
        (pl.col("kind").cast(pl.Enum(KINDS)), False),
    )


def build_losses(
    loss_rows: pl.DataFrame, records: RecordFrames, cases: pl.DataFrame
) -> tuple[Loss, ...]:
    """Return losses with the records of their cases, in the same order.

    `loss_rows` has the columns of `LOSS_SCHEMA`, and others that are ignored.
    """
    keys = loss_rows.select(pl.col("case_key").unique())
    own_records = replace(
        records,
        cases=_select_cases(records.cases, keys),
        decisions=_select_cases(records.decisions, keys),
        outcomes=_select_cases(records.outcomes, keys),
    )
    levers = loss_rows["lever"].unique().to_list()
    outcomes = {
        lever: dict(own_records.outcomes.select("case_key", VALUE_PREFIX + lever).iter_rows())
        for lever in levers
    }
    votes = {lever: _collect_votes(own_records, lever) for lever in levers}
    facts = build_case_frame(own_records, _select_cases(cases, keys))
    joined = loss_rows.join(facts, on="case_key", how="left", maintain_order="left")
    names = [name for name in joined.columns if name.startswith(ATTRIBUTE_PREFIX)]
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


def _list_versions(records: RecordFrames) -> Sequence[str]:
    return records.predictions["version"].unique().sort().to_list()


def _compute_version_losses(
    records: RecordFrames, cases: pl.DataFrame, version: str, lever: Lever
) -> LossFigures:
    classified = classify_cases(records, version, lever)
    losses, missing = classified.losses, classified.without_confidence
    counts = dict(losses.group_by("kind").len().iter_rows())
    ordered = sort_losses(losses)
    tops = [ordered.filter(pl.col("kind") == kind).head(MAX_LISTED) for kind in CONFIDENT_KINDS]
    return LossFigures(
        version=version,
        lever=lever.id,
        compared=classified.compared,
        without_confidence=missing,
        missing_data=NO_CONFIDENCES if 0 < classified.compared == missing else "",
        confidence_thresholds=classified.thresholds,
        counts={kind: counts.get(kind, 0) for kind in KINDS},
        top=build_losses(pl.concat(tops), records, cases),
    )


def sort_losses(losses: pl.DataFrame, *keys: tuple[pl.Expr, bool]) -> pl.DataFrame:
    """Return losses sorted by keys, each descending or not, then the largest cost times loss."""
    by, is_descending = zip(
        *keys,
        (_round_noise(WEIGHT), True),
        (_round_noise(pl.col("loss")), True),
        (pl.col("cost"), True),
        (pl.col("case_key"), False),
        strict=True,
    )
    return losses.sort(by, descending=is_descending, nulls_last=True)


def _round_noise(value: pl.Expr) -> pl.Expr:
    """Return values whose last digits don't order equal losses: their sums are in any order."""
    return value.round_sig_figs(12)


def _select_cases(frame: pl.DataFrame, keys: pl.DataFrame) -> pl.DataFrame:
    return frame.join(keys, on="case_key", how="semi", maintain_order="left")


def _collect_votes(records: RecordFrames, lever: str) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return the unassisted answers of each case, the most frequent first."""
    counts = (
        records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
        .select("case_key", label=VALUE_PREFIX + lever)
        .drop_nulls()
        .group_by("case_key", "label")
        .len()
    )
    rows = counts.sort("len", "label", descending=[True, False]).iter_rows()
    votes = group_pairs((key, (label, n)) for key, label, n in rows)
    return {key: tuple(case_votes) for key, case_votes in votes.items()}


def _build_loss(
    row: dict[str, object], votes: tuple[tuple[str, int], ...], attribute_names: Sequence[str]
) -> Loss:
    about = list_attributes({name: row[name] for name in attribute_names})
    names = ("case_key", "version", "lever", "site", "window", "human", "model", "confidence",
             "loss", "cost", "kind", "outcome")  # fmt: skip
    at = None if row["occurred_us"] is None else from_micros(int(str(row["occurred_us"])))
    values = {name: row[name] for name in names}
    return Loss(**values, occurred_at=at, votes=votes, attributes=about)  # type: ignore[arg-type]
