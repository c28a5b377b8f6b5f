"""The queue of cases to count: written with the record, read in order, deleted when counted.

The table also holds recent arrivals, which every replica reads to update the records in its memory.
They are never taken for counting.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, delete, func, select

from rollout.store.database.bulk import RowValues, delete_keys, insert_missing, select_numbers
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import encode_instant
from rollout.store.tables.counting_tables import RECORD_UNSEALED
from rollout.store.tables.tables import count_queue

RECORD_RECEIVED: Final = "received"
"""The track of arrivals: entries for the time at which a record of a case was received."""
CASE_RECEIVED: Final = "unscheduled"
"""The track of cases whose units the next tick queues for the time when they are due."""

ENTRIES_SEARCHED: Final = 20_000
"""Among so many of the oldest entries a batch finds the others of its cases."""


class DueCase(NamedTuple):
    """A case to process on a track from a time on."""

    at: datetime
    case_id: int
    track: str


class CountQueue:
    """The count queue of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, entries: Iterable[DueCase]) -> None:
        """Store entries; existing ones stay as they are."""
        insert_missing(
            self._transaction, count_queue, [self._build_row(entry) for entry in entries]
        )

    def take(self, *, until: datetime, limit: int = 2_000) -> Sequence[DueCase]:
        """Return the oldest due entries, locked by this transaction.

        Due entries of the same cases are returned with them, so `limit` may be exceeded: one count
        serves all tracks of a case, and a later batch would read its records again. Concurrent
        calls get other entries. Entries stay in the queue until `delete`, so an error or a crash
        releases them.
        """
        taken = self._lock_entries(count_queue.c.at <= until, limit=limit)
        if len(taken) < limit:
            return taken
        horizon = self._find_horizon(until)
        case_ids = select_numbers(self._transaction, sorted({entry.case_id for entry in taken}))
        others = self._lock_entries(
            count_queue.c.at <= horizon, count_queue.c.case_id.in_(case_ids)
        )
        return sorted({*taken, *others})

    def _lock_entries(
        self, *conditions: ColumnElement[bool], limit: int | None = None
    ) -> list[DueCase]:
        """Return the oldest entries for units that no other transaction has locked."""
        query = (
            select(count_queue.c.at, count_queue.c.case_id, count_queue.c.track)
            .where(count_queue.c.rollout == self._rollout.number, *conditions)
            .where(count_queue.c.track != RECORD_RECEIVED)
            .order_by(count_queue.c.at, count_queue.c.case_id, count_queue.c.track)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return list(map(DueCase._make, self._transaction.execute(query).all()))

    def _find_horizon(self, until: datetime) -> datetime:
        """Return the time up to which entries of the same cases are searched in a long queue."""
        query = (
            select(count_queue.c.at)
            .where(count_queue.c.rollout == self._rollout.number, count_queue.c.at <= until)
            .where(count_queue.c.track != RECORD_RECEIVED)
            .order_by(count_queue.c.at, count_queue.c.case_id, count_queue.c.track)
            .offset(ENTRIES_SEARCHED)
            .limit(1)
        )
        return self._transaction.execute(query).scalar() or until

    def delete(self, entries: Iterable[DueCase]) -> None:
        """Delete entries, in the transaction that counted them."""
        delete_keys(self._transaction, count_queue, [self._build_row(entry) for entry in entries])

    def count_waiting(self) -> int:
        """Return the number of entries for units, due or not."""
        conditions = (
            count_queue.c.rollout == self._rollout.number,
            count_queue.c.track.not_in((RECORD_RECEIVED, RECORD_UNSEALED)),
        )
        query = select(func.count()).where(*conditions)
        return int(self._transaction.execute(query).scalar_one())

    def record_arrivals(self, arrivals: Iterable[tuple[datetime, int]]) -> None:
        """Store when a record was received of which case."""
        self.add(DueCase(at, case_id, RECORD_RECEIVED) for at, case_id in arrivals)

    def list_arrivals(self, *, since: datetime) -> set[tuple[datetime, int]]:
        """Return (time, case) of the stored arrivals since a time."""
        query = select(count_queue.c.at, count_queue.c.case_id).where(
            count_queue.c.rollout == self._rollout.number,
            count_queue.c.track == RECORD_RECEIVED,
            count_queue.c.at >= since,
        )
        return {(row.at, row.case_id) for row in self._transaction.execute(query)}

    def delete_arrivals(self, *, before: datetime) -> None:
        """Delete old arrivals.

        Each replica has read them by then, or reloads all records.
        """
        conditions = (
            count_queue.c.rollout == self._rollout.number,
            count_queue.c.track == RECORD_RECEIVED,
            count_queue.c.at < before,
        )
        self._transaction.execute(delete(count_queue).where(*conditions))

    def _build_row(self, entry: DueCase) -> RowValues:
        return (self._rollout.number, encode_instant(entry.at), entry.case_id, entry.track)
