"""Anchoring: how much more reviewers agree with a model whose answer they see.

Reviewers who see the answer adopt it in a share r of the conflicts, so the measured agreement is
A + (1 − A)·r instead of A. Only cells with both kinds of decisions are compared, and unassisted
decisions are weighted to the cells of the assisted ones, so that a hard cell counts on both sides.
Without random sampling of assisted cases, cases may still differ within a cell.
"""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import Pairs
from rollout.reports.statistics.differences import (
    AdoptionRate,
    ShareDifference,
    build_side,
    compute_adoption,
    compute_difference,
)
from rollout.reports.statistics.intervals import (
    NO_DATA,
    Share,
    WeightedShare,
    compute_unit_share,
    compute_weighted_share,
)

CELL_COLUMNS = ["site", "window"]


@dataclass(frozen=True, slots=True)
class Anchoring:
    """Assisted and unassisted agreement of one version and lever (`*`: all levers).

    Attributes:
        version, lever: whose answers.
        cells: cells with both kinds of decisions.
        unseen: agreement of unassisted decisions, weighted to the cells of assisted ones.
        seen: agreement of assisted decisions in these cells.
        change: seen minus unseen, per 100 cases.
        adopted: share of conflicts in which reviewers adopted the displayed answer.
        says: the result as text.
    """

    version: str
    lever: str
    cells: int
    unseen: WeightedShare
    seen: Share
    change: ShareDifference
    adopted: AdoptionRate
    says: str


def compute_anchoring(
    pairs: Pairs, assisted_pairs: pl.DataFrame, policy: Policy
) -> tuple[Anchoring, ...]:
    """Return the estimate of every version and lever with assisted decisions.

    `pairs`: unassisted decisions with the model's answers.
    `assisted_pairs`: the rows of `build_assisted_pairs`.
    """
    levers = [lever.id for lever in policy.levers]
    levers += [policy.whole_unit_lever] if len(levers) > 1 else []
    figures = (
        _compute_version_anchoring(
            pairs.select(version, lever),
            _select_version(assisted_pairs, version, lever),
            version,
            lever,
        )
        for version in pairs.predicted
        for lever in levers
    )
    return tuple(item for item in figures if item.seen.n)


def _select_version(pairs: pl.DataFrame, version: str, lever: str) -> pl.DataFrame:
    return pairs.filter((pl.col("version") == version) & (pl.col("lever") == lever))


def _compute_version_anchoring(
    unassisted: pl.DataFrame, assisted: pl.DataFrame, version: str, lever: str
) -> Anchoring:
    cell_sizes = _count_by_cell(unassisted, "unseen").join(
        _count_by_cell(assisted, "seen"), on=CELL_COLUMNS, nulls_equal=True
    )
    weighted = unassisted.join(cell_sizes, on=CELL_COLUMNS, nulls_equal=True).sort("case_key")
    shared = assisted.join(cell_sizes, on=CELL_COLUMNS, nulls_equal=True)
    unassisted_share = compute_weighted_share(
        weighted["agrees"].cast(pl.Int64).to_numpy(),
        (weighted["unseen"] / weighted["seen"]).to_numpy(),
        weighted["unit"].rank("dense").to_numpy(),
    )
    assisted_share = compute_unit_share(shared)
    change = compute_difference(build_side(assisted_share), build_side(unassisted_share))
    adoption = compute_adoption(build_side(unassisted_share), build_side(assisted_share))
    return Anchoring(
        version=version,
        lever=lever,
        cells=cell_sizes.height,
        unseen=unassisted_share,
        seen=assisted_share,
        change=change,
        adopted=adoption,
        says=describe_anchoring(change, adoption),
    )


def describe_anchoring(change: ShareDifference, adoption: AdoptionRate) -> str:
    """Describe how seeing the answer changes agreement with it."""
    if change.low is None or change.high is None:
        if change.method != NO_DATA:
            return f"no interval: {change.method}"
        return "no data: no cell has decisions of both kinds"
    if change.high < 0:
        return "reviewers agree less when they see the answer: they may look for its errors"
    if change.low <= 0:
        return "no difference that could not be luck"
    if adoption.share is None or not adoption.low:
        return "reviewers agree more when they see the answer"
    return (
        "reviewers agree more when they see the answer: they adopt it in about"
        f" {adoption.share:.0%} of the conflicts"
    ).replace("%", " %")


def _count_by_cell(pairs: pl.DataFrame, name: str) -> pl.DataFrame:
    return pairs.group_by(CELL_COLUMNS).agg(pl.len().alias(name))
