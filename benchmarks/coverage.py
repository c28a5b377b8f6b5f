"""How often each interval of a report covers what is true: statistics.md §17, measured again.

`python benchmarks/coverage.py [METHOD…]` runs each simulation some thousand times and prints a
table, which stands in README.md; `tests/features/reports/test_coverage.py` runs the same ones
fewer times.
"""

import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import binom

from benchmarks.coverage_counts import Draws, Floats, Shares, compute_share_of_hits, is_inside
from benchmarks.coverage_units import audited, clustered, corrected_bursts, paired_bursts
from rollout.features.reports.figures.ratings import RaterAgreement, compute_rater_agreement
from rollout.kernel.statistics.agreement import (
    MIN_RARE_CASES_OF_AC1,
    compute_ac1,
    compute_kappa,
    compute_kappa_and_ac1,
)
from rollout.kernel.statistics.differences import (
    ComparedSide,
    compute_adoption,
    compute_daily_share,
    compute_difference_by_day,
    compute_period_difference,
)
from rollout.kernel.statistics.evidence import compute_cost_bounds, compute_lower_bounds
from rollout.kernel.statistics.intervals import (
    clopper_pearson,
    compute_clustered_share,
    compute_missing_bounds,
    compute_paired_change,
    compute_share,
    compute_upper_bound,
    compute_weighted_share,
)

RATES = (0.5, 0.9, 0.95, 0.99, 0.998)


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


def missing(draws: Draws, runs: int) -> Shares:
    """Bounds over missing decisions, with the truth at either end."""
    shares = {}
    for n, share in ((50, 0.04), (200, 0.05), (1000, 0.03)):
        agreeing = 0.95 * (1 - share)
        counts = draws.multinomial(n, [agreeing, 1 - agreeing - share, share], runs)
        bounds = [
            compute_missing_bounds(compute_share(int(a), int(a + b)), int(u)) for a, b, u in counts
        ]
        for end, truth in (("lower", agreeing), ("upper", agreeing + share)):
            shares[f"n {n:,}, {share:.0%} missing, truth at the {end} end"] = compute_share_of_hits(
                pair is not None and is_inside(pair, truth) for pair in bounds
            )
    return shares


