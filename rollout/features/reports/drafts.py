"""What a report says next: its figures, or that nothing changed. Nothing is written."""

import json
import secrets
from dataclasses import replace
from datetime import datetime
from functools import partial

from rollout.data.database.session import Database, Transaction
from rollout.data.reports.reports import ReportStore, StoredReport
from rollout.features.reports.builder import (
    STEPS,
    NothingToReportError,
    ReportDraft,
    ReportOptions,
    find_case_media,
)
from rollout.features.reports.figures.facts import ReportFacts, compute_report_facts
from rollout.features.reports.figures.report_version import (
    MAX_CHANGES,
    SALT,
    SALT_BYTES,
    SALT_FIELDS,
    SCHEMA,
    FigureChange,
    UnknownReportFormError,
    check_report_form,
    compare_versions,
    compute_seal,
    compute_table_seal,
    format_canonical,
    leave_out_pictures,
)
from rollout.features.reports.inputs.divergences import render_divergences_csv
from rollout.features.reports.pages.json_report import to_plain_values
from rollout.features.reports.stored_inputs import (
    ReportPeriod,
    load_report_inputs,
    load_whole_period,
)
from rollout.live.rollout_state import RolloutState, read_rollout
from rollout.live.work.user_runs import StepCallback


def draft_report(
    database: Database,
    rollout_name: str,
    report_name: str,
    options: ReportOptions,
    at: datetime,
    on_step: StepCallback,
) -> ReportDraft:
    """Return the next version of a report, or the last one if nothing changed.

    Raises:
        NoSuchRolloutError: the rollout does not exist.
        NothingToReportError: the period is not valid.
    """
    on_step(STEPS[0], 0, len(STEPS))
    with read_rollout(database, rollout_name) as (transaction, state):
        period = _compute_period(transaction, state, options, at)
        inputs = replace(
            load_report_inputs(transaction, state, period, report_name),
            media=partial(find_case_media, database, state),
        )
        last_report = ReportStore(transaction, state.rollout).find_newest(
            report_name, period.since, period.until
        )
    on_step(STEPS[1], 1, len(STEPS))
    divergences_csv_bytes = render_divergences_csv(inputs)
    facts = compute_report_facts(inputs)
    on_step(STEPS[2], 2, len(STEPS))
    salt = secrets.token_hex(SALT_BYTES)
    edition = replace(
        facts.report_version,
        name=report_name,
        divergences_sha256=compute_table_seal({SALT: salt}, divergences_csv_bytes.decode()),
    )
    report = _build_report(
        replace(facts, report_version=edition),
        period,
        options.view,
        divergences_csv_bytes.decode(),
        last_report,
        salt,
    )
    if report is None:
        assert last_report is not None  # noqa: S101 - it says the same as this one
        return ReportDraft(last_report[1], last_report[0], state.scope.revision)
    return ReportDraft(report, None, state.scope.revision)


def _compute_period(
    transaction: Transaction, state: RolloutState, options: ReportOptions, at: datetime
) -> ReportPeriod:
    whole_period = load_whole_period(transaction, state, at)
    period = ReportPeriod(
        options.since or whole_period.since, options.until or whole_period.until, at
    )
    if period.until > at:
        raise NothingToReportError(
            f"{period.until.isoformat()} is yet to come; let the span end by now"
        )
    return period


def _build_report(
    facts: ReportFacts,
    period: ReportPeriod,
    view: str,
    table: str,
    last_report: tuple[int, StoredReport] | None,
    salt: str,
) -> StoredReport | None:
    """Return the next version, or None if nothing changed."""
    version = 1
    if last_report is not None:
        version = last_report[1].version + 1
        earlier = {
            name: value
            for name, value in json.loads(last_report[1].body).items()
            if name not in SALT_FIELDS
        }
        try:
            check_report_form(earlier)
        except UnknownReportFormError:  # of another program: what changed can't be listed
            changed_figures: tuple[FigureChange, ...] = ()
        else:
            changed_figures = compare_versions(earlier, leave_out_pictures(to_plain_values(facts)))
            if not changed_figures and table == last_report[1].divergences:
                return None
        edition = replace(
            facts.report_version,
            version=version,
            changed=changed_figures[:MAX_CHANGES],
            more_changed=max(0, len(changed_figures) - MAX_CHANGES),
        )
        facts = replace(facts, report_version=edition)
    body = format_canonical({**leave_out_pictures(to_plain_values(facts)), SALT: salt})
    return StoredReport(
        name=facts.report_version.name,
        since=period.since,
        until=period.until,
        version=version,
        state=facts.report_version.state,
        due=facts.report_version.due,
        view=view,
        schema=SCHEMA,
        body=body,
        divergences=table,
        made_at=period.at,
        sealed_in=0,
        seal=compute_seal(body),
    )
