"""Agreement of each version with human decisions, in all and by slice; also on sets and numbers.

Sets of labels: equal sets, and alpha by MASI distance.

Numbers: bias, limits of agreement, concordance, cost by band of the error. They cover the pairs of
`inputs.pairs`. Differences are the model's number minus the human's. Pairs without a number of the
model, or with a number out of the policy's range, are counted as outside the tolerance and are in
no other figure: one typing error would outweigh them all.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import narwhals as nw
import numpy as np
import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.picks import find_cost_row, is_in_range, parse_number
from rollout.features.reports.figures.comparison import (
    ConfusionMatrix,
    LabelFigures,
    PairFigures,
    build_action_matrix,
    build_matrix,
    compute_lever_label_figures,
    compute_set_label_figures_from_counts,
)
from rollout.features.reports.figures.ratings import (
    DISAGREEMENT,
    FIXED_COLUMNS,
    RATINGS,
    compute_distance_alphas,
    compute_pair_alpha,
)
from rollout.features.reports.inputs.pairs import (
    Pairs,
    count_set_labels,
    count_wrong_sets,
    select_pairs,
)
from rollout.kernel.arrays import Floats, Ints
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.agreement import (
    MAX_NUMBERS_IN_MEMORY,
    RESAMPLES,
    AgreementCoefficient,
    BootstrapSums,
    build_generator,
    compare_sets,
    compute_concordance,
    compute_kappa,
    compute_kappa_and_ac1,
    compute_limits,
    compute_mean_estimate,
    find_rare_labels,
)
from rollout.kernel.statistics.intervals import (
    Estimate,
    Share,
    compute_freedom,
    compute_mean_interval,
    compute_missing_bounds,
    compute_share,
    compute_unit_share,
    encode_units,
)
from rollout.kernel.units import FAILED, SEPARATOR, CostRule, Lever, Margin, Number

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
    units = (
        pairs.join(counts.with_row_index("pair"), on=["human", "model"])
        .group_by("unit", "pair")
        .agg(count=pl.len())
        .sort("unit", "pair")
        .group_by("unit", maintain_order=True)
        .agg("pair", "count")
    )
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
        yield units.weigh_pairs(generator.multinomial(unit_count, units.times / unit_count, part))


def _sum_pairs(times: Ints, human: Ints, model: Ints, distances: Floats) -> Floats:
    """Return the sums that alpha needs (`ratings`), one row a sample."""
    sets = len(distances)
    sums = np.zeros((len(times), FIXED_COLUMNS + 2 * sets))
    sums[:, RATINGS] = 2 * times.sum(axis=1)
    sums[:, DISAGREEMENT] = 2 * (times @ distances[human, model])
    for codes in (human, model):
        for row, weights in zip(sums, times, strict=True):
            row[FIXED_COLUMNS : FIXED_COLUMNS + sets] += np.bincount(codes, weights, sets)
    return sums


FIRST_DAY_HOUR, LAST_DAY_HOUR = 6, 17  # hours of the day as written, inclusive


@dataclass(frozen=True, slots=True)
class SliceAgreement:
    """Agreement in one slice of the cases: a site, a window, day or night, a value.

    `cost` is the mean cost of a case, with its 95 % interval; both None without cases, the interval
    also with too few units.
    """

    name: str
    agreement: Share
    kappa: float | None
    cost: float | None
    cost_interval: tuple[float, float] | None = None  # reports sealed before it was computed


@dataclass(frozen=True, slots=True)
class AgreementFigures(PairFigures):
    """The record-level figures of one version on one lever (`*`: all of them together).

    Attributes:
        version, lever: whose answers.
        basis: which cases are counted.
        predicted: cases with a prediction of the version.
        unjudged: those of them with no human label, or several.
        agreement: pairs that agree; for numbers within the tolerance.
        bounds: 95 % interval whatever the unjudged cases would have said.
        kappa, ac1: corrected for chance; None for numbers and sets.
        alpha: Krippendorff's, of sets by MASI distance; None for numbers.
        cost: mean cost of following the model, in the policy's unit.
        labels: figures of each label; empty for numbers.
        label_matrix, action_matrix: humans in rows, the model in columns.
        by_site, by_window: slices by site and by the policy's windows.
        by_day_night: by the hour as written (06:00 to 17:59 is day), in any time zone.
        by_attribute: slices that the policy lists, by attribute.
        assisted: agreement of assisted decisions; never evidence.
    """

    version: str
    lever: str
    basis: str
    predicted: int
    alpha: AgreementCoefficient | None
    by_site: tuple[SliceAgreement, ...]
    by_window: tuple[SliceAgreement, ...]
    by_day_night: tuple[SliceAgreement, ...]
    by_attribute: dict[str, tuple[SliceAgreement, ...]]
    assisted: Share


def compute_agreements(
    pairs: Pairs, assisted_pairs: pl.DataFrame, records: RecordFrames, policy: Policy
) -> tuple[AgreementFigures, ...]:
    """Return the figures of every version and lever, sorted by version.

    `pairs`: unassisted decisions with the model's answers.
    `assisted_pairs`: the rows of `build_assisted_pairs`.
    """
    levers: list[Lever | None] = [*policy.levers]
    if len(levers) > 1:
        levers.append(None)
    return tuple(
        _compute_agreement(pairs, assisted_pairs, records, policy, version, lever)
        for version in pairs.predicted
        for lever in levers
    )


def _compute_agreement(
    pairs: Pairs,
    assisted_pairs: pl.DataFrame,
    records: RecordFrames,
    policy: Policy,
    version: str,
    lever: Lever | None,
) -> AgreementFigures:
    lever_id = policy.whole_unit_lever if lever is None else lever.id
    version_pairs = pairs.select(version, lever_id)
    has_labels = lever is not None and lever.has_single_labels
    matrix = build_matrix(version_pairs, lever.labels) if lever and has_labels else None
    agreement = compute_unit_share(version_pairs)
    unreviewed = pairs.predicted[version] - version_pairs.height
    kappa, ac1 = (
        compute_kappa_and_ac1(matrix.table, agreement.effective_number, matrix.labels)
        if matrix
        else (None, None)
    )
    day = pl.col("hour_written").is_between(FIRST_DAY_HOUR, LAST_DAY_HOUR)
    part = pl.when(day).then(pl.lit("day")).when(~day).then(pl.lit("night"))
    slice_by = partial(
        compute_slices,
        version_pairs.with_columns(part=part),
        has_labels=has_labels,
        largest_cost=policy.largest_cost if lever is None else lever.largest_cost,
    )
    return AgreementFigures(
        version=version,
        lever=lever_id,
        basis=_describe_basis(lever),
        predicted=pairs.predicted[version],
        unjudged=unreviewed,
        agreement=agreement,
        bounds=compute_missing_bounds(agreement, unreviewed),
        kappa=kappa,
        ac1=ac1,
        alpha=_compute_alpha(version_pairs, matrix, lever),
        cost=compute_mean_cost(version_pairs),
        labels=compute_lever_label_figures(
            version_pairs, matrix, lever, _count_unreviewed(version_pairs, records, version, lever)
        ),
        label_matrix=matrix,
        action_matrix=build_action_matrix(
            version_pairs.group_by("human_action", "model_action").len(), lever
        )
        if lever and has_labels
        else None,
        by_site=slice_by("site", [site.id for site in policy.sites]),
        by_window=slice_by("window", [window.id for window in policy.windows]),
        by_day_night=slice_by("part", ["day", "night"]),
        by_attribute={
            name: slice_by(ATTRIBUTE_PREFIX + name)
            for name in policy.slices
            if ATTRIBUTE_PREFIX + name in version_pairs.columns
        },
        assisted=compute_unit_share(select_pairs(assisted_pairs, version, lever_id)),
    )


def _describe_basis(lever: Lever | None) -> str:
    if lever is not None and lever.number is not None:
        return "cases whose blind human numbers lie within the tolerance of each other"
    answer = "set of labels" if lever is not None and lever.many else "label"
    return f"cases with exactly one distinct blind human {answer}"


def _compute_alpha(
    pairs: pl.DataFrame, matrix: ConfusionMatrix | None, lever: Lever | None
) -> AgreementCoefficient | None:
    if lever is not None and lever.many:
        return compute_set_unit_alpha(pairs)
    return compute_pairs_alpha(pairs, matrix.labels) if matrix else None


def compute_pairs_alpha(pairs: pl.DataFrame, labels: Iterable[str]) -> AgreementCoefficient:
    """Return Krippendorff's alpha of humans and the model, over units."""
    codes = {label: code for code, label in enumerate(labels)}
    human, model = (
        pairs[side].replace_strict(codes, return_dtype=pl.Int64).to_numpy().astype(np.int64)
        for side in ("human", "model")
    )
    units = pairs["unit"].rank("dense").cast(pl.Int64).to_numpy()
    return compute_pair_alpha(human, model, units, len(codes))


