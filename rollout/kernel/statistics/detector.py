"""Detectors of quality guards: has a measure fallen below its reference?

Eight Shiryaev–Roberts sums, one for each size of fall: 2, 4, …, 256 times the odds of an error.
Once in a bucket of m records each sum becomes `R_k ← F_k · (R_k + m)`, where F_k is how much more
likely the bucket is after that fall, and the guard alarms when the mean of the eight reaches
`false_alarm_every`. While nothing has fallen, the mean number of records between alarms is then at
least that, whatever the buckets and however often the guard is read.

The `…_log_factors` functions give ln F for whole histories, `compute_log_path` runs them.

Source: Shin, Ramdas, Rinaldo, "E-detectors" (2023); Shiryaev 1963; Roberts 1966.
"""

from __future__ import annotations

from functools import cache
from math import inf, log
from typing import TYPE_CHECKING, TypeAlias

from rollout.kernel.late_modules import LateModule
from rollout.kernel.statistics.evidence import check_inside_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from rollout.kernel.statistics.arrays import Floats
else:
    np = LateModule("numpy")

BoolArray: TypeAlias = "NDArray[np.bool_]"

FALLS = 8
_ROUNDING = 1e-6  # by far more than a logarithm of a mean may be above the largest sum's


@cache
def _get_fall_sizes() -> Floats:
    return np.arange(1.0, FALLS + 1)


def compute_agreement_log_factors(
    agreed: ArrayLike, compared: ArrayLike, *, reference: float
) -> Floats:
    """Return ln F of buckets of agreements and disagreements.

    Args:
        agreed: shape (buckets,), records in agreement.
        compared: shape (buckets,), all records, ≥ agreed.
        reference: lowest acceptable share of agreement, in the open interval (0, 1).

    Returns:
        float64, shape (buckets, 8); zeros for an empty bucket.

    Raises:
        ValueError: the reference lies outside (0, 1).
    """
    check_inside_unit(reference=reference)
    good, bad = _compute_log_ratios(1 - reference)
    s, m = np.asarray(agreed, float), np.asarray(compared, float)
    return np.asarray(s[..., None] * good + (m - s)[..., None] * bad)


def compute_cost_log_factors(
    counts: ArrayLike, *, losses: Sequence[float], reference: float
) -> Floats:
    """Return ln F of buckets of records with a loss each.

    Args:
        counts: shape (buckets, levels), records at each loss.
        losses: distinct losses as shares of the largest possible, in [0, 1].
        reference: highest acceptable mean loss, on the same scale, in (0, 1).

    Returns:
        float64, shape (buckets, 8); zeros for an empty bucket.

    Raises:
        ValueError: the reference or a loss lies outside its range.
    """
    check_inside_unit(reference=reference)
    if not all(0 <= loss <= 1 for loss in losses):
        raise ValueError(f"losses is {list(losses)}; scale them to [0, 1] by the largest possible")
    good, bad = (np.expm1(ratio) for ratio in _compute_log_ratios(reference))
    y = np.asarray(losses, float)[:, None]
    return np.asarray(np.asarray(counts, float) @ np.log1p((1 - y) * good + y * bad))


def compute_action_change_log_factors(
    model_only: ArrayLike, human_only: ArrayLike, compared: ArrayLike, *, at_most: float
) -> Floats:
    """Return ln F of buckets of cases in which model or human acts.

    Args:
        model_only: shape (buckets,), cases in which only the model acts.
        human_only: shape (buckets,), cases in which only the human acts.
        compared: shape (buckets,), all cases.
        at_most: acceptable actions of the model less those of humans, per 100 cases, in the open
            interval (−100, 100).

    Returns:
        float64, shape (buckets, 8); zeros for an empty bucket.

    Raises:
        ValueError: `at_most` lies outside its range.
    """
    if not -100 < at_most < 100:
        raise ValueError(f"at_most is {at_most}; give actions per 100 cases, between −100 and 100")
    model_counts, human_counts, all_counts = (
        np.asarray(x, float) for x in (model_only, human_only, compared)
    )
    margin, stakes = at_most / 100, 0.5 ** _get_fall_sizes()
    same_log = np.log1p(-stakes * margin)
    gain_log = np.log1p(stakes * (1 - margin)) - same_log
    loss_log = np.log1p(-stakes * (1 + margin)) - same_log
    return np.asarray(
        model_counts[..., None] * gain_log
        + human_counts[..., None] * loss_log
        + all_counts[..., None] * same_log
    )


