"""How often intervals over units (bursts, episodes) cover, where one is printed.

The designs are named as in benchmarks/README.md. "Likeness" is the correlation of the cases of a
unit; 1 means that all are alike.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.coverage_counts import Draws, Floats, Shares, compute_share_of_hits, is_inside
from rollout.kernel.statistics.agreement import (
    compute_ac1,
    compute_kappa,
    compute_kappa_and_ac1,
)
from rollout.kernel.statistics.intervals import (
    compute_clustered_share,
    compute_difference_number,
    compute_paired_change,
    compute_weighted_share,
)

Covered = bool | None  # None if no interval is printed


def clustered(draws: Draws, runs: int) -> Shares:
    """Shares over bursts, by the designs C1 to C6 of benchmarks/README.md."""
    return {
        name: _cover_designs(lambda design=design: design(draws), runs)
        for name, design in CLUSTERED_DESIGNS.items()
    }


def _cover_designs(simulate: Callable[[], Covered], runs: int) -> float:
    """Return how often an interval covers where one is printed; NaN if none is."""
    simulated = [simulate() for _ in range(runs)]
    printed = [covers for covers in simulated if covers is not None]
    return float(np.mean(printed)) if printed else float("nan")


def _covers_share(counts: Floats, sizes: Floats, truth: float) -> Covered:
    share = compute_clustered_share(counts, sizes)
    return None if share.low is None else is_inside((share.low, share.high), truth)


def _draw_rates(draws: Draws, rate: float, likeness: float, units: int) -> Floats:
    """Return a rate for each unit: beta with this correlation inside a unit."""
    mass = (1 - likeness) / likeness
    return draws.beta(rate * mass, (1 - rate) * mass, units)


def _simulate_alike(draws: Draws, units: int, size: int, likeness: float, rate: float) -> Covered:
    sizes = np.full(units, size)
    return _covers_share(
        draws.binomial(sizes, _draw_rates(draws, rate, likeness, units)), sizes, rate
    )


def _simulate_mixed(draws: Draws, units: int) -> Covered:
    """Nine of ten units are single cases, right .98; the tenth has 20 alike, right .85."""
    is_burst = draws.random(units) < 0.1
    sizes = np.where(is_burst, 20, 1)
    is_right = draws.random(units) < np.where(is_burst, 0.85, 0.98)
    truth = (0.9 * 0.98 + 0.1 * 20 * 0.85) / (0.9 + 0.1 * 20)
    return _covers_share(sizes * is_right, sizes, truth)


def _simulate_geometric(draws: Draws) -> Covered:
    sizes = 1 + draws.geometric(1 / 6, 100) - 1
    rates = _draw_rates(draws, 0.95, 0.5, 100)
    return _covers_share(draws.binomial(sizes, rates), sizes, 0.95)


CLUSTERED_DESIGNS: dict[str, Callable[[Draws], Covered]] = {
    "C1: 200 units of 10, likeness .7, share .99": partial(
        _simulate_alike, units=200, size=10, likeness=0.7, rate=0.99
    ),
    "C2: single or 20 alike, 20 units": partial(_simulate_mixed, units=20),
    "C2: single or 20 alike, 50 units": partial(_simulate_mixed, units=50),
    "C2: single or 20 alike, 200 units": partial(_simulate_mixed, units=200),
    "C3: 100 units of 1 + geometric, likeness .5, share .95": _simulate_geometric,
    "C4: 30 units of 10, likeness .3, share .9": partial(
        _simulate_alike, units=30, size=10, likeness=0.3, rate=0.9
    ),
    "C5: 1,000 units of 5, likeness .05, share .97": partial(
        _simulate_alike, units=1000, size=5, likeness=0.05, rate=0.97
    ),
    "C6: 12 units of 25, likeness .5, share .95": partial(
        _simulate_alike, units=12, size=25, likeness=0.5, rate=0.95
    ),
}


def audited(draws: Draws, runs: int) -> Shares:
    """Audits over bursts, by the designs A1 to A4 of benchmarks/README.md."""
    designs = {
        "A1: 400 units of 5, read at 20 %, 3 % wrong": _simulate_even_audit,
        "A2: 600 units of 4, a tenth read at 50 %, the rest at 10 %": _simulate_two_strata,
        "A3: 500 units, single or 20 alike, read at 20 %": _simulate_mixed_audit,
        "A4: 3,000 single cases, a tenth read at 50 %, the rest at 5 %": _simulate_single_audit,
    }
    return {
        name: _cover_designs(lambda design=design: design(draws), runs)
        for name, design in designs.items()
    }


def _covers_audit(
    draws: Draws, errors: Floats, chances: Floats, units: Floats, truth: float
) -> Covered:
    """Sample each unit whole with its chance, and compare the weighted share."""
    read = (draws.random(int(units[-1]) + 1) < chances[np.unique(units, return_index=True)[1]])[
        units
    ]
    share = compute_weighted_share(errors[read], chances[read], units[read])
    return None if share.low is None else is_inside((share.low, share.high), truth)


def _simulate_even_audit(draws: Draws) -> Covered:
    errors = draws.binomial(1, np.repeat(_draw_rates(draws, 0.03, 0.7, 400), 5))
    return _covers_audit(draws, errors, np.full(2000, 0.2), np.repeat(np.arange(400), 5), 0.03)


def _simulate_two_strata(draws: Draws) -> Covered:
    rates = np.concatenate([_draw_rates(draws, 0.2, 0.7, 60), _draw_rates(draws, 0.02, 0.7, 540)])
    chances = np.repeat([0.5, 0.1], [60 * 4, 540 * 4])
    errors = draws.binomial(1, np.repeat(rates, 4))
    return _covers_audit(
        draws, errors, chances, np.repeat(np.arange(600), 4), 0.1 * 0.2 + 0.9 * 0.02
    )


def _simulate_mixed_audit(draws: Draws) -> Covered:
    is_burst = draws.random(500) < 0.1
    sizes = np.where(is_burst, 20, 1)
    is_wrong = draws.random(500) < np.where(is_burst, 0.15, 0.02)
    units = np.repeat(np.arange(500), sizes)
    truth = (0.9 * 0.02 + 0.1 * 20 * 0.15) / (0.9 + 0.1 * 20)
    return _covers_audit(draws, is_wrong[units], np.full(len(units), 0.2), units, truth)


def _simulate_single_audit(draws: Draws) -> Covered:
    chances = np.repeat([0.5, 0.05], [300, 2700])
    errors = draws.random(3000) < np.repeat([0.1, 0.01], [300, 2700])
    return _covers_audit(draws, errors, chances, np.arange(3000), 0.1 * 0.1 + 0.9 * 0.01)


def corrected_bursts(draws: Draws, runs: int) -> Shares:
    """Kappa and AC1 of 200 units of five cases that are all alike."""
    truth = np.array([[0.27, 0.03], [0.03, 0.67]])
    hits: dict[str, list[bool]] = {"kappa, 200 units of five": [], "AC1, 200 units of five": []}
    for _ in range(runs):
        table = draws.multinomial(200, truth.ravel()).reshape(2, 2)
        agreement = compute_clustered_share(
            np.repeat([5, 0], [np.trace(table), 200 - np.trace(table)]), np.full(200, 5)
        )
        pair = compute_kappa_and_ac1(5.0 * table, agreement.effective_number)
        wholes = (compute_kappa(truth), compute_ac1(truth))
        for name, interval, whole in zip(hits, pair, wholes, strict=True):
            if interval.low is not None:
                hits[name].append(is_inside((interval.low, interval.high), whole or 0.0))
    return {name: float(np.mean(covered)) for name, covered in hits.items()}


def paired_bursts(draws: Draws, runs: int) -> Shares:
    """The same where a burst of five is all alike."""

    def covers_truth() -> bool:
        gaps = 5 * draws.choice([1, -1, 0], 400, p=[0.05, 0.03, 0.92])
        sizes = np.full(400, 5)
        number = compute_difference_number(gaps, sizes, np.abs(gaps))
        first, second = int((gaps > 0).sum()), int((gaps < 0).sum())
        change = compute_paired_change(5 * first, 5 * second, 2000, number)
        return is_inside((change.low, change.high), 2.0)

    return {"400 bursts of five": compute_share_of_hits(covers_truth() for _ in range(runs))}
