"""Which report was made up to when: each one that is due is claimed by one replica.

A run is named by what it makes, a report of the policy or "" for the notice of incidents, and by
its mark: how far it reaches, in microseconds since 1970, or of incidents as a revision. A claim
only saves work; what is sent is in `deliveries`, written with the report.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, update

from rollout.store.database.bulk import insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import report_runs


class ReportRuns:
    """The runs of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def done_up_to(self, what: str) -> int | None:
        """Return the mark up to which it is made, None before the first."""
        query = select(func.max(report_runs.c.watermark)).where(
            *self._of(what), report_runs.c.done_at.is_not(None)
        )
        mark: int | None = self._transaction.execute(query).scalar()
        return mark

    def claim(self, what: str, mark: int, *, owner: str, at: datetime, outlived: timedelta) -> bool:
        """Say whether the run is `owner`'s to do; of several who ask at once one is told yes.

        A claim that is older than `outlived` and not done goes to whoever asks next.
        """
        row = {
            "rollout": self._rollout.number,
            "report_name": what,
            "watermark": mark,
            "owner": owner,
            "claimed_at": at,
        }
        if insert_once(self._transaction, report_runs, row):
            return True
        stale_conditions = (
            report_runs.c.watermark == mark,
            report_runs.c.done_at.is_(None),
            report_runs.c.claimed_at <= at - outlived,
        )
        statement = update(report_runs).where(*self._of(what), *stale_conditions)
        result = self._transaction.execute(statement.values(owner=owner, claimed_at=at))
        return result.rowcount == 1

    def done(self, what: str, mark: int, *, owner: str, at: datetime) -> bool:
        """Note that it is made up to a mark, and forget what came before.

        Returns:
            False, and nothing is noted, where the claim is somebody else's by now, or a later run
            is done.
        """
        run_conditions = self._of(what)
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

    def begin(self, what: str, mark: int, *, at: datetime) -> None:
        """Note that nothing up to a mark is asked for, unless something was made already."""
        row = {
            "rollout": self._rollout.number,
            "report_name": what,
            "watermark": mark,
            "owner": "",
            "claimed_at": at,
            "done_at": at,
        }
        insert_once(self._transaction, report_runs, row)

    def _of(self, what: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return report_runs.c.rollout == self._rollout.number, report_runs.c.report_name == what
