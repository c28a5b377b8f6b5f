"""Agreement of several reviewers of one case: pairwise, alpha, AC1 and Fleiss' kappa.

The input is the number of times that each value was given to each case, so the cost does not
depend on the number of reviewers. All figures follow from sums over cases, and their intervals from
bootstrap samples of those of units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from rollout.kernel.arrays import Floats, Ints
from rollout.kernel.statistics.agreement import (
    AgreementCoefficient,
    BootstrapSums,
    resample_units,
)
from rollout.kernel.statistics.intervals import (
    Share,
    WeightedShare,
    compute_clustered_share,
    compute_share,
    compute_weighted_share,
)

(
    CASES,
    AGREEING_SHARE,
    DISAGREEMENT,
    SQUARED_GAPS,
    RATINGS,
    NUMBER_SUM,
    SQUARE_SUM,
    FIXED_COLUMNS,
) = range(8)


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """Agreement among reviewers on cases with several decisions.

    Also used for the agreement of a model with one random reviewer of each case.

    Attributes:
        cases, decisions: cases with several decisions, and their decisions.
        pairs: share of agreeing pairs of decisions; every pair has the same weight.
        pairwise, random: mean over cases of the share of agreeing pairs (two random reviewers of a
            random case), without and with its interval.
        alpha: Krippendorff's alpha: nominal for labels, by squared gaps for numbers, by MASI
            distance for sets of labels.
        ac1: Gwet's AC1 over the values in use. None for numbers and sets.
        fleiss: Fleiss' kappa, extended to unequal numbers of decisions. None for numbers and sets.
    """

    cases: int
    decisions: int
    pairs: Share
    pairwise: float | None
    random: WeightedShare
    alpha: AgreementCoefficient
    ac1: AgreementCoefficient | None
    fleiss: AgreementCoefficient | None


def compute_rater_agreement(values: Ints, units: Ints) -> RaterAgreement:
    """Return the agreement of reviewers on labels.

    Args:
        values: how often each value was given to each case, shape (cases, values); cases with
            fewer than two decisions are excluded.
        units: number of each case's unit, shape (cases,); resampled whole.

    >>> found = compute_rater_agreement(np.array([[2, 0], [1, 1], [0, 2]]), np.arange(3))
    >>> found.pairs.count, found.pairs.n, round(found.alpha.value, 4)
    (2, 3, 0.4444)
    """
    is_multi_rated = values.sum(axis=1) >= 2
    values, units = values[is_multi_rated], units[is_multi_rated]
    values = values[:, values.any(axis=0)]
    rating_counts = values.sum(axis=1)
    agreeing = (values * (values - 1)).sum(axis=1) // 2
    return _build_agreement(
        compute_label_parts(values),
        _compute_pair_share(agreeing, rating_counts * (rating_counts - 1) // 2, units),
        units,
        int(rating_counts.sum()),
    )


def compute_set_agreement(
    values: Ints, distances: Floats, agreements: Floats, units: Ints
) -> RaterAgreement:
    """Return the agreement of reviewers on sets of labels; alpha weighs how far sets differ.

    Args:
        values: how often each set was given to each case, shape (cases, sets), each at least twice.
        distances: of each pair of sets, in [0, 1], shape (sets, sets).
        agreements: 1 where two sets agree, else 0, shape (sets, sets).
        units: number of each case's unit.

    Source: Passonneau, Proceedings of LREC (2006) 831; Krippendorff, Content Analysis (2004),
    chapter 11.
    """
    counts = values.astype(float)
    parts, rating_counts = compute_label_parts(values), values.sum(axis=1)
    agreeing = ((counts @ agreements) * counts).sum(axis=1) - rating_counts
    pairs = rating_counts * (rating_counts - 1)
    parts[:, AGREEING_SHARE] = agreeing / np.maximum(pairs, 1)
    parts[:, DISAGREEMENT] = ((counts @ distances) * counts).sum(axis=1) / np.maximum(
        rating_counts - 1, 1
    )
    share = _compute_pair_share(agreeing.astype(np.int64) // 2, pairs // 2, units)
    alpha = partial(compute_distance_alphas, distances=distances)
    return _build_agreement(parts, share, units, int(rating_counts.sum()), alpha)


def compute_number_agreement(
    rating_counts: Ints, sums: Floats, squares: Floats, agreeing: Ints, units: Ints
) -> RaterAgreement:
    """Return the agreement of reviewers on numbers.

    Args:
        rating_counts: decisions on each case, shape (cases,), at least 2.
        sums: sum of the numbers given to each case.
        squares: sum of their squares.
        agreeing: pairs of decisions within the tolerance, per case.
        units: number of each case's unit.
    """
    parts = np.zeros((len(rating_counts), FIXED_COLUMNS))
    pairs = rating_counts * (rating_counts - 1) // 2
    gaps = 2 * (rating_counts * squares - sums**2) / np.maximum(rating_counts - 1, 1)
    parts[:, CASES], parts[:, AGREEING_SHARE] = 1, agreeing / np.maximum(pairs, 1)
    parts[:, SQUARED_GAPS], parts[:, RATINGS], parts[:, NUMBER_SUM], parts[:, SQUARE_SUM] = (
        gaps,
        rating_counts,
        sums,
        squares,
    )
    return _build_agreement(
        parts,
        _compute_pair_share(agreeing, pairs, units),
        units,
        int(rating_counts.sum()),
        compute_number_alphas,
    )


def compute_model_agreement(
    values: Ints, model: Ints, units: Ints, comparison: tuple[Floats, Floats] | None = None
) -> RaterAgreement:
    """Return the agreement of a model with one random reviewer of each case.

    Args:
        values: how often reviewers gave each value to each case, shape (cases, values), each case
            at least once.
        model: number of the value that the model gave, shape (cases,).
        units: number of each case's unit.
        comparison: of sets, their distances and agreements as for `compute_set_agreement`.
    """
    cases, rating_counts = np.arange(len(values)), values.sum(axis=1)
    counts, alpha = values / rating_counts[:, None], compute_alphas
    if comparison is None:
        matching = values[cases, model]
        disagreement = 2 * (1 - matching / rating_counts)
    else:
        distances, agreements = comparison
        matching = (values * agreements[model]).sum(axis=1).astype(np.int64)
        disagreement = 2 * (counts * distances[model]).sum(axis=1)
        alpha = partial(compute_distance_alphas, distances=distances)
    counts[cases, model] += 1
    fixed = np.zeros((len(values), FIXED_COLUMNS))
    fixed[:, CASES], fixed[:, RATINGS] = 1, 2
    fixed[:, AGREEING_SHARE], fixed[:, DISAGREEMENT] = matching / rating_counts, disagreement
    parts = np.concatenate([fixed, counts, counts / 2], axis=1)
    share = _compute_pair_share(matching, rating_counts, units)
    return _build_agreement(parts, share, units, int(rating_counts.sum()), alpha)


def compute_pair_alpha(human: Ints, model: Ints, units: Ints, labels: int) -> AgreementCoefficient:
    """Return alpha of one human label and one model label for each case.

    Args:
        human: code of the human label of each case, shape (cases,).
        model: code of the model's label.
        units: number of each case's unit.
        labels: how many labels there are.
    """
    cells = pl.DataFrame({"unit": units, "human": human, "model": model})
    columns = ["unit", "human", "model"] if _has_bursts(units) else ["human", "model"]
    counts = cells.group_by(columns).len().sort(columns)
    case_counts = counts["len"].to_numpy().astype(float)
    sides = [counts[name].to_numpy() for name in ("human", "model")]
    parts = np.zeros((len(case_counts), FIXED_COLUMNS + 2 * labels))
    rows = np.arange(len(case_counts))
    for side in sides:
        parts[rows, FIXED_COLUMNS + side] += 1
    parts[:, CASES], parts[:, RATINGS] = 1, 2
    parts[:, DISAGREEMENT] = np.where(sides[0] == sides[1], 0, 2)
    times = case_counts.astype(np.int64)
    if "unit" in columns:
        by_unit = _sum_by_unit(parts * case_counts[:, None], counts["unit"].to_numpy())
        parts, times = _collapse_rows(by_unit)
    return _resample_parts(parts, times).compute_interval(compute_alphas, len(human))


def compute_label_parts(values: Ints) -> Floats:
    """Return the contribution of each case to the sums, shape (cases, FIXED + 2 × values).

    After the fixed columns follow the counts and the shares of each value.
    """
    counts = values.astype(float)
    rating_counts = counts.sum(axis=1)
    parts = np.concatenate(
        [
            np.zeros((len(rating_counts), FIXED_COLUMNS)),
            counts,
            counts / np.maximum(rating_counts, 1)[:, None],
        ],
        axis=1,
    )
    agreeing = (counts**2).sum(axis=1) - rating_counts
    parts[:, CASES], parts[:, RATINGS] = 1, rating_counts
    parts[:, AGREEING_SHARE] = agreeing / np.maximum(rating_counts * (rating_counts - 1), 1)
    parts[:, DISAGREEMENT] = (rating_counts * (rating_counts - 1) - agreeing) / np.maximum(
        rating_counts - 1, 1
    )
    return parts


def compute_alphas(sums: Floats) -> Floats:
    """Return nominal alpha of each row of sums; NaN with a single value."""
    margins, n = _split_margins(sums)[0], sums[:, RATINGS]
    expected = (n**2 - (margins**2).sum(axis=1)) / np.maximum(n - 1, 1)
    return _compute_ratio(sums[:, DISAGREEMENT], expected)


def compute_distance_alphas(sums: Floats, distances: Floats) -> Floats:
    """Return alpha of each row of sums by the distances of values; NaN with a single value."""
    margins, n = _split_margins(sums)[0], sums[:, RATINGS]
    expected = ((margins @ distances) * margins).sum(axis=1) / np.maximum(n - 1, 1)
    return _compute_ratio(sums[:, DISAGREEMENT], expected)


def compute_number_alphas(sums: Floats) -> Floats:
    """Return alpha by squared gaps of each row of sums; NaN if all are equal."""
    n = sums[:, RATINGS]
    expected = 2 * (n * sums[:, SQUARE_SUM] - sums[:, NUMBER_SUM] ** 2) / np.maximum(n - 1, 1)
    return _compute_ratio(
        sums[:, SQUARED_GAPS], np.where(expected > 1e-9 * sums[:, SQUARE_SUM], expected, 0)
    )


def _compute_pairwise(sums: Floats) -> Floats:
    """Return the mean over cases of the share of agreeing pairs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, AGREEING_SHARE] / sums[:, CASES])


