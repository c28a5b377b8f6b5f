"""Deliveries of reports: sent when they are due, listed, retried and queued.

Due reports are delivered one after another, independently of the tick. Delivery is at least once:
if a process stops after sending but before recording it, the report is sent again. All tries have
the same key, so receivers can drop repeats.

What is due in an outbox, of reports or other messages, is claimed for one try.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from threading import Event
from typing import ClassVar, Protocol, TypeVar
from urllib.parse import quote

from rollout import faults
from rollout.data.access.users import Users
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.records.incoming_cases import ANY_REVIEWER, ExposureStore
from rollout.data.reports.reports import (
    FAILED,
    SENT,
    WAITING,
    Delivery,
    DeliveryStore,
    NewDelivery,
    Outbox,
    OutboxRow,
    ReportStore,
)
from rollout.engine.decide.permissions import (
    REVIEWER,
    VIEWER,
    AssignedRole,
    Caller,
    Permission,
    require_permission,
)
from rollout.features.delivery.sender import (
    SEND_TIMEOUT,
    ChannelMessage,
    MessageSender,
    send_in_process,
)
from rollout.features.incidents.incidents import list_incident_channels
from rollout.features.reports.archive import (
    ReportFormatter,
    ReportView,
    UnknownReportError,
    format_here,
    format_report,
    load_report,
    require_all_sites,
)
from rollout.features.reports.builder import (
    ReportCallbacks,
    ReportDrafter,
    ReportOptions,
    SealCallback,
    create_report,
    draft_here,
)
from rollout.kernel.channels import Channels
from rollout.kernel.errors import RefusalError
from rollout.live.autonomy import CheckedClock, ClockCheck
from rollout.live.rollout_state import read_rollout, write_rollout
from rollout.live.service import Service

DELIVERY_LEASE = timedelta(minutes=5)
"""Well above the timeout of one message, so no other replica sends it meanwhile."""
ClaimT = TypeVar("ClaimT")
TakenT_co = TypeVar("TakenT_co", covariant=True)


class DueOutbox(Protocol[TakenT_co]):
    """An outbox of messages, each taken by one process at a time."""

    def has_due(self, *, at: datetime, excluded_channels: Collection[str] = ()) -> bool:
        """Return whether `take_next` would return a message, without locking."""

    def take_next(
        self, *, at: datetime, lease: timedelta, excluded_channels: Collection[str] = ()
    ) -> TakenT_co | None:
        """Return a due message and count an attempt, or None."""


def claim_due(
    service: Service,
    open_outbox: Callable[[Transaction], DueOutbox[ClaimT]],
    failed_channels: Collection[str],
    previously_failed: Collection[str],
) -> ClaimT | None:
    """Claim a due message of channels that did not fail; those of the previous pass come last."""
    excluded_first = {*failed_channels, *previously_failed}
    return _claim(service, open_outbox, excluded_first) or _claim(
        service, open_outbox, failed_channels
    )


def _claim(
    service: Service,
    open_outbox: Callable[[Transaction], DueOutbox[ClaimT]],
    excluded_channels: Collection[str],
) -> ClaimT | None:
    """Claim a due message; the write lock is taken only if there is one."""
    at = service.clock.now()
    with service.database.begin_read() as transaction:
        if not open_outbox(transaction).has_due(at=at, excluded_channels=excluded_channels):
            return None
    with service.database.begin_write() as transaction:
        return open_outbox(transaction).take_next(
            at=at, lease=DELIVERY_LEASE, excluded_channels=excluded_channels
        )


CHANNEL_PAGE = "channel"
MAX_ATTEMPTS = 12
FIRST_RETRY_DELAY, MAX_RETRY_DELAY = timedelta(minutes=1), timedelta(hours=6)
RANDOM_BYTES = 4  # randomness of one delay
assert timedelta(seconds=2 * SEND_TIMEOUT) < DELIVERY_LEASE  # noqa: S101 - what keeps two from sending at once


@dataclass(frozen=True, slots=True)
class RenderedReport:
    """A report rendered for delivery.

    Attributes:
        hash: hash of the sealed report.
        summary: Markdown.
        html: the whole report.
        excluded_cases: hidden cases, which may still be decided blind.
        until: the figures cover cases before this time; None without figures.
    """

    hash: str
    summary: str
    html: str
    excluded_cases: int = 0
    until: datetime | None = None


class ReportRenderer(Protocol):
    """Renders a sealed report."""

    def __call__(self, rollout_name: str, report_number: int) -> RenderedReport:
        """Return a report rendered for delivery."""


@dataclass(frozen=True, slots=True)
class DeliveryPassResult:
    """Result of one pass: number sent, and errors with their channels."""

    sent_count: int = 0
    failures: tuple[str, ...] = ()
    failed_channels: frozenset[str] = frozenset()


class SendingJob(ABC):
    """A replica's passes over what channels are sent; the scheduler runs one at a time."""

    name: ClassVar[str]

    def __init__(self, service: Service, send_message: MessageSender = send_in_process) -> None:
        """Build the job without running it."""
        self._clock_check = ClockCheck(service.database, service.clock)
        self._service = replace(service, clock=CheckedClock(self._clock_check, service.clock))
        self._send = send_message
        self._failed_channels: frozenset[str] = frozenset()
        self._stop_event = Event()

    @abstractmethod
    def run(self) -> None:
        """Send what is due."""

    def stop(self) -> None:
        """Let the running pass end after the message that is being sent."""
        self._stop_event.set()

    def _has_time_left(self, started_at: float, longest: float) -> bool:
        """Return whether a pass may send another message, `longest` seconds after its start."""
        return not self._stop_event.is_set() and time.monotonic() - started_at < longest

    def _note_failures(self, result: DeliveryPassResult) -> None:
        """Leave out channels that failed from the next pass, and log why they did."""
        self._failed_channels = result.failed_channels
        for line in result.failures:
            logging.getLogger("rollout.scheduler").warning("%s", line)


