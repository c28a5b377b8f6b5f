"""Detectors: has a measure fallen below its reference? What quality guards watch.

Eight Shiryaev–Roberts sums, one for each size of fall: 2, 4, …, 256 times the odds of an error.
Once in a bucket of m records each sum becomes `R_k ← F_k · (R_k + m)`, where F_k is how much more
likely the bucket is after that fall, and the guard alarms when the mean of the eight reaches
`false_alarm_every`. While nothing has fallen, the mean number of records between alarms is then at
least that, whatever the buckets and however often anybody looks.

The `…_log_factors` functions give ln F for whole histories, `log_path` runs them; the classes do
the same step by step, as a tick does.

Source: Shin, Ramdas, Rinaldo, "E-detectors" (2023); Shiryaev 1963; Roberts 1966.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, log
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.core.statistics.evidence import Floats, check_inside_unit, check_levels

LogSums: TypeAlias = tuple[float, ...]

_SIZES = np.arange(1.0, 9.0)
_FRESH: LogSums = (-inf,) * len(_SIZES)


def agreement_log_factors(agreed: ArrayLike, compared: ArrayLike, *, reference: float) -> Floats:
    """Return ln F of buckets of agreements and disagreements.

    Args:
        agreed: shape (buckets,), records in agreement.
        compared: shape (buckets,), all records, ≥ agreed.
        reference: share of agreement that is still all right, in the open interval (0, 1).

    Returns:
        float64, shape (buckets, 8); zeros for an empty bucket.

    Raises:
        ValueError: the reference lies outside (0, 1).
    """
    check_inside_unit(reference=reference)
    good, bad = _log_ratios(1 - reference)
    s, m = np.asarray(agreed, float), np.asarray(compared, float)
    return np.asarray(s[..., None] * good + (m - s)[..., None] * bad)


def cost_log_factors(
    counts: ArrayLike, *, losses: Sequence[float], reference: float, weight: float = 1.0
) -> Floats:
    """Return ln F of buckets of records with a loss each.

    Args:
        counts: shape (buckets, levels), records at each loss.
        losses: distinct losses as shares of the largest possible, in [0, 1].
        reference: mean loss that is still all right, on the same scale, in (0, 1).
        weight: what one record counts, in (0, 1]; below 1 for audits by stratum.

    Returns:
        float64, shape (buckets, 8); zeros for an empty bucket.

    Raises:
        ValueError: the reference, a loss or the weight lies outside its range.
    """
    check_inside_unit(reference=reference)
    if not all(0 <= loss <= 1 for loss in losses):
        raise ValueError(f"losses is {list(losses)}; scale them to [0, 1] by the largest possible")
    if not 0 < weight <= 1:
        raise ValueError(f"weight is {weight}; give a share in (0, 1]")
    good, bad = (np.expm1(ratio) for ratio in _log_ratios(reference))
    y = np.asarray(losses, float)[:, None]
    return np.asarray(np.asarray(counts, float) @ np.log1p(weight * ((1 - y) * good + y * bad)))


def action_change_log_factors(
    model_only: ArrayLike, human_only: ArrayLike, compared: ArrayLike, *, at_most: float
) -> Floats:
    """Return ln F of buckets of cases in which model and people act or not.

    Args:
        model_only: shape (buckets,), cases in which only the model acts.
        human_only: shape (buckets,), cases in which only the person acts.
        compared: shape (buckets,), all cases.
        at_most: acts of the model less acts of people that are all right, per 100 cases, in the
            open interval (−100, 100).

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
    margin, stakes = at_most / 100, 0.5**_SIZES
    same_log = np.log1p(-stakes * margin)
    gain_log, loss_log = (
        np.log1p(stakes * (1 - margin)) - same_log,
        np.log1p(-stakes * (1 + margin)) - same_log,
    )
    return np.asarray(
        model_counts[..., None] * gain_log
        + human_counts[..., None] * loss_log
        + all_counts[..., None] * same_log
    )


def log_path(log_factors: Floats, compared: NDArray[np.int64]) -> Floats:
    """Log of the mean sum after each bucket, from a fresh start and on past any alarm.

    Args:
        log_factors: shape (buckets, 8), of one of the functions above.
        compared: shape (buckets,), records in each bucket, ≥ 0.

    Returns:
        float64, shape (buckets,); −inf up to the first record.
    """
    cumulative = np.cumsum(log_factors, axis=0)
    previous = cumulative - log_factors
    sums = np.logaddexp.accumulate(_log(compared)[:, None] - previous, axis=0)
    return _log_mean(cumulative + sums)


