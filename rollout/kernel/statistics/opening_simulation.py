"""Simulated times at which a gate's condition opens, for display only: no decision uses them.

A run draws the true shares of the condition's classes from their posterior, the Dirichlet
distribution with a prior of one record in all (Jeffreys 1946 for two classes; Perks 1947 for more),
then draws further records with these shares and reads the condition at growing numbers of them. So
the times contain both what is not known about the shares and the luck of the records to come. The
same counts give the same times: the generator starts from a fixed seed.
"""

from __future__ import annotations

from functools import cache
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from rollout.kernel.late_modules import LateModule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import scipy
    from numpy.typing import NDArray

    from rollout.kernel.statistics.arrays import Floats
else:
    np = LateModule("numpy")
    scipy = LateModule("scipy")

IntArray: TypeAlias = "NDArray[np.int64]"
BoolArray: TypeAlias = "NDArray[np.bool_]"

RUNS: Final = 400
HORIZON: Final = 100_000
"""Further records that a run looks ahead; what opens later has no date."""
_GROWTH: Final = 1.01
"""Factor between two numbers of records at which runs are read."""
_LATE, _LATE_GROWTH = 3_000, 1.03
_LOOKS_AT_ONCE: Final = 64
_SEED: Final = 20_260_101


def draw_class_shares(counts: Sequence[int], runs: int = RUNS) -> Floats:
    """Return drawn true shares of classes, given their counts so far.

    Of two classes the runs are evenly spread over the posterior's quantiles.

    Args:
        counts: records by class, each ≥ 0, at least two classes.
        runs: rows of the result.

    Returns:
        float64, shape (runs, classes); each row sums to 1.

    Raises:
        ValueError: there are fewer than two classes, or a count is negative.
    """
    if len(counts) < 2 or min(counts) < 0:
        raise ValueError(f"counts are {list(counts)}; give two or more, each 0 or above")
    weights = np.array(counts, float) + 1 / len(counts)
    if len(counts) > 2:
        return np.random.default_rng(_SEED).dirichlet(weights, runs)
    quantiles = (np.arange(runs) + 0.5) / runs
    first = scipy.special.betaincinv(float(weights[0]), float(weights[1]), quantiles)
    return np.column_stack([first, 1 - first])


def simulate_openings(
    counts: Sequence[int], shares: Floats, are_met: Callable[[IntArray], BoolArray]
) -> Floats:
    """Return after how many further records each run first meets a condition.

    Args:
        counts: records by class so far.
        shares: true shares of the classes, a row for each run.
        are_met: reads the condition at rows of counts.

    Returns:
        float64, shape (runs,): 0 if it is met already, infinite beyond `HORIZON`.
    """
    looks = _list_looks()
    steps = np.diff(looks, prepend=0)
    generator = np.random.default_rng(_SEED + 1)
    times: Floats = np.full(len(shares), inf)
    open_runs = np.arange(len(shares))
    totals = np.tile(np.array(counts, np.int64), (len(shares), 1))
    for start in range(0, len(looks), _LOOKS_AT_ONCE):
        part = slice(start, start + _LOOKS_AT_ONCE)
        increments = generator.multinomial(steps[part], shares[open_runs, None, :])
        paths = totals[:, None, :] + np.cumsum(increments, axis=1)
        is_met = are_met(paths.reshape(-1, len(counts))).reshape(paths.shape[:2])
        has_opened = is_met.any(axis=1)
        times[open_runs[has_opened]] = looks[part][is_met[has_opened].argmax(axis=1)]
        open_runs, totals = open_runs[~has_opened], paths[~has_opened, -1]
        if not len(open_runs):
            break
    return times


def draw_units(times: Floats, records: int, units: int) -> Floats:
    """Return how many units bring as many records as each run needs.

    Not every unit brings one: of a rare label most bring none. The share that does is drawn from
    its posterior, and the units until the last record have a negative binomial distribution.

    Args:
        times: further records by run; infinite stays infinite.
        records: records so far, > 0.
        units: units that brought them, ≥ `records`.

    Raises:
        ValueError: there are no records, or more than units.
    """
    if not 0 < records <= units:
        raise ValueError(f"{records} records of {units} units; give 1 record up to one a unit")
    result = times.copy()
    if records == units:
        return result
    generator = np.random.default_rng(_SEED + 2)
    shares = generator.beta(records + 0.5, units - records + 0.5, len(times))
    is_drawn = np.isfinite(times) & (times > 0)
    needed = times[is_drawn].astype(np.int64)
    result[is_drawn] += generator.negative_binomial(needed, shares[is_drawn])
    return result


@cache
def _list_looks() -> IntArray:
    """Return the numbers of further records at which runs are read, from 0 to the horizon."""
    looks = [0]
    while looks[-1] < HORIZON:
        growth = _GROWTH if looks[-1] < _LATE else _LATE_GROWTH
        looks.append(min(HORIZON, max(looks[-1] + 1, int(looks[-1] * growth))))
    return np.array(looks, dtype=np.int64)


def find_cheapest_effort(times: Floats) -> tuple[float, float]:
    """Return the effort that spends least for each expected opening, and that spending.

    Who stops after an effort without an opening has spent it all; who sees an opening stops there.
    So an effort n costs E[min(time, n)] and opens with the chance P(time ≤ n); their quotient is
    Gittins's index of jobs whose length is random (Gittins 1979): least first is the best order.

    Args:
        times: of equally likely runs; infinite where a run never opens.

    Returns:
        The effort, and what it spends for each opening; both infinite if no run opens.

    >>> find_cheapest_effort(np.array([10.0, 20.0, 90.0, inf]))
    (20.0, 35.0)
    """
    ordered = np.sort(times[np.isfinite(times)])
    if not len(ordered):
        return inf, inf
    opened = np.arange(1, len(ordered) + 1)
    spent = np.cumsum(ordered) + (len(times) - opened) * ordered
    best = int((spent / opened).argmin())
    return float(ordered[best]), float(spent[best] / opened[best])
