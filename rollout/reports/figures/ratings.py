"""Agreement where several people judged the same case: pairwise, alpha, AC1 and Fleiss' kappa.

What goes in is the number of times that each value was given to each case. No pair of people is
ever formed, so their number does not matter. All figures follow from sums over cases; the
bootstrap draws units, and units whose sums are alike are drawn together, so that a million cases
with ten labels cost what a few hundred different ones do (statistics.md §9, §17).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.reports.statistics.chance_agreement import AgreementCoefficient, seeded
from rollout.reports.statistics.intervals import (
    Share,
    Weighted,
    clustered_share,
    share,
    weighted_share,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 500
ENOUGH = 1000  # units from which on the bootstrap covers 95 %
AT_ONCE = 2_000_000  # numbers held in memory
EVEN = 1e-12  # draws that differ by less are one
BOOTSTRAP = "bootstrap over units, 95 %"
BOOTSTRAP_FEW = "bootstrap over units, covers about 92 % below 1,000 cases"
NO_SPREAD = "no interval: no two units differ in it"
ONE, MEAN, APART, GAPS, GIVEN, SUM, SQUARES, FIXED = range(8)


@dataclass(frozen=True, slots=True)
class People:
    """How far people agree with each other where several judged the same case.

    The same figures say how far a model agrees with one of them, drawn at random: then its answer
    and theirs, all of them together, are the two verdicts on each case.

    Attributes:
        cases, verdicts: cases that several judged, and their verdicts.
        pairs: pairs of verdicts that agree; every pair weighs the same.
        pairwise, random: the mean over cases of the share of agreeing pairs, without and with its
            interval: two people drawn at random on a case drawn at random, each case as heavy.
        alpha: Krippendorff's, nominal for labels, by squared gaps for numbers.
        ac1: Gwet's; over the values that anybody gave. None for numbers.
        fleiss: Fleiss' kappa, also where cases have different numbers of verdicts. None for
            numbers.
    """

    cases: int
    verdicts: int
    pairs: Share
    pairwise: float | None
    random: Weighted
    alpha: AgreementCoefficient
    ac1: AgreementCoefficient | None
    fleiss: AgreementCoefficient | None


def people(values: Ints, units: Ints) -> People:
    """Return the agreement between people on labels.

    Args:
        values: how often each value was given to each case, shape (cases, values); cases with
            fewer than two verdicts are left out.
        units: number of each case's unit, shape (cases,); resampled whole.

    >>> found = people(np.array([[2, 0], [1, 1], [0, 2]]), np.arange(3))
    >>> found.pairs.count, found.pairs.n, round(found.alpha.value, 4)
    (2, 3, 0.4444)
    """
    is_multi_rated = values.sum(axis=1) >= 2
    values, units = values[is_multi_rated], units[is_multi_rated]
    values = values[:, values.any(axis=0)]
    rating_counts = values.sum(axis=1)
    agreeing, pairs = (
        (values * (values - 1)).sum(axis=1) // 2,
        rating_counts * (rating_counts - 1) // 2,
    )
    return _people(
        label_parts(values), _pairs(agreeing, pairs, units), units, int(rating_counts.sum())
    )


def people_on_numbers(
    m: Ints, sums: Floats, squares: Floats, agreeing: Ints, units: Ints
) -> People:
    """Return the agreement between people on numbers.

    Args:
        m: verdicts on each case, shape (cases,), at least 2.
        sums: of the numbers given to each case.
        squares: of the squares of these.
        agreeing: pairs of people within the tolerance, per case.
        units: number of each case's unit.
    """
    parts = np.zeros((len(m), FIXED))
    pairs = m * (m - 1) // 2
    gaps = 2 * (m * squares - sums**2) / np.maximum(m - 1, 1)
    parts[:, ONE], parts[:, MEAN] = 1, agreeing / np.maximum(pairs, 1)
    parts[:, GAPS], parts[:, GIVEN], parts[:, SUM], parts[:, SQUARES] = gaps, m, sums, squares
    return _people(parts, _pairs(agreeing, pairs, units), units, int(m.sum()), numbers=True)


def model_among(values: Ints, model: Ints, units: Ints) -> People:
    """Return how far a model agrees with one person, drawn at random on each case.

    Args:
        values: how often people gave each value to each case, shape (cases, values), each case
            at least once.
        model: number of the value that the model gave, shape (cases,).
        units: number of each case's unit.
    """
    rating_counts = values.sum(axis=1)
    cases = np.arange(len(values))
    matching = values[cases, model] if len(values) else rating_counts
    rating_shares = values / rating_counts[:, None]
    counts = rating_shares.copy()
    counts[cases, model] += 1
    parts = np.concatenate([np.zeros((len(rating_counts), FIXED)), counts, counts / 2], axis=1)
    parts[:, ONE], parts[:, MEAN], parts[:, GIVEN] = 1, matching / np.maximum(rating_counts, 1), 2
    parts[:, APART] = 2 * (1 - parts[:, MEAN])
    return _people(parts, _pairs(matching, rating_counts, units), units, int(rating_counts.sum()))


def alpha(values: Ints) -> float | None:
    """Return Krippendorff's alpha, nominal, of value counts per case; None where it has no sense.

    Source: Krippendorff, Content Analysis (2004), chapter 11.
    """
    parts = label_parts(values[values.sum(axis=1) >= 2])
    return known(alphas(parts.sum(axis=0, keepdims=True)))


def alpha_of_pairs(human: Ints, model: Ints, units: Ints, labels: int) -> AgreementCoefficient:
    """Return alpha of two sides: each case has one verdict of people and one of the model.

    Args:
        human: number of the label that people gave each case, shape (cases,).
        model: the same of the model.
        units: number of each case's unit.
        labels: how many labels there are.
    """
    cells = pl.DataFrame({"unit": units, "human": human, "model": model})
    columns = ["unit", "human", "model"] if _bursts(units) else ["human", "model"]
    counts = cells.group_by(columns).len().sort(columns)
    case_counts = counts["len"].to_numpy().astype(float)
    sides = [counts[name].to_numpy() for name in ("human", "model")]
    parts = np.zeros((len(case_counts), FIXED + 2 * labels))
    rows = np.arange(len(case_counts))
    for side in sides:
        parts[rows, FIXED + side] += 1
    parts[:, ONE], parts[:, GIVEN] = 1, 2
    parts[:, APART] = np.where(sides[0] == sides[1], 0, 2)
    if "unit" not in columns:
        return resampled(parts, case_counts.astype(np.int64)).interval(alphas, len(human))
    by_unit = _by_unit(parts * case_counts[:, None], counts["unit"].to_numpy())
    return resampled(*_collapsed(by_unit)).interval(alphas, len(human))


def label_parts(values: Ints) -> Floats:
    """Return what each case adds to the sums, shape (cases, FIXED + 2 × values).

    After the fixed columns stand how often each value was given, and in which share.
    """
    counts = values.astype(float)
    rating_counts = counts.sum(axis=1)
    parts = np.concatenate(
        [
            np.zeros((len(rating_counts), FIXED)),
            counts,
            counts / np.maximum(rating_counts, 1)[:, None],
        ],
        axis=1,
    )
    agreeing = (counts**2).sum(axis=1) - rating_counts
    parts[:, ONE], parts[:, GIVEN] = 1, rating_counts
    parts[:, MEAN] = agreeing / np.maximum(rating_counts * (rating_counts - 1), 1)
    parts[:, APART] = (rating_counts * (rating_counts - 1) - agreeing) / np.maximum(
        rating_counts - 1, 1
    )
    return parts


def alphas(sums: Floats) -> Floats:
    """Return nominal alpha of each row of sums; NaN where only one value was ever given."""
    margins, n = _margins(sums)[0], sums[:, GIVEN]
    expected = (n**2 - (margins**2).sum(axis=1)) / np.maximum(n - 1, 1)
    return _ratio(sums[:, APART], expected)


def number_alphas(sums: Floats) -> Floats:
    """Return alpha by squared gaps of each row of sums; NaN where all numbers are the same."""
    n = sums[:, GIVEN]
    expected = 2 * (n * sums[:, SQUARES] - sums[:, SUM] ** 2) / np.maximum(n - 1, 1)
    return _ratio(sums[:, GAPS], np.where(expected > 1e-9 * sums[:, SQUARES], expected, 0))


def _pairwise(sums: Floats) -> Floats:
    """Return the mean over cases of the share of agreeing pairs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, MEAN] / sums[:, ONE])