def corrected(draws: Draws, runs: int) -> Shares:
    """Kappa and AC1 of a table, with one label rare, where they are printed."""
    shares = {}
    settings = ((2, 0.02, 1000), (2, 0.05, 300), (2, 0.1, 300), (2, 0.5, 500), (4, 0.05, 500))
    for labels, rare, n in (*settings, (5, 0.01, 500), (10, 0.02, 500)):
        often_each = np.array([rare, *[(1 - rare) / (labels - 1)] * (labels - 1)])
        truth = np.outer(often_each, np.full(labels, 0.08 / (labels - 1)))
        np.fill_diagonal(truth, often_each * 0.92)
        if labels == 2:  # the model finds .85 of the rare label, and is wrong elsewhere as often
            missed = 0.15 * rare
            truth = np.array([[rare - missed, missed], [missed, 1 - rare - missed]])
        tables = draws.multinomial(n, truth.ravel(), runs).reshape(runs, labels, labels)
        pairs = [compute_kappa_and_ac1(table.astype(float)) for table in tables]
        for place, name, whole in (
            (0, "kappa", compute_kappa(truth)),
            (1, "AC1", compute_ac1(truth)),
        ):
            if name == "AC1" and n * (1 - often_each.max()) < MIN_RARE_CASES_OF_AC1:
                continue  # printed for lucky tables only
            ends = [pair[place] for pair in pairs if pair[place].low is not None]
            setting = f"{name}, {labels} labels, the rarest {rare:.0%} of {n:,}"
            shares[setting] = compute_share_of_hits(
                is_inside((interval.low, interval.high), whole or 0.0) for interval in ends
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


def uneven_days(draws: Draws, runs: int) -> Shares:
    """Days that swing, of sizes that differ threefold (log-normal), on both sides."""
    shares = {}
    for days in (7, 14, 28, 60):
        for rate, mass, burst in ((0.3, 20, 1), (0.05, 50, 1), (0.95, 20, 5)):
            name = f"{days} days, share {rate}, Beta of mass {mass}, bursts of {burst}"
            shares[name] = compute_share_of_hits(
                _simulate_uneven(draws, days, rate, mass, burst) for _ in range(runs)
            )
    return shares


def _simulate_uneven(draws: Draws, days: int, rate: float, mass: float, burst: int) -> bool:
    sides = [_draw_uneven_days(draws, days, rate, mass, burst)[:2] for _ in range(2)]
    change = compute_difference_by_day(*sides[0], *sides[1])
    return is_inside((change.low, change.high), 0.0)


def _draw_uneven_days(
    draws: Draws, days: int, rate: float, mass: float, burst: int
) -> tuple[Floats, Floats, Floats]:
    """Return counts, sizes and rates of days whose bursts are all alike."""
    units = np.maximum(1, 100 * np.exp(draws.standard_normal(days)) / burst).astype(int)
    rates = draws.beta(rate * mass, (1 - rate) * mass, days)
    return (draws.binomial(units, rates) * burst).astype(float), units * float(burst), rates


def these_days(draws: Draws, runs: int) -> Shares:
    """Shares over days that swing: against the mean of the days that they are from."""
    designs = _simulate_shares_of_days(draws, runs)
    return {name: float(np.mean([of_these for of_these, _ in hits])) for name, hits in designs}


def other_days(draws: Draws, runs: int) -> Shares:
    """The same against the mean of all days to come, which no method promises."""
    designs = _simulate_shares_of_days(draws, runs)
    return {name: float(np.mean([of_all for _, of_all in hits])) for name, hits in designs}


def _simulate_shares_of_days(
    draws: Draws, runs: int
) -> Iterator[tuple[str, list[tuple[bool, bool]]]]:
    for days, rate, mass, burst in (
        (14, 0.95, 20, 1),
        (28, 0.95, 50, 1),
        (90, 0.99, 50, 1),
        (28, 0.9, 50, 5),
        (90, 0.95, 50, 5),
    ):
        hits = []
        for _ in range(runs):
            counts, sizes, rates = _draw_uneven_days(draws, days, rate, mass, burst)
            units = (sizes / burst).astype(int)
            right = np.repeat(
                [burst, 0], [int(counts.sum()) // burst, int(units.sum() - counts.sum() // burst)]
            )
            share = compute_clustered_share(right, np.full(len(right), burst))
            ends = (share.low, share.high)
            these = float(sizes @ rates / sizes.sum())
            hits.append((is_inside(ends, these), is_inside(ends, rate)))
        yield f"{days} days, share {rate}, Beta of mass {mass}, bursts of {burst}", hits


def few_days(draws: Draws, runs: int) -> Shares:
    """Few days of 100 cases, alone and against thirty, where the daily share is .8 ± .1."""
    shares = {}
    for days in (3, 4, 5, 10):
        for swing in (0.1, 0.0):
            kind = "swinging" if swing else "one share"
            hits = [_simulate_few_days(draws, days, swing) for _ in range(runs)]
            shares[f"{days} days alone, {kind}"] = float(np.mean([alone for alone, _ in hits]))
            shares[f"{days} days against 30, {kind}"] = float(np.mean([both for _, both in hits]))
    return shares


def _simulate_few_days(draws: Draws, days: int, swing: float) -> tuple[bool, bool]:
    first, second = (
        draws.binomial(100, draws.uniform(0.8 - swing, 0.8 + swing, count)) for count in (days, 30)
    )
    alone = compute_daily_share(first, np.full(days, 100))
    change = compute_difference_by_day(first, np.full(days, 100), second, np.full(30, 100))
    return is_inside((alone.low, alone.high), 0.8), is_inside((change.low, change.high), 0.0)


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
    "Korn–Graubard, by unit": (clustered, 2000),
    "Korn–Graubard, audits by unit": (audited, 2000),
    "missing decisions": (missing, 4000),
    "Dirichlet posterior": (corrected, 4000),
    "Dirichlet posterior, by unit": (corrected_bursts, 4000),
    "bootstrap over units": (several, 4000),
    "Agresti–Min": (paired, 10_000),
    "Agresti–Min, by unit": (paired_bursts, 4000),
    "Agresti–Caffo": (periods, 10_000),
    "Agresti–Caffo, by day": (by_day, 10_000),
    "Agresti–Caffo, uneven days": (uneven_days, 4000),
    "Agresti–Caffo, few days": (few_days, 10_000),
    "Clopper–Pearson, of these days": (these_days, 2000),
    "adopted share": (anchored, 10_000),
    "at every look": (every_look, 2000),
}
"""Each method with its simulation, and how many runs stand in the table; 0: exact."""


NOT_PROMISED = {"Clopper–Pearson, of all days": (other_days, 2000)}
"""What a reader could take an interval for; it stands in the table too."""


def main() -> None:
    """Print the table, or the rows of the named methods."""
    for method, (simulate, runs) in {**SIMULATIONS, **NOT_PROMISED}.items():
        if sys.argv[1:] and method not in sys.argv[1:]:
            continue
        shares = simulate(np.random.default_rng(17), runs)
        print(f"{method} ({f'{runs:,} runs' if runs else 'exact'})")
        for setting, share in shares.items():
            print(f"  {setting:72} {share:.3f}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
