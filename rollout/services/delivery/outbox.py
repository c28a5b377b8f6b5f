"""What was sent to whom, what waits, what was given up; and one more try."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.core.errors import Refusal
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.rollout_state import standing
from rollout.services.incidents.incidents import channels_told
from rollout.services.reports.archive import UnknownReport, require_every_site
from rollout.store.database.session import Database
from rollout.store.reports.deliveries import SENT, WAITING, Deliveries, Delivery, Letter
from rollout.store.reports.reports import Reports

ON_DEMAND = "demand"


class UnknownDelivery(Refusal):
    """No delivery of that number was ever queued in this rollout."""

    code = "unknown-delivery"


class DeliverySent(Refusal):
    """It arrived: nobody is sent the same report twice by hand."""

    code = "delivery-sent"


class UnknownChannel(Refusal):
    """The rollout's policy names no such channel: its reports are nobody else's."""

    code = "unknown-channel"


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """One report on its way to one channel.

    `state` is waiting, sent or failed; `reason` schedule, incident or demand; `error` what the last
    try failed of. Where the channel leads is said nowhere.
    """

    id: int
    report: int
    channel: str
    reason: str
    subject: str
    state: str
    attempts: int
    queued_at: datetime
    next_at: datetime | None
    sent_at: datetime | None
    error: str


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Some deliveries, the newest first; `before` is where the next page goes on, None at the end.

    `before` is a number.
    """

    items: tuple[DeliveryStatus, ...]
    before: int | None


def deliveries_of(
    database: Database,
    caller: Caller,
    name: str,
    *,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> DeliveryPage:
    """Return deliveries of a rollout. A viewer of some sites sees them too: they hold no figures.

    Args:
        database: where they are.
        caller: who asks.
        name: of the rollout.
        state: only those that are waiting, sent or failed; by default all.
        before: where the page before ended.
        limit: how many at most.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read it.
    """
    require(caller, Act.READ, name)
    with database.reading() as transaction:
        rollout = standing(transaction, name).rollout
        deliveries = Deliveries(transaction, rollout).page(state=state, before=before, limit=limit)
    next_before = deliveries[-1].id if len(deliveries) == limit else None
    return DeliveryPage(tuple(_now(delivery) for delivery in deliveries), next_before)


def retry(
    database: Database, caller: Caller, name: str, delivery: int, *, at: datetime
) -> DeliveryStatus:
    """Have a delivery that was given up tried again, from the first try on; waiting, it waits on.

    Raises:
        UnknownDelivery: there is none of that number.
        DeliverySent: it arrived.
        UnknownChannel: the policy names its channel no more.
        NotAllowed: the caller is no operator.
    """
    require(caller, Act.OPERATE, name)
    with database.writing() as transaction:
        state = standing(transaction, name)
        queue = Deliveries(transaction, state.rollout)
        there = queue.find(delivery)
        if there is None:
            error_text = f"no delivery {delivery} in {name}; `rollout deliveries` lists them"
            raise UnknownDelivery(error_text)
        if there.state == SENT:
            error_text = f"delivery {delivery} arrived at {there.sent_at}; nothing is sent again"
            raise DeliverySent(error_text)
        _check_channels(channels_told(state.policy), [there.letter.channel])
        queue.retry(delivery, at=at)
        queued_delivery = queue.of(there.letter.report, there.letter.channel)
    assert queued_delivery.state == WAITING  # noqa: S101 - one that was given up has just been queued
    return _now(queued_delivery)


def send_report(
    database: Database,
    caller: Caller,
    name: str,
    report: int,
    channels: Sequence[str],
    *,
    at: datetime,
) -> tuple[DeliveryStatus, ...]:
    """Queue a report that was made for channels that the policy names; sent before, it stays so.

    Args:
        database: where it is kept.
        caller: who asks.
        name: of the rollout.
        report: its number.
        channels: whom it goes to.
        at: now.

    Raises:
        UnknownReport: there is none of that number.
        UnknownChannel: the policy names no such channel; the text says which it names.
        NotAllowed: the caller is no operator, or may not read every site.
    """
    require(caller, Act.OPERATE, name)
    with database.writing() as transaction:
        state = standing(transaction, name)
        require_every_site(caller, state)
        _check_channels(channels_told(state.policy), channels)
        made = Reports(transaction, state.rollout).get(report)
        if made is None:
            raise UnknownReport(f"{name} has no report {report}; `GET reports` lists them")
        queue = Deliveries(transaction, state.rollout)
        for channel in channels:
            delivery_request = Letter(report, channel, ON_DEMAND, f"{made.name} report")
            queue.queue(delivery_request, at=at)
        return tuple(_now(queue.of(report, channel)) for channel in channels)


def _check_channels(named: Sequence[str], asked: Sequence[str]) -> None:
    unknown = [channel for channel in asked if channel not in named]
    if unknown:
        channel_text = ", ".join(named) or "none"
        raise UnknownChannel(
            f"the policy sends no report to {', '.join(unknown)}; it names {channel_text}: "
            "add it to `reports[].to`"
        )


def _now(found: Delivery) -> DeliveryStatus:
    delivery_request = found.letter
    return DeliveryStatus(
        id=found.id,
        report=delivery_request.report,
        channel=delivery_request.channel,
        reason=delivery_request.reason,
        subject=delivery_request.subject,
        state=found.state,
        attempts=found.attempts,
        queued_at=found.queued_at,
        next_at=found.next_at,
        sent_at=found.sent_at,
        error=found.error,
    )
