"""What a version's confidence is worth: how often it is right where it says how sure it is.

Read against two references, never mixed: people's labels (one distinct label, given unseen) and
outcomes, where there are any. People err too, so agreement with them is not being right.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import Pairs, case_facts, compared
from rollout.reports.statistics.intervals import Share, clopper_pearson, clustered_share
from rollout.tally.frames import VALUE, Records

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BINS = 10
MOST_POINTS = 100  # of a risk–coverage curve
ALPHA = 0.05
PEOPLE, OUTCOMES = "people", "outcomes"
NO_CONFIDENCES = "no confidences were sent"
NO_PAIRS = "no case has both an answer and what it is held against"


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The cases of one bin of confidence: from `low` on and below `high`, the last one closed.

    `confidence` is their mean, None without cases; `right` the share with an interval over units.
    """

    low: float
    high: float
    confidence: float | None
    right: Share


@dataclass(frozen=True, slots=True)
class Coverage:
    """What happens if only answers of at least this confidence are used.

    `share` of the cases would be decided, of which `risk` is wrong; `at_most` bounds the risk at
    every point of the curve at once, one-sided, 95 %.
    """

    confidence: float
    share: float
    n: int
    risk: float
    at_most: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence of one version on one lever against one reference.

    Attributes:
        version, lever: whose answers.
        against: `people` or `outcomes`.
        said: what is missing, in words; empty where nothing is.
        n: cases with a confidence and a reference; every figure below is over them.
        without: cases with a reference and no confidence.
        mean_confidence: None without cases.
        right: share of right answers, with an interval over units.
        ece: expected calibration error over ten bins of equal width, None without cases.
        bins: ten, empty ones among them; no bins without cases.
        curve: risk by coverage, the surest first, at most 100 points at which confidence changes.
        area: under the risk–coverage curve, at each case (equally sure cases in random order).
        line: the largest share of wrong answers that the policy's gates allow; None without a
            gate on agreement.
        at_line: the point with the largest share whose risk is within the line as measured.
        proven: the one whose risk is within the line by its bound; None where there is none.
    """

    version: str
    lever: str
    against: str
    said: str
    n: int
    without: int
    mean_confidence: float | None
    right: Share
    ece: float | None
    bins: tuple[ReliabilityBin, ...]
    curve: tuple[Coverage, ...]
    area: float | None
    line: float | None
    at_line: Coverage | None
    proven: Coverage | None


def calibrations(
    pairs: Pairs, records: Records, cases: pl.DataFrame, policy: Policy
) -> tuple[Calibration, ...]:
    """Return the figures of every version and lever against people, then against outcomes.

    Without any outcome of a lever there is nothing against outcomes.
    """
    units = case_facts(records, cases).select("case_key", "unit")
    figures = []
    for version in pairs.predicted:
        for lever in policy.levers:
            version_pairs = pairs.of(version, lever.id).filter(pl.col("model") != FAILED)
            answers = version_pairs.select("confidence", "unit", right="agrees")
            figures.append(_calibration(answers, version, lever, PEOPLE, policy))
            matched = _against_outcomes(records, units, version, lever)
            if matched.height:
                figures.append(_calibration(matched, version, lever, OUTCOMES, policy))
    return tuple(figures)


def calibration_error(confidence: Floats, right: Bools) -> float | None:
    """Return the expected calibration error, None without cases.

    The mean over cases of how far each bin's share of right answers is from its mean confidence;
    bins are floor(10 c), the last one closed.

    Args:
        confidence: shares from 0 to 1, both included, shape (cases,).
        right: shape (cases,).

    >>> round(calibration_error(np.array([0.9, 1.0, 0.6]), np.array([True, True, False])), 4)
    0.2333

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017.
    """
    if not len(confidence):
        return None
    bins = bins_of(confidence)
    confidence_sums = np.bincount(bins, confidence, BINS)
    correct_counts = np.bincount(bins, right.astype(float), BINS)
    return float(np.abs(correct_counts - confidence_sums).sum() / len(confidence))


def bins_of(confidence: Floats) -> Ints:
    """Return the bin of each confidence, 0 to 9."""
    return np.minimum(np.floor(BINS * confidence), BINS - 1).astype(np.int64)


def risk_area(confidence: Floats, right: Bools) -> float | None:
    """Return the area under the risk–coverage curve, None without cases.

    The mean, over k from 1 to all cases, of the risk among the k surest; where cases are equally
    sure, of the risk that is expected when they stand in random order.

    >>> risk_area(np.array([0.9, 0.8]), np.array([True, False]))
    0.25

    Source: Geifman and El-Yaniv, NIPS 2017.
    """
    if not len(confidence):
        return None
    ends, wrong, _ = _steps(confidence, right)
    k = np.arange(1, len(confidence) + 1)
    return float(np.mean(np.interp(k, [0, *ends], [0, *wrong]) / k))


def _steps(confidence: Floats, right: Bools) -> tuple[Ints, Ints, Floats]:
    """Return, where confidence changes from the surest down: cases, wrong ones, and confidence."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence, wrong_counts = confidence[order], np.cumsum(~right[order], dtype=np.int64)
    is_last = np.append(sorted_confidence[1:] != sorted_confidence[:-1], [True])
    ends = np.flatnonzero(is_last)
    return ends + 1, wrong_counts[ends], sorted_confidence[ends]


