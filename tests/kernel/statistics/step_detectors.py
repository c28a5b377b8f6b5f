"""The detectors step by step, as published: what paths of whole histories are compared with."""

from dataclasses import dataclass, replace
from math import inf, log

import numpy as np

from rollout.kernel.statistics.detector import (
    FALLS,
    compute_action_change_log_factors,
    compute_agreement_log_factors,
    compute_cost_log_factors,
)
from rollout.kernel.statistics.evidence import check_inside_unit, check_levels

_INITIAL_LOG_SUMS = (-inf,) * FALLS


class _DetectorBase:
    """Common parts of the detectors."""

    __slots__ = ()
    false_alarm_every: float
    log_sums: tuple

    @property
    def log_value(self):
        """Return the log of the eight sums' mean; −inf before any record."""
        return float(np.logaddexp.reduce(self.log_sums) - log(FALLS))

    @property
    def is_alarm(self):
        """Return whether the mean has reached `false_alarm_every`."""
        return self.log_value >= log(self.false_alarm_every)

    def _update_sums(self, log_factors, compared):
        sums = np.logaddexp(self.log_sums, log(compared) if compared else -inf)
        return tuple((log_factors + sums).tolist())


@dataclass(frozen=True, slots=True)
class AgreementDetector(_DetectorBase):
    """Has agreement fallen below the reference? Recall, precision and overrides alike.

    Attributes:
        reference: lowest acceptable share, in (0, 1): the guard's threshold, never an estimate.
        false_alarm_every: mean number of records between false alarms, at least; ≥ 1.
        log_sums: the eight sums' logarithms; left out for a fresh start.

    >>> AgreementDetector(0.98, 10_000).update(50, 50).update(47, 50).update(44, 50).is_alarm
    True
    """

    reference: float
    false_alarm_every: float
    log_sums: tuple = _INITIAL_LOG_SUMS

    def __post_init__(self):
        check_inside_unit(reference=self.reference)
        _check_false_alarm_every(self.false_alarm_every)

    def update(self, agreed, compared):
        """Return the detector after one bucket, 0 ≤ agreed ≤ compared. It goes on past an alarm.

        Raises:
            ValueError: the counts are no whole numbers in that order.
        """
        _check_bucket(compared, agreed=agreed)
        factors = compute_agreement_log_factors(agreed, compared, reference=self.reference)
        return replace(self, log_sums=self._update_sums(factors, compared))


@dataclass(frozen=True, slots=True)
class CostDetector(_DetectorBase):
    """Has the mean loss risen above the reference?

    Attributes:
        reference: highest acceptable mean loss, as a share of the largest possible, in (0, 1).
        false_alarm_every: mean number of records between false alarms, at least; ≥ 1.
        log_sums: the eight sums' logarithms; left out for a fresh start.
    """

    reference: float
    false_alarm_every: float
    log_sums: tuple = _INITIAL_LOG_SUMS

    def __post_init__(self):
        check_inside_unit(reference=self.reference)
        _check_false_alarm_every(self.false_alarm_every)

    def update(self, losses, counts):
        """Return the detector after one bucket with `counts` records at each loss.

        Raises:
            ValueError: a loss or a count lies outside its range.
        """
        check_levels("losses", losses, counts)
        factors = compute_cost_log_factors(counts, losses=losses, reference=self.reference)
        return replace(self, log_sums=self._update_sums(factors, sum(counts)))


@dataclass(frozen=True, slots=True)
class ActionChangeDetector(_DetectorBase):
    """Does the model act more often than humans on the same cases?

    Attributes:
        at_most: acceptable surplus of actions per 100 cases, in (−100, 100).
        false_alarm_every: mean number of cases between false alarms, at least; ≥ 1.
        log_sums: the eight sums' logarithms; left out for a fresh start.
    """

    at_most: float
    false_alarm_every: float
    log_sums: tuple = _INITIAL_LOG_SUMS

    def __post_init__(self):
        compute_action_change_log_factors(0, 0, 0, at_most=self.at_most)
        _check_false_alarm_every(self.false_alarm_every)

    def update(self, model_only, human_only, compared):
        """Return the detector after one bucket of cases.

        The other cases of the bucket are alike.

        Raises:
            ValueError: the counts are no whole numbers, or more than were compared.
        """
        _check_bucket(compared, model_only=model_only, human_only=human_only)
        factors = compute_action_change_log_factors(
            model_only, human_only, compared, at_most=self.at_most
        )
        return replace(self, log_sums=self._update_sums(factors, compared))


def _check_false_alarm_every(false_alarm_every):
    if not 1 <= false_alarm_every < inf:
        raise ValueError(f"false_alarm_every is {false_alarm_every}; give a number of records ≥ 1")


def _check_bucket(compared, **parts):
    counts = (compared, *parts.values())
    if not all(n >= 0 and n == n // 1 for n in counts) or sum(parts.values()) > compared:
        parts_text = " and ".join(f"{name} is {n}" for name, n in parts.items())
        raise ValueError(f"compared is {compared}, {parts_text}; give counts, none above compared")
