"""The e-Benjamini-Hochberg rule: how many of a list's questions are answered with yes.

Of K questions the k with the largest e-values are, where each is at least K/(k·α). The expected
share of wrong ones among them is then at most α, however the e-values depend on each other (Wang
and Ramdas, False discovery rate control with e-values, 2022). It holds at every look if an answer
is never taken back and keeps the e-value that it was given on.
"""

from collections.abc import Sequence
from math import ceil, exp, log


def count_openings(log_scores: Sequence[float], size: int, placed: int = 0) -> int:
    """Return how many questions the list opens in all, those with a place included.

    Args:
        log_scores: ln(α·E) of the questions without a place.
        size: the number K of the list's questions, with and without data.
        placed: how many were opened before; each keeps its place.

    Returns:
        The largest k for which k − `placed` scores reach ln(K/k); `placed` if no score does.

    >>> count_openings([3.0, 0.7, -1.0], size=4), count_openings([0.7], size=4)
    (2, 0)
    """
    largest_first = enumerate(sorted(log_scores, reverse=True), start=placed + 1)
    return max((k for k, score in largest_first if score >= log(size / k)), default=placed)


def compute_required_openings(log_score: float, size: int) -> int:
    """Return how many questions must be opened for one of this score to be among them.

    >>> compute_required_openings(0.7, size=4), compute_required_openings(2.0, size=4)
    (2, 1)
    """
    near = max(1, ceil(size * exp(-log_score)) - 1)  # exp may round up across a whole number
    return next(k for k in range(near, near + 3) if log_score >= log(size / k))
