"""What waits to be counted: written with the record, taken in order, deleted when counted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from rollout.store.bulk import Cells, delete_keys, insert_missing
from rollout.store.columns import stored
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import due


@dataclass(frozen=True, slots=True)
class Due:
    """A case to be looked at on a track, from an instant on."""

    at: datetime
    case_id: int
    track: str


class DueQueue:
    """The queue of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, entries: Iterable[Due]) -> None:
        """Write entries; one that stands there already is not doubled."""
        insert_missing(self._transaction, due, [self._row(entry) for entry in entries])

    def take(self, *, until: datetime, limit: int = 2_000) -> Sequence[Due]:
        """Return the oldest entries due by an instant, held by this transaction.

        Others who take at the same time are given other ones. They stay in the queue until
        `done`, so that an error or a crash gives them back.
        """
        query = (
            select(due.c.at, due.c.case_id, due.c.track)
            .where(due.c.rollout == self._rollout.number, due.c.at <= until)
            .order_by(due.c.at, due.c.case_id, due.c.track)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = self._transaction.execute(query)
        return [Due(row.at, row.case_id, row.track) for row in rows]

    def done(self, entries: Iterable[Due]) -> None:
        """Delete entries; in the transaction that counted them, or they are lost."""
        delete_keys(self._transaction, due, [self._row(entry) for entry in entries])

    def waiting(self) -> int:
        """Return how many entries there are, due or not."""
        query = select(func.count()).where(due.c.rollout == self._rollout.number)
        return int(self._transaction.execute(query).scalar_one())

    def _row(self, entry: Due) -> Cells:
        return (self._rollout.number, stored(entry.at), entry.case_id, entry.track)
