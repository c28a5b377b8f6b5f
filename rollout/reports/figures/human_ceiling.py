"""The human ceiling: agreement among reviewers, compared with agreement of a model.

A model that agrees with humans as often as they agree with each other is at the ceiling. Only
unassisted decisions on cases with several reviewers count.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.kernel.units import FAILED
from rollout.reports.figures.ratings import (
    RaterAgreement,
    compute_model_agreement,
    compute_model_set_agreement,
    compute_number_agreement,
    compute_rater_agreement,
    compute_set_agreement,
)
from rollout.reports.inputs.pairs import compare_pairs
from rollout.reports.statistics.chance_agreement import AgreementCoefficient
from rollout.reports.statistics.intervals import Share, compute_unit_share
from rollout.reports.statistics.set_distances import compare_sets
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

Ints = NDArray[np.int64]

LABEL_SEPARATOR = "\x1f"  # between the labels of several levers


@dataclass(frozen=True, slots=True)
class HumanCeiling:
    """Agreement among reviewers and of the model, on the same cases.

    Attributes:
        lever: the lever; `*` for all of them together.
        reviewers: agreement of reviewers with each other.
        version: of the model.
        model: share of human decisions that the model agrees with.
        model_alpha: alpha of the model and one random reviewer of each case.
        with_model: all figures of the model and one random reviewer; None for numbers.
        majority: share of cases on which the model agrees with most reviewers, ties excluded; of
            numbers, with their lower median.
        majority_outcome: share of known outcomes that most reviewers, or their median, agree with.
    """

    lever: str
    reviewers: RaterAgreement
    version: str
    model: Share
    model_alpha: AgreementCoefficient | None
    with_model: RaterAgreement | None
    majority: Share
    majority_outcome: Share


@dataclass(frozen=True)
class MultiReviewedCases:
    """Decisions on cases with several reviewers, on one lever.

    Attributes:
        lever: None for all of them together.
        decisions: case_key, unit, label.
        outcomes: case_key, outcome.
    """

    lever: Lever | None
    decisions: pl.DataFrame
    outcomes: pl.DataFrame

    @property
    def set_lever(self) -> Lever | None:
        """Return the lever if its answers are sets of labels."""
        return self.lever if self.lever and self.lever.many else None

    @property
    def number_lever(self) -> Lever | None:
        """Return the lever if it is numeric."""
        return self.lever if self.lever and self.lever.number else None


def compute_ceilings(
    decisions: pl.DataFrame, records: RecordFrames, policy: Policy
) -> tuple[HumanCeiling, ...]:
    """Return the ceiling of every version and lever; several levers of labels also combined.

    `decisions`: one row per unassisted decision and lever: case_key, reviewer, lever, label, unit.
    """
    parts = list(_build_multi_reviewed_cases(decisions, records, policy))
    agreements = [_compute_human_agreement(part) for part in parts]
    versions = records.predictions["version"].unique().sort().to_list()
    return tuple(
        _compute_ceiling(part, agreement, policy, records, version)
        for version in versions
        for part, agreement in zip(parts, agreements, strict=True)
    )


def _build_multi_reviewed_cases(
    decisions: pl.DataFrame, records: RecordFrames, policy: Policy
) -> Iterator[MultiReviewedCases]:
    labelled = decisions.drop_nulls("label")
    for lever in policy.levers:
        labels = labelled.filter(pl.col("lever") == lever.id).select("case_key", "unit", "label")
        outcomes = records.outcomes.select("case_key", outcome=VALUE_PREFIX + lever.id).drop_nulls()
        yield MultiReviewedCases(lever, _select_multi_reviewed(labels), outcomes)
    if len(policy.levers) > 1 and all(lever.has_single_labels for lever in policy.levers):
        yield MultiReviewedCases(
            None,
            _select_multi_reviewed(_join_levers(labelled, policy)),
            _join_outcomes(records.outcomes, policy),
        )


def _select_multi_reviewed(decisions: pl.DataFrame) -> pl.DataFrame:
    return decisions.filter(pl.len().over("case_key") > 1).sort("case_key", "label")


def _join_levers(labelled: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return the joined answers of reviewers who answered on all levers."""
    order = [lever.id for lever in policy.levers]
    lever_index = pl.col("lever").replace_strict(
        order, list(range(len(order))), return_dtype=pl.Int64
    )
    grouped = labelled.sort(lever_index).group_by(
        "case_key", "unit", "reviewer", maintain_order=True
    )
    joined = grouped.agg(label=pl.col("label").str.join(LABEL_SEPARATOR), levers=pl.len())
    return joined.filter(pl.col("levers") == len(order)).select("case_key", "unit", "label")


