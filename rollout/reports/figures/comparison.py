"""What counted pairs say of a version: confusion, labels, agreement of every cell.

The same figures as `agreement`'s for pairs that are taken as independent: of counts alone nobody
knows which cases came in one burst.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED
from rollout.reports.figures.agreement import missing_bounds
from rollout.reports.figures.confusion import (
    ConfusionMatrix,
    LabelFigures,
    counted_label_figures,
    counted_matrix,
    with_costs,
)
from rollout.reports.inputs.counted import KEY, N
from rollout.reports.inputs.pairs import compared
from rollout.reports.statistics.chance_agreement import AgreementCoefficient, both_with_intervals
from rollout.reports.statistics.intervals import Share, share

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
    kappa: AgreementCoefficient | None
    ac1: AgreementCoefficient | None
    cost: float | None
    labels: tuple[LabelFigures, ...]
    label_matrix: ConfusionMatrix | None
    action_matrix: ConfusionMatrix | None
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
    parts = table.partition_by("version", "lever", as_dict=True)
    ordered = sorted(parts, key=lambda key: [(name is None, name or "") for name in key])
    return tuple(_comparison(parts[key], lever, labelled=labelled) for key in ordered)


def _comparison(part: pl.DataFrame, lever: Lever | None, *, labelled: bool) -> Comparison:
    answered = part.with_columns(pl.col("model").fill_null(FAILED))
    unreviewed = answered.filter(pl.col("human").is_null())
    reviewed = _priced(answered.filter(pl.col("human").is_not_null()), lever)
    agreement = _agreement(reviewed)
    unreviewed_count = int(unreviewed[N].sum())
    matrix = counted_matrix(_pairs(reviewed), lever.labels if lever else ()) if labelled else None
    kappa, ac1 = both_with_intervals(matrix.table) if matrix else (None, None)
    return Comparison(
        version=part["version"][0],
        lever=part["lever"][0],
        unjudged=unreviewed_count,
        agreement=agreement,
        bounds=missing_bounds(agreement.count, agreement.n, unreviewed_count),
        kappa=kappa,
        ac1=ac1,
        cost=_mean_cost(reviewed),
        labels=counted_label_figures(matrix, _by_label(unreviewed)) if matrix else (),
        label_matrix=matrix,
        action_matrix=_actions(reviewed, lever) if lever and labelled else None,
        cells=tuple(_cells(reviewed, labelled=labelled)),
    )


def _priced(judged: pl.DataFrame, lever: Lever | None) -> pl.DataFrame:
    """Add what each pair costs, and the actions that it leads to, where a policy says so."""
    if lever is None or lever.number is not None:
        return judged
    costs = compared(lever, judged).drop("agrees")
    with_costs = judged.join(costs, on=["human", "model"], how="left")
    return with_costs.sort(
        KEY, nulls_last=True
    )  # sums of costs are then the same to the last digit


def _pairs(judged: pl.DataFrame) -> pl.DataFrame:
    return judged.group_by("human", "model").agg(pl.col(N).sum())


def _agreement(judged: pl.DataFrame) -> Share:
    agreeing = judged.filter(pl.col("human") == pl.col("model"))
    return share(int(agreeing[N].sum()), int(judged[N].sum()))


def _mean_cost(judged: pl.DataFrame) -> float | None:
    n = int(judged[N].sum())
    return float((judged["cost"] * judged[N]).sum()) / n if n and "cost" in judged.columns else None


def _by_label(left: pl.DataFrame) -> dict[str, int]:
    return dict(left.group_by("model").agg(pl.col(N).sum()).sort("model").iter_rows())


def _actions(judged: pl.DataFrame, lever: Lever) -> ConfusionMatrix:
    actions = judged.select("human_action", "model_action", N)
    return with_costs(counted_matrix(actions, lever.actions), lever)


def _cells(judged: pl.DataFrame, *, labelled: bool) -> Iterator[CellAgreement]:
    label_counts = _sides(judged)
    sums = pl.col(name for name in label_counts.columns if name in {"said", "agreed", "cost"}).sum()
    chance = (pl.col("said") * pl.col("given")).sum().alias("chance")
    by_cell = label_counts.group_by(CELL, maintain_order="cost" in label_counts.columns).agg(
        sums, chance
    )
    for row in by_cell.sort(CELL, nulls_last=True).iter_rows(named=True):
        if (row["site"], row["window"]) != (None, None):
            yield _cell(row, labelled=labelled)


def _sides(judged: pl.DataFrame) -> pl.DataFrame:
    """Return how often people said each label of a cell, and how often it was given by the model.

    Columns: `CELL`, label, said, of these agreed, what they cost where that is known, given.
    """
    n = pl.col(N).cast(pl.Int64)
    human_columns = {"said": n, "agreed": pl.when(pl.col("human") == pl.col("model")).then(n)}
    if "cost" in judged.columns:
        human_columns["cost"] = pl.col("cost") * n
    human = judged.select(*CELL, label="human", **human_columns)
    model = judged.select(*CELL, label="model", given=n)
    combined = pl.concat([human, model], how="diagonal")
    return combined.group_by(
        *CELL, "label", maintain_order="cost" in human_columns
    ).sum()  # order adds a half


def _cell(row: dict[str, Any], *, labelled: bool) -> CellAgreement:
    """Return a cell's figures; in `chance` of n² draws of two cases one label is both answers."""
    n, agreeing, chance = row["said"], row["agreed"], row["chance"]
    return CellAgreement(
        site=row["site"],
        window=row["window"],
        agreement=share(agreeing, n),
        kappa=(n * agreeing - chance) / (n * n - chance) if labelled and chance < n * n else None,
        cost=row["cost"] / n if "cost" in row else None,
    )