def compute_log_path(log_factors: Floats, compared: NDArray[np.int64]) -> Floats:
    """Return the log of the mean sum after each bucket, ignoring alarms.

    Args:
        log_factors: shape (buckets, sums), of one of the functions above or of gains.
        compared: shape (buckets,), records in each bucket, ≥ 0.

    Returns:
        float64, shape (buckets,); −inf up to the first record.
    """
    return _compute_log_mean(_compute_log_sums(log_factors, compared))


def find_alarms(log_factors: Floats, compared: NDArray[np.int64], threshold: float) -> BoolArray:
    """Return in which buckets `compute_log_path` reaches a threshold.

    The mean of sums that are all smaller isn't computed.
    """
    log_sums = _compute_log_sums(log_factors, compared)
    is_alarm = np.zeros(len(log_sums), dtype=bool)
    if log_sums.max(initial=-inf) < threshold - _ROUNDING:
        return is_alarm
    buckets = np.flatnonzero(log_sums.max(axis=-1) >= threshold - _ROUNDING)
    is_alarm[buckets] = _compute_log_mean(log_sums[buckets]) >= threshold
    return is_alarm


def find_first_alarm(
    log_factors: Floats, compared: NDArray[np.int64], thresholds: Floats, can_alarm: BoolArray
) -> int | None:
    """Return the first bucket whose `compute_log_path` reaches its threshold, or None.

    The mean of sums that are all smaller isn't computed.

    Args:
        log_factors, compared: of `compute_log_path`.
        thresholds: logarithms, shape (buckets,).
        can_alarm: whether a bucket may be returned, shape (buckets,).
    """
    log_sums = _compute_log_sums(log_factors, compared)
    can_alarm = can_alarm & (log_sums.max(axis=-1) >= thresholds - _ROUNDING)
    buckets = np.flatnonzero(can_alarm)
    alarms = buckets[_compute_log_mean(log_sums[buckets]) >= thresholds[buckets]]
    return int(alarms[0]) if len(alarms) else None


def bound_agreement_path(
    agreed_before: NDArray[np.int64],
    agreed: NDArray[np.int64],
    compared: NDArray[np.int64],
    *,
    reference: float,
) -> float:
    """Return a number that the path of agreements and disagreements nowhere exceeds.

    Agreements make each sum R at most `F·R + F`, one by one, with F < 1. So a run of M of them ends
    at most at `F^M·R + F·(1 − F^M)/(1 − F)` and stays below the larger of R and `F/(1 − F)`. Only
    buckets with a disagreement take a step, and few have one.

    Args:
        agreed_before: agreements since the last of these buckets.
        agreed: agreements in each bucket that has a disagreement.
        compared: all records in it.
        reference: of `compute_agreement_log_factors`.
    """
    good, _ = _compute_log_ratios(1 - reference)
    run_factors = agreed_before[:, None] * good
    most_of_run = 1 / np.expm1(-good)
    additions = most_of_run * -np.expm1(run_factors) + compared[:, None]
    log_factors = compute_agreement_log_factors(agreed, compared, reference=reference) + run_factors
    log_sums = _accumulate(np.log(additions) - run_factors, log_factors)
    highest = np.maximum(log_sums.max(axis=0, initial=-inf), np.log(most_of_run))
    return float(_compute_log_mean(highest)) + _ROUNDING


def _compute_log_sums(log_factors: Floats, compared: NDArray[np.int64]) -> Floats:
    return _accumulate(_compute_log(compared)[:, None], log_factors)


def _accumulate(log_additions: Floats, log_factors: Floats) -> Floats:
    """Return ln of the sums after each bucket, in which R becomes F·(R + addition)."""
    cumulative = np.cumsum(log_factors, axis=0)
    previous = cumulative - log_factors
    sums = np.logaddexp.accumulate(log_additions - previous, axis=0)
    return np.asarray(cumulative + sums)


def _compute_log_ratios(error: float) -> tuple[Floats, Floats]:
    """Return ln(p_k/p_ref) and ln((1−p_k)/(1−p_ref)) of the falls.

    `error` is 1 − p_ref.
    """
    fall_sizes = _get_fall_sizes()
    good = -np.log1p(error * (2**fall_sizes - 1))
    return good, good + fall_sizes * log(2)


def _compute_log(records: ArrayLike) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.asarray(records, float)))


def _compute_log_mean(log_sums: Floats) -> Floats:
    return np.asarray(np.logaddexp.reduce(log_sums, axis=-1) - log(log_sums.shape[-1]))
