"""How often each interval of a report covers what is true: statistics.md §17, measured again.

`python benchmarks/coverage.py` runs each simulation some thousand times and prints a table, which
stands in README.md; `tests/reports/test_coverage.py` runs the same ones fewer times.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from rollout.core.statistics.evidence import compute_lower_bounds
from rollout.reports.figures.ratings import RaterAgreement, compute_rater_agreement
from rollout.reports.statistics.bounds import compute_cost_bounds
from rollout.reports.statistics.chance_agreement import (
    compute_ac1,
    compute_ac1_with_interval,
    compute_kappa,
    compute_kappa_with_interval,
)
from rollout.reports.statistics.differences import (
    ComparedSide,
    compute_adoption,
    compute_difference_by_day,
    compute_period_difference,
)
from rollout.reports.statistics.intervals import (
    clopper_pearson,
    compute_clustered_share,
    compute_independent_share,
    compute_paired_change,
    compute_upper_bound,
    compute_weighted_share,
)

Floats = NDArray[np.float64]
Draws = np.random.Generator
Shares = Mapping[str, float]  # by setting, how often the truth was covered

RATES = (0.5, 0.9, 0.95, 0.99, 0.998)


def is_inside(ends: tuple[float | None, float | None], truth: float) -> bool:
    """Say whether an interval is there and holds the truth."""
    low, high = ends
    return low is not None and high is not None and low <= truth <= high


def compute_share_of_hits(hits: Iterator[bool]) -> float:
    """Return how often it was so."""
    return float(np.mean(list(hits)))


def proportions(_: Draws, __: int) -> Shares:
    """Exact, without a simulation: every count of n weighted by its chance."""
    shares = {}
    for n in (20, 100, 300, 1000):
        ends = np.array([clopper_pearson(count, n) for count in range(n + 1)])
        for rate in RATES:
            covers = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
            shares[f"n {n:,}, true share {rate}"] = float(
                binom.pmf(np.arange(n + 1), n, rate) @ covers
            )
    return shares


def one_sided(_: Draws, __: int) -> Shares:
    """Exact: "at most" of a share of errors."""
    shares = {}
    for n in (59, 299, 1000):
        highs = np.array([compute_upper_bound(count, n) for count in range(n + 1)])
        for rate in (0.002, 0.01, 0.05):
            covers = highs >= rate
            shares[f"n {n:,}, true share {rate}"] = float(
                binom.pmf(np.arange(n + 1), n, rate) @ covers
            )
    return shares


def weighted(draws: Draws, runs: int) -> Shares:
    """Strata of audits: unsure cases read often, the others seldom."""
    designs = {
        "10 % unsure, all read, 30 % wrong; 2 % of the rest, 1 % wrong": (
            (1000, 1.0, 0.30), (9000, 0.02, 0.01),
        ),
        "half read at 50 %, 8 % wrong; half at 5 %, 0.5 % wrong": (
            (2000, 0.5, 0.08), (2000, 0.05, 0.005),
        ),
        "all at 20 %, 2 % wrong": ((2000, 0.2, 0.02),),
    }  # fmt: skip
    shares = {}
    for name, strata in designs.items():
        truth = sum(n * rate for n, _, rate in strata) / sum(n for n, _, _ in strata)
        shares[name] = compute_share_of_hits(
            _simulate_audit(draws, strata, truth) for _ in range(runs)
        )
    return shares


def _simulate_audit(
    draws: Draws, strata: tuple[tuple[int, float, float], ...], truth: float
) -> bool:
    errors, chances = [], []
    for n, chance, rate in strata:
        read = draws.binomial(n, chance)
        errors.append(draws.random(read) < rate)
        chances.append(np.full(read, chance))
    share = compute_weighted_share(np.concatenate(errors), np.concatenate(chances))
    return is_inside((share.low, share.high), truth)


def clustered(draws: Draws, runs: int) -> Shares:
    """Bursts of cases that are alike, or all but alike; each burst its own share."""
    shares = {}
    for most, alike in ((5, 1.0), (20, 1.0), (10, 0.7)):
        for rate in (0.7, 0.95):
            name = f"300 bursts of up to {most} cases, {alike:.0%} alike, true share {rate}"
            shares[name] = compute_share_of_hits(
                _simulate_burst(draws, most, alike, rate) for _ in range(runs)
            )
    return shares


def _simulate_burst(draws: Draws, most: int, alike: float, rate: float) -> bool:
    sizes = draws.integers(1, most + 1, 300)
    same = draws.random(300) < alike
    counts = np.where(same, sizes * (draws.random(300) < rate), draws.binomial(sizes, rate))
    share = compute_clustered_share(counts, sizes)
    return is_inside((share.low, share.high), rate)


def corrected(draws: Draws, runs: int) -> Shares:
    """Kappa and AC1 of a table of 500 pairs, with one label rare."""
    shares = {}
    for labels, rare in ((2, 0.01), (2, 0.5), (4, 0.05), (5, 0.01), (10, 0.02)):
        often_each = np.array([rare, *[(1 - rare) / (labels - 1)] * (labels - 1)])
        truth = np.outer(often_each, np.full(labels, 0.08 / (labels - 1)))
        np.fill_diagonal(truth, often_each * 0.92)
        tables = draws.multinomial(500, truth.ravel(), runs).reshape(runs, labels, labels)
        for name, whole, of in (
            ("kappa", compute_kappa(truth), compute_kappa_with_interval),
            ("AC1", compute_ac1(truth), compute_ac1_with_interval),
        ):
            ends = (of(table.astype(float)) for table in tables)
            shares[f"{name}, {labels} labels, the rarest {rare:.0%}"] = compute_share_of_hits(
                is_inside((interval.low, interval.high), whole)
                for interval in ends
                if interval.value is not None
            )
    return shares


def several(draws: Draws, runs: int) -> Shares:
    """Alpha, AC1 and Fleiss of several people on few and on more cases, and on bursts."""
    shares = {}
    figures = {"alpha": "alpha", "AC1": "ac1", "Fleiss": "fleiss"}
    for name, cases, persons, burst in (
        ("300 cases, three people", 300, 3, 1),
        ("100 cases, two people", 100, 2, 1),
        ("150 bursts of four, three people", 150, 3, 4),
    ):
        truth = _judge(draws, 200_000, persons, 1)
        ones = [_judge(draws, cases, persons, burst) for _ in range(runs)]
        for figure, field in figures.items():
            ends = (getattr(agreement, field) for agreement in ones)
            shares[f"{figure}, {name}"] = compute_share_of_hits(
                is_inside((interval.low, interval.high), getattr(truth, field).value)
                for interval in ends
            )
    return shares


def _judge(draws: Draws, cases: int, persons: int, burst: int) -> RaterAgreement:
    """Return what people say of cases in bursts that are all alike."""
    right = draws.choice(4, cases, p=[0.02, 0.08, 0.2, 0.7])
    guess = draws.integers(0, 4, (cases, persons))
    labels = np.where(draws.random((cases, persons)) < 0.9, right[:, None], guess)
    counts = (labels[:, :, None] == np.arange(4)).sum(axis=1)
    return compute_rater_agreement(
        np.repeat(counts, burst, axis=0), np.repeat(np.arange(cases), burst)
    )


def paired(draws: Draws, runs: int) -> Shares:
    """Actions of both on the same cases, per 100."""
    shares = {}
    for n, first, second in ((200, 0.02, 0.01), (1000, 0.012, 0.004), (500, 0.002, 0.002)):
        counts = draws.multinomial(n, [first, second, 1 - first - second], runs)
        ones = (compute_paired_change(int(b), int(c), n) for b, c, _ in counts)
        truth = 100 * (first - second)
        shares[f"n {n:,}, {first} and {second}"] = compute_share_of_hits(
            is_inside((interval.low, interval.high), truth) for interval in ones
        )
    return shares


def paired_bursts(draws: Draws, runs: int) -> Shares:
    """The same where a burst of five is all alike."""

    def covers_truth() -> bool:
        gaps = 5 * draws.choice([1, -1, 0], 400, p=[0.05, 0.03, 0.92])
        sizes = np.full(400, 5)
        effective = compute_independent_share(gaps, sizes, np.abs(gaps))
        first, second = int((gaps > 0).sum()), int((gaps < 0).sum())
        change = compute_paired_change(5 * first, 5 * second, 2000, effective)
        return is_inside((change.low, change.high), 2.0)

    return {"400 bursts of five": compute_share_of_hits(covers_truth() for _ in range(runs))}


def periods(draws: Draws, runs: int) -> Shares:
    """One period against another, of independent cases."""
    shares = {}
    for n, first, m, second in (
        (500, 0.02, 2000, 0.01),
        (100, 0.05, 100, 0.05),
        (1000, 0.3, 5000, 0.3),
        (60, 0.0, 900, 0.01),
    ):
        counts = zip(draws.binomial(n, first, runs), draws.binomial(m, second, runs), strict=True)
        ones = (compute_period_difference(int(a), n, int(b), m) for a, b in counts)
        shares[f"{first} of {n:,} and {second} of {m:,}"] = compute_share_of_hits(
            is_inside((interval.low, interval.high), 100 * (first - second)) for interval in ones
        )
    return shares


def by_day(draws: Draws, runs: int) -> Shares:
    """Days that swing about their mean, on both sides, on one, and on none."""
    shares = {}
    for days, *masses in ((28, 20.0, 20.0), (28, 20.0, None), (60, 8.0, 8.0), (28, None, None)):
        first, second = (f"Beta of mass {mass:.0f}" if mass else "one share" for mass in masses)
        shares[f"{days} days, {first} against {second}"] = compute_share_of_hits(
            _simulate_swing(draws, days, masses) for _ in range(runs)
        )
    return shares


def _simulate_swing(draws: Draws, days: int, masses: Sequence[float | None]) -> bool:
    first, second = (_days(draws, days, 0.3, mass) for mass in masses)
    change = compute_difference_by_day(*first, *second)
    return is_inside((change.low, change.high), 0.0)


def _days(draws: Draws, days: int, rate: float, mass: float | None) -> tuple[Floats, Floats]:
    sizes = draws.integers(60, 141, days)
    rates = rate if mass is None else draws.beta(rate * mass, (1 - rate) * mass, days)
    return draws.binomial(sizes, rates).astype(float), sizes.astype(float)


def anchored(draws: Draws, runs: int) -> Shares:
    """The share of conflicts that people take over."""
    shares = {}
    for n, agreement, share in ((500, 0.85, 0.35), (2000, 0.95, 0.2), (300, 0.8, 0.0)):
        blind = draws.binomial(n, agreement, runs)
        successes = draws.binomial(n, agreement + (1 - agreement) * share, runs)
        ones = (
            compute_adoption(ComparedSide(float(a), n, n), ComparedSide(float(b), n, n))
            for a, b in zip(blind, successes, strict=True)
        )
        shares[f"n {n:,} each, agreement {agreement}, taken over {share}"] = compute_share_of_hits(
            is_inside((interval.low, interval.high), share) for interval in ones
        )
    return shares


def every_look(draws: Draws, runs: int) -> Shares:
    """Bounds that decide: the share of whole histories in which no look is ever wrong."""
    shares = {}
    for rate in (0.9, 0.95, 0.99):
        agreed = np.cumsum(draws.random((runs, 2000)) < rate, axis=1)
        looks = np.unique(np.geomspace(1, 2000, 60).astype(int))
        s = agreed[:, looks - 1]
        lows = compute_lower_bounds(s.ravel(), (looks - s).ravel(), alpha=0.05).reshape(s.shape)
        shares[f"share {rate}, 60 looks up to 2,000"] = float((lows <= rate).all(axis=1).mean())
    levels, chances = np.array([0.0, 0.25, 1.0]), np.array([0.95, 0.04, 0.01])
    drawn = draws.choice(3, (runs, 1000), p=chances)
    looks = np.unique(np.geomspace(5, 1000, 12).astype(int))
    counts = np.stack([(drawn == level).cumsum(axis=1)[:, looks - 1] for level in range(3)], axis=2)
    highs = compute_cost_bounds(counts.reshape(-1, 3), tuple(levels), alpha=0.05)
    covers = highs.reshape(runs, len(looks)) >= chances @ levels
    shares["mean cost, 12 looks up to 1,000"] = float(covers.all(axis=1).mean())
    return shares


SIMULATIONS: dict[str, tuple[Callable[[Draws, int], Shares], int]] = {
    "Clopper–Pearson": (proportions, 0),
    "Clopper–Pearson, one-sided": (one_sided, 0),
    "Korn–Graubard, weighted": (weighted, 4000),
    "Korn–Graubard, by unit": (clustered, 4000),
    "Dirichlet posterior": (corrected, 1000),
    "bootstrap over units": (several, 2000),
    "Agresti–Min": (paired, 10_000),
    "Agresti–Min, by unit": (paired_bursts, 4000),
    "Agresti–Caffo": (periods, 10_000),
    "Agresti–Caffo, by day": (by_day, 4000),
    "adopted share": (anchored, 10_000),
    "at every look": (every_look, 2000),
}
"""Each method with its simulation, and how many runs stand in the table; 0: exact."""


def main() -> None:
    """Print the table."""
    for method, (simulate, runs) in SIMULATIONS.items():
        shares = simulate(np.random.default_rng(17), runs)
        print(f"{method} ({f'{runs:,} runs' if runs else 'exact'})")
        for setting, share in shares.items():
            print(f"  {setting:72} {share:.3f}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
