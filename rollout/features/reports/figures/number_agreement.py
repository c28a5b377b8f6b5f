"""Agreement on numbers: bias, limits of agreement, concordance, cost by band of the error.

They cover the pairs of `inputs.pairs`. Differences are the model's number minus the human's. Pairs
without a number of the model, or with a number out of the policy's range, are counted as outside
the tolerance and are in no other figure: one typing error would outweigh them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import narwhals as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.engine.evidence.number_answers import find_cost_row, is_in_range, parse_number
from rollout.features.reports.inputs.pairs import Pairs
from rollout.kernel.policy.levers import CostRule, Lever, Margin
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.agreement import (
    compute_concordance,
    compute_limits,
    compute_mean_estimate,
)
from rollout.kernel.statistics.intervals import Estimate, Share, compute_clustered_share

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

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
    assert lever.number is not None  # noqa: S101 - only called for numeric levers
    rows = pairs.with_columns(band=_find_bands(pairs, lever))
    numbers = rows.filter(pl.col("band") != NO_NUMBER)
    human, model = numbers["x"].to_numpy(), numbers["y"].to_numpy()
    units, all_units = numbers["unit"].to_numpy(), rows["unit"].to_numpy()
    has_number = pl.col("band") != NO_NUMBER
    is_beyond = has_number & ~pl.col("agrees")
    failed = rows["y"].null_count()
    return NumberAgreement(
        version=version,
        lever=lever.id,
        unit=lever.number.unit,
        tolerance=format_margin(lever.number.tolerance, lever.number.unit),
        tolerance_amount=lever.number.tolerance.amount,
        relative_tolerance=lever.number.tolerance.relative,
        within=_compute_share(rows, pl.col("agrees")),
        below=_compute_share(rows, is_beyond & (pl.col("y") < pl.col("x"))),
        above=_compute_share(rows, is_beyond & (pl.col("y") > pl.col("x"))),
        failed=failed,
        outside=rows.height - numbers.height - failed,
        differences=compute_differences(model - human, units, lever.number.unit),
        relative=_compute_relative_differences(human, model, units),
        concordance=compute_concordance(human, model, units),
        cost=compute_mean_estimate(rows["cost"].to_numpy(), all_units),
        bands=tuple(_build_bands(rows, lever)),
        points=select_points(human, model, relative=lever.number.tolerance.relative),
    )


def _find_bands(pairs: pl.DataFrame, lever: Lever) -> pl.Series:
    """Return the cost band of each pair."""
    assert lever.number is not None  # noqa: S101 - only called for numeric levers
    x, y = nw.col("x"), nw.col("y")
    is_valid = is_in_range(lever.number, x) & is_in_range(lever.number, y)
    row = find_cost_row(lever, y, x)
    band = nw.when(is_valid.fill_null(value=False)).then(row).otherwise(nw.lit(NO_NUMBER))
    return nw.from_native(pairs).select(band=band).to_native()["band"]


def _compute_share(rows: pl.DataFrame, condition: pl.Expr) -> Share:
    """Return the share of pairs with a condition, its interval over units."""
    units = rows["unit"].to_numpy()
    success = rows.select(condition.fill_null(value=False).cast(pl.Float64)).to_series()
    sizes = np.bincount(units)
    counts = np.bincount(units, success.to_numpy())
    return compute_clustered_share(counts[sizes > 0], sizes[sizes > 0])


def encode_units(units: pl.Series) -> Ints:
    """Return the number of each case's unit, from 0."""
    return units.rank("dense").cast(pl.Int64).to_numpy() - 1


def compute_differences(differences: Floats, units: Ints, unit: str) -> NumberDifferences:
    """Return bias and limits of agreement of differences in one unit."""
    bias = compute_mean_estimate(differences, units)
    return NumberDifferences(unit, bias, *compute_limits(differences, units))


def _compute_relative_differences(human: Floats, model: Floats, units: Ints) -> NumberDifferences:
    has_base = human != 0
    base = np.abs(human[has_base])
    percent = 100 * (model[has_base] - human[has_base]) / base
    return compute_differences(percent, units[has_base], "%")


def _build_bands(rows: pl.DataFrame, lever: Lever) -> Iterator[CostBand]:
    """Yield the bands with pairs, in the order of the policy's rows."""
    assert lever.number is not None  # noqa: S101 - only called for numeric levers
    tolerance = format_margin(lever.number.tolerance, lever.number.unit)
    names = {
        0: (f"within the tolerance ({tolerance})", 0),
        **{
            index: (describe_cost_rule(rule, lever.number.unit), rule.cost)
            for index, rule in enumerate(lever.costs, start=1)
        },
        len(lever.costs) + 1: ("beyond the tolerance, in no row of the costs", 0),
        NO_NUMBER: ("no number, or one out of range", lever.largest_cost),
    }
    for band, (name, cost) in names.items():
        share = _compute_share(rows, pl.col("band") == band)
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