@dataclass(slots=True)
class _DeliveryPass:
    sent_count: int = 0
    failures: list[str] = field(default_factory=list)
    failed_channels: set[str] = field(default_factory=set)


def deliver_due_reports(
    service: Service,
    render_report: ReportRenderer,
    send_message: MessageSender = send_in_process,
    should_continue: Callable[[], bool] = lambda: True,
    previously_failed: Collection[str] = (),
    reasons: Collection[str] | None = None,
) -> DeliveryPassResult:
    """Send due deliveries, and postpone those that fail.

    After a failure, a channel is skipped for the rest of the pass. In the next pass it comes last,
    so that it does not delay the others.

    Args:
        should_continue: checked before each message.
        previously_failed: channels that failed in the previous pass.
        reasons: of the deliveries to send; None for all.
    """
    open_outbox = partial(Outbox, reasons=reasons)
    delivery_pass = _DeliveryPass()
    while should_continue():
        delivery = claim_due(service, open_outbox, delivery_pass.failed_channels, previously_failed)
        if delivery is None:
            break
        faults.reach_point("outbox.taken")
        error = _try_delivery(service, delivery, render_report, send_message)
        faults.reach_point("outbox.sent")
        _record_attempt(service, delivery, error)
        if error:
            delivery_pass.failed_channels.add(delivery.request.channel)
            delivery_pass.failures.append(_describe_failure(delivery, error))
        else:
            delivery_pass.sent_count += 1
    return DeliveryPassResult(
        delivery_pass.sent_count,
        tuple(delivery_pass.failures),
        frozenset(delivery_pass.failed_channels),
    )


def _try_delivery(
    service: Service, delivery: Delivery, render_report: ReportRenderer, send_message: MessageSender
) -> str:
    """Send a delivery; return "" or the error without secrets."""
    if delivery.attempts > MAX_ATTEMPTS:
        return "every try broke off before its end"
    channel = delivery.request.channel
    if channel not in service.channels.urls:
        return f"the channel {channel} is not configured here"
    if channel in service.channels.personal_names:
        return f"the channel {channel} is for notifications of users; send reports to another one"
    url = service.channels.urls[channel]
    try:
        rendered_report = render_report(delivery.rollout, delivery.request.report)
    except Exception as error:  # noqa: BLE001 - tried again like any other failure
        return f"the report could not be written out ({type(error).__name__})"
    _record_readers(service, delivery, rendered_report)
    return send_message(build_message(delivery, rendered_report, url, service.channels))


def _record_readers(service: Service, delivery: Delivery, rendered_report: RenderedReport) -> None:
    """Record that the channel's readers see the figures, before sending.

    Gold cases from before are then no longer shown to them.
    """
    if rendered_report.until is None:
        return
    readers = service.channels.readers.get(delivery.request.channel)
    with service.database.begin_write() as transaction:
        rollout = Rollouts(transaction).find(delivery.rollout)
        assert rollout is not None  # noqa: S101 - one of its reports was just written out
        exposures = ExposureStore(transaction, rollout)
        are_known_users = readers is not None and len(
            Users(transaction).list_by_names(readers)
        ) == len(readers)
        for reader in (readers or ()) if are_known_users else (ANY_REVIEWER,):
            exposures.record_figures(reader, rendered_report.until, page=CHANNEL_PAGE)


def build_message(
    delivery: Delivery, rendered_report: RenderedReport, url: str, channels: Channels
) -> ChannelMessage:
    """Build the message for a channel."""
    delivery_request = delivery.request
    path = f"/console/rollouts/{quote(delivery.rollout, safe='')}/reports/{delivery_request.report}"
    # its page without figures: opening the report itself records an exposure
    link = f"{channels.public_url.rstrip('/')}{path}/about"
    key = build_delivery_key(delivery, rendered_report.hash)
    footer = (
        f"Report {delivery_request.report} of {delivery.rollout}: {link}\n\nSHA-256"
        f" {rendered_report.hash}, as in the ledger. Delivery {key}; two messages with the same"
        " delivery key are the same."
    )
    excluded_text = (
        f"{rendered_report.excluded_cases} cases are excluded here, because they can still be"
        " reviewed blind."
    )
    parts = (
        delivery_request.lead,
        rendered_report.summary,
        excluded_text if rendered_report.excluded_cases else "",
        footer,
    )
    body = "\n\n".join(part for part in parts if part)
    return ChannelMessage(
        url, f"{delivery.rollout}: {delivery_request.subject}", body, key, rendered_report.html
    )