def risk_curve(confidence: Floats, right: Bools, effective: float = 1.0) -> tuple[Coverage, ...]:
    """Return risk by coverage, the surest first, at most 100 points; empty without cases.

    Args:
        confidence: shape (cases,).
        right: shape (cases,).
        effective: the share of cases that counts as independent, in (0, 1].

    The bounds share their 5 % among the points, so that the best point may be chosen after
    looking.
    """
    if not len(confidence):
        return ()
    ends, wrong, confidences = _steps(confidence, right)
    selected = np.unique(
        np.linspace(0, len(ends) - 1, min(MOST_POINTS, len(ends))).round().astype(int)
    )
    level = 1 - 2 * ALPHA / len(selected)
    return tuple(
        Coverage(
            confidence=float(confidences[index]),
            share=float(ends[index] / len(confidence)),
            n=int(ends[index]),
            risk=float(wrong[index] / ends[index]),
            at_most=clopper_pearson(wrong[index] * effective, ends[index] * effective, level)[1],
        )
        for index in selected
    )


def risk_line(policy: Policy, lever: Lever) -> float | None:
    """Return the largest share of disagreement that every gate on agreement allows."""
    thresholds = [
        condition.line
        for gate in policy.gates
        for condition in gate.require
        if condition.measure == "agreement" and condition.lever in (None, lever.id)
    ]
    return 1 - max(thresholds) if thresholds else None


def _calibration(
    answers: pl.DataFrame, version: str, lever: Lever, against: str, policy: Policy
) -> Calibration:
    with_confidence = answers.drop_nulls("confidence")
    confidence, right = (
        with_confidence["confidence"].to_numpy(),
        with_confidence["right"].to_numpy(),
    )
    correct_share = _share(with_confidence)
    effective = (
        1.0 if not correct_share.effective else min(1.0, correct_share.effective / correct_share.n)
    )
    curve, threshold = risk_curve(confidence, right, effective), risk_line(policy, lever)
    return Calibration(
        version=version,
        lever=lever.id,
        against=against,
        said=_said(answers, with_confidence),
        n=with_confidence.height,
        without=answers.height - with_confidence.height,
        mean_confidence=float(confidence.mean()) if with_confidence.height else None,
        right=correct_share,
        ece=calibration_error(confidence, right),
        bins=_bins(with_confidence),
        curve=curve,
        area=risk_area(confidence, right),
        line=threshold,
        at_line=_farthest(
            [point for point in curve if threshold is not None and point.risk <= threshold]
        ),
        proven=_farthest(
            [point for point in curve if threshold is not None and point.at_most <= threshold]
        ),
    )


def _said(answers: pl.DataFrame, known: pl.DataFrame) -> str:
    if answers.is_empty():
        return NO_PAIRS
    return NO_CONFIDENCES if known.is_empty() else ""


def _farthest(points: list[Coverage]) -> Coverage | None:
    return max(points, key=lambda point: point.n, default=None)


def _share(answers: pl.DataFrame) -> Share:
    units = answers.group_by("unit").agg(pl.col("right").sum(), size=pl.len()).sort("unit")
    return clustered_share(units["right"].to_numpy(), units["size"].to_numpy())


def _bins(known: pl.DataFrame) -> tuple[ReliabilityBin, ...]:
    if known.is_empty():
        return ()
    binned = known.with_columns(bin=pl.Series(bins_of(known["confidence"].to_numpy())))
    parts = [binned.filter(pl.col("bin") == index) for index in range(BINS)]
    return tuple(
        ReliabilityBin(
            low=index / BINS,
            high=(index + 1) / BINS,
            confidence=float(part["confidence"].to_numpy().mean()) if part.height else None,
            right=_share(part),
        )
        for index, part in enumerate(parts)
    )


def _against_outcomes(
    records: Records, units: pl.DataFrame, version: str, lever: Lever
) -> pl.DataFrame:
    """Return every answer whose case has an outcome, judged by a person or not."""
    column = VALUE + lever.id
    outcomes = records.outcomes.select("case_key", human=column).drop_nulls()
    answers = records.predictions.filter(pl.col("version") == version).drop_nulls(column)
    joined = answers.select("case_key", "confidence", model=column).join(outcomes, on="case_key")
    comparison = compared(lever, joined).select("human", "model", right="agrees")
    matched = joined.join(comparison, on=["human", "model"]).join(units, on="case_key", how="left")
    return matched.sort("case_key").select(
        "confidence", "right", unit=pl.coalesce("unit", "case_key")
    )
