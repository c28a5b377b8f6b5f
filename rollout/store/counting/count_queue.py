"""What waits to be counted: written with the record, taken in order, deleted when counted.

Beside it stands for a while what came in lately, for whoever keeps records in memory: it is
never taken, and every replica reads it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, select

from rollout.store.database.bulk import Cells, delete_keys, insert_missing
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import stored
from rollout.store.tables.tables import count_queue

ARRIVED: Final = "received"
"""The track of entries that say when something of a case came in."""
CAME: Final = "unscheduled"
"""The track of cases that the next tick looks at first, to queue their units when they are due."""


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
        insert_missing(self._transaction, count_queue, [self._row(entry) for entry in entries])

    def take(self, *, until: datetime, limit: int = 2_000) -> Sequence[Due]:
        """Return the oldest entries due by an instant, held by this transaction.

        Others who take at the same time are given other ones. They stay in the queue until
        `done`, so that an error or a crash gives them back.
        """
        query = (
            select(count_queue.c.at, count_queue.c.case_id, count_queue.c.track)
            .where(count_queue.c.rollout == self._rollout.number, count_queue.c.at <= until)
            .where(count_queue.c.track != ARRIVED)
            .order_by(count_queue.c.at, count_queue.c.case_id, count_queue.c.track)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = self._transaction.execute(query)
        return [Due(row.at, row.case_id, row.track) for row in rows]

    def done(self, entries: Iterable[Due]) -> None:
        """Delete entries; in the transaction that counted them, or they are lost."""
        delete_keys(self._transaction, count_queue, [self._row(entry) for entry in entries])

    def waiting(self) -> int:
        """Return how many entries there are, due or not."""
        conditions = (count_queue.c.rollout == self._rollout.number, count_queue.c.track != ARRIVED)
        query = select(func.count()).where(*conditions)
        return int(self._transaction.execute(query).scalar_one())

    def note_arrived(self, case_ids: Iterable[int], at: datetime) -> None:
        """Note that something of these cases came in at an instant."""
        self.add(Due(at, number, ARRIVED) for number in case_ids)

    def arrived(self, *, since: datetime) -> set[tuple[datetime, int]]:
        """Return (instant, case) of what came in from an instant on, as far as it is kept."""
        query = select(count_queue.c.at, count_queue.c.case_id).where(
            count_queue.c.rollout == self._rollout.number,
            count_queue.c.track == ARRIVED,
            count_queue.c.at >= since,
        )
        return {(row.at, row.case_id) for row in self._transaction.execute(query)}

    def forget_arrived(self, *, before: datetime) -> None:
        """Delete what came in before an instant: every replica has read it, or reads all anew."""
        conditions = (
            count_queue.c.rollout == self._rollout.number,
            count_queue.c.track == ARRIVED,
            count_queue.c.at < before,
        )
        self._transaction.execute(delete(count_queue).where(*conditions))

    def _row(self, entry: Due) -> Cells:
        return (self._rollout.number, stored(entry.at), entry.case_id, entry.track)