def compute_mean_cost(pairs: pl.DataFrame) -> float | None:
    """Return the mean cost of a case, None without cases."""
    return None if pairs.is_empty() else float(np.mean(pairs["cost"].to_numpy()))


def compute_cost_interval(pairs: pl.DataFrame, largest_cost: float) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean cost of a case, None with too few units."""
    if not largest_cost:
        return None
    units = encode_units(pairs["unit"])
    sizes, totals = np.bincount(units), np.bincount(units, pairs["cost"].to_numpy())
    return compute_mean_interval(totals[sizes > 0], sizes[sizes > 0], largest=largest_cost)


def compute_slices(
    pairs: pl.DataFrame,
    column: str,
    order: Iterable[str] = (),
    *,
    largest_cost: float,
    has_labels: bool = True,
) -> tuple[SliceAgreement, ...]:
    """Return agreement by the values of a column; values outside `order` come last.

    Without labels, as for numbers, there is no kappa.
    """
    parts = {
        str(value): part
        for (value,), part in pairs.filter(pl.col(column).is_not_null())
        .partition_by(column, as_dict=True)
        .items()
    }
    names = dict.fromkeys(order)
    ordered = [*(name for name in names if name in parts), *sorted(set(parts) - set(names))]
    return tuple(
        SliceAgreement(
            name,
            compute_unit_share(parts[name]),
            compute_slice_kappa(parts[name]) if has_labels else None,
            compute_mean_cost(parts[name]),
            compute_cost_interval(parts[name], largest_cost),
        )
        for name in ordered
    )


def compute_slice_kappa(pairs: pl.DataFrame) -> float | None:
    """Return kappa of labels; None without pairs, and with rare labels."""
    table = build_matrix(pairs, ()).table
    return None if find_rare_labels(table) else compute_kappa(table)


def _count_unreviewed(
    pairs: pl.DataFrame, records: RecordFrames, version: str, lever: Lever | None
) -> dict[str, int]:
    """Return the number of unpaired cases by label of the model; of sets "" has all of them."""
    if lever is None:
        return {}
    unpaired = records.predictions.filter(pl.col("version") == version).join(
        pairs, on="case_key", how="anti"
    )
    if lever.many:
        sets = unpaired[VALUE_PREFIX + lever.id].str.split(SEPARATOR)
        by_label = {label: int(sets.list.contains(label).sum()) for label in lever.labels}
        return by_label | {"": unpaired.height}
    counts = unpaired.drop_nulls(VALUE_PREFIX + lever.id).group_by(VALUE_PREFIX + lever.id).len()
    failed = unpaired.height - int(counts["len"].sum())
    return {**dict(counts.iter_rows()), **({"": failed} if failed else {})}


MAX_POINTS = 200  # of the scatter and the difference plot
NO_NUMBER = -1  # band of a pair without two numbers in range


@dataclass(frozen=True, slots=True)
class NumberDifferences:
    """Differences in the lever's unit, or in percent of the human's number.

    Attributes:
        unit: of all figures.
        bias: mean difference.
        lower, upper: limits of agreement.
    """

    unit: str
    bias: Estimate
    lower: Estimate
    upper: Estimate


@dataclass(frozen=True, slots=True)
class CostBand:
    """The pairs with one row of the lever's costs.

    `name` describes the error, `cost` is of one case, `per_case` what the band adds to the mean.
    """

    name: str
    cost: float
    share: Share
    per_case: float


@dataclass(frozen=True, slots=True)
class NumberPair:
    """The numbers of one case."""

    human: float
    model: float


@dataclass(frozen=True, slots=True)
class NumberAgreement:
    """How the numbers of one version agree with those of humans.

    Attributes:
        version, lever, unit: whose answers, and the unit of the numbers; a file can lack a version.
        tolerance: as text; `relative_tolerance` and `tolerance_amount` have its parts.
        within, below, above: shares of all pairs; the last two beyond the tolerance.
        failed, outside: pairs without a number of the model, and with a number out of range.
        differences: in the unit of the lever.
        relative: in percent of the human's number, without humans' zeros.
        concordance: Lin's coefficient.
        cost: mean cost of following the model, over all pairs.
        bands: the parts of this cost.
        points: at most 200 pairs, evenly spaced in the order of their difference.
    """

    version: str | None
    lever: str
    unit: str
    tolerance: str
    tolerance_amount: float
    relative_tolerance: bool
    within: Share
    below: Share
    above: Share
    failed: int
    outside: int
    differences: NumberDifferences
    relative: NumberDifferences
    concordance: Estimate
    cost: Estimate
    bands: tuple[CostBand, ...]
    points: tuple[NumberPair, ...]


def compute_number_agreements(pairs: Pairs, policy: Policy) -> tuple[NumberAgreement, ...]:
    """Return the figures of every version and lever with a number, sorted by version."""
    return tuple(
        compute_number_agreement(add_numbers(pairs.select(version, lever.id)), version, lever)
        for version in pairs.predicted
        for lever in policy.levers
        if lever.number is not None
    )


def add_numbers(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return the pairs with x (the human's number), y (the model's), and their unit's number."""
    columns = pairs.select("human", "model", "agrees", "cost", unit=encode_units(pairs["unit"]))
    human, model = parse_number(nw.col("human")), parse_number(nw.col("model"))
    return nw.from_native(columns).with_columns(x=human, y=model).to_native()