class _Watching:
    """What the three detectors share: a step of the sums, their mean, the alarm."""

    __slots__ = ()
    false_alarm_every: float
    log_sums: LogSums

    @property
    def log_value(self) -> float:
        """Natural logarithm of the mean of the eight sums; −inf before the first record."""
        return float(_log_mean(np.array(self.log_sums)))

    @property
    def alarm(self) -> bool:
        """Whether the mean has reached `false_alarm_every`."""
        return self.log_value >= log(self.false_alarm_every)

    def _stepped(self, log_factors: Floats, compared: int) -> LogSums:
        sums = np.logaddexp(np.array(self.log_sums), _log(np.array(compared)))
        return tuple((log_factors + sums).tolist())


@dataclass(frozen=True, slots=True)
class Detector(_Watching):
    """Has agreement fallen below the reference? Recall, precision and overrides alike.

    Attributes:
        reference: share that is still all right, in (0, 1): the guard's line, never an estimate.
        false_alarm_every: mean number of records between false alarms, at least; ≥ 1.
        log_sums: the eight sums' logarithms; left out for a fresh start.

    >>> Detector(0.98, 10_000).after(50, 50).after(47, 50).after(44, 50).alarm
    True
    """

    reference: float
    false_alarm_every: float
    log_sums: LogSums = _FRESH

    def __post_init__(self) -> None:
        check_inside_unit(reference=self.reference)
        _check_every(self.false_alarm_every)

    def after(self, agreed: int, compared: int) -> Self:
        """Return the detector after one bucket, 0 ≤ agreed ≤ compared. It goes on past an alarm.

        Raises:
            ValueError: the counts are no whole numbers in that order.
        """
        _check_bucket(compared, agreed=agreed)
        factors = agreement_log_factors(agreed, compared, reference=self.reference)
        return replace(self, log_sums=self._stepped(factors, compared))


@dataclass(frozen=True, slots=True)
class CostDetector(_Watching):
    """Has the mean loss risen above the reference?

    Attributes:
        reference: mean loss that is still all right, as a share of the largest possible, in (0, 1).
        false_alarm_every: mean number of records between false alarms, at least; ≥ 1.
        log_sums: the eight sums' logarithms; left out for a fresh start.
    """

    reference: float
    false_alarm_every: float
    log_sums: LogSums = _FRESH

    def __post_init__(self) -> None:
        check_inside_unit(reference=self.reference)
        _check_every(self.false_alarm_every)

    def after(self, losses: Sequence[float], counts: Sequence[int], *, weight: float = 1.0) -> Self:
        """Return the detector after one bucket with `counts` records at each of `losses`.

        Raises:
            ValueError: a loss, a count or the weight lies outside its range.
        """
        check_levels("losses", losses, counts)
        factors = cost_log_factors(counts, losses=losses, reference=self.reference, weight=weight)
        return replace(self, log_sums=self._stepped(factors, sum(counts)))


@dataclass(frozen=True, slots=True)
class ActionChangeDetector(_Watching):
    """Does the model act more often than people on the same cases?

    Attributes:
        at_most: how many more acts per 100 cases are all right, in (−100, 100).
        false_alarm_every: mean number of cases between false alarms, at least; ≥ 1.
        log_sums: the eight sums' logarithms; left out for a fresh start.
    """

    at_most: float
    false_alarm_every: float
    log_sums: LogSums = _FRESH

    def __post_init__(self) -> None:
        action_change_log_factors(0, 0, 0, at_most=self.at_most)
        _check_every(self.false_alarm_every)

    def after(self, model_only: int, human_only: int, compared: int) -> Self:
        """Return the detector after one bucket of cases, the rest of them alike.

        Raises:
            ValueError: the counts are no whole numbers, or more than were compared.
        """
        _check_bucket(compared, model_only=model_only, human_only=human_only)
        factors = action_change_log_factors(model_only, human_only, compared, at_most=self.at_most)
        return replace(self, log_sums=self._stepped(factors, compared))


def _log_ratios(error: float) -> tuple[Floats, Floats]:
    """Return ln(p_k/p_ref) and ln((1−p_k)/(1−p_ref)) of the eight falls; error = 1 − p_ref."""
    good = -np.log1p(error * (2**_SIZES - 1))
    return good, good + _SIZES * log(2)


def _log(records: ArrayLike) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.asarray(records, float)))


def _log_mean(log_sums: Floats) -> Floats:
    return np.asarray(np.logaddexp.reduce(log_sums, axis=-1) - log(len(_SIZES)))


def _check_every(false_alarm_every: float) -> None:
    if not 1 <= false_alarm_every < inf:
        raise ValueError(f"false_alarm_every is {false_alarm_every}; give a number of records ≥ 1")


def _check_bucket(compared: int, **parts: int) -> None:
    counts = (compared, *parts.values())
    if not all(n >= 0 and n == n // 1 for n in counts) or sum(parts.values()) > compared:
        parts_text = " and ".join(f"{name} is {n}" for name, n in parts.items())
        raise ValueError(f"compared is {compared}, {parts_text}; give counts, none above compared")
