"""How cases were sampled for unassisted decisions, and the agreement of all cases they imply.

Above shadow only a share of the units gets an unassisted decision, and the share differs by stage;
cases without a usable answer always go to humans. The plain rate of the sampled cases is therefore
biased. Weighted by one over its sampling chance, each case represents similar unsampled cases
(Horvitz and Thompson, Journal of the American Statistical Association 47 (1952) 663).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from rollout.core.calendar.instants import to_micros
from rollout.reports.inputs.decided_by import HUMAN, find_usable_answers
from rollout.reports.inputs.inputs import PolicyPeriod, ReportInputs
from rollout.reports.inputs.pairs import UNASSISTED_EXPOSURES, Pairs
from rollout.reports.statistics.intervals import (
    ONE_SIDED_METHOD,
    Share,
    WeightedShare,
    clopper_pearson,
    compute_unit_share,
    compute_weighted_share,
)

OFF_PLAN_LEVEL = 0.999  # one false flag in 1,000 rows
STAGE_SCHEMA = {
    "era": pl.Int64,
    "rung": pl.Int64,
    "stage": pl.String,
    "blind": pl.Float64,  # share that humans decide blind
    "decides": pl.Boolean,  # whether the model decides the rest
}
GROUP_COLUMNS = ["site", "window", "stage"]


@dataclass(frozen=True, slots=True)
class CellSampling:
    """How cases of one cell and stage were sampled for unassisted decisions.

    Attributes:
        site, window, stage: the cell and its stage.
        cases: all cases there.
        planned: mean sampling chance by the policy.
        drawn: share of sampled cases, with an interval over units.
        judged: share of the sampled cases with an unassisted decision.
        unsampled_decisions: unassisted decisions on other cases; no estimate uses them.
        differs_from_plan: whether a sampled share this far from the plan has a chance below 1 in
            1,000.
    """

    site: str
    window: str
    stage: str
    cases: int
    planned: float
    drawn: Share
    judged: Share
    unsampled_decisions: int
    differs_from_plan: bool


@dataclass(frozen=True, slots=True)
class SampledAgreement:
    """Agreement of one version in one cell, estimated from the sampled cases.

    Attributes:
        site, window, version: the cell and the version.
        unweighted: plain agreement of the decided sampled cases.
        weighted: estimated agreement of all cases, each weighted by one over its chance.
        differs_at_most: one-sided upper bound of the share that differs; None without cases.
        method: method of the bound.
    """

    site: str
    window: str
    version: str
    unweighted: Share
    weighted: WeightedShare
    differs_at_most: float | None
    method: str


@dataclass(frozen=True, slots=True)
class AuditFigures:
    """Sampling by cell and stage, and estimated agreement by cell and version."""

    sampling: tuple[CellSampling, ...]
    sampled: tuple[SampledAgreement, ...]


def compute_audits(inputs: ReportInputs, pairs: Pairs, cases: pl.DataFrame) -> AuditFigures:
    """Return how cases were sampled, and the agreement estimated from them.

    `cases`: the rows of `build_sampling_frame`.
    """
    order = {
        cell: index
        for index, cell in enumerate((cell.site, cell.window) for cell in inputs.policy.cells)
    }
    stage_levels = {stage: index for index, stage in enumerate(inputs.policy.stage_ids)}
    sampling = sorted(
        _compute_sampling(cases, inputs),
        key=lambda row: (
            order.get((row.site, row.window), len(order)),
            stage_levels.get(row.stage, 99),
        ),
    )
    sampled = sorted(
        _compute_sampled_agreements(cases, pairs, inputs),
        key=lambda row: (order.get((row.site, row.window), len(order)), row.version),
    )
    return AuditFigures(tuple(sampling), tuple(sampled))


def build_sampling_frame(inputs: ReportInputs, cases: pl.DataFrame) -> pl.DataFrame:
    """Return every case in a cell with its chance of an unassisted decision.

    Columns: those of `assign_deciders` and of `STAGE_SCHEMA`, usable (whether the acting version's
    answer could be used), chance, drawn.
    """
    policy_periods = inputs.all_policy_periods
    starts = np.array([to_micros(period.since) for period in policy_periods])
    period = np.maximum(
        np.searchsorted(starts, cases["occurred_us"].to_numpy(), side="right") - 1, 0
    )
    frame = cases.with_columns(era=pl.Series(period, dtype=pl.Int64))
    stages = pl.DataFrame(
        list(_build_stage_rows(policy_periods)),
        schema=STAGE_SCHEMA,
        orient="row",
    )
    joined = frame.join(stages, on=["era", "rung"], how="left").join(
        find_usable_answers(inputs), on=["case_key", "version"], how="left", nulls_equal=False
    )
    is_usable = pl.col("usable").fill_null(value=False)
    return joined.with_columns(
        usable=is_usable,
        chance=pl.when(is_usable).then("reviewed_share").otherwise(1.0),
        drawn=(pl.col("decider") == HUMAN) | pl.col("audited"),
    ).sort("case_key")


def _build_stage_rows(
    policy_periods: tuple[PolicyPeriod, ...],
) -> Iterator[tuple[int, int, str, float, bool]]:
    """Yield each stage of each policy as a row of `STAGE_SCHEMA`."""
    for index, period in enumerate(policy_periods):
        yield index, 0, period.policy.stage_ids[0], 1.0, False
        for stage_level, stage in enumerate(period.policy.stages, start=1):
            yield (
                index,
                stage_level,
                stage.id,
                stage.blind,
                stage.model_decides,
            )


def _compute_sampling(cases: pl.DataFrame, inputs: ReportInputs) -> Iterator[CellSampling]:
    unassisted = inputs.records.decisions.filter(
        pl.col("exposure").is_in(UNASSISTED_EXPOSURES) & ~pl.col("unsure")
    )
    marked = cases.with_columns(
        judged=pl.col("case_key").is_in(unassisted["case_key"].unique().implode())
    )
    for (site, window, stage), part in marked.partition_by(GROUP_COLUMNS, as_dict=True).items():
        sampled = part.filter("drawn")
        sampled_share = compute_unit_share(part, "drawn")
        planned = float(part["chance"].to_numpy().mean())
        yield CellSampling(
            site=str(site),
            window=str(window),
            stage=str(stage),
            cases=part.height,
            planned=planned,
            drawn=sampled_share,
            judged=compute_unit_share(sampled, "judged"),
            unsampled_decisions=part.filter(~pl.col("drawn") & pl.col("judged")).height,
            differs_from_plan=_is_off_plan(sampled_share, planned),
        )


def _is_off_plan(share: Share, planned: float) -> bool:
    if share.rate is None or share.effective is None or planned == 1:
        return False
    low, high = clopper_pearson(share.rate * share.effective, share.effective, OFF_PLAN_LEVEL)
    return not low <= planned <= high


def _compute_sampled_agreements(
    cases: pl.DataFrame, pairs: Pairs, inputs: ReportInputs
) -> Iterator[SampledAgreement]:
    lever_pairs = pairs.frame.filter(pl.col("lever") == inputs.policy.whole_unit_lever)
    agreements = lever_pairs.select("case_key", "version", "agrees")
    sampled = cases.filter("drawn").drop("version").join(agreements, on="case_key")
    parts = sampled.sort("case_key").partition_by("site", "window", "version", as_dict=True)
    for (site, window, version), part in parts.items():
        agrees = part["agrees"].cast(pl.Int64).to_numpy()
        units = part["unit"].rank("dense").to_numpy()
        weighted = compute_weighted_share(agrees, part["chance"].to_numpy(), units)
        yield SampledAgreement(
            site=str(site),
            window=str(window),
            version=str(version),
            unweighted=compute_unit_share(part),
            weighted=weighted,
            differs_at_most=_compute_max_difference(weighted),
            method=ONE_SIDED_METHOD,
        )


def _compute_max_difference(share: WeightedShare) -> float | None:
    """Return the one-sided upper bound of the share that differs."""
    if share.rate is None or share.effective is None:
        return None
    low, _ = clopper_pearson(share.rate * share.effective, share.effective, 2 * 0.95 - 1)
    return 1 - low
