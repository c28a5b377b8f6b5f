"""Forecasts: when a gate may open, how soon a guard notices, what that costs.

They are shown to people and decide nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from math import log

import numpy as np
import scipy

from rollout.core.statistics.detector import agreement_log_factors
from rollout.core.statistics.evidence import Floats, check_inside_unit, further_agreements
from rollout.core.statistics.gate_thresholds import gate_line

# A forecast looks so many records ahead; what takes longer has no date.
_HORIZON = 100_000
# So many lines are asked for at once; a walk seldom needs more.
_BLOCK = 256
# What is rarer than this is left out of a walk.
_NEGLIGIBLE = 1e-15

# The mean of the eight sums reaches the alarm when its largest is about 2.5 times as high: about
# three of the eight are then of its size. This one number is fitted, to the delays of statistics.md
# §12 and §15, which come out within 8 % (13 % for falls by 3 points or less).
_LARGEST_OF_MEAN = 2.5
_GRID = 200


@dataclass(frozen=True, slots=True)
class Opening:
    """When a gate's line is first met, in further records.

    Attributes:
        chance: that it is met within the horizon.
        mean: records until then; None if more than one run in a million needs longer than that.
        median: half of the runs have met it by then; None if it lies beyond the horizon.
        ninety: 90 % of the runs have; None likewise.
    """

    chance: float
    mean: float | None
    median: int | None
    ninety: int | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What people are told about a gate that is not open yet.

    Attributes:
        if_all_agree: records still needed if every one of them agrees.
        chance_below: chance that the true share lies below the line.
        opening: law of the further records at the present estimate; None without records, and
            where `chance_below` is above ½: the cell is not on course, and gets no date.
    """

    if_all_agree: int
    chance_below: float
    opening: Opening | None


def forecast(agreed: int, disagreed: int, *, at_least: float, alpha: float) -> Forecast:
    """Say what a gate still needs, and when it may open if the present share goes on.

    Args:
        agreed: records in agreement so far, ≥ 0.
        disagreed: all others, ≥ 0.
        at_least: the line, in the open interval (0, 1).
        alpha: the gate's risk, in the open interval (0, 1).

    Raises:
        ValueError: a count, the line or the risk lies outside its range.

    >>> forecast(98, 2, at_least=0.95, alpha=0.05).opening.median
    184
    """
    needed_records = further_agreements(agreed, disagreed, at_least=at_least, alpha=alpha)
    chance_below = float(scipy.special.betainc(agreed + 0.5, disagreed + 0.5, at_least))
    if agreed + disagreed == 0 or chance_below > 0.5:
        return Forecast(needed_records, chance_below, None)
    rate = agreed / (agreed + disagreed)
    law = opening(rate, at_least=at_least, alpha=alpha, agreed=agreed, disagreed=disagreed)
    return Forecast(needed_records, chance_below, law)


def opening(
    rate: float,
    *,
    at_least: float,
    alpha: float,
    agreed: int = 0,
    disagreed: int = 0,
    horizon: int = _HORIZON,
) -> Opening:
    """Exact law of the records until the line is first met, each agreeing with chance `rate`.

    Args:
        rate: the true share of agreement, in [0, 1].
        at_least: the line, in the open interval (0, 1).
        alpha: the gate's risk, in the open interval (0, 1).
        agreed: records in agreement at the start.
        disagreed: all others at the start.
        horizon: further records looked at.

    Raises:
        ValueError: `rate`, the line or the risk lies outside its range.

    >>> opening(0.98, at_least=0.95, alpha=0.05).median
    249
    """
    check_inside_unit(at_least=at_least, alpha=alpha)
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; give a share in [0, 1]")
    walk = _walk(_opening_times(agreed, disagreed, at_least, alpha, horizon), 1 - rate)
    times, masses = np.array(walk).reshape(-1, 2).T
    opened_chance = np.cumsum(masses)
    chance = min(1.0, float(masses.sum()))
    mean = float(masses @ times / chance) if chance > 1 - 1e-6 else None
    return Opening(
        chance, mean, _quantile(times, opened_chance, 0.5), _quantile(times, opened_chance, 0.9)
    )


def _opening_times(
    agreed: int, disagreed: int, at_least: float, alpha: float, horizon: int
) -> Iterator[int]:
    """After how many further records 0, 1, … further failures still meet the line."""
    threshold = gate_line(at_least, alpha)
    for start in count(0, _BLOCK):
        failures = np.arange(start, start + _BLOCK)
        times = threshold.least_at(failures + disagreed) - agreed + failures
        yield from np.maximum(times[times <= horizon], 0).tolist()
        if times[-1] > horizon:
            return


