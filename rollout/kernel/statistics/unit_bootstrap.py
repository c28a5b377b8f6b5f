"""Intervals of agreement coefficients, from bootstrap samples of units.

Units with equal sums are drawn together, so a million cases with ten labels are as fast as a few
hundred distinct ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from rollout.kernel.statistics.arrays import Floats, Ints
from rollout.kernel.statistics.chance_agreement import AgreementCoefficient, build_generator
from rollout.kernel.statistics.intervals import UPPER_QUANTILE, compute_freedom, describe_few_units

RESAMPLES = 500
MIN_FREEDOM = 29.0  # 30 units of one size; uneven ones with less cover .93
MAX_NUMBERS_IN_MEMORY = 2_000_000
MIN_SPREAD = 1e-12  # smaller differences between samples are rounding
BOOTSTRAP = (
    "Fisher's z and Student's t, standard error of a bootstrap over units "
    "(500 draws seeded by the counts), 95 %"
)
NO_SPREAD = "no interval: no two units differ in it"


@dataclass(frozen=True)
class BootstrapSums:
    """Sums over all units, and over bootstrap samples of units.

    Attributes:
        total: sums over all units, shape (1, parts).
        samples: sums of each sample, shape (RESAMPLES, parts); empty without units.
        units: number of units.
        freedom: degrees of freedom of their mean; fewer than units - 1 where sizes are uneven.
    """

    total: Floats
    samples: Floats
    units: int
    freedom: float

    def compute_interval(
        self, figure: Callable[[Floats], Floats], cases: int
    ) -> AgreementCoefficient:
        """Return a figure of sums with its interval; `cases` becomes its n.

        Percentiles of the samples cover .93 with 100 cases of two people: the coefficient is skewed
        near 1. On Fisher's scale it is not.

        Source: Fisher, Metron 1 (1921) 3, for the scale; Efron and Tibshirani, An Introduction to
        the Bootstrap (1993), chapters 6 and 12, for the standard error and Student's quantile.
        """
        value = _get_number(figure(self.total)) if self.units else None
        if value is None:
            return AgreementCoefficient(None, None, None, cases, BOOTSTRAP)
        values = figure(self.samples)
        values = values[~np.isnan(values)]
        if not len(values) or values.max() - values.min() < MIN_SPREAD:
            return AgreementCoefficient(value, None, None, cases, NO_SPREAD)
        if self.freedom < MIN_FREEDOM:
            refusal = describe_few_units(self.units, MIN_FREEDOM)
            return AgreementCoefficient(value, None, None, cases, refusal, has_too_few=True)
        error = float(np.std(values)) * self.units / (self.units - 1)
        scaled = np.clip(value, MIN_SPREAD - 1, 1 - MIN_SPREAD)
        half_width = scipy.special.stdtrit(self.freedom, UPPER_QUANTILE) * error / (1 - scaled**2)
        low, high = (
            np.tanh(np.arctanh(scaled) - half_width),
            np.tanh(np.arctanh(scaled) + half_width),
        )
        return AgreementCoefficient(value, float(low), float(high), cases, BOOTSTRAP)


def _get_number(value: Floats) -> float | None:
    return None if np.isnan(value[0]) else float(value[0])


def resample_units(parts: Floats, times: Ints, sizes: Floats) -> BootstrapSums:
    """Return bootstrap samples of units; the seed is a hash of the sums.

    Args:
        parts: contributions of distinct units to the sums, shape (distinct, parts).
        times: number of units of each.
        sizes: cases in each.
    """
    units = int(times.sum())
    total = (times @ parts)[None, :]
    if not units:
        return BootstrapSums(total, total[:0], units, 0.0)
    generator = build_generator(np.column_stack([parts, times]))
    block_size = max(1, min(RESAMPLES, MAX_NUMBERS_IN_MEMORY // len(times)))
    blocks = [block_size] * (RESAMPLES // block_size) + [RESAMPLES % block_size] * (
        RESAMPLES % block_size > 0
    )
    samples = [generator.multinomial(units, times / units, size) @ parts for size in blocks]
    return BootstrapSums(total, np.concatenate(samples), units, compute_freedom(sizes, times))
