"""Reports of a running service: sealed and stored, and made when they are due.

A report without changes is not stored again; its last version is returned. `drafts` computes what
is sealed, in a process of its own where that matters.

Scheduled and incident reports that are due are made once each. A replica claims a report and makes
it. The transaction that seals it also queues its deliveries and stores the progress. If the replica
stops, another one takes over after `CLAIM_TIMEOUT`. If it was only slow, its claim is gone and its
transaction is rolled back.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rollout import faults
from rollout.data.database.rollouts import Rollout, Rollouts, list_rollout_names
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.reports.reports import (
    MAX_NAME_LENGTH,
    DeliveryStore,
    NewDelivery,
    ReportRuns,
    ReportStore,
    StoredReport,
)
from rollout.engine.decide.permissions import Caller
from rollout.engine.decide.schedule import find_due_report
from rollout.engine.events import ENGINE, CasesErased, NameErased, ReportSealed
from rollout.features.incidents.incidents import build_incident_notification, list_incident_channels
from rollout.features.reports.inputs.pictures import find_picture
from rollout.kernel.calendar.instants import from_micros, to_instant_micros
from rollout.kernel.errors import RefusalError, StaleRevisionError
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import RolloutState, read_rollout, retry_on_stale_revision
from rollout.live.service import Service
from rollout.live.work.user_runs import StepCallback


class NothingToReportError(RefusalError):
    """No report is possible for the period."""

    code = "nothing-to-report"


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
class ReportDraft:
    """A report that is not stored yet.

    Attributes:
        report: the next version, or the last one if nothing changed.
        number: of the stored last version if nothing changed; None for a new version.
        revision: of the rollout's ledger that was read.
    """

    report: StoredReport
    number: int | None
    revision: int


ReportDrafter = Callable[[Database, str, str, ReportOptions, datetime, StepCallback], ReportDraft]
"""Returns the next version of a report, by the names of rollout and report; writes nothing.

It raises what `drafts.draft_report` raises.
"""
ReportCallback = Callable[[Transaction, CreatedReport], None]
"""Called in the transaction that stores a new report."""
STEPS: Final = ("reading the records", "computing the figures", "comparing and sealing")


def draft_here(
    database: Database,
    rollout_name: str,
    report_name: str,
    options: ReportOptions,
    at: datetime,
    on_step: StepCallback,
) -> ReportDraft:
    """Return the next version of a report, computed in this process."""
    from rollout.features.reports.drafts import draft_report

    return draft_report(database, rollout_name, report_name, options, at, on_step)


@dataclass(frozen=True, slots=True)
class ReportCallbacks:
    """What is called while a report is made."""

    on_created: ReportCallback = lambda *_: None
    on_step: StepCallback = lambda *_: None
    draft_report: ReportDrafter = draft_here


NO_CALLBACKS: Final = ReportCallbacks()
OWN_CALLER: Final = Caller(ENGINE)
"""The service itself, which makes the reports that are due."""


def create_report(
    database: Database,
    rollout_name: str,
    report_name: str,
    options: ReportOptions,
    at: datetime,
    *,
    caller: Caller = OWN_CALLER,
    callbacks: ReportCallbacks = NO_CALLBACKS,
) -> CreatedReport:
    """Build, seal and store a report; without changes, return its last version.

    Args:
        report_name: reports of one name and period are versions of the same report.
        caller: who requests it, by default the engine.
        callbacks: called as each step begins, to compute it, and in the transaction of a new
            version.

    Raises:
        NoSuchRolloutError: the rollout does not exist.
        NothingToReportError: the period or name is not valid.
        StaleRevisionError: another process stored a version at every try.
    """
    _check_options(report_name, options)

    def try_to_create() -> CreatedReport:
        draft = callbacks.draft_report(
            database, rollout_name, report_name, options, at, callbacks.on_step
        )
        if draft.number is not None:
            return CreatedReport(draft.number, draft.report, is_new=False)
        with database.begin_write() as transaction:
            created_report = _seal_report(transaction, rollout_name, draft, caller)
            callbacks.on_created(transaction, created_report)
        return created_report

    return retry_on_stale_revision(try_to_create)


def _check_options(report_name: str, options: ReportOptions) -> None:
    if not (
        0 < len(report_name) <= MAX_NAME_LENGTH
        and report_name.isprintable()
        and report_name == report_name.strip()
    ):
        raise NothingToReportError(
            f"name it in 1 to {MAX_NAME_LENGTH} printable letters", field="name"
        )
    if options.view not in VIEWS:
        raise NothingToReportError(f"no view {options.view}; there is {', '.join(VIEWS)}")
    for time in (options.since, options.until):
        if time is not None and time.utcoffset() is None:
            raise NothingToReportError(f"{time.isoformat()} has no zone; add its offset")


def _seal_report(
    transaction: Transaction, rollout_name: str, draft: ReportDraft, caller: Caller
) -> CreatedReport:
    """Store a version and its hash unless another process stored one first."""
    rollout, report = Rollouts(transaction).find(rollout_name), draft.report
    assert rollout is not None  # noqa: S101 - it was just read, and none is ever deleted
    ledger, store = Ledger(transaction, rollout), ReportStore(transaction, rollout)
    event = ReportSealed(
        at=report.made_at,
        by=caller.name,
        report=report.name,
        since=report.since,
        until=report.until,
        number=report.version,
        state=report.state,
        sha256=report.hash,
    )
    head = ledger.load_head()
    if next(ledger.list_rows(after=draft.revision, kinds=ERASURE_KINDS), None) is not None:
        raise StaleRevisionError("contents were erased meanwhile; make the report again")
    (row,) = ledger.append([event], after=head.revision, access_head=caller.access_head)
    last_report = store.find_newest(report.name, report.since, report.until)
    if (0 if last_report is None else last_report[1].version) != report.version - 1:
        raise StaleRevisionError(
            f"{report.name} was just created by another request; repeat the request"
        )
    sealed_report = replace(report, sealed_in=row.revision)
    return CreatedReport(store.store(sealed_report), sealed_report, is_new=True)


CLAIM_TIMEOUT = timedelta(minutes=10)  # after which another replica may claim the report
INCIDENT_REPORT_PERIOD = timedelta(days=1)  # covered by an incident report
ON_DEMAND = "on-demand"  # the name of a report without one
ON_SCHEDULE, ON_INCIDENT = "schedule", "incident"
INCIDENT_RUN_NAME = ""  # run name of incident reports; no report of a policy has it


SealCallback = Callable[[Transaction, int], None]
"""Called with the report's number in the transaction that seals it."""


