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
            names = [rollout.name for rollout in Rollouts(transaction).all()]
        failed: dict[str, Exception] = {}
        for name in names:
            try:
                self._look(name, at)
            except Exception as error:  # noqa: BLE001 - told to the caller, who writes it down
                failed[name] = error
        return failed

    def _look(self, name: str, at: datetime) -> None:
        with self._service.database.reading() as transaction:
            stood = standing(transaction, name)
            if not stood.policy.reports:
                return
            marks, runs = _due(transaction, stood, at)
        self._begin(stood.rollout, [name for name, mark in marks.items() if mark is None], at)
        for run in runs:
            if self._claimed(stood.rollout, run, at):
                faults.point("report.claimed")
                self._made(stood.rollout, run)

    def _begin(self, rollout: Rollout, new: list[str], at: datetime) -> None:
        """Note of reports that a policy adds that their first one is the next that becomes due."""
        if not new:
            return
        with self._service.database.writing() as transaction:
            for name in new:
                ReportRuns(transaction, rollout).begin(name, count(at), at=at)

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
                letter = Letter(report, channel, run.reason, run.subject, run.lead)
                queue.queue(letter, at=at)
            runs = ReportRuns(transaction, rollout)
            if not runs.done(run.what, run.mark, owner=self._owner, at=at):
                raise _OvertakenError

        try:
            self._make(rollout.name, run.wanted, at, beside)
        except _OvertakenError:
            return


def _due(
    transaction: Transaction, stood: Standing, at: datetime
) -> tuple[dict[str, int | None], list[Run]]:
    """Return by report up to when it is made, and what is due: incidents wait for no morning."""
    policy, runs = stood.policy, ReportRuns(transaction, stood.rollout)
    marks = {plan.name: runs.done_up_to(plan.name) for plan in policy.reports}
    told = note_runs(transaction, stood.rollout, policy, runs.done_up_to(INCIDENTS), at)
    return marks, [*told, *schedule_runs(policy, marks, at)]


def schedule_runs(policy: Policy, marks: dict[str, int | None], at: datetime) -> list[Run]:
    """Return the reports of a policy that are due, by up to when each is made."""
    found = []
    for plan in policy.reports:
        mark = marks[plan.name]
        after = None if mark is None else moment(mark)
        one = None if after is None else due(plan, policy.timezone, after=after, at=at)
        if one is not None:
            wanted = Wanted(plan.name, plan.view, one.since, one.until)
            mark, subject = count(one.until), f"{plan.name} report"
            found.append(Run(plan.name, mark, wanted, ON_SCHEDULE, subject, "", plan.to))
    return found


def note_runs(
    transaction: Transaction, rollout: Rollout, policy: Policy, after: int | None, at: datetime
) -> list[Run]:
    """Return the notice of incidents that nobody was told of; nothing where nobody is to be."""
    to = channels_told(policy)
    note = note_of(transaction, rollout, after) if to else None
    if note is None:
        return []
    wanted = Wanted("incident", "operator", at - BEFORE_INCIDENT, at)
    return [Run(INCIDENTS, note.mark, wanted, ON_INCIDENT, note.subject, note.lead, to)]
