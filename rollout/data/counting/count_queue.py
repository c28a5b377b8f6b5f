"""The queue of cases to count, and recent arrivals of records.

An entry of the queue is written with the record, read in order, and deleted when counted. Every
replica reads recent arrivals to update the records in its memory.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    delete,
    func,
    or_,
    select,
    type_coerce,
)

from rollout.data.database.bulk import delete_keys, insert_missing, select_numbers
from rollout.data.database.rollouts import RolloutRepository
from rollout.data.tables.record_tables import RECORD_UNSEALED, decode_instant, encode_instant
from rollout.data.tables.tables import count_queue, recent_arrivals

CASE_RECEIVED: Final = "unscheduled"
"""The track of cases whose units the next tick queues for the time when they are due."""

ENTRIES_SEARCHED: Final = 20_000
"""Among so many entries after its last one a page finds the others of its cases."""
ENTRY_COLUMNS: Final = (count_queue.c.at, count_queue.c.case_id, count_queue.c.track)
STORED_COLUMNS: Final = (type_coerce(count_queue.c.at, BigInteger), *ENTRY_COLUMNS[1:])


class DueCase(NamedTuple):
    """A case to process on a track from a time on."""

    at: datetime
    case_id: int
    track: str


class CountQueue(RolloutRepository):
    """The count queue of one rollout."""

    def add(self, entries: Iterable[DueCase]) -> None:
        """Store entries; existing ones stay as they are."""
        number = self._rollout.number
        rows = [(number, encode_instant(entry.at), entry.case_id, entry.track) for entry in entries]
        insert_missing(self._transaction, count_queue, rows)

    def list_due(
        self, *, until: datetime, limit: int = 2_000, after: DueCase | None = None
    ) -> Sequence[DueCase]:
        """Return the oldest due entries after one, by default from the start of the queue.

        Due entries of the same cases follow them, so `limit` may be exceeded: one count serves all
        tracks of a case, and a later page would read its records again. Nothing is locked.
        """
        conditions: list[ColumnElement[bool]] = [count_queue.c.at <= until]
        if after is not None:
            conditions += [count_queue.c.at >= after.at, _is_after(after)]
        listed = self._list_entries(*conditions, limit=limit)
        if len(listed) < limit:
            return listed
        horizon = self._find_horizon(until, listed[-1])
        case_ids = select_numbers(self._transaction, sorted({entry.case_id for entry in listed}))
        others = self._list_entries(
            count_queue.c.at <= horizon, count_queue.c.case_id.in_(case_ids)
        )
        known_entries = {*listed}
        return [*listed, *(entry for entry in others if entry not in known_entries)]

    def list_queued(self, case_ids: Collection[int]) -> Sequence[DueCase]:
        """Return the entries of cases for units and outcomes, due or not."""
        is_theirs = count_queue.c.case_id.in_(select_numbers(self._transaction, case_ids))
        return self._list_entries(is_theirs, count_queue.c.track != RECORD_UNSEALED)

    def find_oldest(self) -> DueCase | None:
        """Return the oldest entry, due or not; None in an empty queue."""
        return next(iter(self._list_entries(limit=1)), None)

    def lock(self, entries: Collection[DueCase]) -> set[DueCase]:
        """Lock entries and return those that exist and that no other transaction has locked.

        They stay in the queue until `delete`, so an error or a crash releases them.
        """
        if not entries:
            return set()
        case_ids = select_numbers(self._transaction, sorted({entry.case_id for entry in entries}))
        times = [entry.at for entry in entries]
        conditions = (count_queue.c.at >= min(times), count_queue.c.at <= max(times))
        query = self._select_entries(*conditions, count_queue.c.case_id.in_(case_ids))
        return set(self._read_entries(query.with_for_update(skip_locked=True))).intersection(
            entries
        )

    def _list_entries(
        self, *conditions: ColumnElement[bool], limit: int | None = None
    ) -> list[DueCase]:
        """Return the oldest entries for units."""
        return self._read_entries(self._select_entries(*conditions).limit(limit))

    def _read_entries(self, query: Select[Any]) -> list[DueCase]:
        decode = cache(decode_instant)  # most are due at the same few times
        rows = map(tuple, self._transaction.execute(query).all())
        return [DueCase(decode(at), case_id, track) for at, case_id, track in rows]

    def _select_entries(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        return (
            select(*STORED_COLUMNS)
            .where(count_queue.c.rollout == self._rollout.number, *conditions)
            .order_by(*ENTRY_COLUMNS)
        )

    def _find_horizon(self, until: datetime, after: DueCase) -> datetime:
        """Return the time up to which entries of the same cases are searched in a long queue."""
        query = (
            select(count_queue.c.at)
            .where(count_queue.c.rollout == self._rollout.number, count_queue.c.at <= until)
            .where(count_queue.c.at >= after.at)
            .order_by(count_queue.c.at, count_queue.c.case_id, count_queue.c.track)
            .offset(ENTRIES_SEARCHED)
            .limit(1)
        )
        return self._transaction.execute(query).scalar() or until

    def delete(self, entries: Iterable[DueCase]) -> None:
        """Delete entries, in the transaction that counted them."""
        number, encode = self._rollout.number, cache(encode_instant)
        keys = [(number, encode(at), case_id, track) for at, case_id, track in entries]
        delete_keys(self._transaction, count_queue, keys)

    def count_waiting(self) -> int:
        """Return the number of entries for units, due or not."""
        conditions = (
            count_queue.c.rollout == self._rollout.number,
            count_queue.c.track != RECORD_UNSEALED,
        )
        return int(self._transaction.execute(select(func.count()).where(*conditions)).scalar_one())


def _is_after(entry: DueCase) -> ColumnElement[bool]:
    at, case_id, track = ENTRY_COLUMNS
    is_same_case = and_(case_id == entry.case_id, track > entry.track)
    return or_(at > entry.at, and_(at == entry.at, or_(case_id > entry.case_id, is_same_case)))


ARRIVAL_SPAN: Final = 10 * 60 * 10**6
"""Microseconds of arrivals that are compared together."""
ArrivalSum = tuple[int, int]


class StoredArrivals(RolloutRepository):
    """The recent arrivals in one rollout."""

    def add(self, arrivals: Iterable[tuple[datetime, int]]) -> None:
        """Store when a record was received of which case.

        If another one bears the same instant, as of the parts of a large batch, a tick may have
        read that already. So this one gets the next free microsecond.
        """
        rows = {(self._rollout.number, encode_instant(at), case_id) for at, case_id in arrivals}
        while rows:
            taken_rows = rows - insert_missing(self._transaction, recent_arrivals, sorted(rows))
            rows = {(number, at + 1, case_id) for number, at, case_id in taken_rows}

    def list_since(
        self, since: datetime, *, before: datetime | None = None
    ) -> set[tuple[datetime, int]]:
        """Return (time, case) of the arrivals since a time, and before another."""
        query = self._select(recent_arrivals.c.at, recent_arrivals.c.case_id, since=since)
        if before is not None:
            query = query.where(recent_arrivals.c.at < before)
        return {(row.at, row.case_id) for row in self._transaction.execute(query)}

    def find_first_after(self, at: datetime) -> datetime | None:
        """Return when the first record after a time arrived; None without one."""
        query = select(recent_arrivals.c.at).where(self._own, recent_arrivals.c.at > at)
        first: datetime | None = self._transaction.execute(
            query.order_by(recent_arrivals.c.at).limit(1)
        ).scalar()
        return first

    def sum_since(self, since: datetime) -> dict[int, ArrivalSum]:
        """Return number and sum of cases of the arrivals since a time, by span."""
        span = type_coerce(recent_arrivals.c.at, BigInteger) // ARRIVAL_SPAN
        sums = (func.count(), func.sum(recent_arrivals.c.case_id))
        query = self._select(span.label("span"), *sums, since=since).group_by("span")
        rows = map(tuple, self._transaction.execute(query).all())
        return {int(number): (int(count), int(total)) for number, count, total in rows}

    def delete_before(self, before: datetime) -> None:
        """Delete old arrivals.

        Each replica has read them by then, or reloads all records.
        """
        is_own, is_old = self._own, recent_arrivals.c.at < before
        self._transaction.execute(delete(recent_arrivals).where(is_own, is_old))

    def _select(self, *columns: Any, since: datetime) -> Select[Any]:
        return select(*columns).where(self._own, recent_arrivals.c.at >= since)

    @property
    def _own(self) -> Any:
        return recent_arrivals.c.rollout == self._rollout.number