ReportMaker = Callable[[str, str, ReportOptions, datetime, SealCallback], None]
"""Makes and seals a report, by names of rollout and report; without changes, keeps the last one.

It calls the callback once, in the transaction that seals.
"""


@dataclass(frozen=True, slots=True)
class ReportJob:
    """A due report with its channels.

    `run_mark` is how far its run has come: microseconds for a scheduled report, a ledger revision
    for incidents. `lead` is the text above the report in a message.
    """

    run_name: str
    run_mark: int
    report_name: str
    options: ReportOptions
    reason: str
    subject: str
    lead: str
    channels: tuple[str, ...]


class _ReportClaimLostError(Exception):
    """Another replica claimed the run meanwhile; the transaction is rolled back."""


class ReportScheduler:
    """Makes the due reports of one replica."""

    def __init__(self, service: Service, make_report: ReportMaker, owner: str) -> None:
        """Store the replica's service and report maker.

        Args:
            owner: unique name of this process.
        """
        self._service, self._make_report, self._owner = service, make_report, owner

    def run_report_jobs(
        self, at: datetime, *, incidents_only: bool = False
    ) -> dict[str, Exception]:
        """Make all due reports not claimed elsewhere; return errors by rollout.

        A failed report is tried again after `CLAIM_TIMEOUT`.

        Args:
            at: now.
            incidents_only: for clocks that disagree; a scheduled period must not end in the future.
        """
        rollout_names = list_rollout_names(self._service.database)
        failures: dict[str, Exception] = {}
        for rollout_name in rollout_names:
            try:
                self._run_rollout_jobs(rollout_name, at, incidents_only=incidents_only)
            except Exception as error:  # noqa: BLE001 - told to the caller, who writes it down
                failures[rollout_name] = error
        return failures

    def _run_rollout_jobs(self, rollout_name: str, at: datetime, *, incidents_only: bool) -> None:
        with read_rollout(self._service.database, rollout_name) as (transaction, state):
            if not state.policy.reports:
                return
            run_marks, report_jobs = _find_report_jobs(transaction, state, at)
        if incidents_only:
            run_marks, report_jobs = {}, [j for j in report_jobs if j.reason == ON_INCIDENT]
        self._begin_runs(
            state.rollout,
            [run_name for run_name, run_mark in run_marks.items() if run_mark is None],
            at,
        )
        for report_job in report_jobs:
            with self._service.database.begin_write() as transaction:
                is_claimed = ReportRuns(transaction, state.rollout).claim(
                    report_job.run_name,
                    report_job.run_mark,
                    owner=self._owner,
                    at=at,
                    stale_after=CLAIM_TIMEOUT,
                )
            if is_claimed:
                faults.reach_point("report.claimed")
                self._run_job(state.rollout, report_job)

    def _begin_runs(self, rollout: Rollout, new_reports: list[str], at: datetime) -> None:
        """Store `at` as the start of new reports, so that past periods are not due."""
        if not new_reports:
            return
        with self._service.database.begin_write() as transaction:
            for report_name in new_reports:
                ReportRuns(transaction, rollout).start(report_name, to_instant_micros(at), at=at)

    def _run_job(self, rollout: Rollout, report_job: ReportJob) -> None:
        at = self._service.clock.now()

        def on_sealed(transaction: Transaction, report_number: int) -> None:
            faults.reach_point("report.sealed")
            queue = DeliveryStore(transaction, rollout)
            texts = (report_job.reason, report_job.subject, report_job.lead)
            for channel in report_job.channels:
                queue.add(NewDelivery(report_number, channel, *texts), at=at)
            report_runs = ReportRuns(transaction, rollout)
            if not report_runs.complete(
                report_job.run_name, report_job.run_mark, owner=self._owner, at=at
            ):
                raise _ReportClaimLostError

        try:
            self._make_report(
                rollout.name, report_job.report_name, report_job.options, at, on_sealed
            )
        except _ReportClaimLostError:
            return


