"""The test of two groups that a draw parted, at the same moments: model and hold-out.

Units go to people by a draw that nobody steers, so whatever the season, the site or the hour, the
chance that the model's side has a unit is the same for every kind of unit, unless what happens to
it depends on who decided (statistics.md §16.2).
"""

from collections.abc import Sequence
from math import log

import numpy as np
import scipy
from numpy.typing import NDArray

CONCENTRATIONS = np.array([2.0, 20.0, 200.0, 2000.0])


def log_e_concurrent(model: Sequence[int], people: Sequence[int], *, share: float) -> float:
    """Return the log e-value against "it is alike, whoever decided".

    Args:
        model: units of each kind on the model's side, ≥ 0.
        people: units of the same kinds in the hold-out, ≥ 0.
        share: the share of all units that the draw gives to the model's side, in (0, 1).

    Returns:
        A finite number, valid at every look; 0.0 without units.

    Raises:
        ValueError: the lengths differ, a count is negative, or the share lies outside (0, 1).

    >>> round(log_e_concurrent((600, 300, 100), (700, 210, 90), share=0.5), 9)
    6.350219072
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; give a number between 0 and 1, both excluded")
    model_counts, human_counts = _counts(model), _counts(people)
    if len(model_counts) != len(human_counts):
        raise ValueError(
            f"{len(model_counts)} kinds on one side and {len(human_counts)} on the other; give the"
            " same"
        )
    model_prior, human_prior = (
        CONCENTRATIONS[:, None] * share,
        CONCENTRATIONS[:, None] * (1 - share),
    )
    bets = (
        scipy.special.betaln(model_prior + model_counts, human_prior + human_counts)
        - scipy.special.betaln(model_prior, human_prior)
        - model_counts * log(share)
        - human_counts * log(1 - share)
    )
    return float(np.logaddexp.reduce(bets.sum(axis=1)) - log(len(CONCENTRATIONS)))


def _counts(given: Sequence[int]) -> NDArray[np.float64]:
    counts = np.asarray(given, float)
    if counts.size and counts.min() < 0:
        raise ValueError(f"a count is {counts.min():g}; give counts from 0 on")
    return counts
