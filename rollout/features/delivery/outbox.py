"""The deliveries of a rollout: list, retry and queue them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.data.database.due_rows import WAITING
from rollout.data.database.session import Database
from rollout.data.reports.deliveries import SENT, Delivery, DeliveryStore, NewDelivery
from rollout.data.reports.reports import ReportStore
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.features.incidents.incidents import list_incident_channels
from rollout.kernel.errors import RefusalError
from rollout.live.rollout_state import load_rollout_state

REASON_ON_DEMAND = "demand"


class UnknownDeliveryError(RefusalError):
    """The rollout has no delivery of this number."""

    code = "unknown-delivery"


class DeliverySentError(RefusalError):
    """The report arrived already, so it can't be sent again by hand."""

    code = "delivery-sent"


class UnknownChannelError(RefusalError):
    """The rollout's policy has no such channel."""

    code = "unknown-channel"


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """A report on its way to a channel.

    `state` is waiting, sent or failed; `reason` is schedule, incident or demand; `error` is of the
    last
    try. The channel's address is secret and not included.
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
    """A page of deliveries, newest first.

    `before` is a delivery number, the cursor of the next page; None on the last page.
    """

    items: tuple[DeliveryStatus, ...]
    before: int | None


def load_deliveries(
    database: Database,
    caller: Caller,
    rollout_name: str,
    *,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> DeliveryPage:
    """Return a page of deliveries; they hold no figures, so any viewer sees them.

    Args:
        state: waiting, sent or failed; by default all.
        before: cursor of the previous page.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read it.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, rollout_name).rollout
        deliveries = DeliveryStore(transaction, rollout).list_page(
            state=state, before=before, limit=limit
        )
    next_before = deliveries[-1].id if len(deliveries) == limit else None
    return DeliveryPage(
        tuple(_build_delivery_status(delivery) for delivery in deliveries), next_before
    )


def requeue_delivery(
    database: Database, caller: Caller, rollout_name: str, delivery_id: int, *, at: datetime
) -> DeliveryStatus:
    """Queue a failed delivery again, with all its tries; a waiting one is unchanged.

    Raises:
        UnknownDeliveryError: no delivery has this number.
        DeliverySentError: it arrived already.
        UnknownChannelError: the policy no longer has its channel.
        NotAllowedError: the caller is not an operator.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        queue = DeliveryStore(transaction, state.rollout)
        delivery = queue.find(delivery_id)
        if delivery is None:
            error_text = (
                f"no delivery {delivery_id} in {rollout_name}; `rollout deliveries` lists them"
            )
            raise UnknownDeliveryError(error_text)
        if delivery.state == SENT:
            error_text = (
                f"delivery {delivery_id} arrived at {delivery.sent_at}; nothing is sent again"
            )
            raise DeliverySentError(error_text)
        _check_channels(list_incident_channels(state.policy), [delivery.request.channel])
        queue.retry(delivery_id, at=at)
        queued_delivery = queue.get_for_report(delivery.request.report, delivery.request.channel)
    assert queued_delivery.state == WAITING  # noqa: S101 - one that was given up has just been queued
    return _build_delivery_status(queued_delivery)


def queue_report(
    database: Database,
    caller: Caller,
    rollout_name: str,
    report_number: int,
    channels: Sequence[str],
    *,
    at: datetime,
) -> tuple[DeliveryStatus, ...]:
    """Queue a report for channels of the policy; earlier deliveries are kept.

    Raises:
        UnknownReportError: no report has this number.
        UnknownChannelError: the policy has no such channel; the text lists its channels.
        NotAllowedError: the caller is not an operator, or may not read every site.
    """
    from rollout.features.reports.archive import UnknownReportError, require_all_sites

    require_permission(caller, Permission.OPERATE, rollout_name)
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        require_all_sites(caller, state)
        _check_channels(list_incident_channels(state.policy), channels)
        report = ReportStore(transaction, state.rollout).get(report_number)
        if report is None:
            raise UnknownReportError(
                f"{rollout_name} has no report {report_number}; `GET reports` lists them"
            )
        queue = DeliveryStore(transaction, state.rollout)
        for channel in channels:
            delivery_request = NewDelivery(
                report_number, channel, REASON_ON_DEMAND, f"{report.name} report"
            )
            queue.add(delivery_request, at=at)
        return tuple(
            _build_delivery_status(queue.get_for_report(report_number, channel))
            for channel in channels
        )


def _check_channels(policy_channels: Sequence[str], requested_channels: Sequence[str]) -> None:
    unknown = [channel for channel in requested_channels if channel not in policy_channels]
    if unknown:
        channel_text = ", ".join(policy_channels) or "none"
        raise UnknownChannelError(
            f"the policy sends no report to {', '.join(unknown)}; it names {channel_text}: "
            "add it to `reports[].to`"
        )


def _build_delivery_status(delivery: Delivery) -> DeliveryStatus:
    delivery_request = delivery.request
    return DeliveryStatus(
        id=delivery.id,
        report=delivery_request.report,
        channel=delivery_request.channel,
        reason=delivery_request.reason,
        subject=delivery_request.subject,
        state=delivery.state,
        attempts=delivery.attempts,
        queued_at=delivery.queued_at,
        next_at=delivery.next_at,
        sent_at=delivery.sent_at,
        error=delivery.error,
    )