def fleiss(sums: Floats) -> Floats:
    """Return Fleiss' kappa of each row of sums.

    Source: Fleiss, Psychological Bulletin 76 (1971) 378; for unequal numbers of verdicts Gwet,
    Handbook of Inter-Rater Reliability (2014), chapter 2.
    """
    usage = _used(sums)
    return _ratio(1 - _pairwise(sums), 1 - (usage**2).sum(axis=1))


def ac1s(sums: Floats) -> Floats:
    """Return Gwet's AC1 of each row of sums, over all values that have a column."""
    usage = _used(sums)
    values = usage.shape[1]
    chance = (usage * (1 - usage)).sum(axis=1) / (values - 1 if values > 1 else np.nan)
    return _ratio(1 - _pairwise(sums), 1 - chance)


def _margins(sums: Floats) -> tuple[Floats, Floats]:
    labels = (sums.shape[1] - FIXED) // 2
    return sums[:, FIXED : FIXED + labels], sums[:, FIXED + labels :]


def _used(sums: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(_margins(sums)[1] / sums[:, ONE, None])


def _ratio(seen: Floats, expected: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(expected > 0, 1 - seen / expected, np.nan))


def known(value: Floats) -> float | None:
    """Return the only number of an array, None where it is NaN or there is none."""
    return float(value[0]) if len(value) and not np.isnan(value[0]) else None


def _pairs(agreeing: Ints, pairs: Ints, units: Ints) -> Share:
    """Return the share of agreeing pairs, its interval over units."""
    if not len(units):
        return share(0, 0)
    _, unit = np.unique(units, return_inverse=True)
    return clustered_share(np.bincount(unit, agreeing), np.bincount(unit, pairs))


def _people(
    parts: Floats, pairs: Share, units: Ints, verdicts: int, *, numbers: bool = False
) -> People:
    n = len(units)
    bootstrap = resampled(*_collapsed(_by_unit(parts, units) if _bursts(units) else parts))
    mean_share = weighted_share(parts[:, MEAN], np.ones(n), units)
    return People(
        cases=n,
        verdicts=verdicts,
        pairs=pairs,
        pairwise=mean_share.rate,
        random=mean_share,
        alpha=bootstrap.interval(number_alphas if numbers else alphas, n),
        ac1=None if numbers else bootstrap.interval(ac1s, n),
        fleiss=None if numbers else bootstrap.interval(fleiss, n),
    )


def _bursts(units: Ints) -> bool:
    """Say whether any unit has several cases."""
    return len(np.unique(units)) < len(units)


def _by_unit(parts: Floats, units: Ints) -> Floats:
    """Return the sums of each unit."""
    _, unit = np.unique(units, return_inverse=True)
    sums = np.zeros((int(unit.max(initial=-1)) + 1, parts.shape[1]))
    np.add.at(sums, unit, parts)
    return sums


def _collapsed(parts: Floats) -> tuple[Floats, Ints]:
    """Return the different rows in a fixed order, and how often each is there."""
    frame = pl.DataFrame(parts, schema=[str(n) for n in range(parts.shape[1])])
    distinct = frame.group_by(frame.columns).len(name="times").sort(frame.columns)
    return distinct.drop("times").to_numpy().astype(float), distinct["times"].to_numpy().astype(
        np.int64
    )


@dataclass(frozen=True)
class Resampled:
    """Sums over all units, and over units drawn again, with repetition.

    Attributes:
        whole: sums over all units, shape (1, parts).
        drawn: sums of each draw, shape (RESAMPLES, parts); no rows without units.
        units: how many there are.
    """

    whole: Floats
    drawn: Floats
    units: int

    def interval(self, figure: Callable[[Floats], Floats], cases: int) -> AgreementCoefficient:
        """Return a figure of sums with its bootstrap interval; `cases` is for the report."""
        method = BOOTSTRAP if self.units >= ENOUGH else BOOTSTRAP_FEW
        value = known(figure(self.whole)) if self.units else None
        if value is None:
            return AgreementCoefficient(None, None, None, cases, method)
        values = figure(self.drawn)
        values = values[~np.isnan(values)]
        if not len(values) or values.max() - values.min() < EVEN:
            return AgreementCoefficient(value, None, None, cases, NO_SPREAD)
        low, high = np.quantile(values, [0.025, 0.975])
        return AgreementCoefficient(value, float(low), float(high), cases, method)


def resampled(parts: Floats, times: Ints) -> Resampled:
    """Draw units again.

    Args:
        parts: what different units add to the sums, shape (different, parts).
        times: how many units add each.

    The draws follow from the sums: the same evidence has the same interval.
    """
    units = int(times.sum())
    total = (times @ parts)[None, :]
    if not units:
        return Resampled(total, total[:0], units)
    generator = seeded(np.column_stack([parts, times]))
    block_size = max(1, min(RESAMPLES, AT_ONCE // len(times)))
    sizes = [block_size] * (RESAMPLES // block_size) + [RESAMPLES % block_size] * (
        RESAMPLES % block_size > 0
    )
    samples = [generator.multinomial(units, times / units, size) @ parts for size in sizes]
    return Resampled(total, np.concatenate(samples), units)
