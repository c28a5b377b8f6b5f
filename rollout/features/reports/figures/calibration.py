"""Calibration and correctness: how often a version is right, by its confidence and in all.

Calibration has two references, never mixed: human labels (one distinct label, unassisted) and
outcomes. Humans err too, so agreement with them is not correctness.

Correctness is against outcomes and adjudications, and never evidence. Outcomes are known for few
cases, which are rarely a random sample. Adjudications exist only for divergences, so they can only
turn disagreements into agreements. Gates therefore use neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordFrames
from rollout.engine.words.formatting import TruthWords, choose_words
from rollout.features.reports.figures.comparison import (
    LabelFigures,
    build_matrix,
    compute_lever_label_figures,
)
from rollout.features.reports.inputs.pairs import (
    LeverFigures,
    Pairs,
    find_adjudicated_labels,
    find_single_answers,
    join_comparison,
)
from rollout.kernel.arrays import Bools, Floats, Ints
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.agreement import (
    AgreementCoefficient,
    compute_kappa_with_interval,
)
from rollout.kernel.statistics.intervals import (
    PairedChange,
    Share,
    clopper_pearson,
    compute_case_difference_number,
    compute_paired_change,
    compute_unit_share,
)
from rollout.kernel.units import FAILED, Lever

BIN_COUNT = 10
MAX_CURVE_POINTS = 100  # of a risk–coverage curve
ALPHA = 0.05
HUMANS, OUTCOMES = "human", "outcome"
NO_CONFIDENCES = "no confidences were sent"
NO_PAIRS = "no case has both an answer and a reference"


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The cases of one confidence bin: `low` included, `high` only in the last bin.

    `confidence` is their mean, None without cases; `right` is the share of right answers.
    """

    low: float
    high: float
    confidence: float | None
    right: Share


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """Coverage and risk if only answers of at least this confidence are used.

    `share` of the cases would be decided, and `risk` of those would be wrong; `at_most` is a
    one-sided 95 % bound of the risk, valid at all points of the curve together.
    """

    confidence: float
    share: float
    n: int
    risk: float
    at_most: float


@dataclass(frozen=True, slots=True)
class Calibration(LeverFigures):
    """Confidence of one version on one lever against one reference.

    Attributes:
        version, lever: whose answers.
        reference: `people` or `outcomes`.
        missing_data: what data is missing; empty if none is.
        n: cases with a confidence and a reference; all figures below are over them.
        without_confidence: cases with a reference and no confidence.
        mean_confidence: None without cases.
        right: share of right answers, with an interval over units.
        ece: expected calibration error over ten bins of equal width, None without cases.
        bins: ten, including empty ones; none without cases.
        curve: risk by coverage, most confident first, at most 100 points.
        area: area under the risk–coverage curve (ties in random order).
        largest_risk: the largest share of wrong answers that the policy's gates allow; None without
            a gate on agreement.
        at_threshold: the point of largest share whose measured risk is within the threshold.
        proven: the point of largest share whose risk bound is within it; None without one.
    """

    reference: str
    missing_data: str
    n: int
    without_confidence: int
    mean_confidence: float | None
    right: Share
    ece: float | None
    bins: tuple[ReliabilityBin, ...]
    curve: tuple[CoveragePoint, ...]
    area: float | None
    largest_risk: float | None
    at_threshold: CoveragePoint | None
    proven: CoveragePoint | None

    @property
    def words(self) -> TruthWords:
        """Return the words for the answers, by what they are compared with."""
        return choose_words(self.n * (self.reference == OUTCOMES), self.n)