def build_delivery_key(delivery: Delivery, report_hash: str) -> str:
    """Return the key of a delivery, the same at every try."""
    return f"{delivery.id}-{report_hash[:16]}"


def compute_retry_delay(attempts: int, random_value: float) -> timedelta:
    """Return the delay before the next try.

    Args:
        attempts: number of failed tries, from 1.
        random_value: in [0, 1), uniform; spreads the tries of replicas and channels.

    >>> [str(compute_retry_delay(n, 0.5)) for n in (1, 2, 9, 11)]
    ['0:01:00', '0:02:00', '4:16:00', '6:00:00']
    """
    delay: timedelta = FIRST_RETRY_DELAY * 2 ** (attempts - 1)
    return min(delay, MAX_RETRY_DELAY) * (0.75 + random_value / 2)


def _record_attempt(service: Service, delivery: Delivery, error: str) -> None:
    at = service.clock.now()
    random_value = int.from_bytes(service.entropy(RANDOM_BYTES), "big") / 256**RANDOM_BYTES
    with service.database.begin_write() as transaction:
        outbox = Outbox(transaction)
        if not error:
            outbox.record_sent(delivery, at=at)
        elif delivery.attempts >= MAX_ATTEMPTS:
            outbox.close(delivery, FAILED, error=error)
        else:
            outbox.retry_later(
                delivery, at=at + compute_retry_delay(delivery.attempts, random_value), error=error
            )


def _describe_failure(delivery: Delivery, error: str) -> str:
    next_step = "no further attempt" if delivery.attempts >= MAX_ATTEMPTS else "it is retried"
    delivery_text = f"delivery {delivery.id} of {delivery.rollout} to {delivery.request.channel}"
    attempt_text = f"attempt {delivery.attempts} of {MAX_ATTEMPTS}"
    return f"{delivery_text} failed, {attempt_text}; {next_step}: {error}"


CHANNEL_READERS = Caller(
    "readers of a channel",
    is_service_account=True,  # no exposure is recorded for it
    role_assignments=(AssignedRole(VIEWER), AssignedRole(REVIEWER)),
)


class ReportPublisher:
    """Makes and renders the reports of one replica's database."""

    def __init__(
        self,
        service: Service,
        draft_report: ReportDrafter = draft_here,
        format_page: ReportFormatter = format_here,
    ) -> None:
        """Store the replica's service, and what computes and draws its reports."""
        self._service, self._draft_report, self._format_page = service, draft_report, format_page

    def make_report(
        self,
        rollout_name: str,
        report_name: str,
        options: ReportOptions,
        at: datetime,
        on_sealed: SealCallback,
    ) -> None:
        """Create and seal a report; without changes, keep its last version.

        Raises:
            RefusalError: the period is not valid.
        """
        database = self._service.database
        callbacks = ReportCallbacks(
            draft_report=self._draft_report,
            on_created=lambda transaction, created_report: on_sealed(
                transaction, created_report.number
            ),
        )
        created_report = create_report(
            database,
            rollout_name,
            report_name,
            options,
            at,
            callbacks=callbacks,
        )
        if not created_report.is_new:
            with database.begin_write() as transaction:
                on_sealed(transaction, created_report.number)

    def render_report(self, rollout_name: str, report_number: int) -> RenderedReport:
        """Return a report rendered for delivery.

        Raises:
            RefusalError: no report has this number, or another program version made it.
        """
        at = self._service.clock.now()
        report_view = load_report(
            self._service.database, CHANNEL_READERS, rollout_name, report_number, at
        )
        return RenderedReport(
            hash=report_view.report.hash,
            summary=self._format(report_view, "summary"),
            html=self._format(report_view, "html"),
            excluded_cases=report_view.withheld_cases,
            until=report_view.report.until,
        )

    def _format(self, report_view: ReportView, report_format: str) -> str:
        view = report_view.report.view
        return format_report(report_view, report_format, view, self._format_page).decode()


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
class DeliveryStatus(OutboxRow):
    """A report on its way to a channel.

    `state` is waiting, sent or failed; `reason` is schedule, incident or demand; `error` is of the
    last
    try. The channel's address is secret and not included.
    """

    report: int
    channel: str
    reason: str
    subject: str
    queued_at: datetime
    next_at: datetime | None


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
    with read_rollout(database, rollout_name) as (transaction, rollout_state):
        deliveries = DeliveryStore(transaction, rollout_state.rollout).list_page(
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
    with write_rollout(database, rollout_name) as (transaction, state):
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
    require_permission(caller, Permission.OPERATE, rollout_name)
    with write_rollout(database, rollout_name) as (transaction, state):
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