def _walk(times: Iterator[int], failing: float) -> list[tuple[int, float]]:
    """Chances that a walk is first absorbed at each time, having failed 0, 1, … times by then.

    Between two times nothing can be absorbed, so the walk leaps from one to the next.
    """
    absorbed = []
    alive, fewest, now = np.ones(1), 0, 0
    for failures, time in enumerate(times):
        alive = np.convolve(alive, _failures_in(time - now, failing))
        absorbed_count = 1 if fewest == failures else 0
        absorbed.append((time, float(alive[:absorbed_count].sum())))
        alive, trimmed_count = _trimmed(alive[absorbed_count:])
        fewest, now = fewest + absorbed_count + trimmed_count, time
        if alive.sum() < _NEGLIGIBLE:
            break
    return absorbed


@lru_cache(maxsize=4096)
def _failures_in(records: int, failing: float) -> Floats:
    """Binomial chances of 0, 1, … failures."""
    k = np.arange(records + 1.0)
    gammaln, xlogy = scipy.special.gammaln, scipy.special.xlogy
    ways = gammaln(records + 1) - gammaln(k + 1) - gammaln(records - k + 1)
    return np.exp(ways + xlogy(k, failing) + xlogy(records - k, 1 - failing))


def _trimmed(chances: Floats) -> tuple[Floats, int]:
    """Leave out both ends where they are negligible; say how many were left out in front."""
    positions = np.flatnonzero(chances > _NEGLIGIBLE * 1e-3)
    if not positions.size:
        return np.zeros(0), 0
    return chances[positions[0] : positions[-1] + 1], int(positions[0])


def _quantile(times: Floats, opened: Floats, share: float) -> int | None:
    position = int(np.searchsorted(opened, share))
    return int(times[position]) if position < len(times) else None


def detection_records(reference: float, false_alarm_every: float, fallen_to: float) -> float:
    """Mean records until `Detector` alarms after a fall, from a fresh start, one at a time.

    One of the eight sums leads when the mean reaches the alarm. Its mean way there is computed
    exactly, up to a grid, from what one record does to it; the quickest of the eight counts.
    Buckets of more records add about half a bucket.

    Args:
        reference: the guard's line, in the open interval (0, 1).
        false_alarm_every: records between false alarms, ≥ 1.
        fallen_to: share of agreement after the fall, in [0, reference).

    Raises:
        ValueError: an argument lies outside its range.

    >>> round(detection_records(0.98, 10_000, 0.9))
    88
    """
    if not 0 <= fallen_to < reference:
        raise ValueError(f"fallen_to is {fallen_to}; give a share in [0, reference {reference})")
    if not false_alarm_every >= 1:
        raise ValueError(f"false_alarm_every is {false_alarm_every}; give records ≥ 1")
    good, bad = agreement_log_factors([1, 0], [1, 1], reference=reference)
    top = log(_LARGEST_OF_MEAN * false_alarm_every)
    return min(_mean_way(g, b, fallen_to, top) for g, b in zip(good, bad, strict=True))


def _mean_way(good: float, bad: float, rate: float, top: float) -> float:
    """Mean records until one sum R ← F·(R + 1), from 0, has ln R ≥ top."""
    grid = np.linspace(good, top, _GRID)
    steps = ((rate, good), (1 - rate, bad))
    stay_weights = sum(chance * _landing(grid, step) for chance, step in steps)
    mean_records = np.linalg.solve(np.eye(_GRID) - stay_weights, np.ones(_GRID))
    return 1 + sum(
        chance * float(np.interp(step, grid, mean_records, right=0)) for chance, step in steps
    )


def _landing(grid: Floats, step: float) -> Floats:
    """Weights of the grid points between which each one lands; none for those that alarm."""
    landings = np.logaddexp(grid, 0) + step
    positions = (landings - grid[0]) / (grid[1] - grid[0])
    left_index = np.clip(positions.astype(int), 0, len(grid) - 2)
    weights = np.zeros((len(grid), len(grid)))
    rows = np.arange(len(grid))
    weights[rows, left_index], weights[rows, left_index + 1] = (
        1 - (positions - left_index),
        positions - left_index,
    )
    weights[landings >= grid[-1]] = 0
    return weights


def expected_harm(
    fallen_to: float, *, records: float, audited: float, cases_per_hour: float, hours_late: float
) -> float:
    """Wrong actions to expect between a fall and the narrowing that answers it.

    Args:
        fallen_to: share of right actions after the fall, in [0, 1].
        records: audited records until the alarm, such as `detection_records`.
        audited: share of cases that are audited, in (0, 1].
        cases_per_hour: cases that the model decides, ≥ 0.
        hours_late: how long a verdict takes, ≥ 0.

    Raises:
        ValueError: `fallen_to` or `audited` lies outside its range.

    >>> round(expected_harm(0.9, records=85, audited=0.05, cases_per_hour=40, hours_late=2), 6)
    178.0
    """
    if not 0 <= fallen_to <= 1:
        raise ValueError(f"fallen_to is {fallen_to}; give a share in [0, 1]")
    if not 0 < audited <= 1:
        raise ValueError(f"audited is {audited}; give a share in (0, 1]")
    return (1 - fallen_to) * (records / audited + cases_per_hour * hours_late)