def compute_calibrations(
    pairs: Pairs, records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> tuple[Calibration, ...]:
    """Return the calibration of every version and lever, against humans and outcomes."""
    units = facts.select("case_key", "unit")
    figures = []
    for version in pairs.predicted:
        for lever in policy.levers:
            answers = (
                pairs.select(version, lever.id)
                .filter(pl.col("model") != FAILED)
                .select("confidence", "unit", right="agrees")
            )
            figures.append(_compute_calibration(answers, version, lever, HUMANS, policy))
            matched = _match_outcomes(records, units, version, lever)
            if matched.height:
                figures.append(_compute_calibration(matched, version, lever, OUTCOMES, policy))
    return tuple(figures)


def compute_calibration_error(confidence: Floats, right: Bools) -> float | None:
    """Return the expected calibration error, None without cases.

    The mean over cases of the distance between a bin's share of right answers and its mean
    confidence; bins are floor(10 c), and 1.0 is in the last.

    Args:
        confidence: shares from 0 to 1, both included, shape (cases,).
        right: shape (cases,).

    >>> round(
    ...     compute_calibration_error(np.array([0.9, 1.0, 0.6]), np.array([True, True, False])), 4
    ... )
    0.2333

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017.
    """
    if not len(confidence):
        return None
    bins = find_bins(confidence)
    confidence_sums = np.bincount(bins, confidence, BIN_COUNT)
    correct_counts = np.bincount(bins, right.astype(float), BIN_COUNT)
    return float(np.abs(correct_counts - confidence_sums).sum() / len(confidence))


def find_bins(confidence: Floats) -> Ints:
    """Return the bin of each confidence, 0 to 9."""
    return np.minimum(np.floor(BIN_COUNT * confidence), BIN_COUNT - 1).astype(np.int64)


def compute_risk_area(confidence: Floats, right: Bools) -> float | None:
    """Return the area under the risk–coverage curve, None without cases.

    The mean, over k from 1 to all cases, of the risk among the k most confident answers; ties count
    with the risk that is expected in random order.

    >>> compute_risk_area(np.array([0.9, 0.8]), np.array([True, False]))
    0.25

    Source: Geifman and El-Yaniv, NIPS 2017.
    """
    if not len(confidence):
        return None
    ends, wrong, _ = _find_curve_steps(confidence, right)
    k = np.arange(1, len(confidence) + 1)
    return float(np.mean(np.interp(k, [0, *ends], [0, *wrong]) / k))


def _find_curve_steps(confidence: Floats, right: Bools) -> tuple[Ints, Ints, Floats]:
    """Return cases, wrong ones and confidence at each change, from the highest down."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, wrong_counts = confidence[order], np.cumsum(~right[order], dtype=np.int64)
    ends = np.flatnonzero(np.append(sorted_confidence[1:] != sorted_confidence[:-1], [True]))
    return ends + 1, wrong_counts[ends], sorted_confidence[ends]


def compute_risk_curve(
    confidence: Floats, right: Bools, effective: float | None = 1.0
) -> tuple[CoveragePoint, ...]:
    """Return risk by coverage, most confident first; empty without cases.

    Args:
        confidence: shape (cases,).
        right: shape (cases,).
        effective: the share of cases that counts as independent, in (0, 1]; None with too few
            units, which bound nothing.

    The bounds share their 5 % among the points (Bonferroni), so that the best point may be chosen
    afterwards.
    """
    if not len(confidence):
        return ()
    ends, wrong, confidences = _find_curve_steps(confidence, right)
    selected = np.unique(
        np.linspace(0, len(ends) - 1, min(MAX_CURVE_POINTS, len(ends))).round().astype(int)
    )
    level = 1 - 2 * ALPHA / len(selected)
    return tuple(
        CoveragePoint(
            confidence=float(confidences[index]),
            share=float(ends[index] / len(confidence)),
            n=int(ends[index]),
            risk=float(wrong[index] / ends[index]),
            at_most=1.0
            if effective is None
            else clopper_pearson(wrong[index] * effective, ends[index] * effective, level)[1],
        )
        for index in selected
    )


def find_risk_threshold(policy: Policy, lever: Lever) -> float | None:
    """Return the largest share of disagreement that all gates allow."""
    thresholds = [
        condition.threshold
        for gate in policy.gates
        for condition in gate.require
        if condition.population.sums_units
        and condition.measure.covers_all_labels
        and condition.lever in (None, lever.id)
    ]
    return 1 - max(thresholds) if thresholds else None


def _compute_calibration(
    answers: pl.DataFrame, version: str, lever: Lever, reference: str, policy: Policy
) -> Calibration:
    with_confidence = answers.drop_nulls("confidence")
    confidence = with_confidence["confidence"].to_numpy()
    right = with_confidence["right"].to_numpy()
    correct_share = compute_unit_share(with_confidence, "right")
    curve = compute_risk_curve(confidence, right, correct_share.effective_number.share)
    threshold = find_risk_threshold(policy, lever)
    lack = NO_CONFIDENCES if with_confidence.is_empty() else ""
    return Calibration(
        version=version,
        lever=lever.id,
        reference=reference,
        missing_data=NO_PAIRS if answers.is_empty() else lack,
        n=with_confidence.height,
        without_confidence=answers.height - with_confidence.height,
        mean_confidence=float(confidence.mean()) if with_confidence.height else None,
        right=correct_share,
        ece=compute_calibration_error(confidence, right),
        bins=_build_bins(with_confidence),
        curve=curve,
        area=compute_risk_area(confidence, right),
        largest_risk=threshold,
        at_threshold=_find_widest_point(
            [point for point in curve if threshold is not None and point.risk <= threshold]
        ),
        proven=_find_widest_point(
            [point for point in curve if threshold is not None and point.at_most <= threshold]
        ),
    )


def _find_widest_point(points: list[CoveragePoint]) -> CoveragePoint | None:
    return max(points, key=lambda point: point.n, default=None)


def _build_bins(with_confidence: pl.DataFrame) -> tuple[ReliabilityBin, ...]:
    if with_confidence.is_empty():
        return ()
    binned = with_confidence.with_columns(
        bin=pl.Series(find_bins(with_confidence["confidence"].to_numpy()))
    )
    parts = [binned.filter(pl.col("bin") == index) for index in range(BIN_COUNT)]
    return tuple(
        ReliabilityBin(
            low=index / BIN_COUNT,
            high=(index + 1) / BIN_COUNT,
            confidence=float(part["confidence"].to_numpy().mean()) if part.height else None,
            right=compute_unit_share(part, "right"),
        )
        for index, part in enumerate(parts)
    )


def _match_outcomes(
    records: RecordFrames, units: pl.DataFrame, version: str, lever: Lever
) -> pl.DataFrame:
    """Return every answer whose case has an outcome: confidence, right, unit."""
    column = VALUE_PREFIX + lever.id
    outcomes = records.outcomes.select("case_key", human=column).drop_nulls()
    answers = records.predictions.filter(pl.col("version") == version).drop_nulls(column)
    joined = answers.select("case_key", "confidence", model=column).join(outcomes, on="case_key")
    compared = join_comparison(lever, joined, right="agrees")
    matched = compared.join(units, on="case_key", how="left")
    return matched.sort("case_key").select("confidence", "right", "unit")


ADJUDICATED = "adjudicated"


@dataclass(frozen=True, slots=True)
class Correctness(LeverFigures):
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
    yield OUTCOMES, records.outcomes.select("case_key", truth=VALUE_PREFIX + lever.id).drop_nulls()
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
    model = (
        records.predictions.lazy()
        .filter(pl.col("version") == version)
        .select("case_key", model=pl.col(VALUE_PREFIX + lever.id).fill_null(FAILED))
    )
    single_answers = decisions.lazy().rename({"human": "said"})
    joined = model.join(truth.lazy(), on="case_key").join(single_answers, on="case_key", how="left")
    renamed = joined.rename({"truth": "human"}).collect()
    rows = join_comparison(lever, renamed, agrees="agrees")
    rows = join_comparison(lever, rows, model="said", people_agree="agrees")
    return rows.join(units, on="case_key", how="left").sort("case_key")


def _compute_version_correctness(
    lever: Lever, reference: str, version: str, rows: pl.DataFrame
) -> Correctness:
    model_share = compute_unit_share(rows)
    matrix = build_matrix(rows, lever.labels) if lever.has_single_labels else None
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
        labels=compute_lever_label_figures(rows, matrix, lever, {}),
        human=compute_unit_share(with_decision, "people_agree"),
        model_on_same_cases=compute_unit_share(with_decision),
        change=_compute_change(with_decision),
    )


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
