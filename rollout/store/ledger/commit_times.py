"""When appends to a ledger were committed, by the clock of who committed.

An entry's time is that of its decision; until the commit no replica can know of it. A process that
ends between commit and note leaves none: then the first reader's time is stored.
"""

from datetime import datetime

from sqlalchemy import select

from rollout.store.database.bulk import insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import ledger_commits


class CommitTimes:
    """The commit times of one rollout's ledger, by the first revision of each append."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

    def store(self, first_revision: int, at: datetime) -> None:
        """Store an instant after the commit; the first one stays."""
        row = {"rollout": self._rollout.number, "revision": first_revision, "committed_at": at}
        insert_once(self._transaction, ledger_commits, row)

    def find(self, first_revision: int) -> datetime | None:
        """Return the stored instant of the append that begins with a revision, or None."""
        query = select(ledger_commits.c.committed_at).where(
            ledger_commits.c.rollout == self._rollout.number,
            ledger_commits.c.revision == first_revision,
        )
        at: datetime | None = self._transaction.execute(query).scalar()
        return at
