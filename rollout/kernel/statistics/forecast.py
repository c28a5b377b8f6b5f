"""Forecasts and simulated openings of gates, for display only: no decision uses them.

How often a grant is renewed follows from the exact law of its audits. A renewal is due in the last
fifth of a grant and needs E >= 1 at any look there. So a cell is renewed if its agreements reach
the threshold's table at any number of audits from four fifths on.

A run draws the true shares of the condition's classes from their posterior, the Dirichlet
distribution with a prior of one record in all (Jeffreys 1946 for two classes; Perks 1947 for more),
then draws further records with these shares and reads the condition at growing numbers of them. So
the times contain both what is not known about the shares and the luck of the records to come. The
same counts give the same times: the generator starts from a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import count
from math import ceil, inf, log
from typing import TYPE_CHECKING, Final

from rollout.kernel.arrays import Bools, Floats, Ints, np, scipy
from rollout.kernel.statistics.detector import compute_agreement_log_factors
from rollout.kernel.statistics.evidence import check_inside_unit, count_further_agreements
from rollout.kernel.statistics.gate_thresholds import compute_least_successes, get_gate_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


# Records that a forecast looks ahead; what takes longer has no date.
_HORIZON = 100_000
# Thresholds computed at once; a walk seldom needs more.
_BLOCK_SIZE = 256
# A walk ignores rarer outcomes.
_NEGLIGIBLE_CHANCE = 1e-15

# Walks that are simulated, and the most records of each.
_WALKS, _MAX_WALK = 1_000, 20_000

# The mean of the eight sums reaches the alarm when its largest is about 2.5 times as high: about
# three of the eight are then of its size. This number is fitted to simulated delays, which come
# out within 8 % (13 % for falls by 3 points or less).
_LARGEST_OF_MEAN = 2.5
_GRID_SIZE = 200


@dataclass(frozen=True, slots=True)
class OpeningForecast:
    """Further records until a gate first opens.

    Attributes:
        chance: of opening within the horizon.
        mean: records until then; None if more than one run in a million takes longer than the
            horizon.
        median: half of the runs have opened by then; None beyond the horizon.
        ninety: 90 % of the runs have; None likewise.
    """

    chance: float
    mean: float | None
    median: int | None
    ninety: int | None


@dataclass(frozen=True, slots=True)
class GateForecast:
    """Forecast of a gate that is not open yet.

    Attributes:
        if_all_agree: records still needed if every one of them agrees.
        probability_below: chance that the true share lies below the threshold.
        opening: distribution of the further records at the present share; None without records and
            if `probability_below` is above ½.
    """

    if_all_agree: int
    probability_below: float
    opening: OpeningForecast | None


def forecast_gate(agreed: int, disagreed: int, *, at_least: float, alpha: float) -> GateForecast:
    """Return what a gate still needs, and when it may open.

    The forecast assumes that the present share continues.

    Args:
        agreed: records in agreement so far, ≥ 0.
        disagreed: all others, ≥ 0.
        at_least: the threshold, in the open interval (0, 1).
        alpha: the gate's risk, in the open interval (0, 1).

    Raises:
        ValueError: a count, the threshold or the risk lies outside its range.

    >>> forecast_gate(98, 2, at_least=0.95, alpha=0.05).opening.median
    184
    """
    needed_records = count_further_agreements(agreed, disagreed, at_least=at_least, alpha=alpha)
    probability_below = float(scipy.special.betainc(agreed + 0.5, disagreed + 0.5, at_least))
    if agreed + disagreed == 0 or probability_below > 0.5:
        return GateForecast(needed_records, probability_below, None)
    rate = agreed / (agreed + disagreed)
    law = forecast_opening(rate, at_least=at_least, alpha=alpha, agreed=agreed, disagreed=disagreed)
    return GateForecast(needed_records, probability_below, law)


def forecast_opening(
    rate: float,
    *,
    at_least: float,
    alpha: float,
    agreed: int = 0,
    disagreed: int = 0,
    horizon: int = _HORIZON,
) -> OpeningForecast:
    """Return the exact distribution of the records until a gate opens.

    Args:
        rate: the true share of agreement, in [0, 1].
        at_least: the threshold, in the open interval (0, 1).
        alpha: the gate's risk, in the open interval (0, 1).
        agreed: records in agreement at the start.
        disagreed: all others at the start.
        horizon: further records looked at.

    Raises:
        ValueError: `rate`, the threshold or the risk lies outside its range.

    >>> forecast_opening(0.98, at_least=0.95, alpha=0.05).median
    249
    """
    check_inside_unit(at_least=at_least, alpha=alpha)
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}; give a share in [0, 1]")
    walk = _walk_to_opening(
        # with a share of 0 it opens now or never: 90,000 steps at a low threshold say no more
        _list_opening_times(agreed, disagreed, at_least, alpha, horizon if rate else 0),
        1 - rate,
    )
    times, masses = np.array(walk).reshape(-1, 2).T
    opened_chance = np.cumsum(masses)
    chance = min(1.0, float(masses.sum()))
    mean = float(masses @ times / chance) if chance > 1 - 1e-6 else None
    return OpeningForecast(
        chance,
        mean,
        _find_quantile(times, opened_chance, 0.5),
        _find_quantile(times, opened_chance, 0.9),
    )


@lru_cache(maxsize=256)
def estimate_fresh_records(rate: float, fresh: int, *, at_least: float, alpha: float) -> int | None:
    """Return the further records until a gate is met with its next `fresh` records, too.

    It is a difference of medians of simulated walks, always the same ones; None if half of the
    walks take longer than the forecast looks ahead.
    """
    forecast = forecast_opening(round(rate, 4), at_least=at_least, alpha=alpha)
    if forecast.ninety is None or 2 * forecast.ninety + fresh > _MAX_WALK:
        return None
    length = 2 * forecast.ninety + fresh
    times = np.array(list(_list_opening_times(0, 0, at_least, alpha, length)))
    most_failures = np.searchsorted(times, np.arange(1, length + 1), side="right") - 1
    failures = np.random.default_rng(0).random((_WALKS, length)) >= rate
    is_met = np.cumsum(failures, axis=1) <= most_failures
    both = is_met[:, : length - fresh] & is_met[:, fresh:]
    medians = [float(np.median(np.where(m.any(1), m.argmax(1), length))) for m in (is_met, both)]
    return max(0, round(medians[1] - medians[0])) if medians[1] < length - fresh else None


def _list_opening_times(
    agreed: int, disagreed: int, at_least: float, alpha: float, horizon: int
) -> Iterator[int]:
    """Yield after how many records 0, 1, … further failures still open the gate."""
    threshold = get_gate_threshold(at_least, alpha)
    for start in count(0, _BLOCK_SIZE):
        failures = np.arange(start, start + _BLOCK_SIZE)
        times = threshold.find_least_successes(failures + disagreed) - agreed + failures
        yield from np.maximum(times[times <= horizon], 0).tolist()
        if times[-1] > horizon:
            return


def _walk_to_opening(times: Iterator[int], failure_rate: float) -> list[tuple[int, float]]:
    """Return the chance that a walk is first absorbed at each time.

    It has failed 0, 1, … times by then. Between two times nothing can be absorbed, so the walk
    jumps from one to the next.
    """
    absorbed = []
    alive, fewest, now = np.ones(1), 0, 0
    for failures, time in enumerate(times):
        alive = np.convolve(alive, _compute_failure_chances(time - now, failure_rate))
        absorbed_count = 1 if fewest == failures else 0
        absorbed.append((time, float(alive[0]) if absorbed_count else 0.0))
        alive, trimmed_count = _trim_chances(alive[absorbed_count:])
        fewest, now = fewest + absorbed_count + trimmed_count, time
        if alive.sum() < _NEGLIGIBLE_CHANCE:
            break
    return absorbed


@lru_cache(maxsize=4096)
def _compute_failure_chances(records: int, failure_rate: float) -> Floats:
    """Return the binomial chances of 0, 1, … failures."""
    k = np.arange(records + 1.0)
    gammaln, xlogy = scipy.special.gammaln, scipy.special.xlogy
    ways = gammaln(records + 1) - gammaln(k + 1) - gammaln(records - k + 1)
    return np.exp(ways + xlogy(k, failure_rate) + xlogy(records - k, 1 - failure_rate))


def _trim_chances(chances: Floats) -> tuple[Floats, int]:
    """Return the chances without negligible ends, and how many were cut in front."""
    is_relevant = (chances > _NEGLIGIBLE_CHANCE * 1e-3).tobytes()  # sought as bytes: thrice as fast
    first = is_relevant.find(1)
    if first < 0:
        return np.zeros(0), 0
    return chances[first : is_relevant.rfind(1) + 1], first


def _find_quantile(times: Floats, opened_chance: Floats, share: float) -> int | None:
    position = int(np.searchsorted(opened_chance, share))
    return int(times[position]) if position < len(times) else None


def estimate_detection_records(
    reference: float, false_alarm_every: float, share_after_fall: float
) -> float:
    """Return the mean records until `Detector` alarms after a fall.

    The detector starts fresh, with buckets of one record; larger buckets add about half a bucket.
    One of the eight sums leads when the mean reaches the alarm. Its mean time to get there is exact
    up to a grid; the quickest of the eight counts.

    Args:
        reference: the guard's threshold, in the open interval (0, 1).
        false_alarm_every: records between false alarms, ≥ 1.
        share_after_fall: share of agreement after the fall, in [0, reference).

    Raises:
        ValueError: an argument lies outside its range.

    >>> round(estimate_detection_records(0.98, 10_000, 0.9))
    88
    """
    if not 0 <= share_after_fall < reference:
        raise ValueError(
            f"share_after_fall is {share_after_fall}; give a share in [0, reference {reference})"
        )
    if not false_alarm_every >= 1:
        raise ValueError(f"false_alarm_every is {false_alarm_every}; give records ≥ 1")
    good, bad = compute_agreement_log_factors([1, 0], [1, 1], reference=reference)
    top = log(_LARGEST_OF_MEAN * false_alarm_every)
    return min(
        _estimate_mean_records(((share_after_fall, g), (1 - share_after_fall, b)), top)
        for g, b in zip(good, bad, strict=True)
    )


def _estimate_mean_records(steps: Sequence[tuple[float, float]], top: float) -> float:
    """Return the mean records until one sum reaches `top`.

    The sum is R ← F·(R + 1), from 0; it reaches the top when ln R ≥ top. `steps` are the chances of
    each ln F.
    """
    grid = np.linspace(min(step for _, step in steps), top, _GRID_SIZE)
    stay_weights = sum(chance * _build_landing_weights(grid, step) for chance, step in steps)
    mean_records = np.linalg.solve(np.eye(_GRID_SIZE) - stay_weights, np.ones(_GRID_SIZE))
    return 1 + sum(
        chance * float(np.interp(step, grid, mean_records, right=0)) for chance, step in steps
    )


def _build_landing_weights(grid: Floats, step: float) -> Floats:
    """Return the weights of the grid points around each landing.

    Landings that alarm have none.
    """
    landings = np.logaddexp(grid, 0) + step
    positions = (landings - grid[0]) / (grid[1] - grid[0])
    left_index = np.clip(positions.astype(int), 0, len(grid) - 2)
    weights = np.zeros((len(grid), len(grid)))
    rows = np.arange(len(grid))
    weights[rows, left_index], weights[rows, left_index + 1] = (
        1 - (positions - left_index),
        positions - left_index,
    )
    weights[landings >= grid[-1]] = 0
    return weights


def estimate_harm(
    share_after_fall: float,
    *,
    records: float,
    audited: float,
    cases_per_hour: float,
    hours_late: float,
) -> float:
    """Return the wrong actions to expect between a fall and the narrowing.

    Args:
        share_after_fall: share of right actions after the fall, in [0, 1].
        records: audited records until the alarm, such as `estimate_detection_records`.
        audited: share of cases that are audited, in (0, 1].
        cases_per_hour: cases that the model decides, ≥ 0.
        hours_late: how long a decision takes, ≥ 0.

    Raises:
        ValueError: `share_after_fall` or `audited` lies outside its range.

    >>> round(estimate_harm(0.9, records=85, audited=0.05, cases_per_hour=40, hours_late=2), 6)
    178.0
    """
    if not 0 <= share_after_fall <= 1:
        raise ValueError(f"share_after_fall is {share_after_fall}; give a share in [0, 1]")
    if not 0 < audited <= 1:
        raise ValueError(f"audited is {audited}; give a share in (0, 1]")
    return (1 - share_after_fall) * (records / audited + cases_per_hour * hours_late)


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
    counts: Sequence[int], shares: Floats, are_met: Callable[[Ints], Bools]
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
def _list_looks() -> Ints:
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
