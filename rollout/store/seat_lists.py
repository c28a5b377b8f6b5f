"""Lists of seats: what one person judged last, and which cases wait to be settled."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select

from rollout.core.reviewing import ADJUDICATE
from rollout.store.reviews import DONE, FIELDS, OPEN, Review
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import reviews


class SeatLists:
    """The seats of one rollout, as lists for people; nothing is changed."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def judged(self, reviewer: str, since: datetime) -> int:
        """Return how many cases somebody judged from an instant on, known ones among them."""
        query = select(func.count()).where(*self._done(reviewer), reviews.c.closed_at >= since)
        return int(self._transaction.execute(query).scalar_one())

    def last(self, reviewer: str, limit: int) -> Sequence[tuple[Review, datetime]]:
        """Return what somebody judged last and when, the newest first."""
        newest = (reviews.c.closed_at.desc(), reviews.c.id.desc())
        return self._closed(*self._done(reviewer), order=newest, limit=limit)

    def one(self, reviewer: str, number: int) -> tuple[Review, datetime] | None:
        """Return what somebody judged by its number, None where they did not."""
        own = (*self._done(reviewer), reviews.c.id == number)
        return next(iter(self._closed(*own, order=(), limit=1)), None)

    def to_settle(self, sites: Collection[str] | None, limit: int) -> Sequence[Review]:
        """Return the open adjudications at sites (None: everywhere), the oldest first."""
        here = () if sites is None else (reviews.c.site.in_(sorted(sites)),)
        query = select(*FIELDS).where(
            self._own(), reviews.c.kind == ADJUDICATE, reviews.c.state == OPEN, *here
        )
        rows = self._transaction.execute(
            query.order_by(reviews.c.opened_at, reviews.c.id).limit(limit)
        )
        return [Review(**row._asdict()) for row in rows]

    def _closed(
        self, *own: ColumnElement[bool], order: Sequence[Any], limit: int
    ) -> Sequence[tuple[Review, datetime]]:
        query = select(*FIELDS, reviews.c.closed_at).where(*own).order_by(*order).limit(limit)
        found = [row._asdict() for row in self._transaction.execute(query)]
        return [(Review(**{n: row[n] for n in _NAMES}), row["closed_at"]) for row in found]

    def _own(self) -> ColumnElement[bool]:
        return reviews.c.rollout == self._rollout.number

    def _done(self, reviewer: str) -> tuple[ColumnElement[bool], ...]:
        return (self._own(), reviews.c.reviewer == reviewer, reviews.c.state == DONE)


_NAMES = tuple(Review.__dataclass_fields__)
