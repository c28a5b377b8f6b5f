"""How long a site may be silent: by its signs of life, or against its usual traffic.

Under Poisson traffic of at least `quiet_days` times the usual rate, a silence in which H units or
more are due has probability exp(-H). With one silence for each unit of a year, false alarms are at
most one a year if exp(-H) is at most one in the units of a year.
"""

from collections.abc import Sequence
from math import log

import numpy as np

from rollout.core.statistics.share_detector import IntArray

TRAFFIC_DAYS = 28  # of the usual traffic
SIGNS_MISSED = 3  # intervals between signs of life that may pass without one
MIN_SIGNS = 3  # fewer have no interval
_RECENT_SIGNS = 20
_FEWEST_UNITS = 2.0  # keeps the threshold positive


def compute_silence_threshold(units_per_day: float, span_days: float = 365) -> float:
    """Return the due units H of a silence that happens by chance once in a span.

    >>> round(compute_silence_threshold(60), 6), round(compute_silence_threshold(300), 6)
    (9.994242, 11.60368)
    """
    return log(max(units_per_day * span_days, _FEWEST_UNITS))


def estimate_silent_hours(
    units_per_hour: float, units_per_day: float, quiet_days: float, span_days: float = 365
) -> float:
    """Return the hours of silence until an alarm by traffic alone.

    >>> round(estimate_silent_hours(27.5, 300, 0.5) * 60)
    51
    """
    threshold = compute_silence_threshold(units_per_day, span_days)
    return threshold / (quiet_days * units_per_hour)


def measure_sign_interval(signs: IntArray | Sequence[int]) -> int | None:
    """Return the usual interval between the latest signs of life, or None.

    >>> measure_sign_interval([0, 300, 600, 4200, 4500]), measure_sign_interval([0, 300])
    (300, None)
    """
    if len(signs) < MIN_SIGNS:
        return None
    return int(np.median(np.diff(np.asarray(signs)[-_RECENT_SIGNS:])))
