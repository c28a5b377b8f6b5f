"""What the simulations of coverage share: types, and counting of hits."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Draws = np.random.Generator
Shares = Mapping[str, float]  # by setting, how often the truth was covered


def is_inside(ends: tuple[float | None, float | None], truth: float) -> bool:
    """Say whether an interval is there and holds the truth."""
    low, high = ends
    return low is not None and high is not None and low <= truth <= high


def compute_share_of_hits(hits: Iterator[bool]) -> float:
    """Return how often it was so."""
    return float(np.mean(list(hits)))
