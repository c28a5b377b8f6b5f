"""The people behind the verdicts: how far each agrees with the model, with others, with the truth.

Nobody is judged by a bare rate: who reads the hard cells agrees less. Each person is held against
the others in the same cells, with allowance for how many people were looked at.
"""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.reports.figures.human_ceiling import Ceiling, ceilings_of
from rollout.reports.inputs.pairs import UNSEEN, Pairs, case_facts, compared
from rollout.reports.statistics.intervals import (
    LEVEL,
    Share,
    clopper_pearson,
    clustered_share,
    share,
)
from rollout.tally.frames import VALUE, Records

ROW = ("reviewer", "unit", "site", "window", "agrees")


@dataclass(frozen=True, slots=True)
class Reviewer:
    """One person's verdicts: unseen ones, and what they agree with.

    Attributes:
        name: as the records call the person.
        verdicts, unsure: answers given, and times that the person said unsure.
        with_model: agreement with `model_version`, on the cases that the person judged.
        with_others: agreement with every other person who judged the same case.
        with_outcome: agreement with what turned out to be true.
        stands_out: by what the person is clearly below the others in the same cells: `outcome`,
            `others`, `model`; empty for nearly everybody.
    """

    name: str
    verdicts: int
    unsure: int
    with_model: Share
    with_others: Share
    with_outcome: Share
    stands_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """All reviewers, the one who stands out most first, and the human ceiling per lever."""

    model_version: str | None
    reviewers: tuple[Reviewer, ...]
    ceilings: tuple[Ceiling, ...]


def judged(pairs: Pairs, records: Records, cases: pl.DataFrame, policy: Policy) -> Judged:
    """Return the figures of all people, on the policy's first lever that has labels.

    The model's version is the one that was asked most often, so that everybody is held against
    the same answers.
    """
    version = max(
        pairs.predicted, key=lambda candidate: (pairs.predicted[candidate], candidate), default=None
    )
    decisions = _verdicts(records, cases, policy)
    reviewers = _reviewers(decisions, records, policy, version)
    return Judged(version, reviewers, ceilings_of(decisions, records, policy))


