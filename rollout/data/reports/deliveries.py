"""Deliveries of reports to channels: stored with the report, and tried until sent.

The row is both outbox and record. Taking a row counts an attempt and moves the next one past a
lease, so no other process takes it meanwhile, and after a crash it is tried again.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, func, select, update

from rollout.data.database.bulk import insert_once
from rollout.data.database.due_rows import WAITING, has_due_row, take_due_row
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction
from rollout.data.tables.tables import deliveries, rollouts

SENT, FAILED = "sent", "failed"


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery to queue: report, channel, reason, subject and introduction."""

    report: int
    channel: str
    reason: str
    subject: str
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A report on its way to a channel.

    Attributes:
        state: waiting, sent or failed.
        attempts: attempts so far, including the current one.
        queued_at: when the report was sealed.
        next_at: time of the next attempt; None without one.
        error: the error of the last attempt, without secrets; "" for none.
    """

    id: int
    rollout: str
    request: NewDelivery
    state: str
    attempts: int
    queued_at: datetime
    next_at: datetime | None
    sent_at: datetime | None
    error: str


class Outbox:
    """The deliveries of all rollouts; with `reasons`, only those queued for these are due."""

    def __init__(self, transaction: Transaction, reasons: Collection[str] | None = None) -> None:
        self._transaction = transaction
        self._conditions = () if reasons is None else (deliveries.c.reason.in_(reasons),)

    def has_due(self, *, at: datetime, excluded_channels: Collection[str] = ()) -> bool:
        """Return whether `take_next` would return a delivery, without locking."""
        return has_due_row(
            self._transaction,
            deliveries,
            at=at,
            excluded_channels=excluded_channels,
            conditions=self._conditions,
        )

    def take_next(
        self, *, at: datetime, lease: timedelta, excluded_channels: Collection[str] = ()
    ) -> Delivery | None:
        """Return a due delivery and count an attempt, or None.

        It becomes due again after `lease`, unless its result is recorded.
        """
        number = take_due_row(
            self._transaction,
            deliveries,
            at=at,
            lease=lease,
            excluded_channels=excluded_channels,
            conditions=self._conditions,
        )
        if number is None:
            return None
        row = self._transaction.execute(_select_deliveries().where(deliveries.c.id == number)).one()
        return _build_delivery(row)

    def record_sent(self, delivery: Delivery, *, at: datetime) -> bool:
        """Record that a delivery was sent; False if another process took it."""
        return self._update_if_owned(
            delivery, state=SENT, sent_at=at, next_attempt_at=None, error=""
        )

    def retry_later(self, delivery: Delivery, *, at: datetime, error: str) -> bool:
        """Move the next attempt to `at`; False if another process took it."""
        return self._update_if_owned(delivery, state=WAITING, next_attempt_at=at, error=error)

    def record_failed(self, delivery: Delivery, *, error: str) -> bool:
        """End the attempts; False if another process took the delivery."""
        return self._update_if_owned(delivery, state=FAILED, next_attempt_at=None, error=error)

    def _update_if_owned(self, delivery: Delivery, **values: Any) -> bool:
        conditions = (deliveries.c.id == delivery.id, deliveries.c.attempts == delivery.attempts)
        statement = update(deliveries).where(*conditions, deliveries.c.state == WAITING)
        return self._transaction.execute(statement.values(**values)).rowcount == 1


class DeliveryStore:
    """The deliveries of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout
        self._own = deliveries.c.rollout == rollout.number

    def add(self, request: NewDelivery, *, at: datetime) -> bool:
        """Queue a report for a channel once; return whether it is new."""
        row = {
            "rollout": self._rollout.number,
            "report": request.report,
            "channel": request.channel,
            "reason": request.reason,
            "subject": request.subject,
            "intro": request.lead,
            "state": WAITING,
            "attempts": 0,
            "queued_at": at,
            "next_attempt_at": at,
            "error": "",
        }
        return insert_once(self._transaction, deliveries, row)

    def find(self, number: int) -> Delivery | None:
        """Return the delivery with this number, or None."""
        result = self._transaction.execute(self._select_own().where(deliveries.c.id == number))
        row = result.one_or_none()
        return None if row is None else _build_delivery(row)

    def get_for_report(self, report: int, channel: str) -> Delivery:
        """Return the queued delivery of a report to a channel.

        Raises:
            NoResultFound: none was queued.
        """
        conditions = (deliveries.c.report == report, deliveries.c.channel == channel)
        return _build_delivery(
            self._transaction.execute(self._select_own().where(*conditions)).one()
        )

    def list_page(
        self, *, state: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """Return deliveries before a number, newest first, of one state or all."""
        query = self._select_own().order_by(deliveries.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        if before is not None:
            query = query.where(deliveries.c.id < before)
        return [_build_delivery(row) for row in self._transaction.execute(query)]

    def retry(self, number: int, *, at: datetime) -> bool:
        """Queue a failed delivery again; return False if it has not failed.

        A waiting delivery may be in progress and stays as it is.
        """
        failed_conditions = (deliveries.c.id == number, deliveries.c.state == FAILED)
        statement = update(deliveries).where(self._own, *failed_conditions)
        values = {"state": WAITING, "attempts": 0, "next_attempt_at": at}
        return self._transaction.execute(statement.values(**values)).rowcount == 1

    def count_failed(self) -> int:
        """Return the number of failed deliveries."""
        query = select(func.count()).where(self._own, deliveries.c.state == FAILED)
        return int(self._transaction.execute(query).scalar_one())

    def _select_own(self) -> Select[Any]:
        return _select_deliveries().where(self._own)


def _select_deliveries() -> Select[Any]:
    same_rollout = deliveries.c.rollout == rollouts.c.id
    return select(deliveries, rollouts.c.name.label("name")).join(rollouts, same_rollout)


def _build_delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        rollout=row.name,
        request=NewDelivery(row.report, row.channel, row.reason, row.subject, row.intro),
        state=row.state,
        attempts=row.attempts,
        queued_at=row.queued_at,
        next_at=row.next_attempt_at,
        sent_at=row.sent_at,
        error=row.error,
    )


def list_deliveries_of_report(
    transaction: Transaction, rollout: Rollout, report: int
) -> list[Delivery]:
    """Return the deliveries of a report, in the order of their queueing."""
    conditions = (deliveries.c.rollout == rollout.number, deliveries.c.report == report)
    query = _select_deliveries().where(*conditions).order_by(deliveries.c.id)
    return [_build_delivery(row) for row in transaction.execute(query)]
