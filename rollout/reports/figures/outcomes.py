"""Correctness against outcomes and adjudications; never evidence.

Outcomes are known for few cases, which are rarely a random sample. Adjudications exist only for
divergences, so they can only turn disagreements into agreements. Gates therefore use neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.kernel.units import FAILED
from rollout.reports.figures.confusion import (
    ConfusionMatrix,
    LabelFigures,
    build_matrix,
    compute_label_figures,
    compute_set_label_figures,
)
from rollout.reports.inputs.pairs import compare_pairs, find_adjudicated_labels, find_single_answers
from rollout.reports.statistics.chance_agreement import (
    AgreementCoefficient,
    compute_kappa_with_interval,
)
from rollout.reports.statistics.intervals import (
    PairedChange,
    Share,
    compute_case_difference_number,
    compute_paired_change,
    compute_unit_share,
)
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

OUTCOME, ADJUDICATED = "outcome", "adjudicated"


@dataclass(frozen=True, slots=True)
class Correctness:
    """Correctness of one version and of humans on one lever.

    Attributes:
        version, lever: whose answers.
        reference: `outcome` or `adjudicated`.
        known_cases: predicted cases with known truth.
        model: share on which the version was right.
        kappa: of version and truth; None for numbers.
        labels: figures by label, with the truth as `human`; empty for numbers.
        human: share on which the single unassisted human label was right.
        model_on_same_cases: the version on the same cases.
        change: cases on which only the version was right minus those on which only humans were,
            per 100 of these cases.
    """

    version: str
    lever: str
    reference: str
    known_cases: int
    model: Share
    kappa: AgreementCoefficient | None
    labels: tuple[LabelFigures, ...]
    human: Share
    model_on_same_cases: Share
    change: PairedChange


def compute_correctness(
    records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> tuple[Correctness, ...]:
    """Return the correctness of every version and lever, against each kind of truth."""
    units = facts.select("case_key", "unit")
    decisions = {lever.id: find_single_answers(records, lever) for lever in policy.levers}
    versions = records.predictions["version"].unique().sort()
    return tuple(
        _compute_version_correctness(lever, reference, version, rows)
        for lever in policy.levers
        for reference, truth in _list_truths(records, lever)
        for version in versions
        if (rows := _build_rows(records, lever, version, truth, decisions[lever.id], units)).height
    )


def _list_truths(records: RecordFrames, lever: Lever) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield the truths by kind: case_key, truth."""
    outcomes = records.outcomes.select("case_key", truth=VALUE_PREFIX + lever.id).drop_nulls()
    yield OUTCOME, outcomes
    yield ADJUDICATED, find_adjudicated_labels(records, lever)


def _build_rows(
    records: RecordFrames,
    lever: Lever,
    version: str,
    truth: pl.DataFrame,
    decisions: pl.DataFrame,
    units: pl.DataFrame,
) -> pl.DataFrame:
    """Return the cases with known truth: unit, human (the truth), model, said, agrees."""
    predictions = records.predictions.lazy().filter(pl.col("version") == version)
    model = predictions.select("case_key", model=pl.col(VALUE_PREFIX + lever.id).fill_null(FAILED))
    single_answers = decisions.lazy().rename({"human": "said"})
    joined = model.join(truth.lazy(), on="case_key").join(single_answers, on="case_key", how="left")
    renamed = joined.rename({"truth": "human"}).collect()
    comparison = compare_pairs(lever, renamed).select("human", "model", "agrees")
    rows = renamed.join(comparison, on=["human", "model"]).join(units, on="case_key", how="left")
    human_answers = rows.select("human", model="said").drop_nulls()
    human_comparison = compare_pairs(lever, human_answers).select(
        "human", said="model", people_agree="agrees"
    )
    return rows.join(human_comparison, on=["human", "said"], how="left").sort("case_key")


def _compute_version_correctness(
    lever: Lever, reference: str, version: str, rows: pl.DataFrame
) -> Correctness:
    model_share = compute_unit_share(rows)
    matrix = build_matrix(rows, "human", "model", lever.labels) if lever.has_single_labels else None
    with_decision = rows.drop_nulls("people_agree")
    return Correctness(
        version=version,
        lever=lever.id,
        reference=reference,
        known_cases=rows.height,
        model=model_share,
        kappa=compute_kappa_with_interval(matrix.table, model_share.effective_number, matrix.labels)
        if matrix
        else None,
        labels=_compute_labels(lever, rows, matrix),
        human=compute_unit_share(with_decision, "people_agree"),
        model_on_same_cases=compute_unit_share(with_decision),
        change=_compute_change(with_decision),
    )


def _compute_labels(
    lever: Lever, rows: pl.DataFrame, matrix: ConfusionMatrix | None
) -> tuple[LabelFigures, ...]:
    if lever.many:
        return compute_set_label_figures(rows, lever.labels, {})
    return compute_label_figures(rows, matrix, {}) if matrix else ()


def _compute_change(with_decision: pl.DataFrame) -> PairedChange:
    """Return how many more of 100 cases the version has right than humans."""
    model_right, human_right = (
        with_decision[name].to_numpy().astype(np.int64) for name in ("agrees", "people_agree")
    )
    difference = model_right - human_right
    return compute_paired_change(
        int(np.sum(difference > 0)),
        int(np.sum(difference < 0)),
        with_decision.height,
        compute_case_difference_number(with_decision["unit"], difference),
    )