def compute_fleiss(sums: Floats) -> Floats:
    """Return Fleiss' kappa of each row of sums.

    Source: Fleiss, Psychological Bulletin 76 (1971) 378; for unequal numbers of decisions Gwet,
    Handbook of Inter-Rater Reliability (2014), chapter 2.
    """
    usage = _compute_usage(sums)
    return _compute_ratio(1 - _compute_pairwise(sums), 1 - (usage**2).sum(axis=1))


def compute_ac1s(sums: Floats) -> Floats:
    """Return Gwet's AC1 of each row of sums, over all values that have a column."""
    usage = _compute_usage(sums)
    values = usage.shape[1]
    chance = (usage * (1 - usage)).sum(axis=1) / (values - 1 if values > 1 else np.nan)
    return _compute_ratio(1 - _compute_pairwise(sums), 1 - chance)


def _split_margins(sums: Floats) -> tuple[Floats, Floats]:
    labels = (sums.shape[1] - FIXED_COLUMNS) // 2
    return sums[:, FIXED_COLUMNS : FIXED_COLUMNS + labels], sums[:, FIXED_COLUMNS + labels :]


def _compute_usage(sums: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(_split_margins(sums)[1] / sums[:, CASES, None])


def _compute_ratio(observed: Floats, expected: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(expected > 0, 1 - observed / expected, np.nan))


def _compute_pair_share(agreeing: Ints, pairs: Ints, units: Ints) -> Share:
    """Return the share of agreeing pairs, its interval over units."""
    if not len(units):
        return compute_share(0, 0)
    _, unit = np.unique(units, return_inverse=True)
    return compute_clustered_share(np.bincount(unit, agreeing), np.bincount(unit, pairs))


def _build_agreement(
    parts: Floats,
    pairs: Share,
    units: Ints,
    decision_count: int,
    alpha: Callable[[Floats], Floats] = compute_alphas,
) -> RaterAgreement:
    n, is_nominal = len(units), alpha is compute_alphas
    bootstrap = _resample_parts(
        *_collapse_rows(_sum_by_unit(parts, units) if _has_bursts(units) else parts)
    )
    mean_share = compute_weighted_share(parts[:, AGREEING_SHARE], np.ones(n), units)
    return RaterAgreement(
        cases=n,
        decisions=decision_count,
        pairs=pairs,
        pairwise=mean_share.rate,
        random=mean_share,
        alpha=bootstrap.compute_interval(alpha, n),
        ac1=bootstrap.compute_interval(compute_ac1s, n) if is_nominal else None,
        fleiss=bootstrap.compute_interval(compute_fleiss, n) if is_nominal else None,
    )


def _resample_parts(parts: Floats, times: Ints) -> BootstrapSums:
    """Return bootstrap samples of units that are this often there."""
    return resample_units(parts, times, sizes=parts[:, CASES])


def _has_bursts(units: Ints) -> bool:
    """Return whether any unit has several cases."""
    return len(np.unique(units)) < len(units)


def _sum_by_unit(parts: Floats, units: Ints) -> Floats:
    """Return the sums of each unit."""
    _, unit = np.unique(units, return_inverse=True)
    sums = np.zeros((int(unit.max(initial=-1)) + 1, parts.shape[1]))
    np.add.at(sums, unit, parts)
    return sums


def _collapse_rows(parts: Floats) -> tuple[Floats, Ints]:
    """Return the distinct rows, sorted, and the count of each."""
    frame = pl.DataFrame(parts, schema=[str(n) for n in range(parts.shape[1])])
    distinct = frame.group_by(frame.columns).len(name="times").sort(frame.columns)
    return distinct.drop("times").to_numpy().astype(float), distinct["times"].to_numpy().astype(
        np.int64
    )
