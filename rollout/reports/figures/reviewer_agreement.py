"""Agreement of each reviewer with the model, with other reviewers and with outcomes.

Reviewers of hard cells agree less often, so each reviewer is compared with the others in the same
cells, corrected for the number of reviewers.
"""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.reports.figures.human_ceiling import HumanCeiling, compute_ceilings
from rollout.reports.inputs.pairs import (
    UNASSISTED_EXPOSURES,
    Pairs,
    compare_pairs,
)
from rollout.reports.statistics.intervals import (
    CONFIDENCE_LEVEL,
    Share,
    clopper_pearson,
    compute_clustered_share,
    compute_share,
)
from rollout.reports.statistics.strata import build_strata_table, compute_tail_chance
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

ROW_COLUMNS = ("reviewer", "unit", "site", "window", "agrees")
STRATA_COLUMNS = ("n", "differ", "all_n", "all_differ")


@dataclass(frozen=True, slots=True)
class Reviewer:
    """One reviewer's unassisted decisions, and their agreement.

    Attributes:
        reviewer: as in the records.
        answers, unsure: answers, and decisions without an answer.
        with_model: agreement with `model_version`.
        with_others: agreement with every other reviewer of the same case.
        with_outcome: agreement with outcomes.
        clearly_below_in: comparisons in which the reviewer is clearly below the others in the same
        cells: `outcome`, `others`, `model`; usually empty.
    """

    reviewer: str
    answers: int
    unsure: int
    with_model: Share
    with_others: Share
    with_outcome: Share
    clearly_below_in: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReviewerAgreement:
    """All reviewers, outliers first, and the human ceiling by lever."""

    model_version: str | None
    reviewers: tuple[Reviewer, ...]
    ceilings: tuple[HumanCeiling, ...]