def _join_outcomes(answers: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    columns = [VALUE_PREFIX + lever.id for lever in policy.levers]
    text = pl.concat_str(columns, separator=LABEL_SEPARATOR)
    return answers.select("case_key", outcome=text).drop_nulls()


def _compute_human_agreement(part: MultiReviewedCases) -> RaterAgreement:
    if part.number_lever:
        return _compute_number_agreement(part)
    values, units, _ = _count_labels(part.decisions)
    if part.set_lever:
        texts = part.decisions["label"].unique().sort()
        return compute_set_agreement(
            values, *compare_sets(texts.to_list(), part.set_lever.overlap), units
        )
    return compute_rater_agreement(values, units)


def _compute_number_agreement(part: MultiReviewedCases) -> RaterAgreement:
    assert part.lever is not None  # noqa: S101 - only called for numeric levers
    numbers = part.decisions.with_columns(x=pl.col("label").cast(pl.Float64))
    pairs = numbers.with_row_index("one").join(
        numbers.with_row_index("other").select("case_key", "other", model="label"), on="case_key"
    )
    pairs = pairs.filter(pl.col("one") < pl.col("other")).rename({"label": "human"})
    compared_pairs = pairs.join(compare_pairs(part.lever, pairs), on=["human", "model"])
    agreeing = compared_pairs.group_by("case_key").agg(agreeing=pl.col("agrees").sum())
    x = pl.col("x") - (numbers["x"].mean() or 0.0)  # gaps stay, and squares cancel nothing
    sums = numbers.group_by("case_key", "unit").agg(m=pl.len(), sum=x.sum(), square=(x**2).sum())
    cases = sums.join(agreeing, on="case_key").sort("case_key")
    return compute_number_agreement(
        _to_int_array(cases["m"]),
        cases["sum"].to_numpy(),
        cases["square"].to_numpy(),
        _to_int_array(cases["agreeing"]),
        _encode_values(cases["unit"]),
    )


def _compute_ceiling(
    part: MultiReviewedCases,
    human_agreement: RaterAgreement,
    policy: Policy,
    records: RecordFrames,
    version: str,
) -> HumanCeiling:
    answers = _select_answers(part, policy, records, version)
    joined = part.decisions.join(answers, on="case_key")
    model_agreement = None if part.number_lever else _compute_model_agreement(part, joined)
    majority = _find_majority_answers(part)
    return HumanCeiling(
        lever=part.lever.id if part.lever else policy.whole_unit_lever,
        reviewers=human_agreement,
        version=version,
        model=compute_unit_share(_mark_agreement(part, joined)),
        model_alpha=model_agreement.alpha if model_agreement else None,
        with_model=model_agreement,
        majority=compute_unit_share(_mark_agreement(part, majority.join(answers, on="case_key"))),
        majority_outcome=compute_unit_share(
            _mark_agreement(
                part, majority.join(part.outcomes.rename({"outcome": "model"}), on="case_key")
            )
        ),
    )


def _select_answers(
    part: MultiReviewedCases, policy: Policy, records: RecordFrames, version: str
) -> pl.DataFrame:
    """Return the answers of a version: case_key, model."""
    predictions = records.predictions.filter(pl.col("version") == version)
    if part.lever:
        answer = pl.col(VALUE_PREFIX + part.lever.id).fill_null(FAILED)
        return predictions.select("case_key", model=answer)
    columns = [pl.col(VALUE_PREFIX + lever.id).fill_null(FAILED) for lever in policy.levers]
    return predictions.select("case_key", model=pl.concat_str(columns, separator=LABEL_SEPARATOR))


def _mark_agreement(part: MultiReviewedCases, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return rows of unit and agrees."""
    lever = part.number_lever or part.set_lever
    if lever is None:
        return pairs.select("unit", agrees=pl.col("label") == pl.col("model"))
    renamed = pairs.rename({"label": "human"})
    return renamed.join(compare_pairs(lever, renamed), on=["human", "model"]).select(
        "unit", "agrees"
    )


def _find_majority_answers(part: MultiReviewedCases) -> pl.DataFrame:
    """Return the majority label of each case, or the lower median of its numbers."""
    if part.number_lever is None:
        return _find_majority_labels(part.decisions)
    numbers = part.decisions.sort("case_key", pl.col("label").cast(pl.Float64), "label")
    return numbers.group_by("case_key", maintain_order=True).agg(
        pl.col("unit").first(), pl.col("label").get((pl.len() - 1) // 2)
    )


def _find_majority_labels(decisions: pl.DataFrame) -> pl.DataFrame:
    """Return the majority label of each case; ties are excluded."""
    votes = decisions.group_by("case_key", "unit", "label").len(name="votes")
    leading = votes.filter(pl.col("votes") == pl.col("votes").max().over("case_key"))
    return leading.filter(pl.len().over("case_key") == 1).sort("case_key")


def _compute_model_agreement(part: MultiReviewedCases, joined: pl.DataFrame) -> RaterAgreement:
    """Return agreement of the model with a random reviewer of each case."""
    labels = pl.concat([joined["label"], joined["model"]]).unique().sort()
    values, units, cases = _count_labels(joined, labels)
    answers = joined.unique("case_key", keep="first").sort("case_key")
    codes = _to_int_array(answers.select(_encode_labels("model", labels)).to_series())
    assert cases.to_list() == answers["case_key"].to_list()  # noqa: S101 - one order for both
    if part.set_lever:
        comparison = compare_sets(labels.to_list(), part.set_lever.overlap)
        return compute_model_set_agreement(values, codes, *comparison, units)
    return compute_model_agreement(values, codes, units)


def _count_labels(
    decisions: pl.DataFrame, label_order: pl.Series | None = None
) -> tuple[Ints, Ints, pl.Series]:
    """Return how often each label was given to each case, the cases' units, and the cases."""
    labels = decisions["label"].unique().sort() if label_order is None else label_order
    cases = decisions.select("case_key", "unit").unique().sort("case_key")
    coded = decisions.select(
        case=pl.col("case_key").rank("dense").cast(pl.Int64) - 1,
        value=_encode_labels("label", labels),
    )
    votes = coded.group_by("case", "value").len()
    values = np.zeros((cases.height, len(labels)), dtype=np.int64)
    values[_to_int_array(votes["case"]), _to_int_array(votes["value"])] = _to_int_array(
        votes["len"]
    )
    return values, _encode_values(cases["unit"]), cases["case_key"]


def _encode_labels(column: str, labels: pl.Series) -> pl.Expr:
    codes = {label: code for code, label in enumerate(labels)}
    return pl.col(column).replace_strict(codes, return_dtype=pl.Int64).cast(pl.Int64)


def _encode_values(column: pl.Series) -> Ints:
    """Return a code for each distinct text."""
    return _to_int_array(column.rank("dense").cast(pl.Int64) - 1)


def _to_int_array(column: pl.Series) -> Ints:
    """Return integers as an array, also for an empty column without a type."""
    return column.to_numpy().astype(np.int64)
