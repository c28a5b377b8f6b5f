"""Building, sealing and storing reports of a running service.

A report without changes is not stored again; its last version is returned.
"""

import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from rollout.core.errors import StaleRevisionError
from rollout.core.scope.event_base import ENGINE
from rollout.core.scope.record_events import CasesErased, NameErased, ReportSealed
from rollout.reports.figures.facts import SCHEMA, ReportFacts, compute_report_facts
from rollout.reports.figures.report_forms import UnknownReportFormError, translate_report
from rollout.reports.figures.report_seal import (
    SALT,
    SALT_BYTES,
    SALT_FIELDS,
    compute_seal,
    compute_table_seal,
    leave_out_pictures,
)
from rollout.reports.figures.report_version import (
    MAX_CHANGES,
    FigureChange,
    compare_versions,
    format_canonical,
)
from rollout.reports.inputs.divergences import render_divergences_csv
from rollout.reports.inputs.pictures import find_picture
from rollout.reports.pages.json_report import to_plain_values
from rollout.services.engine.command_handler import retry_on_stale_revision
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.reports.inputs import NothingToReportError, load_report_inputs
from rollout.services.reports.visible_records import ReportPeriod, load_whole_period
from rollout.services.support.user_runs import StepCallback
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.newest_records import NewestRecords
from rollout.store.reports.reports import MAX_NAME_LENGTH, ReportStore, StoredReport


def find_case_media(
    database: Database, state: RolloutState, keys: Collection[str]
) -> Mapping[str, tuple[str, ...]]:
    """Return the media of cases, by media name."""
    with database.begin_read() as transaction:
        case_ids = ExternalKeys(transaction, state.rollout).find_ids(keys)
        cases = NewestRecords(transaction, state.rollout).load_cases(case_ids.values())
    return {
        case.key: tuple(case.media[media_name] for media_name in sorted(case.media))
        for case in cases.values()
        if case.media
    }


def load_pictures(
    database: Database, state: RolloutState, keys: Collection[str]
) -> Mapping[str, str | None]:
    """Return the embedded pictures of cases; purged and erased ones have none."""
    if not keys:
        return {}
    media = find_case_media(database, state, keys)
    return {key: find_picture(references, may_embed=True) for key, references in media.items()}


VIEWS: Final = ("operator", "engineer", "auditor")


