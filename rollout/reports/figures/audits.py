"""How cases were drawn for unseen verdicts, and what the drawn ones say of all of them.

Above shadow only a share of the units gets an unseen verdict, and another share on each stage; a
case that the model left unanswered, or was too unsure of, always goes to people. So the plain rate
among those that were read is the rate of a mix that nobody asked for. Weighted by one over its
chance, each case stands for those like it that were not read (statistics.md §5, §17).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from rollout.reports.figures.agreement import share_of
from rollout.reports.inputs.decided_by import PERSON
from rollout.reports.inputs.inputs import Era, Inputs
from rollout.reports.inputs.pairs import UNSEEN, Pairs
from rollout.reports.statistics.intervals import (
    ONE_SIDED,
    Share,
    Weighted,
    clopper_pearson,
    weighted_share,
)
from rollout.tally.frames import VALUE
from rollout.tally.slots import EPOCH, MICROSECOND

SURELY = 0.999  # a draw that misses its plan by luck alone is called off plan once in 1,000 rows
RUNG = {
    "era": pl.Int64,
    "rung": pl.Int64,
    "stage": pl.String,
    "seen": pl.Float64,  # share that gets an unseen verdict
    "blind": pl.Float64,  # share that people decide unseen
    "decides": pl.Boolean,  # whether the model decides the others
}
DRAWN = ["site", "window", "stage"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How cases of one cell were drawn for unseen verdicts on one stage.

    Attributes:
        site, window, stage: where.
        cases: all cases there.
        planned: the mean of the chances with which the policy has them drawn.
        drawn: cases that were drawn, of all; with an interval over units.
        judged: of the drawn ones those with an unseen verdict.
        outside: unseen verdicts on cases that were not drawn; they are in no estimate.
        off_plan: whether the drawn share lies where luck would bring it less than once in 1,000.
    """

    site: str
    window: str
    stage: str
    cases: int
    planned: float
    drawn: Share
    judged: Share
    outside: int
    off_plan: bool


@dataclass(frozen=True, slots=True)
class Sampled:
    """Agreement of one version in one cell, from the drawn cases.

    Attributes:
        site, window, version: whose.
        naive: of the drawn cases that were judged, the share that agrees.
        weighted: the same, each case weighted by one over its chance: of all cases.
        differs_at_most: by the weighted estimate the share of all cases that differ is at most
            this, one-sided; None without cases.
        method: of the last.
    """

    site: str
    window: str
    version: str
    naive: Share
    weighted: Weighted
    differs_at_most: float | None
    method: str


@dataclass(frozen=True, slots=True)
class Audits:
    """The draws, by cell and stage, and what follows from them, by cell and version."""

    sampling: tuple[Sampling, ...]
    sampled: tuple[Sampled, ...]


def audits_of(inputs: Inputs, pairs: Pairs, drawn: pl.DataFrame) -> Audits:
    """Return how cases were drawn and what the drawn ones say.

    Args:
        inputs: for verdicts, and the order of cells.
        pairs: the judged cases.
        drawn: every case as `drawn_cases` gives it.
    """
    order = {
        cell: index
        for index, cell in enumerate((cell.site, cell.window) for cell in inputs.policy.cells)
    }
    stage_levels = {stage: index for index, stage in enumerate(inputs.policy.rungs)}
    sampling = sorted(
        _sampling(drawn, inputs),
        key=lambda row: (
            order.get((row.site, row.window), len(order)),
            stage_levels.get(row.stage, 99),
        ),
    )
    sampled = sorted(
        _sampled(drawn, pairs, inputs),
        key=lambda row: (order.get((row.site, row.window), len(order)), row.version),
    )
    return Audits(tuple(sampling), tuple(sampled))


