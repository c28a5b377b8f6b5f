"""How often a grant is renewed, by the exact law of its audits.

A renewal is due in the last fifth of a grant and needs E >= 1 at any look there. So a cell is
renewed if its agreements reach the threshold's table at any number of audits from four fifths on.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Final

from rollout.core.late_modules import LateModule
from rollout.core.statistics.gate_thresholds import compute_least_successes

if TYPE_CHECKING:
    import numpy as np
else:
    np = LateModule("numpy")

LAST_FIFTH: Final = 0.8
MAX_AUDITS: Final = 2_000
"""More are computed as so many: the chances hardly change any more, and the law takes long."""


@lru_cache(maxsize=256)
def compute_renewal_chance(audits: int, *, at_least: float, rate: float) -> float:
    """Return the chance that a cell of a true rate is renewed with a grant's audits.

    Args:
        audits: in the whole grant, at least one; beyond `MAX_AUDITS` as many as that.
        at_least: the threshold, in (0, 1).
        rate: the cell's true share, in [0, 1].

    >>> chances = [compute_renewal_chance(100, at_least=0.95, rate=r) for r in (0.95, 0.93, 0.98)]
    >>> [round(chance, 2) for chance in chances]
    [0.22, 0.07, 0.78]
    """
    count = min(audits, MAX_AUDITS)
    first = max(ceil(LAST_FIFTH * count), 1)
    least = compute_least_successes(
        np.arange(count + 1, dtype=np.int64), at_least=at_least, required_log_e=0.0
    )
    chances, renewed = np.array([1.0]), 0.0
    for audited in range(1, count + 1):  # chances by disagreements, of what was not renewed so far
        grown = np.zeros(audited + 1)
        grown[:-1] += chances * rate
        grown[1:] += chances * (1 - rate)
        if audited >= first:
            failures = np.arange(audited + 1)
            is_met = audited - failures >= least[: audited + 1]
            renewed += float(grown[is_met].sum())
            grown[is_met] = 0.0
        chances = grown
    return renewed