def _verdicts(records: Records, cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return one row per unseen verdict and lever: case_key, reviewer, lever, label, unit."""
    facts = case_facts(records, cases).select("case_key", "unit", "site", "window")
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNSEEN))
    parts = [
        unassisted.select(
            "case_key", "reviewer", "at", "seat", lever=pl.lit(lever.id), label=VALUE + lever.id
        )
        for lever in policy.levers
    ]
    return pl.concat(parts).join(facts, on="case_key", how="left")


def _reviewers(
    said: pl.DataFrame, records: Records, policy: Policy, version: str | None
) -> tuple[Reviewer, ...]:
    comparisons = {
        "outcome": _against(said, records.outcomes, policy),
        "others": _against_others(said, policy),
        "model": _against(said, _of_version(records, version), policy),
    }
    shares = {name: _shares(frame) for name, frame in comparisons.items()}
    counts = said.group_by("reviewer").agg(
        verdicts=pl.col("label").is_not_null().sum(), unsure=pl.col("label").is_null().sum()
    )
    standouts = {kind: _stands_out(comparisons[kind], shares[kind]) for kind in comparisons}
    rows = [
        Reviewer(
            name=str(name),
            verdicts=int(decision_count),
            unsure=int(unsure),
            with_model=shares["model"].get(name, share(0, 0)),
            with_others=shares["others"].get(name, share(0, 0)),
            with_outcome=shares["outcome"].get(name, share(0, 0)),
            stands_out=tuple(kind for kind in shares if name in standouts[kind]),
        )
        for name, decision_count, unsure in counts.sort("reviewer").iter_rows()
    ]
    return tuple(sorted(rows, key=_most_careless_first))


def _most_careless_first(reviewer: Reviewer) -> tuple[bool, float, str]:
    """Sort by the best figure there is: the outcome, else other people, else the model."""
    figures = (reviewer.with_outcome, reviewer.with_others, reviewer.with_model)
    rate = next((figure.rate for figure in figures if figure.rate is not None), 2.0)
    return (not reviewer.stands_out, rate, reviewer.name)


def _of_version(records: Records, version: str | None) -> pl.DataFrame:
    return records.predictions.filter(pl.col("version") == pl.lit(version, pl.String))


def _against(said: pl.DataFrame, other: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each verdict with whether it agrees with the other side's answer."""
    parts = [
        said.filter(pl.col("lever") == lever.id).join(
            other.select("case_key", model=VALUE + lever.id).drop_nulls(), on="case_key"
        )
        for lever in policy.levers
    ]
    return agreeing(parts, policy)


def _against_others(said: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each verdict with whether it agrees, once for every other person on the case."""
    multi_reviewed = said.drop_nulls("label").filter(pl.len().over("case_key", "lever") > 1)
    other = multi_reviewed.select("case_key", "lever", other="reviewer", model="label")
    pairs = multi_reviewed.join(other, on=["case_key", "lever"]).filter(
        pl.col("reviewer") != pl.col("other")
    )
    parts = [pairs.filter(pl.col("lever") == lever.id) for lever in policy.levers]
    return agreeing(parts, policy)


def agreeing(
    parts: list[pl.DataFrame], policy: Policy, keep: tuple[str, ...] = ROW[:-1]
) -> pl.DataFrame:
    """Return verdicts with whether each agrees: `keep` and `agrees`.

    Args:
        parts: for each lever of the policy, in order: label (the person's) and model (the other
            side's answer), and `keep`.
        policy: for levers and tolerances.
        keep: columns to keep.
    """
    frames = []
    for lever, part in zip(policy.levers, parts, strict=True):
        labelled = part.drop_nulls("label").rename({"label": "human"})
        comparison = compared(lever, labelled).select("human", "model", "agrees")
        frames.append(labelled.join(comparison, on=["human", "model"]).select(*keep, "agrees"))
    return pl.concat(frames)


def _shares(verdicts: pl.DataFrame) -> dict[str, Share]:
    units = verdicts.group_by("reviewer", "unit").agg(pl.col("agrees").sum(), size=pl.len())
    return {
        str(name): clustered_share(part["agrees"].to_numpy(), part["size"].to_numpy())
        for (name,), part in units.sort("unit").partition_by("reviewer", as_dict=True).items()
    }


def _stands_out(verdicts: pl.DataFrame, shares: dict[str, Share]) -> set[str]:
    """Return who is clearly below the others in the same cells."""
    expected = _expected(verdicts)
    level = 1 - (1 - LEVEL) / max(len(expected), 1)
    return {name for name, rate in expected.items() if _below(shares[name], rate, level)}


def _expected(verdicts: pl.DataFrame) -> dict[str, float]:
    """Return the rate that each person would have if the others had judged the same cells.

    Cells in which nobody else judged are left out; people without a shared cell are, too.
    """
    cell = ["site", "window"]
    counts = verdicts.group_by("reviewer", *cell).agg(pl.col("agrees").sum(), n=pl.len())
    others = counts.with_columns(
        agrees=pl.col("agrees").sum().over(cell) - pl.col("agrees"),
        others=pl.col("n").sum().over(cell) - pl.col("n"),
    ).filter(pl.col("others") > 0)
    rate = (pl.col("n") * pl.col("agrees") / pl.col("others")).sum() / pl.col("n").sum()
    rates = others.sort("reviewer", *cell).group_by("reviewer", maintain_order=True).agg(rate=rate)
    return dict(rates.iter_rows())


def _below(own: Share, expected: float, level: float) -> bool:
    if own.rate is None or own.effective is None:
        return False
    _, high = clopper_pearson(own.rate * own.effective, own.effective, level)
    return high < expected
