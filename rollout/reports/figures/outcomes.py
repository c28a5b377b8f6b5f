"""Against what was right: the outcome, or an adjudication. For reports and training, no evidence.

What turned out to be true is known of some cases only, and seldom of a fair sample of them.
Adjudications are offered on divergences: they can only turn a disagreement into an agreement
(statistics.md §8). So both stand apart from what decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import FAILED
from rollout.core.policy.policy import Policy
from rollout.reports.figures.agreement import share_of
from rollout.reports.figures.confusion import LabelFigures, label_figures, matrix_of
from rollout.reports.inputs.pairs import case_facts, compared, single_verdicts
from rollout.reports.inputs.unblinded import settled_labels
from rollout.reports.statistics.chance_agreement import AgreementCoefficient, kappa_with_interval
from rollout.reports.statistics.intervals import Change, Share, independent_share, paired_change
from rollout.tally.frames import VALUE, Records

OUTCOME, ADJUDICATED = "outcome", "adjudicated"


@dataclass(frozen=True, slots=True)
class Correctness:
    """One version on one lever, and people, against what was right.

    Attributes:
        version, lever: whose answers.
        against: `outcome` or `adjudicated`.
        known: cases that the version was asked about and of which it is known what was right.
        model: cases on which the version was right.
        kappa: the version's, against what was right; None for numbers.
        labels: the version's figures by label, in `human` how often the label was right; empty
            for numbers.
        people: cases on which people's one unseen answer was right, of those that have one.
        model_beside: the version on exactly these cases.
        change: cases on which the version alone was right minus those where people alone were, per
            100 of these cases.
    """

    version: str
    lever: str
    against: str
    known: int
    model: Share
    kappa: AgreementCoefficient | None
    labels: tuple[LabelFigures, ...]
    people: Share
    model_beside: Share
    change: Change


def correctness_of(
    records: Records, cases: pl.DataFrame, policy: Policy
) -> tuple[Correctness, ...]:
    """Return the figures of every version and lever, against each truth that is known of any case.

    Args:
        records: the records as read.
        cases: the cases that could be placed, for their units.
        policy: for levers and tolerances.
    """
    facts = case_facts(records, cases).select("case_key", "unit")
    versions = records.predictions["version"].unique().sort()
    return tuple(
        _of(lever, reference, version, rows)
        for lever in policy.levers
        for reference, truth in _truths(records, lever)
        for version in versions
        if (rows := _rows(records, lever, version, truth, facts)).height
    )


def _truths(records: Records, lever: Lever) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield what was right, by each way of knowing: case_key, truth."""
    outcomes = records.outcomes.select("case_key", truth=VALUE + lever.id).drop_nulls()
    yield OUTCOME, outcomes
    yield ADJUDICATED, settled_labels(records, lever)


def _rows(
    records: Records, lever: Lever, version: str, truth: pl.DataFrame, facts: pl.DataFrame
) -> pl.DataFrame:
    """Return the cases with a known truth: unit, human (what was right), model, said, agrees."""
    predictions = records.predictions.filter(pl.col("version") == version)
    model = predictions.select("case_key", model=pl.col(VALUE + lever.id).fill_null(FAILED))
    decisions = single_verdicts(records, VALUE + lever.id).rename({"human": "said"})
    joined = model.join(truth, on="case_key").join(decisions, on="case_key", how="left")
    renamed = joined.rename({"truth": "human"})
    comparison = compared(lever, renamed).select("human", "model", "agrees")
    rows = renamed.join(comparison, on=["human", "model"]).join(facts, on="case_key", how="left")
    human_answers = rows.select("human", model="said").drop_nulls()
    human_comparison = compared(lever, human_answers).select(
        "human", said="model", people_agree="agrees"
    )
    return rows.join(human_comparison, on=["human", "said"], how="left").sort("case_key")


def _of(lever: Lever, against: str, version: str, rows: pl.DataFrame) -> Correctness:
    model_share = share_of(rows)
    matrix = matrix_of(rows, "human", "model", lever.labels) if lever.number is None else None
    effective = min(1.0, (model_share.effective or model_share.n) / model_share.n)
    with_decision = rows.drop_nulls("people_agree")
    return Correctness(
        version=version,
        lever=lever.id,
        against=against,
        known=rows.height,
        model=model_share,
        kappa=kappa_with_interval(matrix.table, effective) if matrix else None,
        labels=label_figures(rows, matrix, {}) if matrix else (),
        people=share_of(with_decision.with_columns(agrees="people_agree")),
        model_beside=share_of(with_decision),
        change=_change(with_decision),
    )


def _change(beside: pl.DataFrame) -> Change:
    """Return by how many of 100 cases the version is right more often than people."""
    model_right, human_right = pl.col("agrees"), pl.col("people_agree")
    difference = model_right.cast(pl.Int64) - human_right.cast(pl.Int64)
    units = (
        beside.group_by("unit")
        .agg(gap=difference.sum(), size=pl.len(), square=(difference * difference).sum())
        .sort("unit")
    )
    effective = independent_share(*(units[name].to_numpy() for name in ("gap", "size", "square")))
    return paired_change(
        beside.filter(model_right & ~human_right).height,
        beside.filter(human_right & ~model_right).height,
        beside.height,
        effective,
    )