def compute_reviewer_agreement(
    pairs: Pairs, records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> ReviewerAgreement:
    """Return the agreement of all reviewers.

    The model's version is the one with most predictions, the same for all reviewers.
    """
    version = max(
        pairs.predicted, key=lambda candidate: (pairs.predicted[candidate], candidate), default=None
    )
    decisions = _build_decision_frame(records, facts, policy)
    reviewers = _compute_reviewers(decisions, records, policy, version)
    return ReviewerAgreement(version, reviewers, compute_ceilings(decisions, records, policy))


def select_reviewer_share(reviewer: Reviewer, comparison: str) -> Share:
    """Return a reviewer's agreement with `outcome`, `others` or `model`."""
    shares = {
        "outcome": reviewer.with_outcome,
        "others": reviewer.with_others,
        "model": reviewer.with_model,
    }
    return shares[comparison]


def compute_other_rate(
    reviewers: tuple[Reviewer, ...], reviewer: Reviewer, comparison: str
) -> float:
    """Return the agreement of all other reviewers together, in all cells."""
    others = [select_reviewer_share(row, comparison) for row in reviewers if row is not reviewer]
    return sum(share.count for share in others) / max(sum(share.n for share in others), 1)


def list_visible_standouts(reviewers: tuple[Reviewer, ...]) -> list[tuple[Reviewer, str]]:
    """Return outliers with a comparison in which they are below the others in all cells too.

    A reviewer of easy cells can be below the others in the same cells, and above all others
    together. The pages show the shares over all cells, which would then say the opposite.
    """
    standouts = []
    for reviewer in reviewers:
        for comparison in reviewer.clearly_below_in:
            rate = select_reviewer_share(reviewer, comparison).rate
            if rate is not None and rate < compute_other_rate(reviewers, reviewer, comparison):
                standouts.append((reviewer, comparison))
                break
    return standouts


def _build_decision_frame(
    records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> pl.DataFrame:
    """Return a row per unassisted decision and lever: case_key, reviewer, lever, label, unit."""
    places = facts.select("case_key", "unit", "site", "window")
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    parts = [
        unassisted.select(
            "case_key",
            "reviewer",
            "at",
            "seat",
            lever=pl.lit(lever.id),
            label=VALUE_PREFIX + lever.id,
        )
        for lever in policy.levers
    ]
    return pl.concat(parts).join(places, on="case_key", how="left")


def _compute_reviewers(
    decisions: pl.DataFrame, records: RecordFrames, policy: Policy, version: str | None
) -> tuple[Reviewer, ...]:
    comparisons = {
        "outcome": _compare_with(decisions, records.outcomes, policy),
        "others": _compare_with_others(decisions, policy),
        "model": _compare_with(decisions, _select_version(records, version), policy),
    }
    shares = {name: _compute_shares(frame) for name, frame in comparisons.items()}
    counts = decisions.group_by("reviewer").agg(
        verdicts=pl.col("label").is_not_null().sum(), unsure=pl.col("label").is_null().sum()
    )
    standouts = {kind: _find_standouts(comparisons[kind], shares[kind]) for kind in comparisons}
    rows = [
        Reviewer(
            reviewer=str(name),
            answers=int(decision_count),
            unsure=int(unsure),
            with_model=shares["model"].get(name, compute_share(0, 0)),
            with_others=shares["others"].get(name, compute_share(0, 0)),
            with_outcome=shares["outcome"].get(name, compute_share(0, 0)),
            clearly_below_in=tuple(kind for kind in shares if name in standouts[kind]),
        )
        for name, decision_count, unsure in counts.sort("reviewer").iter_rows()
    ]
    return tuple(sorted(rows, key=_build_sort_key))


def _build_sort_key(reviewer: Reviewer) -> tuple[bool, float, str]:
    """Return the sort key: outliers first, then by outcome, other reviewers or model."""
    figures = (reviewer.with_outcome, reviewer.with_others, reviewer.with_model)
    rate = next((figure.rate for figure in figures if figure.rate is not None), 2.0)
    return (not reviewer.clearly_below_in, rate, reviewer.reviewer)


def _select_version(records: RecordFrames, version: str | None) -> pl.DataFrame:
    return records.predictions.filter(pl.col("version") == pl.lit(version, pl.String))


def _compare_with(decisions: pl.DataFrame, other: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each decision with whether it agrees with the other side's answer."""
    parts = [
        decisions.filter(pl.col("lever") == lever.id).join(
            other.select("case_key", model=VALUE_PREFIX + lever.id).drop_nulls(), on="case_key"
        )
        for lever in policy.levers
    ]
    return mark_agreement(parts, policy)


def _compare_with_others(decisions: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each decision with whether it agrees, once per other reviewer of the case."""
    multi_reviewed = decisions.drop_nulls("label").filter(pl.len().over("case_key", "lever") > 1)
    other = multi_reviewed.select("case_key", "lever", other="reviewer", model="label")
    pairs = multi_reviewed.join(other, on=["case_key", "lever"]).filter(
        pl.col("reviewer") != pl.col("other")
    )
    parts = [pairs.filter(pl.col("lever") == lever.id) for lever in policy.levers]
    return mark_agreement(parts, policy)


def mark_agreement(
    parts: list[pl.DataFrame], policy: Policy, columns: tuple[str, ...] = ROW_COLUMNS[:-1]
) -> pl.DataFrame:
    """Return decisions with whether each agrees: `columns` and `agrees`.

    `parts` has a frame for each lever of the policy, in order, with label (of the reviewer), model
    (the other side's answer) and `columns`.
    """
    frames = []
    for lever, part in zip(policy.levers, parts, strict=True):
        labelled = part.drop_nulls("label").rename({"label": "human"})
        comparison = compare_pairs(lever, labelled).select("human", "model", "agrees")
        frames.append(labelled.join(comparison, on=["human", "model"]).select(*columns, "agrees"))
    return pl.concat(frames)


def _compute_shares(decisions: pl.DataFrame) -> dict[str, Share]:
    units = decisions.group_by("reviewer", "unit").agg(pl.col("agrees").sum(), size=pl.len())
    return {
        str(name): compute_clustered_share(part["agrees"].to_numpy(), part["size"].to_numpy())
        for (name,), part in units.sort("unit").partition_by("reviewer", as_dict=True).items()
    }


def _find_standouts(decisions: pl.DataFrame, shares: dict[str, Share]) -> set[str]:
    """Return the reviewers who are clearly below the others in the same cells.

    Two reasons for a difference are excluded: bursts, by the interval of the reviewer's share, and
    the chance that the few errors of a cell are all one reviewer's, by the exact test of strata.
    """
    counts = _count_with_others(decisions)
    tables = counts.partition_by("reviewer", as_dict=True, maintain_order=True)
    level = 1 - (1 - CONFIDENCE_LEVEL) / max(len(tables), 1)
    strata_by_name = {
        str(name): build_strata_table(*(table[column].to_numpy() for column in STRATA_COLUMNS))
        for (name,), table in tables.items()
    }
    return {
        name
        for name, strata in strata_by_name.items()
        if _is_below(shares[name], 1 - strata.expected_share, level)
        and compute_tail_chance(strata) < (1 - level) / 2
    }


def _count_with_others(decisions: pl.DataFrame) -> pl.DataFrame:
    """Return decisions and disagreements by reviewer and cell, beside those of all reviewers.

    Cells with a single reviewer are excluded, and so are reviewers without a shared cell.
    """
    cell = ["site", "window"]
    counts = decisions.group_by("reviewer", *cell).agg(n=pl.len(), differ=(~pl.col("agrees")).sum())
    return (
        counts.with_columns(
            all_n=pl.col("n").sum().over(cell), all_differ=pl.col("differ").sum().over(cell)
        )
        .filter(pl.col("all_n") > pl.col("n"))
        .sort("reviewer", *cell)
        .with_columns(pl.col(STRATA_COLUMNS).cast(pl.Int64))
    )


def _is_below(share: Share, expected: float, level: float) -> bool:
    if share.rate is None or share.effective is None:
        return False
    _, high = clopper_pearson(share.rate * share.effective, share.effective, level)
    return high < expected
