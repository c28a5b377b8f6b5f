"""Anchoring: how much more people agree with a model whose answer they see.

Who saw the answer adopts it in a share r of the conflicts, so that A + (1 − A)·r is measured where
A is true (statistics.md §8). Compared are the cells in which there are verdicts of both kinds, the
unseen ones weighted to the cells of the others: a hard cell is then hard on both sides. Where no
draw decided who sees what, cases may still differ within a cell.
"""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.reports.figures.agreement import share_of
from rollout.reports.inputs.pairs import Pairs
from rollout.reports.statistics.differences import Adopted, Difference, adopted, difference, side_of
from rollout.reports.statistics.intervals import Share, Weighted, weighted_share

CELL = ["site", "window"]


@dataclass(frozen=True, slots=True)
class Anchoring:
    """One version on one lever (`*`: all together), seen beside unseen.

    Attributes:
        version, lever: whose answers.
        cells: cells that have verdicts of both kinds.
        unseen: agreement of people who did not see the answer, in the mix of cells of those who
            did.
        seen: agreement of people who did, in these cells.
        change: seen minus unseen, per 100 cases.
        adopted: the share of conflicts in which the shown answer was taken over.
        says: what that comes to, in words.
    """

    version: str
    lever: str
    cells: int
    unseen: Weighted
    seen: Share
    change: Difference
    adopted: Adopted
    says: str


def anchoring_of(pairs: Pairs, seen: pl.DataFrame, policy: Policy) -> tuple[Anchoring, ...]:
    """Return the estimate of every version and lever; of those alone that anybody saw.

    Args:
        pairs: verdicts of people who did not see the model's answer, beside it.
        seen: those of people who did, as `seen.seen_pairs` gives them.
        policy: for the order of levers.
    """
    levers = [lever.id for lever in policy.levers]
    levers += [policy.whole] if len(levers) > 1 else []
    figures = (
        _of(pairs.of(version, lever), _part(seen, version, lever), version, lever)
        for version in pairs.predicted
        for lever in levers
    )
    return tuple(item for item in figures if item.seen.n)


def _part(seen: pl.DataFrame, version: str, lever: str) -> pl.DataFrame:
    return seen.filter((pl.col("version") == version) & (pl.col("lever") == lever))


def _of(unseen: pl.DataFrame, seen: pl.DataFrame, version: str, lever: str) -> Anchoring:
    cell_sizes = _sizes(unseen, "unseen").join(_sizes(seen, "seen"), on=CELL, nulls_equal=True)
    weighted = unseen.join(cell_sizes, on=CELL, nulls_equal=True).sort("case_key")
    shared = seen.join(cell_sizes, on=CELL, nulls_equal=True)
    unassisted_share = weighted_share(
        weighted["agrees"].cast(pl.Int64).to_numpy(),
        (weighted["unseen"] / weighted["seen"]).to_numpy(),
        weighted["unit"].rank("dense").to_numpy(),
    )
    assisted_share = share_of(shared)
    change = difference(side_of(assisted_share), side_of(unassisted_share))
    adoption = adopted(side_of(unassisted_share), side_of(assisted_share))
    return Anchoring(
        version=version,
        lever=lever,
        cells=cell_sizes.height,
        unseen=unassisted_share,
        seen=assisted_share,
        change=change,
        adopted=adoption,
        says=says(change, adoption),
    )


def says(change: Difference, taken: Adopted) -> str:
    """Say what seeing the answer does to people's agreement with it."""
    if change.low is None or change.high is None:
        return "no data: no cell has verdicts of both kinds"
    if change.high < 0:
        return "people agree less when they see the answer: they may look for its faults"
    if change.low <= 0:
        return "no difference that could not be luck"
    if taken.share is None or not taken.low:
        return "people agree more when they see the answer"
    return (
        "people agree more when they see the answer: they take it over in about"
        f" {taken.share:.0%} of the conflicts"
    ).replace("%", " %")


def _sizes(verdicts: pl.DataFrame, name: str) -> pl.DataFrame:
    return verdicts.group_by(CELL).agg(pl.len().alias(name))
