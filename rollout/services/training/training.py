"""Training rows of a live rollout, built by the code for recorded files.

Cases that may still be decided blind are excluded for all callers: while decisions are due, and
while a review task is open.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.core.records.reviews import PREDICTION
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.reports.figures.label_sources import HUMAN_SOURCES, build_assignments
from rollout.reports.figures.training import TrainingExport, build_export_from_records
from rollout.reports.inputs.inputs import ReportInputs
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.reports.inputs import load_report_inputs
from rollout.services.reports.visible_records import ReportPeriod, load_whole_period
from rollout.services.reviews.exposure import record_shown_cases
from rollout.store.counting.period_records import PeriodRecords
from rollout.store.database.session import Database, Transaction
from rollout.store.records.newest_records import NewestRecords
from rollout.tally.frames import RecordFrames

TRAINING_PAGE = "training"


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Filter of training rows; `until` is exclusive, None is open."""

    sources: Sequence[str] = HUMAN_SOURCES
    since: datetime | None = None
    until: datetime | None = None


def export_training_rows(
    database: Database, caller: Caller, rollout_name: str, options: TrainingOptions, at: datetime
) -> TrainingExport:
    """Return the training rows of a live rollout at readable sites.

    All data are read from one database snapshot. Exposure is recorded first.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        UnknownRolloutError: the caller may not see such a rollout.
        NothingToReportError: the period is empty.
        ValueError: a source does not exist.
        StaleRevisionError: the caller claimed one of the cases meanwhile; repeat the request.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        inputs, open_case_sites = load_closed_inputs(transaction, state, options, at)
    readable_inputs = select_inputs(
        inputs, _select_readable_cases(inputs.records.cases, caller, rollout_name)
    )
    export = build_export_from_records(
        readable_inputs.policy,
        readable_inputs.records,
        readable_inputs.cases,
        sources=options.sources,
        assigned_cases=build_assignments(readable_inputs),
        choices=readable_inputs.choices,
        withheld_count=sum(
            caller.has_permission(Permission.READ, rollout_name, site) for site in open_case_sites
        ),
    )
    keys = export.rows["case_key"].unique().sort().to_list()
    record_shown_cases(database, state, caller, keys, at, page=TRAINING_PAGE, contents=[PREDICTION])
    return export


def load_closed_inputs(
    transaction: Transaction, state: RolloutState, options: TrainingOptions, at: datetime
) -> tuple[ReportInputs, Sequence[str]]:
    """Return the inputs of closed cases, and the sites of open ones by case."""
    whole_period = load_whole_period(transaction, state, at)
    since = whole_period.since if options.since is None else options.since
    until = at if options.until is None else min(options.until, at)
    inputs = load_report_inputs(transaction, state, ReportPeriod(since, until, at))
    cases = inputs.records.cases
    closed_keys = cases.filter(_build_closing_time(inputs.policy) <= at)["case_key"]
    period_records = PeriodRecords(transaction, state.rollout)
    blind_cases = NewestRecords(transaction, state.rollout).load_cases(
        period_records.list_cases(since, until) & period_records.list_blind_cases(at)
    )
    pending_sites = cases.filter(~pl.col("case_key").is_in(closed_keys.implode()))["site"].to_list()
    return select_inputs(inputs, closed_keys), [
        *pending_sites,
        *(case.site for case in blind_cases.values()),
    ]


def _select_readable_cases(cases: pl.DataFrame, caller: Caller, rollout_name: str) -> pl.Series:
    sites = [
        site
        for site in cases["site"].unique()
        if caller.has_permission(Permission.READ, rollout_name, site)
    ]
    return cases.filter(pl.col("site").is_in(sites))["case_key"]


def _build_closing_time(policy: Policy) -> pl.Expr:
    """Build the closing time of a case."""
    received_at = pl.max_horizontal("occurred_at", "received_at")
    return received_at + policy.evidence.grace


def select_inputs(inputs: ReportInputs, keys: pl.Series) -> ReportInputs:
    """Return the inputs restricted to the given cases."""
    is_selected = pl.col("case_key").is_in(keys.implode())
    records = inputs.records
    return replace(
        inputs,
        cases=inputs.cases.filter(is_selected),
        records=RecordFrames(
            cases=records.cases.filter(is_selected),
            predictions=records.predictions.filter(is_selected),
            decisions=records.decisions.filter(is_selected),
            outcomes=records.outcomes.filter(is_selected),
            rejected=records.rejected,
            notes=records.notes,
            row_counts=records.row_counts,
            probabilities=records.probabilities.filter(is_selected),
        ),
    )