def compute_number_agreement(
    pairs: pl.DataFrame, version: str | None, lever: Lever
) -> NumberAgreement:
    """Return the figures of one version and lever.

    `pairs` has x and y (the numbers of human and model), agrees, cost and unit (a number).
    """
    number = lever.number
    assert number is not None  # noqa: S101 - only called for numeric levers
    tolerance = format_margin(number.tolerance, number.unit)
    rows = pairs.with_columns(band=_find_bands(pairs, lever, number))
    numbers = rows.filter(pl.col("band") != NO_NUMBER)
    human, model = numbers["x"].to_numpy(), numbers["y"].to_numpy()
    units, all_units = numbers["unit"].to_numpy(), rows["unit"].to_numpy()
    is_beyond = (pl.col("band") != NO_NUMBER) & ~pl.col("agrees")
    failed = rows["y"].null_count()
    return NumberAgreement(
        version=version,
        lever=lever.id,
        unit=number.unit,
        tolerance=tolerance,
        tolerance_amount=number.tolerance.amount,
        relative_tolerance=number.tolerance.relative,
        within=compute_unit_share(rows, pl.col("agrees")),
        below=compute_unit_share(rows, is_beyond & (pl.col("y") < pl.col("x"))),
        above=compute_unit_share(rows, is_beyond & (pl.col("y") > pl.col("x"))),
        failed=failed,
        outside=rows.height - numbers.height - failed,
        differences=compute_differences(model - human, units, number.unit),
        relative=_compute_relative_differences(human, model, units),
        concordance=compute_concordance(human, model, units),
        cost=compute_mean_estimate(rows["cost"].to_numpy(), all_units),
        bands=tuple(_build_bands(rows, lever, tolerance, number.unit)),
        points=select_points(human, model, relative=number.tolerance.relative),
    )


