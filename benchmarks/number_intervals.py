"""How often the 95 % intervals of bias, limits of agreement and concordance cover the truth.

Three streams: normal differences, prices whose error grows with the price, and bursts of four cases
of one unit. The truth is that of 500,000 units.

Example:
    PYTHONPATH=. python benchmarks/number_intervals.py --repeats 2000
"""

import argparse
from collections.abc import Callable

import numpy as np

from rollout.kernel.statistics.agreement import (
    compute_concordance,
    compute_limits,
    compute_mean_estimate,
)
from rollout.kernel.statistics.intervals import Estimate

UNITS = (100, 300, 1000)
MANY = 500_000
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
Stream = Callable[[np.random.Generator, int], Pairs]


def main() -> None:
    """Print a row for each stream and number of units."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=2000, help="samples of each size")
    repeats = parser.parse_args().repeats
    generator = np.random.default_rng(1)
    print("stream, units: coverage in % of bias, lower and upper limit, concordance")
    for draw in (draw_normal, draw_prices, draw_bursts):
        truth = [estimate.value or 0.0 for estimate in estimate_all(draw(generator, MANY))]
        for units in UNITS:
            covered = np.zeros(4)
            for _ in range(repeats):
                estimates = estimate_all(draw(generator, units))
                covered += [
                    estimate.low is not None and estimate.low <= true <= (estimate.high or 0.0)
                    for estimate, true in zip(estimates, truth, strict=True)
                ]
            print(draw.__name__, units, *(f"{100 * share:.1f}" for share in covered / repeats))


def estimate_all(pairs: Pairs) -> tuple[Estimate, ...]:
    """Return bias, both limits and concordance."""
    human, model, units = pairs
    gaps = model - human
    bias, limits = compute_mean_estimate(gaps, units), compute_limits(gaps, units)
    return (bias, *limits, compute_concordance(human, model, units))


def draw_normal(generator: np.random.Generator, units: int) -> Pairs:
    """Return cases with normal differences."""
    human = generator.normal(100, 20, units)
    return human, human + generator.normal(1, 5, units), np.arange(units)


def draw_prices(generator: np.random.Generator, units: int) -> Pairs:
    """Return skewed prices with an error of 5 % of each."""
    human = generator.lognormal(4, 0.6, units)
    return human, human * generator.normal(1.005, 0.05, units), np.arange(units)


def draw_bursts(generator: np.random.Generator, units: int) -> Pairs:
    """Return four alike cases of each unit."""
    unit = np.repeat(np.arange(units), 4)
    human = generator.normal(100, 20, units)[unit] + generator.normal(0, 3, 4 * units)
    gap = generator.normal(1, 4, units)[unit] + generator.normal(0, 3, 4 * units)
    return human, human + gap, unit


if __name__ == "__main__":
    main()
