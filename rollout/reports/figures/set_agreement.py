"""Agreement on sets of labels from counted pairs: equal sets, and alpha by MASI distance."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.kernel.units import FAILED
from rollout.reports.figures.confusion import (
    LabelFigures,
    compute_set_label_figures_from_counts,
)
from rollout.reports.figures.ratings import (
    DISAGREEMENT,
    FIXED_COLUMNS,
    RATINGS,
    compute_distance_alphas,
)
from rollout.reports.inputs.counted import count_set_labels, count_wrong_sets
from rollout.reports.statistics.chance_agreement import AgreementCoefficient, build_generator
from rollout.reports.statistics.effective_number import compute_freedom
from rollout.reports.statistics.intervals import Share, compute_share
from rollout.reports.statistics.set_distances import compare_sets
from rollout.reports.statistics.unit_bootstrap import (
    MAX_NUMBERS_IN_MEMORY,
    RESAMPLES,
    BootstrapSums,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MAX_SETS = 4_000
TOO_MANY_SETS = f"more than {MAX_SETS:,} different sets"


@dataclass(frozen=True, slots=True)
class SetAgreement:
    """How far the sets of humans and of a version agree.

    Attributes:
        version: None if the pairs have none.
        overlap: Jaccard index from which sets agree.
        equal: pairs whose sets are equal.
        alpha: Krippendorff's alpha by MASI distance, over independent pairs.
        wrong_human, wrong_model: answers that are no sets of the labels; failed predictions aside.
    """

    version: str | None
    overlap: float
    equal: Share
    alpha: AgreementCoefficient
    wrong_human: int
    wrong_model: int


def compute_set_agreement_of_counts(
    table: pl.DataFrame, version: str | None, lever: Lever
) -> SetAgreement:
    """Return the agreement of one version.

    `table` has version, human, model and n; a null human answer is a case without one, a null
    answer of the model a failed prediction.
    """
    own = table.filter(pl.col("version").eq_missing(pl.lit(version, pl.String)))
    reviewed = own.drop_nulls("human").with_columns(pl.col("model").fill_null(FAILED))
    counts = reviewed.group_by("human", "model").agg(pl.col("n").sum()).sort("human", "model")
    equal = counts.filter(pl.col("human") == pl.col("model"))
    return SetAgreement(
        version=version,
        overlap=lever.overlap,
        equal=compute_share(int(equal["n"].sum()), int(counts["n"].sum())),
        alpha=compute_set_pair_alpha(counts),
        wrong_human=count_wrong_sets(own, "human", lever),
        wrong_model=count_wrong_sets(own, "model", lever),
    )


def compute_set_labels(
    table: pl.DataFrame, version: str | None, lever: Lever
) -> tuple[LabelFigures, ...]:
    """Return recall and precision of each label of one version; `table` is as above."""
    own = table.filter(pl.col("version").eq_missing(pl.lit(version, pl.String)))
    reviewed = own.drop_nulls("human").with_columns(pl.col("model").fill_null(FAILED))
    unreviewed = count_set_labels(own.filter(pl.col("human").is_null()))
    return compute_set_label_figures_from_counts(reviewed, lever.labels, unreviewed)


@dataclass(frozen=True)
class _UnitKinds:
    """Units with equal pairs of sets together; the arrays of a row are sorted by pair.

    Attributes:
        times: number of units of each kind.
        kind, pair, count: how often each kind has each pair, one row for each.
    """

    times: Ints
    kind: Ints
    pair: Ints
    count: Ints

    def weigh_pairs(self, times: Ints) -> Ints:
        """Return how often each pair occurs with so many units of each kind, (samples, pairs)."""
        starts = np.flatnonzero(np.diff(self.pair, prepend=-1))
        return np.add.reduceat(times[:, self.kind] * self.count, starts, axis=1)


def compute_set_pair_alpha(counts: pl.DataFrame) -> AgreementCoefficient:
    """Return alpha by MASI distance of independent pairs: columns human, model (sets) and n.

    Source: Passonneau, Proceedings of LREC (2006) 831.
    """
    rows = np.arange(counts.height)
    times = counts["n"].to_numpy().astype(np.int64)
    return _compute_set_alpha(counts, _UnitKinds(times, rows, rows, np.ones_like(rows)))


def compute_set_unit_alpha(pairs: pl.DataFrame) -> AgreementCoefficient:
    """Return alpha by MASI distance of pairs: columns human, model (sets) and unit.

    Units are resampled whole. If each has one pair, it is `compute_set_pair_alpha`.
    """
    counts = pairs.group_by("human", "model").agg(n=pl.len()).sort("human", "model")
    if pairs["unit"].n_unique() == pairs.height:
        return compute_set_pair_alpha(counts)
    coded = pairs.join(counts.with_row_index("pair"), on=["human", "model"])
    by_unit = coded.group_by("unit", "pair").agg(count=pl.len()).sort("unit", "pair")
    units = by_unit.group_by("unit", maintain_order=True).agg("pair", "count")
    kinds = units.group_by("pair", "count").agg(times=pl.len()).sort("pair", "count")
    rows = kinds.with_row_index("kind").explode("pair", "count").sort("pair", "kind")
    arrays = (rows[name].to_numpy().astype(np.int64) for name in ("kind", "pair", "count"))
    return _compute_set_alpha(
        counts, _UnitKinds(kinds["times"].to_numpy().astype(np.int64), *arrays)
    )


def _compute_set_alpha(pairs: pl.DataFrame, units: _UnitKinds) -> AgreementCoefficient:
    """Return alpha of the distinct pairs of `pairs`, as often as units have them."""
    texts = sorted({*pairs["human"], *pairs["model"]})
    weights = units.weigh_pairs(units.times[None, :]) if texts else np.zeros((1, 0), np.int64)
    n = int(weights.sum())
    if len(texts) > MAX_SETS:
        return AgreementCoefficient(None, None, None, n, TOO_MANY_SETS)
    distances, _ = compare_sets(texts, 1.0)
    codes = {text: code for code, text in enumerate(texts)}
    human, model = (
        np.array([codes[text] for text in pairs[side]], dtype=np.int64)
        for side in ("human", "model")
    )
    total = _sum_pairs(weights, human, model, distances)
    samples = [_sum_pairs(sample, human, model, distances) for sample in _resample_units(units, n)]
    figure = partial(compute_distance_alphas, distances=distances)
    sizes = np.bincount(units.kind, units.count).astype(float)
    freedom = compute_freedom(sizes, units.times) if n else 0.0
    sums = BootstrapSums(
        total, np.concatenate([total[:0], *samples]), int(units.times.sum()), freedom
    )
    return sums.compute_interval(figure, n)


def _resample_units(units: _UnitKinds, n: int) -> Iterator[Ints]:
    """Yield how often bootstrap samples of units have each pair; the seed is a hash of them."""
    if not n:
        return
    seed = np.column_stack([units.kind, units.pair, units.count, units.times[units.kind]])
    generator, unit_count = build_generator(seed.astype(float)), int(units.times.sum())
    size = max(1, min(RESAMPLES, MAX_NUMBERS_IN_MEMORY // len(units.pair)))
    for start in range(0, RESAMPLES, size):
        part = min(size, RESAMPLES - start)
        times = generator.multinomial(unit_count, units.times / unit_count, part)
        yield units.weigh_pairs(times)


def _sum_pairs(times: Ints, human: Ints, model: Ints, distances: Floats) -> Floats:
    """Return the sums of `rollout.reports.figures.ratings` that alpha needs, one row a sample."""
    sets = len(distances)
    sums = np.zeros((len(times), FIXED_COLUMNS + 2 * sets))
    sums[:, RATINGS] = 2 * times.sum(axis=1)
    sums[:, DISAGREEMENT] = 2 * (times @ distances[human, model])
    for codes in (human, model):
        for row, weights in zip(sums, times, strict=True):
            row[FIXED_COLUMNS : FIXED_COLUMNS + sets] += np.bincount(codes, weights, sets)
    return sums
