"""Search for values whose cases differ more often than all others.

Each value is compared with the rest of the same cases by Fisher's exact test, one-sided. Given how
many cases differ and how many have the value, the test needs no model of the share. Holm's step
holds the chance of any false result at `ERROR_RATE`, however values depend on each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

import numpy as np
import scipy

from rollout.kernel.arrays import Bools, Ints
from rollout.kernel.statistics.intervals import clopper_pearson

ATTRIBUTE: Final = "attribute"
ANSWER: Final = "answer"
KindKey = tuple[str, str]
"""Source and name of a property of cases."""
ValueKey = tuple[KindKey, str]
"""A property of cases, and one of its values."""

ERROR_RATE: Final = 0.05
"""Chance that any value stands out although none differs."""
POWER: Final = 0.8
MIN_CASES: Final = 10
MAX_VALUES_OF_A_KIND: Final = 100
MAX_VALUES: Final = 2_000
TAIL_WIDTH: Final = 10
"""Standard deviations after which terms of a tail are below rounding."""


@dataclass(frozen=True, slots=True)
class ValueKind:
    """A property of cases: `codes[i]` is the number of case i's value, -1 without one.

    `source` tells attributes of the cases from answers, times and reviewers.
    """

    name: str
    values: tuple[str, ...]
    codes: Ints
    source: str = ATTRIBUTE

    @property
    def key(self) -> KindKey:
        """Return what tells it from other kinds."""
        return (self.source, self.name)


@dataclass(frozen=True, slots=True)
class ComparedValue:
    """A value's cases against all others of the same time.

    Attributes:
        count, n: differing cases and all with the value.
        rest_count, rest_n: the same of the other cases.
        chance: Holm's p-value of a share this much above the rest's.
        low, high: Clopper–Pearson interval; all of a search cover together with 95 %.
        excess: differing cases beyond the rest's share.
    """

    source: str
    kind: str
    value: str
    count: int
    n: int
    rest_count: int
    rest_n: int
    chance: float
    low: float
    high: float

    @property
    def key(self) -> ValueKey:
        """Return what tells it from other values."""
        return ((self.source, self.kind), self.value)

    @property
    def excess(self) -> float:
        """Return how many of the value's differing cases the rest's share leaves unexplained."""
        return self.count - self.n * self.rest_count / self.rest_n

    @property
    def is_standout(self) -> bool:
        """Return whether the value's cases differ more than the rest."""
        return self.chance <= ERROR_RATE


@dataclass(frozen=True, slots=True)
class ValueSearch:
    """The compared values: those that stand out first, by excess.

    Attributes:
        omitted: by kind, how many values were left out of a kind or family that is too large.
        uncompared: kinds of which no value could be compared.
    """

    values: tuple[ComparedValue, ...]
    omitted: tuple[tuple[KindKey, int], ...]
    uncompared: tuple[KindKey, ...]

    @property
    def standouts(self) -> tuple[ComparedValue, ...]:
        """Return the values that stand out."""
        return tuple(value for value in self.values if value.is_standout)


def search_values(differs: Bools, kinds: Sequence[ValueKind]) -> ValueSearch:
    """Return which values' cases differ more than the others.

    A value is compared if at least `MIN_CASES` cases have it and one has not: which ones are
    compared depends on no answer.
    """
    n, total = len(differs), int(differs.sum())
    family: list[tuple[int, int, KindKey, str]] = []
    comparable_numbers = {kind.key: 0 for kind in kinds}
    for kind in kinds:
        sizes = np.bincount(kind.codes[kind.codes >= 0], minlength=len(kind.values))
        counts = np.bincount(kind.codes[differs & (kind.codes >= 0)], minlength=len(kind.values))
        comparable = np.flatnonzero((sizes >= MIN_CASES) & (sizes < n))
        comparable_numbers[kind.key] = len(comparable)
        largest = comparable[np.argsort(-sizes[comparable], kind="stable")][:MAX_VALUES_OF_A_KIND]
        family += [
            (int(sizes[code]), int(counts[code]), kind.key, kind.values[code])
            for code in largest.tolist()
        ]
    family = sorted(family, key=lambda item: -item[0])[:MAX_VALUES]
    chances = [compute_upper_chance(count, size, total, n) for size, count, _, _ in family]
    level = 1 - ERROR_RATE / max(len(family), 1)
    compared = [
        ComparedValue(
            *(*key, value, count, size, total - count, n - size, chance),
            *clopper_pearson(count, size, level),
        )
        for (size, count, key, value), chance in zip(family, adjust_holm(chances), strict=True)
    ]
    family_keys = [key for _, _, key, _ in family]
    return ValueSearch(
        tuple(sorted(compared, key=_get_rank)),
        tuple(
            (key, left)
            for key, number in comparable_numbers.items()
            if (left := number - family_keys.count(key))
        ),
        tuple(key for key, number in comparable_numbers.items() if not number),
    )