def _find_bands(pairs: pl.DataFrame, lever: Lever, number: Number) -> pl.Series:
    """Return the cost band of each pair."""
    x, y = nw.col("x"), nw.col("y")
    is_valid = is_in_range(number, x) & is_in_range(number, y)
    row = find_cost_row(lever, y, x)
    band = nw.when(is_valid.fill_null(value=False)).then(row).otherwise(nw.lit(NO_NUMBER))
    return nw.from_native(pairs).select(band=band).to_native()["band"]


def compute_differences(differences: Floats, units: Ints, unit: str) -> NumberDifferences:
    """Return bias and limits of agreement of differences in one unit."""
    bias = compute_mean_estimate(differences, units)
    return NumberDifferences(unit, bias, *compute_limits(differences, units))


def _compute_relative_differences(human: Floats, model: Floats, units: Ints) -> NumberDifferences:
    has_base = human != 0
    percent = 100 * (model[has_base] - human[has_base]) / np.abs(human[has_base])
    return compute_differences(percent, units[has_base], "%")


def _build_bands(rows: pl.DataFrame, lever: Lever, tolerance: str, unit: str) -> Iterator[CostBand]:
    """Yield the bands with pairs, in the order of the policy's rows."""
    names = {
        0: (f"within the tolerance ({tolerance})", 0),
        **{
            index: (describe_cost_rule(rule, unit), rule.cost)
            for index, rule in enumerate(lever.costs, start=1)
        },
        len(lever.costs) + 1: ("beyond the tolerance, in no row of the costs", 0),
        NO_NUMBER: ("no number, or one out of range", lever.largest_cost),
    }
    for band, (name, cost) in names.items():
        share = compute_unit_share(rows, pl.col("band") == band)
        if share.count:
            yield CostBand(name, float(cost), share, cost * share.count / share.n)


