"""E-values that forget a bad past: mixtures over the starts of blocks.

Records come in blocks 1 … J. Each start of a block has an e-value E_j of its own, on all records
since, and a weight that was fixed before: M = Σ w_j E_j + ω/J, with w_1 = 1 − ω, w_j = ω/(j(j−1)),
ω = 0.2. The last term is the weight of the blocks that have not begun, each worth 1 so far. As long
as no stretch from a block's start to now has an average above the threshold, M is at most a
martingale of mean 1, so the chance that it ever reaches 1/risk is at most the risk (Ville). A good
past is not forgotten: E_1 stays one of the terms.

Sources: Ville 1939; Shin, Ramdas and Rinaldo 2023 (e-values added over the starts of a change).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from rollout.core.late_modules import LateModule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = LateModule("numpy")

Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"

LATER_STARTS_WEIGHT: Final = 0.2
"""ω: the weight of all starts after the first together."""


@lru_cache(maxsize=64)
def compute_log_weights(count: int) -> Floats:
    """Return ln w_j of the first `count` starts, ≥ 1.

    >>> np.exp(compute_log_weights(3)).round(6).tolist()
    [0.8, 0.1, 0.033333]
    """
    j = np.arange(2, count + 1)
    later = np.log(LATER_STARTS_WEIGHT / (j * (j - 1.0)))
    return np.concatenate([[np.log1p(-LATER_STARTS_WEIGHT)], later])


def sum_from_starts(blocks: Ints) -> Ints:
    """Return the counts from each block's start to the end.

    Args:
        blocks: counts of each block, shape (blocks, width).

    Returns:
        The same shape.

    >>> sum_from_starts(np.array([[45, 5], [0, 0], [60, 0]])).tolist()
    [[105, 5], [60, 0], [60, 0]]
    """
    return np.cumsum(blocks[::-1], axis=0)[::-1]


def mix_log_e(log_e: Floats, starts: Ints) -> Floats:
    """Return ln M at several looks.

    Args:
        log_e: ln E from each start, those of the first look first, shape (sum of `starts`,).
        starts: number of blocks that have begun by each look, ≥ 0, shape (looks,).

    Returns:
        float64, shape (looks,); 0 at a look before the first block.
    """
    log_m = np.zeros(len(starts))
    has_begun = starts > 0
    if not has_begun.any():
        return log_m
    counts = starts[has_begun]
    begins = np.cumsum(counts) - counts
    numbers = np.arange(len(log_e)) - np.repeat(begins, counts)
    terms = log_e + compute_log_weights(int(counts.max()))[numbers]
    not_begun = np.log(LATER_STARTS_WEIGHT / counts)
    top = np.maximum(np.maximum.reduceat(terms, begins), not_begun)
    total = np.add.reduceat(np.exp(terms - np.repeat(top, counts)), begins)
    log_m[has_begun] = top + np.log(total + np.exp(not_begun - top))
    return log_m