def _find_report_jobs(
    transaction: Transaction, state: RolloutState, at: datetime
) -> tuple[dict[str, int | None], list[ReportJob]]:
    """Return each report's progress mark, and the due reports.

    Incident reports come first.
    """
    policy, report_runs = state.policy, ReportRuns(transaction, state.rollout)
    run_marks = {
        report_plan.name: report_runs.load_done_mark(report_plan.name)
        for report_plan in policy.reports
    }
    incident_reports = list_incident_reports(
        transaction, state.rollout, policy, report_runs.load_done_mark(INCIDENT_RUN_NAME), at
    )
    return run_marks, [*incident_reports, *list_scheduled_reports(policy, run_marks, at)]


def list_scheduled_reports(
    policy: Policy, run_marks: dict[str, int | None], at: datetime
) -> list[ReportJob]:
    """Return the due scheduled reports of a policy."""
    report_jobs = []
    for report_plan in policy.reports:
        run_mark = run_marks[report_plan.name]
        after = None if run_mark is None else from_micros(run_mark)
        period = (
            None
            if after is None
            else find_due_report(report_plan, policy.timezone, after=after, at=at)
        )
        if period is not None:
            report_jobs.append(
                ReportJob(
                    run_name=report_plan.name,
                    run_mark=to_instant_micros(period.until),
                    report_name=report_plan.name,
                    options=ReportOptions(period.since, period.until, report_plan.view),
                    reason=ON_SCHEDULE,
                    subject=f"{report_plan.name} report",
                    lead="",
                    channels=report_plan.to,
                )
            )
    return report_jobs


def list_incident_reports(
    transaction: Transaction, rollout: Rollout, policy: Policy, after: int | None, at: datetime
) -> list[ReportJob]:
    """Return a report of new incidents; empty without channels or incidents."""
    channels = list_incident_channels(policy)
    notification = build_incident_notification(transaction, rollout, after) if channels else None
    if notification is None:
        return []
    return [
        ReportJob(
            run_name=INCIDENT_RUN_NAME,
            run_mark=notification.last_revision,
            report_name="incident",
            options=ReportOptions(at - INCIDENT_REPORT_PERIOD, at),
            reason=ON_INCIDENT,
            subject=notification.subject,
            lead=notification.lead,
            channels=channels,
        )
    ]