def drawn_cases(inputs: Inputs, placed: pl.DataFrame) -> pl.DataFrame:
    """Return every placed case with its chance of an unseen verdict.

    Columns: those of `standing.standing` and of `RUNG`, usable (whether the acting version's
    answer could be acted on), chance, drawn.
    """
    policy_periods = inputs.eras or (Era(inputs.first, inputs.policy, inputs.timelines),)
    starts = np.array([(period.since - EPOCH) // MICROSECOND for period in policy_periods])
    period = np.maximum(np.searchsorted(starts, placed["t"].to_numpy(), side="right") - 1, 0)
    frame = placed.with_columns(era=pl.Series(period, dtype=pl.Int64))
    stages = pl.DataFrame(
        list(_rungs(policy_periods)),
        schema=RUNG,
        orient="row",
    )
    joined = frame.join(stages, on=["era", "rung"], how="left").join(
        _usable(inputs), on=["case_key", "version"], how="left", nulls_equal=False
    )
    is_usable = pl.col("usable").fill_null(value=False)
    return joined.with_columns(
        usable=is_usable,
        chance=pl.when(is_usable).then("seen").otherwise(1.0),
        drawn=(pl.col("decider") == PERSON) | pl.col("audited"),
    ).sort("case_key")


def _rungs(eras: tuple[Era, ...]) -> Iterator[tuple[int, int, str, float, float, bool]]:
    """Yield each rung of each policy, as rows of `RUNG`."""
    for index, period in enumerate(eras):
        yield index, 0, period.policy.rungs[0], 1.0, 1.0, False
        for stage_level, stage in enumerate(period.policy.stages, start=1):
            yield index, stage_level, stage.id, stage.seen, stage.blind, stage.model_decides


def _usable(inputs: Inputs) -> pl.DataFrame:
    """Return of each answer whether it could be acted on; the others go to people."""
    is_usable = pl.all_horizontal(
        [pl.col(VALUE + lever.id).is_not_null() for lever in inputs.policy.levers]
    )
    confidence_floor = inputs.policy.evidence.confidence_floor
    if confidence_floor is not None:
        is_usable &= (pl.col("confidence") >= confidence_floor).fill_null(value=False)
    return inputs.records.predictions.select("case_key", "version", usable=is_usable)


def _sampling(drawn: pl.DataFrame, inputs: Inputs) -> Iterator[Sampling]:
    unassisted = inputs.records.decisions.filter(
        pl.col("exposure").is_in(UNSEEN) & ~pl.col("unsure")
    )
    marked = drawn.with_columns(
        judged=pl.col("case_key").is_in(unassisted["case_key"].unique().implode())
    )
    for (site, window, stage), part in marked.partition_by(DRAWN, as_dict=True).items():
        sampled = part.filter("drawn")
        sampled_share = share_of(part.with_columns(agrees="drawn"))
        planned = float(part["chance"].to_numpy().mean())
        yield Sampling(
            site=str(site),
            window=str(window),
            stage=str(stage),
            cases=part.height,
            planned=planned,
            drawn=sampled_share,
            judged=share_of(sampled.with_columns(agrees="judged")),
            outside=part.filter(~pl.col("drawn") & pl.col("judged")).height,
            off_plan=_off(sampled_share, planned),
        )


def _off(found: Share, planned: float) -> bool:
    if found.rate is None or found.effective is None or planned == 1:
        return False
    low, high = clopper_pearson(found.rate * found.effective, found.effective, SURELY)
    return not low <= planned <= high


def _sampled(drawn: pl.DataFrame, pairs: Pairs, inputs: Inputs) -> Iterator[Sampled]:
    lever_pairs = pairs.frame.filter(pl.col("lever") == inputs.policy.whole)
    agreements = lever_pairs.select("case_key", "version", "agrees")
    sampled = drawn.filter("drawn").drop("version").join(agreements, on="case_key")
    parts = sampled.sort("case_key").partition_by("site", "window", "version", as_dict=True)
    for (site, window, version), part in parts.items():
        agrees = part["agrees"].cast(pl.Int64).to_numpy()
        units = part["unit"].rank("dense").to_numpy()
        weighted = weighted_share(agrees, part["chance"].to_numpy(), units)
        yield Sampled(
            site=str(site),
            window=str(window),
            version=str(version),
            naive=share_of(part),
            weighted=weighted,
            differs_at_most=_differs_at_most(weighted),
            method=ONE_SIDED,
        )


def _differs_at_most(found: Weighted) -> float | None:
    """Return the one-sided upper bound of what differs, at the effective number of cases."""
    if found.rate is None or found.effective is None:
        return None
    low, _ = clopper_pearson(found.rate * found.effective, found.effective, 2 * 0.95 - 1)
    return 1 - low
