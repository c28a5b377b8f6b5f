"""Test of two randomly split concurrent groups: model and hold-out.

Units are split at random, so in every season, site and hour the chance of the model's side is the
same for every kind of unit, unless the kind depends on who decided.
"""

from collections.abc import Sequence
from math import log

import numpy as np
import scipy
from numpy.typing import NDArray

CONCENTRATIONS = np.array([2.0, 20.0, 200.0, 2000.0])


def compute_concurrent_log_e(model: Sequence[int], humans: Sequence[int], *, share: float) -> float:
    """Return the log e-value against equal distributions on both sides.

    Args:
        model: units of each kind on the model's side, ≥ 0.
        humans: units of the same kinds in the hold-out, ≥ 0.
        share: planned share of units on the model's side, in (0, 1).

    Returns:
        A finite number, valid at every look; 0.0 without units.

    Raises:
        ValueError: the lengths differ, a count is negative, or the share lies outside (0, 1).

    >>> round(compute_concurrent_log_e((600, 300, 100), (700, 210, 90), share=0.5), 9)
    6.350219072
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; give a number between 0 and 1, both excluded")
    model_counts, human_counts = _check_counts(model), _check_counts(humans)
    if len(model_counts) != len(human_counts):
        raise ValueError(
            f"{len(model_counts)} kinds on one side and {len(human_counts)} on the other; give the"
            " same"
        )
    model_prior = CONCENTRATIONS[:, None] * share
    human_prior = CONCENTRATIONS[:, None] * (1 - share)
    bets = (
        scipy.special.betaln(model_prior + model_counts, human_prior + human_counts)
        - scipy.special.betaln(model_prior, human_prior)
        - model_counts * log(share)
        - human_counts * log(1 - share)
    )
    return float(np.logaddexp.reduce(bets.sum(axis=1)) - log(len(CONCENTRATIONS)))


def _check_counts(values: Sequence[int]) -> NDArray[np.float64]:
    counts = np.asarray(values, float)
    if counts.size and counts.min() < 0:
        raise ValueError(f"a count is {counts.min():g}; give counts from 0 on")
    return counts
