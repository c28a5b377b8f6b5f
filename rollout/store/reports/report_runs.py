"""Runs of scheduled reports, each claimed by one replica.

A run has the name of the policy's report, or "" for the notice of incidents, and a watermark: where
it ends, in microseconds since 1970, or as a revision for incidents. A claim only saves work; what
is sent is in `deliveries`, stored with the report.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, update

from rollout.store.database.bulk import insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import report_runs


class ReportRuns:
    """The report runs of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def load_done_mark(self, run_name: str) -> int | None:
        """Return the watermark of the last finished run, or None."""
        query = select(func.max(report_runs.c.watermark)).where(
            *self._match_run(run_name), report_runs.c.done_at.is_not(None)
        )
        mark: int | None = self._transaction.execute(query).scalar()
        return mark

    def claim(
        self, run_name: str, mark: int, *, owner: str, at: datetime, stale_after: timedelta
    ) -> bool:
        """Claim a run for `owner`; of concurrent calls exactly one returns True.

        A claim that is not done can be taken after `stale_after`.
        """
        row = {
            "rollout": self._rollout.number,
            "report_name": run_name,
            "watermark": mark,
            "owner": owner,
            "claimed_at": at,
        }
        if insert_once(self._transaction, report_runs, row):
            return True
        stale_conditions = (
            report_runs.c.watermark == mark,
            report_runs.c.done_at.is_(None),
            report_runs.c.claimed_at <= at - stale_after,
        )
        statement = update(report_runs).where(*self._match_run(run_name), *stale_conditions)
        result = self._transaction.execute(statement.values(owner=owner, claimed_at=at))
        return result.rowcount == 1

    def complete(self, run_name: str, mark: int, *, owner: str, at: datetime) -> bool:
        """Store that a run is done and delete earlier ones.

        Return False if another owner has the claim by now, or a later run is done.
        """
        run_conditions = self._match_run(run_name)
        owner_conditions = (report_runs.c.watermark == mark, report_runs.c.owner == owner)
        statement = update(report_runs).where(
            *run_conditions, *owner_conditions, report_runs.c.done_at.is_(None)
        )
        if self._transaction.execute(statement.values(done_at=at)).rowcount != 1:
            return False
        self._transaction.execute(
            delete(report_runs).where(*run_conditions, report_runs.c.watermark < mark)
        )
        return True

    def start(self, run_name: str, mark: int, *, at: datetime) -> None:
        """Set the first watermark, unless a run exists.

        Nothing before it is due.
        """
        row = {
            "rollout": self._rollout.number,
            "report_name": run_name,
            "watermark": mark,
            "owner": "",
            "claimed_at": at,
            "done_at": at,
        }
        insert_once(self._transaction, report_runs, row)

    def _match_run(self, run_name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return report_runs.c.rollout == self._rollout.number, report_runs.c.report_name == run_name
