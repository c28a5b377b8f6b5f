"""Recent arrivals of records, which every replica reads to update the records in its memory."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import BigInteger, Select, delete, func, select, type_coerce

from rollout.data.database.bulk import insert_missing
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction
from rollout.data.tables.columns import encode_instant
from rollout.data.tables.tables import recent_arrivals

ARRIVAL_SPAN: Final = 10 * 60 * 10**6
"""Microseconds of arrivals that are compared together."""
ArrivalSum = tuple[int, int]


class StoredArrivals:
    """The recent arrivals in one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

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
