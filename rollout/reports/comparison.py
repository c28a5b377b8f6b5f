"""What counted pairs say of a version: confusion, labels, agreement of every cell.

The same figures as `agreement`'s for pairs that are taken as independent: of counts alone nobody
knows which cases came in one burst.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from rollout.core.levers import Lever
from rollout.core.measures import FAILED
from rollout.reports.agreement import missing_bounds
from rollout.reports.chance import Corrected, ac1_with_interval, kappa_with_interval
from rollout.reports.confusion import (
    LabelFigures,
    Matrix,
    counted_label_figures,
    counted_matrix,
    with_costs,
)
from rollout.reports.counted import KEY, N
from rollout.reports.intervals import Share, share
from rollout.reports.pairs import compared

CELL = ("site", "window")


@dataclass(frozen=True, slots=True)
class CellAgreement:
    """Agreement in one cell; without windows (or sites) in the pairs these are None."""

    site: str | None
    window: str | None
    agreement: Share
    kappa: float | None
    cost: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures of one version on one lever, from counted pairs.

    Attributes:
        version, lever: whose answers to what; None where the pairs do not say.
        unjudged: cases that the model was asked about and people gave no answer to.
        agreement: pairs that agree, each taken as independent of the others.
        bounds: agreement if all unjudged cases disagreed, and if all agreed.
        kappa, ac1: corrected for chance; None where answers are no labels.
        cost: mean cost of doing what the model said; None without a policy.
        labels: figures of each label; empty where answers are no labels.
        label_matrix: people in rows, the model in columns; None where answers are no labels.
        action_matrix: the same of actions; None without a policy.
        cells: agreement of every cell with a pair; empty where pairs name neither part of one.
    """

    version: str | None
    lever: str | None
    unjudged: int
    agreement: Share
    bounds: tuple[float, float] | None
    kappa: Corrected | None
    ac1: Corrected | None
    cost: float | None
    labels: tuple[LabelFigures, ...]
    label_matrix: Matrix | None
    action_matrix: Matrix | None
    cells: tuple[CellAgreement, ...]


def comparisons(
    table: pl.DataFrame, lever: Lever | None = None, *, labelled: bool = True
) -> tuple[Comparison, ...]:
    """Return the figures of every version and lever in a table, in their order.

    Args:
        table: pairs as `counted.count_pairs` counts them. A null answer of people is a case
            without one, a null answer of the model one on which it failed.
        lever: for the order of labels, actions and costs; without it labels are sorted.
        labelled: whether answers are labels, not whether a number agrees.
    """
    whole = ("version", "lever")
    parts = table.sort(KEY, nulls_last=True).partition_by(whole, maintain_order=True)
    return tuple(_comparison(part, lever, labelled=labelled) for part in parts)


def _comparison(part: pl.DataFrame, lever: Lever | None, *, labelled: bool) -> Comparison:
    answered = part.with_columns(pl.col("model").fill_null(FAILED))
    left = answered.filter(pl.col("human").is_null())
    judged = _priced(answered.filter(pl.col("human").is_not_null()), lever)
    agreement = _agreement(judged)
    unjudged = int(left[N].sum())
    matrix = counted_matrix(_pairs(judged), lever.labels if lever else ()) if labelled else None
    return Comparison(
        version=part["version"][0],
        lever=part["lever"][0],
        unjudged=unjudged,
        agreement=agreement,
        bounds=missing_bounds(agreement.count, agreement.n, unjudged),
        kappa=kappa_with_interval(matrix.table) if matrix else None,
        ac1=ac1_with_interval(matrix.table) if matrix else None,
        cost=_mean_cost(judged),
        labels=counted_label_figures(matrix, _by_label(left)) if matrix else (),
        label_matrix=matrix,
        action_matrix=_actions(judged, lever) if lever and labelled else None,
        cells=tuple(_cells(judged, labelled=labelled)),
    )


def _priced(judged: pl.DataFrame, lever: Lever | None) -> pl.DataFrame:
    """Add what each pair costs, and the actions that it leads to, where a policy says so."""
    if lever is None or lever.number is not None:
        return judged
    costs = compared(lever, judged).drop("agrees")
    return judged.join(costs, on=["human", "model"], how="left", maintain_order="left")


def _pairs(judged: pl.DataFrame) -> pl.DataFrame:
    return judged.group_by("human", "model").agg(pl.col(N).sum())


def _agreement(judged: pl.DataFrame) -> Share:
    agreed = judged.filter(pl.col("human") == pl.col("model"))
    return share(int(agreed[N].sum()), int(judged[N].sum()))


def _mean_cost(judged: pl.DataFrame) -> float | None:
    n = int(judged[N].sum())
    return float((judged["cost"] * judged[N]).sum()) / n if n and "cost" in judged.columns else None


def _by_label(left: pl.DataFrame) -> dict[str, int]:
    return dict(left.group_by("model").agg(pl.col(N).sum()).sort("model").iter_rows())


def _actions(judged: pl.DataFrame, lever: Lever) -> Matrix:
    acts = judged.select("human_action", "model_action", N)
    return with_costs(counted_matrix(acts, lever.actions), lever)


def _cells(judged: pl.DataFrame, *, labelled: bool) -> Iterator[CellAgreement]:
    agrees = pl.col("human") == pl.col("model")
    sums = [pl.col(N).sum(), pl.col(N).filter(agrees).sum().alias("agreed")]
    if "cost" in judged.columns:
        sums.append((pl.col("cost") * pl.col(N)).sum())
    by_cell = judged.group_by(CELL).agg(sums).join(_by_chance(judged), on=CELL, nulls_equal=True)
    for row in by_cell.sort(CELL, nulls_last=True).iter_rows(named=True):
        if (row["site"], row["window"]) != (None, None):
            yield _cell(row, labelled=labelled)


def _by_chance(judged: pl.DataFrame) -> pl.DataFrame:
    """Return by cell in how many of n² draws of two cases one's person says the other's model."""
    sides = [
        judged.group_by(*CELL, label=side).agg(pl.col(N).sum().alias(side))
        for side in ("human", "model")
    ]
    both = sides[0].join(sides[1], on=(*CELL, "label"), how="left", nulls_equal=True)
    product = (pl.col("human").cast(pl.Int64) * pl.col("model").cast(pl.Int64)).sum()
    return both.group_by(CELL).agg(chance=product)


def _cell(row: dict[str, Any], *, labelled: bool) -> CellAgreement:
    n, agreed, chance = row[N], row["agreed"], row["chance"]
    return CellAgreement(
        site=row["site"],
        window=row["window"],
        agreement=share(agreed, n),
        kappa=(n * agreed - chance) / (n * n - chance) if labelled and chance < n * n else None,
        cost=row["cost"] / n if "cost" in row else None,
    )