ERASURE_KINDS: Final = frozenset({CasesErased.__name__, NameErased.__name__})


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        since, until: times of the cases, `until` exclusive; by default from the rollout's start to
            the last slot of its tick.
        view: first section: `operator`, `engineer` or `auditor`.
    """

    since: datetime | None = None
    until: datetime | None = None
    view: str = VIEWS[0]


@dataclass(frozen=True, slots=True)
class CreatedReport:
    """A stored report; `is_new` is False if an equal one was stored before."""

    number: int
    report: StoredReport
    is_new: bool


@dataclass(frozen=True, slots=True)
class ReportActor:
    """Who requests a report, with the access ledger revision of their permissions."""

    name: str = ENGINE
    access_head: int | None = None


ReportCallback = Callable[[Transaction, CreatedReport], None]
"""Called in the transaction that stores a new report."""
STEPS: Final = ("reading the records", "computing the figures", "comparing and sealing")


def _ignore_created(_transaction: Transaction, _created: CreatedReport) -> None:
    """Do nothing more in the transaction."""


def _ignore_step(_name: str, _number: int, _total: int) -> None:
    """Show the step to nobody."""


@dataclass(frozen=True, slots=True)
class ReportCallbacks:
    """What is called while a report is made."""

    on_created: ReportCallback = _ignore_created
    on_step: StepCallback = _ignore_step


NO_CALLBACKS: Final = ReportCallbacks()


def create_report(
    database: Database,
    rollout_name: str,
    report_name: str,
    options: ReportOptions,
    at: datetime,
    *,
    actor: ReportActor | None = None,
    callbacks: ReportCallbacks = NO_CALLBACKS,
) -> CreatedReport:
    """Build, seal and store a report; without changes, return its last version.

    Args:
        report_name: reports of one name and period are versions of the same report.
        actor: who requests it, by default the engine.
        callbacks: called as each step begins, and in the transaction of a new version.

    Raises:
        NoSuchRolloutError: the rollout does not exist.
        NothingToReportError: the period or name is not valid.
        StaleRevisionError: another process stored a version at every try.
    """
    _check_options(report_name, options)
    return retry_on_stale_revision(
        lambda: _try_create_report(
            database,
            rollout_name,
            report_name,
            options,
            at,
            actor or ReportActor(),
            callbacks,
        )
    )


def _check_options(report_name: str, options: ReportOptions) -> None:
    if not (
        0 < len(report_name) <= MAX_NAME_LENGTH
        and report_name.isprintable()
        and report_name == report_name.strip()
    ):
        raise NothingToReportError(f"name it in 1 to {MAX_NAME_LENGTH} printable letters")
    if options.view not in VIEWS:
        raise NothingToReportError(f"no view {options.view}; there is {', '.join(VIEWS)}")
    for time in (options.since, options.until):
        if time is not None and time.utcoffset() is None:
            raise NothingToReportError(f"{time.isoformat()} has no zone; add its offset")


def _try_create_report(
    database: Database,
    rollout_name: str,
    report_name: str,
    options: ReportOptions,
    at: datetime,
    actor: ReportActor,
    callbacks: ReportCallbacks,
) -> CreatedReport:
    callbacks.on_step(STEPS[0], 0, len(STEPS))
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        period = _compute_period(transaction, state, options, at)
        inputs = replace(
            load_report_inputs(transaction, state, period, report_name),
            media=partial(find_case_media, database, state),
        )
        last_report = ReportStore(transaction, state.rollout).find_newest(
            report_name, period.since, period.until
        )
    callbacks.on_step(STEPS[1], 1, len(STEPS))
    divergences_csv_bytes = render_divergences_csv(inputs)
    facts = compute_report_facts(inputs)
    callbacks.on_step(STEPS[2], 2, len(STEPS))
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
        return CreatedReport(*last_report, is_new=False)
    with database.begin_write() as transaction:
        created_report = _seal_report(transaction, state, report, actor)
        callbacks.on_created(transaction, created_report)
    return created_report


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
        try:
            earlier = translate_report(_load_content(last_report[1]))
        except UnknownReportFormError:  # of a later program: what changed can't be listed
            changed_figures: tuple[FigureChange, ...] = ()
        else:
            new_values = leave_out_pictures(to_plain_values(facts))
            changed_figures = compare_versions(earlier, new_values)
            if not changed_figures and table == last_report[1].divergences:
                return None
        edition = replace(
            facts.report_version,
            version=version,
            changed=changed_figures[:MAX_CHANGES],
            more_changed=max(0, len(changed_figures) - MAX_CHANGES),
        )
        facts = replace(facts, report_version=edition)
    content = leave_out_pictures(to_plain_values(facts))
    body = format_canonical({**content, SALT: salt})
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


def _load_content(report: StoredReport) -> dict[str, Any]:
    """Return the values of a stored report without its salts."""
    values = json.loads(report.body)
    return {name: value for name, value in values.items() if name not in SALT_FIELDS}


def _seal_report(
    transaction: Transaction, state: RolloutState, report: StoredReport, actor: ReportActor
) -> CreatedReport:
    """Store a version and its hash unless another process stored one first."""
    ledger, store = Ledger(transaction, state.rollout), ReportStore(transaction, state.rollout)
    event = ReportSealed(
        at=report.made_at,
        by=actor.name,
        report=report.name,
        since=report.since,
        until=report.until,
        number=report.version,
        state=report.state,
        sha256=report.hash,
    )
    head = ledger.load_head()
    erasures = ledger.list_rows(after=state.scope.revision, kinds=ERASURE_KINDS)
    if next(erasures, None) is not None:
        raise StaleRevisionError("contents were erased meanwhile; make the report again")
    (row,) = ledger.append([event], after=head.revision, access_head=actor.access_head)
    last_report = store.find_newest(report.name, report.since, report.until)
    if (0 if last_report is None else last_report[1].version) != report.version - 1:
        raise StaleRevisionError(
            f"{report.name} was just created by another request; repeat the request"
        )
    sealed_report = replace(report, sealed_in=row.revision)
    return CreatedReport(store.store(sealed_report), sealed_report, is_new=True)