def describe_cost_rule(rule: CostRule, unit: str) -> str:
    """Describe the error of a row: `more than 20 % below`.

    >>> describe_cost_rule(CostRule(3, under=Margin(0.2, relative=True)), "EUR")
    'more than 20 % below'
    >>> describe_cost_rule(CostRule(1), "EUR")
    'any other beyond the tolerance'
    """
    sides = [
        f"more than {format_margin(margin, unit)} {side}"
        for side, margin in (("below", rule.under), ("above", rule.over), ("off", rule.off))
        if margin is not None
    ]
    return " or ".join(sides) or "any other beyond the tolerance"


def format_margin(margin: Margin, unit: str) -> str:
    """Format a distance: `5 %`, `2 EUR`."""
    return f"{100 * margin.amount:g} %" if margin.relative else f"{margin.amount:g} {unit}".rstrip()


def select_points(human: Floats, model: Floats, *, relative: bool) -> tuple[NumberPair, ...]:
    """Return at most 200 pairs, evenly spaced in the order of their difference.

    The largest differences of both sides are among them. `relative` orders by the share of the
    human's number.
    """
    differences = model - human
    if relative:
        differences /= np.where(human == 0, 1.0, np.abs(human))
    order = np.lexsort((human, differences))
    chosen = np.unique(np.linspace(0, len(order) - 1, min(MAX_POINTS, len(order))).round())
    indices = order[chosen.astype(np.int64)]
    return tuple(NumberPair(float(human[i]), float(model[i])) for i in indices)