def _get_rank(value: ComparedValue) -> tuple[bool, float, str, str, str]:
    excess = -value.excess if value.is_standout else 0.0
    share = 0.0 if value.is_standout else -value.count / value.n
    return (not value.is_standout, excess or share, value.source, value.kind, value.value)


def compute_upper_chance(count: int, size: int, total: int, n: int) -> float:
    """Return the chance of at least `count` of `size` cases when `total` of `n` differ by lot.

    1 if the value's share is not above the rest's.

    >>> round(compute_upper_chance(3, 3, 3, 6), 9)
    0.05

    Source: Fisher, Journal of the Royal Statistical Society 98 (1935) 39.
    """
    if count * n <= size * total:
        return 1.0
    spread = sqrt(size * total * (n - size) * (n - total) / (n * n * max(n - 1, 1)))
    last = min(size, total, count + ceil(TAIL_WIDTH * spread) + TAIL_WIDTH)
    steps = np.arange(count, last, dtype=np.float64)
    ratios = (size - steps) * (total - steps) / ((steps + 1) * (n - size - total + steps + 1))
    log_first = float(
        _log_choose(size, count) + _log_choose(n - size, total - count) - _log_choose(n, total)
    )
    return min(1.0, float(np.exp(log_first)) * (1.0 + float(np.cumprod(ratios).sum())))


def _log_choose(n: int, k: int) -> float:
    return float(-np.log1p(n) - scipy.special.betaln(n - k + 1, k + 1))


def adjust_holm(chances: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the given order.

    >>> adjust_holm([0.01, 0.5, 0.02])
    [0.03, 0.5, 0.04]

    Source: Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    order = np.argsort(chances, kind="stable")
    factors = len(chances) - np.arange(len(chances))
    stepped = np.maximum.accumulate(np.asarray(chances, dtype=float)[order] * factors)
    adjusted = np.empty(len(chances))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def find_visible_difference(value: ComparedValue, family: int) -> float | None:
    """Return which difference to the rest would stand out 8 times in 10, None if none would.

    The value's share is put above the rest's; the first of Holm's steps is asked for.

    Source: Fleiss, Tytun and Ury, Biometrics 36 (1980) 343, with Fisher's test.
    """
    base = (value.rest_count + 0.5) / (value.rest_n + 1)
    quantiles = (
        float(scipy.special.ndtri(1 - ERROR_RATE / max(family, 1))),
        float(scipy.special.ndtri(POWER)),
    )
    low, high = 0.0, 1.0 - base
    if _compute_needed_size(base, high, value, quantiles) > value.n:
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        if _compute_needed_size(base, middle, value, quantiles) > value.n:
            low = middle
        else:
            high = middle
    return high


def _compute_needed_size(
    base: float, difference: float, value: ComparedValue, quantiles: tuple[float, float]
) -> float:
    """Return how many cases a value needs for its difference to be found."""
    ratio = value.rest_n / value.n
    share = base + difference
    mean = (share + ratio * base) / (ratio + 1)
    error_term = quantiles[0] * sqrt((ratio + 1) * mean * (1 - mean))
    power_term = quantiles[1] * sqrt(ratio * share * (1 - share) + base * (1 - base))
    size = (error_term + power_term) ** 2 / (ratio * difference**2)
    return size / 4 * (1 + sqrt(1 + 2 * (ratio + 1) / (size * ratio * difference))) ** 2
