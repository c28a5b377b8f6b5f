"""Reports on their way to channels: a row is written with the report, and taken until it is sent.

The row is the outbox and the record in one. Taking a row counts a try and puts its next one off by
a lease: whoever dies over it leaves it to be tried again, and nobody else takes it meanwhile.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, func, select, update

from rollout.store.database.bulk import insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import deliveries, rollouts

WAITING, SENT, FAILED = "waiting", "sent", "failed"
STATES: Final = (WAITING, SENT, FAILED)


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be sent: a report of a rollout to a channel, why, and what is said before it."""

    report: int
    channel: str
    reason: str
    subject: str
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One report on its way to one channel.

    Attributes:
        id: its number.
        rollout: the rollout's name.
        letter: what is sent.
        state: waiting, sent or failed.
        attempts: tries so far, the present one among them.
        queued_at: when the report was sealed.
        next_at: when it is tried again; None where it is not.
        sent_at: when the channel took it.
        error: what the last try failed of, without any secret; "" for nothing.
    """

    id: int
    rollout: str
    letter: Letter
    state: str
    attempts: int
    queued_at: datetime
    next_at: datetime | None
    sent_at: datetime | None
    error: str


class Outbox:
    """The deliveries of all rollouts, as whoever sends them sees them."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def due(self, *, at: datetime, but: Collection[str] = ()) -> bool:
        """Say whether `take` would give something: asking keeps nobody from writing."""
        query = select(deliveries.c.id).where(*_due(at, but)).limit(1)
        return self._transaction.execute(query).first() is not None

    def take(self, *, at: datetime, lease: timedelta, but: Collection[str] = ()) -> Delivery | None:
        """Return a delivery that is due, counted as tried; nobody else is given it for a lease.

        Args:
            at: now.
            lease: after which it is given again, unless it was settled.
            but: channels that are left alone.
        """
        query = (
            select(deliveries.c.id)
            .where(*_due(at, but))
            .order_by(deliveries.c.next_attempt_at, deliveries.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        number = self._transaction.execute(query).scalar()
        if number is None:
            return None
        statement = update(deliveries).where(deliveries.c.id == number)
        self._transaction.execute(
            statement.values(attempts=deliveries.c.attempts + 1, next_attempt_at=at + lease)
        )
        row = self._transaction.execute(_listed().where(deliveries.c.id == number)).one()
        return _delivery(row)

    def sent(self, taken: Delivery, *, at: datetime) -> bool:
        """Note that the channel took it; False where somebody else has taken it meanwhile."""
        return self._settle(taken, state=SENT, sent_at=at, next_attempt_at=None, error="")

    def again(self, taken: Delivery, *, at: datetime, error: str) -> bool:
        """Put the next try off until `at`; False where somebody else has taken it meanwhile."""
        return self._settle(taken, state=WAITING, next_attempt_at=at, error=error)

    def failed(self, taken: Delivery, *, error: str) -> bool:
        """Give up; False where somebody else has taken it meanwhile."""
        return self._settle(taken, state=FAILED, next_attempt_at=None, error=error)

    def _settle(self, taken: Delivery, **values: Any) -> bool:
        conditions = (deliveries.c.id == taken.id, deliveries.c.attempts == taken.attempts)
        statement = update(deliveries).where(*conditions, deliveries.c.state == WAITING)
        return self._transaction.execute(statement.values(**values)).rowcount == 1


class Deliveries:
    """The deliveries of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout
        self._own = deliveries.c.rollout == rollout.number

    def queue(self, letter: Letter, *, at: datetime) -> bool:
        """Write a letter to be sent, once for each report and channel; say whether it is new."""
        row = {
            "rollout": self._rollout.number,
            "report": letter.report,
            "channel": letter.channel,
            "reason": letter.reason,
            "subject": letter.subject,
            "intro": letter.lead,
            "state": WAITING,
            "attempts": 0,
            "queued_at": at,
            "next_attempt_at": at,
            "error": "",
        }
        return insert_once(self._transaction, deliveries, row)

    def find(self, number: int) -> Delivery | None:
        """Return a delivery of this rollout by its number, None where there is none."""
        result = self._transaction.execute(self._listed().where(deliveries.c.id == number))
        row = result.one_or_none()
        return None if row is None else _delivery(row)

    def of(self, report: int, channel: str) -> Delivery:
        """Return the delivery of a report to a channel, which was queued.

        Raises:
            NoResultFound: it was not.
        """
        conditions = (deliveries.c.report == report, deliveries.c.channel == channel)
        return _delivery(self._transaction.execute(self._listed().where(*conditions)).one())

    def page(
        self, *, state: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """Return deliveries, the newest first.

        Args:
            state: only those.
            before: the number that the page before ended at.
            limit: how many at most.
        """
        query = self._listed().order_by(deliveries.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        if before is not None:
            query = query.where(deliveries.c.id < before)
        return [_delivery(row) for row in self._transaction.execute(query)]

    def retry(self, number: int, *, at: datetime) -> bool:
        """Try one that was given up at once, from the first try on; say whether it was given up.

        One that waits may be on its way just now: it is left alone.
        """
        failed_conditions = (deliveries.c.id == number, deliveries.c.state == FAILED)
        statement = update(deliveries).where(self._own, *failed_conditions)
        values = {"state": WAITING, "attempts": 0, "next_attempt_at": at}
        return self._transaction.execute(statement.values(**values)).rowcount == 1

    def failed(self) -> int:
        """Return how many were given up."""
        query = select(func.count()).where(self._own, deliveries.c.state == FAILED)
        return int(self._transaction.execute(query).scalar_one())

    def _listed(self) -> Select[Any]:
        return _listed().where(self._own)


def _due(at: datetime, but: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    columns = deliveries.c
    return columns.state == WAITING, columns.next_attempt_at <= at, columns.channel.not_in(but)


def _listed() -> Select[Any]:
    same_rollout = deliveries.c.rollout == rollouts.c.id
    return select(deliveries, rollouts.c.name.label("name")).join(rollouts, same_rollout)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        rollout=row.name,
        letter=Letter(row.report, row.channel, row.reason, row.subject, row.intro),
        state=row.state,
        attempts=row.attempts,
        queued_at=row.queued_at,
        next_at=row.next_attempt_at,
        sent_at=row.sent_at,
        error=row.error,
    )


def deliveries_of_report(transaction: Transaction, rollout: Rollout, report: int) -> list[Delivery]:
    """Return the deliveries of a report, in the order in which they were queued."""
    query = select(deliveries.c.id).where(
        deliveries.c.rollout == rollout.number, deliveries.c.report == report
    )
    delivery_ids = transaction.execute(query.order_by(deliveries.c.id)).scalars().all()
    store = Deliveries(transaction, rollout)
    candidates = (store.find(number) for number in delivery_ids)
    return [delivery for delivery in candidates if delivery is not None]
