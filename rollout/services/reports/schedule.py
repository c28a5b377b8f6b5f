"""Reports on schedule and on incident: which are due, each made once, each queued as it is sealed.

A replica claims a report, makes it, and in the transaction that seals it queues its deliveries and
notes how far it came. Who died over it is followed by another one after `OUTLIVED`; who was only
slow finds its claim gone, and what it made is undone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from rollout import faults
from rollout.core.calendar.timezones import count, moment
from rollout.core.policy.policy import Policy
from rollout.core.policy.slots import due
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.engine.service import Service
from rollout.services.incidents.incidents import channels_told, note_of
from rollout.store.database.rollouts import Rollout, Rollouts
from rollout.store.database.session import Transaction
from rollout.store.reports.deliveries import Deliveries, Letter
from rollout.store.reports.report_runs import ReportRuns

OUTLIVED = timedelta(minutes=10)  # after which a report that nobody finished is somebody else's
BEFORE_INCIDENT = timedelta(days=1)  # that a notice's report is about
ON_SCHEDULE, ON_INCIDENT = "schedule", "incident"
INCIDENTS = ""  # the name of a run that tells of incidents: no report of a policy has it


@dataclass(frozen=True, slots=True)
class Wanted:
    """A report to be made: its name, for whom, of which span."""

    name: str
    view: str
    since: datetime
    until: datetime


Beside = Callable[[Transaction, int], None]
"""What is written in the transaction that seals a report; it is given the report's number."""


class Make(Protocol):
    """Makes a report of a rollout and seals it."""

    def __call__(self, name: str, wanted: Wanted, at: datetime, beside: Beside) -> None:
        """Make and seal a report; where nothing has changed since its last version, that one.

        Args:
            name: of the rollout.
            wanted: which report.
            at: now.
            beside: is called once, in the transaction that seals.
        """
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """A report that is due and whom it goes to; `what` and `mark` name it among the runs."""

    what: str
    mark: int
    wanted: Wanted
    reason: str
    subject: str
    lead: str
    to: tuple[str, ...]


class _OvertakenError(Exception):
    """Somebody else has taken the run meanwhile: what was made is undone."""


class ReportRounds:
    """One replica's look at what is due."""

    def __init__(self, service: Service, make: Make, owner: str) -> None:
        """Look at nothing yet.

        Args:
            service: the replica.
            make: makes reports.
            owner: name of this process, different from every other's.
        """
        self._service, self._make, self._owner = service, make, owner

    def look(self, at: datetime) -> dict[str, Exception]:
        """Make every report that is due and nobody else's; return what failed, by rollout.

        A report that failed is tried again after `OUTLIVED`.

        Args:
            at: now. Where clocks disagree, don't look: what was made lies in no future.
        """
        with self._service.database.reading() as transaction:
            rollout_names = [rollout.name for rollout in Rollouts(transaction).all()]
        failures: dict[str, Exception] = {}
        for rollout_name in rollout_names:
            try:
                self._look(rollout_name, at)
            except Exception as error:  # noqa: BLE001 - told to the caller, who writes it down
                failures[rollout_name] = error
        return failures

    def _look(self, name: str, at: datetime) -> None:
        with self._service.database.reading() as transaction:
            state = standing(transaction, name)
            if not state.policy.reports:
                return
            run_marks, report_jobs = _due(transaction, state, at)
        self._begin(
            state.rollout, [name for name, run_mark in run_marks.items() if run_mark is None], at
        )
        for report_job in report_jobs:
            if self._claimed(state.rollout, report_job, at):
                faults.point("report.claimed")
                self._made(state.rollout, report_job)

    def _begin(self, rollout: Rollout, new: list[str], at: datetime) -> None:
        """Note of reports that a policy adds that their first one is the next that becomes due."""
        if not new:
            return
        with self._service.database.writing() as transaction:
            for report_name in new:
                ReportRuns(transaction, rollout).begin(report_name, count(at), at=at)

    def _claimed(self, rollout: Rollout, run: Run, at: datetime) -> bool:
        with self._service.database.writing() as transaction:
            return ReportRuns(transaction, rollout).claim(
                run.what, run.mark, owner=self._owner, at=at, outlived=OUTLIVED
            )

    def _made(self, rollout: Rollout, run: Run) -> None:
        at = self._service.clock.now()

        def beside(transaction: Transaction, report: int) -> None:
            faults.point("report.sealed")
            queue = Deliveries(transaction, rollout)
            for channel in run.to:
                delivery_request = Letter(report, channel, run.reason, run.subject, run.lead)
                queue.queue(delivery_request, at=at)
            report_runs = ReportRuns(transaction, rollout)
            if not report_runs.done(run.what, run.mark, owner=self._owner, at=at):
                raise _OvertakenError

        try:
            self._make(rollout.name, run.wanted, at, beside)
        except _OvertakenError:
            return


def _due(
    transaction: Transaction, stood: Standing, at: datetime
) -> tuple[dict[str, int | None], list[Run]]:
    """Return by report up to when it is made, and what is due: incidents wait for no morning."""
    policy, report_runs = stood.policy, ReportRuns(transaction, stood.rollout)
    run_marks = {
        report_plan.name: report_runs.done_up_to(report_plan.name) for report_plan in policy.reports
    }
    notification_reports = note_runs(
        transaction, stood.rollout, policy, report_runs.done_up_to(INCIDENTS), at
    )
    return run_marks, [*notification_reports, *schedule_runs(policy, run_marks, at)]


def schedule_runs(policy: Policy, marks: dict[str, int | None], at: datetime) -> list[Run]:
    """Return the reports of a policy that are due, by up to when each is made."""
    report_jobs = []
    for report_plan in policy.reports:
        run_mark = marks[report_plan.name]
        after = None if run_mark is None else moment(run_mark)
        period = None if after is None else due(report_plan, policy.timezone, after=after, at=at)
        if period is not None:
            report_request = Wanted(report_plan.name, report_plan.view, period.since, period.until)
            run_mark, subject = count(period.until), f"{report_plan.name} report"
            report_jobs.append(
                Run(
                    report_plan.name,
                    run_mark,
                    report_request,
                    ON_SCHEDULE,
                    subject,
                    "",
                    report_plan.to,
                )
            )
    return report_jobs


def note_runs(
    transaction: Transaction, rollout: Rollout, policy: Policy, after: int | None, at: datetime
) -> list[Run]:
    """Return the notice of incidents that nobody was told of; nothing where nobody is to be."""
    channels = channels_told(policy)
    notification = note_of(transaction, rollout, after) if channels else None
    if notification is None:
        return []
    report_request = Wanted("incident", "operator", at - BEFORE_INCIDENT, at)
    return [
        Run(
            INCIDENTS,
            notification.mark,
            report_request,
            ON_INCIDENT,
            notification.subject,
            notification.lead,
            channels,
        )
    ]
