"""Why units are missing: no decision counts as evidence, or no prediction stood before it."""

import polars as pl

from rollout.core.calendar.instants import count_micros
from rollout.core.calendar.sites import OTHER_WINDOW, Cell
from rollout.core.policy.policy import Policy
from rollout.core.records.row_remarks import RemarkReason
from rollout.kernel.units import SILENT_REASONS
from rollout.reports.inputs.evidence_inputs import CellVersion
from rollout.reports.inputs.inputs import ReportInputs
from rollout.tally.frames import VALUE_PREFIX, RecordFrames
from rollout.tally.units import is_missing_unit

SEVERAL_LABELS = "several labels by one reviewer"
UNANSWERED = "no decision"
ONLY_ASSISTED = "exposure assisted"
EXPOSURE_UNKNOWN = "exposure unknown"
UNSURE = "reviewer unsure"
LATE = "decided after the grace"
ARRIVED_LATE = "arrived after the unit closed"
NO_MAJORITY = "no majority of the requested decisions"
COLUMNS = ("version", "site", "window", "unit", "reason")


def find_missing_reasons(inputs: ReportInputs) -> pl.DataFrame:
    """Return each missing unit with the reason.

    The columns are `COLUMNS`. The first fitting reason of a unit counts. Units outside every window
    are excluded. Without units the frame is empty.
    """
    if inputs.units.is_empty():
        return pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.String))
    missing = inputs.units.filter(
        (pl.col("track") == "gate")
        & (pl.col("lever") == inputs.policy.whole_unit_lever)
        & (pl.col("window") != OTHER_WINDOW)
        & pl.col("excluded").is_null()
        & is_missing_unit()
    ).with_columns(
        pl.col("version", "site", "window", "predicted").cast(pl.String)  # a replay's: categories
    )
    decisions = _summarize_decisions(inputs.records, inputs.policy, missing["case_key"])
    rejected = inputs.records.rejected
    several_labels = rejected.filter(pl.col("reason") == RemarkReason.SEVERAL_LABELS)
    late_units = inputs.late_units.with_columns(arrived_late=pl.lit(value=True))
    return (
        missing.join(decisions, on="case_key", how="left")
        .join(late_units, on=("unit", "version"), how="left")
        .with_columns(
            several=pl.col("case_key").is_in(several_labels["case_key"].unique().implode())
        )
        .with_columns(reason=_choose_reason(inputs.policy))
        .select(*COLUMNS)
    )


def count_cell_reasons(inputs: ReportInputs) -> dict[CellVersion, dict[str, int]]:
    """Return how often each reason occurs in each cell, by version."""
    counts: dict[CellVersion, dict[str, int]] = {}
    for version, site, window, _, reason in find_missing_reasons(inputs).sort("reason").iter_rows():
        cell_counts = counts.setdefault((Cell(site, window), version), {})
        cell_counts[reason] = cell_counts.get(reason, 0) + 1
    return counts


def count_reasons(reasons: pl.Series) -> dict[str, int]:
    """Return how often each reason occurs, by name."""
    return dict(reasons.value_counts(sort=True).sort(reasons.name).iter_rows())


def _choose_reason(policy: Policy) -> pl.Expr:
    is_single = policy.evidence.verdicts == 1
    stated = -(-pl.col("stated").dt.epoch("us") // count_micros(policy.tick))  # its slot
    silent = pl.col("predicted").replace_strict(dict(SILENT_REASONS), default=None)
    return (
        pl.when(silent.is_not_null()).then(silent)
        .when(pl.col("arrived_late")).then(pl.lit(ARRIVED_LATE))
        .when(pl.col("people").is_null() & pl.col("several")).then(pl.lit(SEVERAL_LABELS))
        .when(pl.col("people").is_null()).then(pl.lit(UNANSWERED))
        .when(~pl.col("unseen") & pl.col("unsaid")).then(pl.lit(EXPOSURE_UNKNOWN))
        .when(~pl.col("unseen")).then(pl.lit(ONLY_ASSISTED))
        .when(~pl.col("sure")).then(pl.lit(UNSURE))
        .when(is_single & (stated <= pl.col("slot"))).then(pl.lit(ARRIVED_LATE))
        .otherwise(pl.lit(LATE if is_single else NO_MAJORITY))
    )  # fmt: skip


def _summarize_decisions(
    records: RecordFrames, policy: Policy, case_keys: pl.Series
) -> pl.DataFrame:
    """Return for each of these cases: people (number of answers), unseen, sure, unsaid, stated.

    `unseen`: an unassisted answer exists; `unsaid`: the exposure of an answer is unknown;
    `stated`: when the first unassisted one was made.
    """
    is_unknown = pl.col("exposure") == "unknown"
    is_unassisted = pl.col("exposure") == "blind"
    if policy.evidence.outside_blind:
        is_unassisted |= is_unknown
    is_sure = pl.all_horizontal(
        [pl.col(VALUE_PREFIX + lever.id).is_not_null() for lever in policy.levers]
    )
    is_counted = pl.col("counts").sort_by("rank")
    first_sure = pl.col("sure").sort_by("rank").filter(is_counted).first()
    return (
        records.decisions.filter(pl.col("case_key").is_in(case_keys.unique().implode()))
        .with_columns(
            counts=is_unassisted,
            unsaid=is_unknown,
            sure=is_sure,
            rank=pl.coalesce(pl.col("seat").cast(pl.Int64), pl.lit(99)),
        )
        .group_by("case_key")
        .agg(
            pl.col("unsaid").any(),
            people=pl.len(),
            unseen=pl.col("counts").any(),
            sure=first_sure.fill_null(value=False),
            stated=pl.col("at").sort_by("rank").filter(is_counted).first(),
        )
    )
