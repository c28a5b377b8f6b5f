"""What a user wants to be notified of, on which channels and when not; queuing and sending it.

An address is confirmed by a code that a test message brings. Otherwise a slip of the pen would send
a rollout's evidence to a stranger, and any user could have this service write to anyone.

Each notification is queued once.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from functools import partial
from hmac import compare_digest
from time import monotonic
from typing import Final

from rollout import faults
from rollout.data.access.notification_outbox import (
    CONFIRMATION,
    DROPPED,
    NewNotification,
    Notice,
    Notification,
    NotificationChannel,
    NotificationChannels,
    NotificationOutbox,
    NotificationTimes,
)
from rollout.data.access.users import StoredUser, Users
from rollout.data.database.append_failures import UnreadableRowsError
from rollout.data.database.rollouts import list_rollout_names
from rollout.data.database.session import Transaction
from rollout.data.reports.reports import FAILED
from rollout.engine.decide.commands import NO_LIMITS
from rollout.engine.decide.permissions import Caller
from rollout.features.access.access_state import build_caller
from rollout.features.access.users import load_approval_limits
from rollout.features.delivery.delivery import (
    MAX_ATTEMPTS,
    RANDOM_BYTES,
    DeliveryPassResult,
    SendingJob,
    claim_due,
    compute_retry_delay,
)
from rollout.features.delivery.sender import ChannelMessage, MessageSender, send_in_process
from rollout.features.notifications.kinds import (
    GROUPED_NOTICES,
    KIND_OF_NOTICE,
    KINDS,
    URGENT_NOTICES,
    select_notices,
)
from rollout.features.notifications.proposal_kinds import (
    MessageText,
    NotificationUser,
    RolloutNews,
    describe_code,
)
from rollout.kernel.calendar.instants import QuietHours, list_timezones
from rollout.kernel.errors import RefusalError
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

__all__ = ["NotificationTimes"]

CODE_DIGITS: Final = 8
CODE_BYTES: Final = 8
CODE_LIFETIME: Final = timedelta(days=1)
MAX_WRONG_CODES: Final = 5
MAX_CODES_PER_HOUR: Final = 5
"""Test messages of one user: what a stranger whose address was typed in gets at most."""
HOUR: Final = timedelta(hours=1)
DEFAULT_TIMES: Final = NotificationTimes("UTC")


class NotificationSettingsError(RefusalError):
    """A choice of channel, address, kind, code or hours is not valid; nothing was changed."""


@dataclass(frozen=True, slots=True)
class NotificationChannelStatus:
    """A channel that the caller chose; `last` is the newest notification on it, None for none."""

    channel: NotificationChannel
    is_configured: bool
    last: Notification | None


@dataclass(frozen=True, slots=True)
class NotificationSettings:
    """The caller's settings; `available` are the names of channels that can be chosen."""

    times: NotificationTimes
    channels: tuple[NotificationChannelStatus, ...]
    available: tuple[str, ...]


def load_notification_settings(service: Service, caller: Caller) -> NotificationSettings:
    """Return the caller's notification settings.

    Raises:
        NotificationSettingsError: the caller is a service account.
    """
    available = service.channels.personal_names
    with service.database.begin_read() as transaction:
        user_id = _find_user_id(transaction, caller)
        store, outbox = NotificationChannels(transaction), NotificationOutbox(transaction)
        return NotificationSettings(
            times=store.load_times(user_id) or DEFAULT_TIMES,
            channels=tuple(
                NotificationChannelStatus(
                    channel,
                    channel.channel in available,
                    next(iter(outbox.list_for_channel(user_id, channel.channel, limit=1)), None),
                )
                for channel in store.list_for_user(user_id)
            ),
            available=available,
        )


def save_notification_times(service: Service, caller: Caller, times: NotificationTimes) -> None:
    """Store the caller's timezone and quiet hours.

    Raises:
        NotificationSettingsError: a time or the timezone is not valid.
    """
    if times.timezone not in list_timezones():
        raise NotificationSettingsError(
            f"there is no timezone {times.timezone}; write one such as Europe/Vienna"
        )
    start, end = map(parse_quiet_time, (times.quiet_from, times.quiet_until))
    if (start is None) != (end is None):
        raise NotificationSettingsError("quiet hours need a start and an end; give both or none")
    if start is not None and start == end:
        raise NotificationSettingsError(
            "quiet hours from a time to the same time would be the whole day; choose another end,"
            " or remove the channel"
        )
    with service.database.begin_write() as transaction:
        NotificationChannels(transaction).store_times(
            _find_user_id(transaction, caller),
            NotificationTimes(times.timezone, _format_time(start), _format_time(end)),
        )


def build_quiet_hours(times: NotificationTimes) -> QuietHours | None:
    """Return a user's quiet hours, or None without them."""
    start, end = map(parse_quiet_time, (times.quiet_from, times.quiet_until))
    return None if start is None or end is None else QuietHours(times.timezone, start, end)


def _format_time(local_time: time | None) -> str:
    return "" if local_time is None else f"{local_time:%H:%M}"


def parse_quiet_time(text: str) -> time | None:
    """Return a local time written as 22:00; None for "".

    Raises:
        NotificationSettingsError: it is written otherwise.
    """
    if not text:
        return None
    try:
        return datetime.strptime(text, "%H:%M").time()  # noqa: DTZ007 - a time of day, in no zone
    except ValueError:
        raise NotificationSettingsError(
            f"{text[:20]} is no time of day; write quiet hours as 22:00 and 07:00"
        ) from None


def save_notification_channel(
    service: Service, caller: Caller, name: str, address: str, kinds: Collection[str]
) -> None:
    """Store what the caller gets on a channel; a new address gets a test message with a code.

    Raises:
        NotificationSettingsError: channel, address or a kind is not valid, or too many codes were
            sent.
    """
    at = service.clock.now()
    _check_choice(service, name, address, kinds)
    with service.database.begin_write() as transaction:
        user_id = _find_user_id(transaction, caller)
        store = NotificationChannels(transaction)
        previous = store.find(user_id, name)
        since = {} if previous is None else previous.kinds
        chosen_kinds = {kind: since.get(kind, at) for kind in KINDS if kind in kinds}
        if previous is not None and previous.address == address:
            store.store(replace(previous, kinds=chosen_kinds))
            return
        new_channel = NotificationChannel(user_id, name, address, chosen_kinds)
        _send_code(service, transaction, new_channel, at)


def resend_code(service: Service, caller: Caller, name: str) -> None:
    """Send a new code to a channel that is not confirmed; the one before is void.

    Raises:
        NotificationSettingsError: there is no such channel, it is confirmed, or too many codes
            were sent.
    """
    with service.database.begin_write() as transaction:
        channel = _get_channel(transaction, caller, name)
        if channel.confirmed_at is not None:
            raise NotificationSettingsError(f"the address of {name} is confirmed already")
        _send_code(service, transaction, channel, service.clock.now())


def confirm_notification_channel(service: Service, caller: Caller, name: str, code: str) -> None:
    """Confirm the address of a channel by the code of its test message.

    Raises:
        NotificationSettingsError: the code is wrong or too old; five wrong ones make it void.
    """
    at = service.clock.now()
    with service.database.begin_write() as transaction:
        store, channel = NotificationChannels(transaction), _get_channel(transaction, caller, name)
        fault = _find_code_fault(channel, code.replace(" ", ""), at)
        if channel.confirmed_at is None and not fault:
            kinds = dict.fromkeys(channel.kinds, at)
            store.store(replace(channel, kinds=kinds, code="", wrong_codes=0, confirmed_at=at))
        elif fault:
            store.store(replace(channel, wrong_codes=channel.wrong_codes + 1))
    if fault:
        raise NotificationSettingsError(fault)


def delete_notification_channel(service: Service, caller: Caller, name: str) -> None:
    """Delete a channel of the caller with its address; without one nothing happens."""
    with service.database.begin_write() as transaction:
        NotificationChannels(transaction).delete(_find_user_id(transaction, caller), name)


def _check_choice(service: Service, name: str, address: str, kinds: Collection[str]) -> None:
    available = service.channels.personal_names
    if name not in available:
        raise NotificationSettingsError(
            f"there is no channel {name[:100]} for users; there are"
            f" {', '.join(available) or 'none'}. An administrator of the service can add one to"
            " ROLLOUT_CHANNELS_FILE"
        )
    if unknown_kinds := sorted(set(kinds) - KINDS.keys()):
        raise NotificationSettingsError(
            f"there are no notifications of {unknown_kinds[0][:100]}; choose from"
            f" {', '.join(KINDS)}"
        )
    if fault := service.channels.find_address_fault(name, address):
        raise NotificationSettingsError(fault)


def _send_code(
    service: Service, transaction: Transaction, channel: NotificationChannel, at: datetime
) -> None:
    store, outbox = NotificationChannels(transaction), NotificationOutbox(transaction)
    if store.count_codes(channel.user_id, since=at - HOUR) >= MAX_CODES_PER_HOUR:
        raise NotificationSettingsError(
            f"{MAX_CODES_PER_HOUR} test messages were sent within an hour; wait an hour, and check"
            " the address"
        )
    number = int.from_bytes(service.entropy(CODE_BYTES), "big") % 10**CODE_DIGITS
    code = f"{number:0{CODE_DIGITS}d}"
    store.store(replace(channel, code=code, code_sent_at=at, wrong_codes=0, confirmed_at=None))
    outbox.drop_unsent(channel.user_id, channel.channel)
    notice = Notice("", CONFIRMATION, at.isoformat())
    outbox.add(NewNotification(channel.user_id, channel.channel, notice, at), at=at)


def _find_code_fault(channel: NotificationChannel, code: str, at: datetime) -> str:
    if channel.confirmed_at is not None:
        return ""
    is_expired = channel.code_sent_at is None or at >= channel.code_sent_at + CODE_LIFETIME
    if is_expired or channel.wrong_codes >= MAX_WRONG_CODES:
        return "this code is not valid any more; have a new one sent"
    if not compare_digest(code.encode(), channel.code.encode()):
        return "this code is wrong; type the newest one that arrived"
    return ""


def _get_channel(transaction: Transaction, caller: Caller, name: str) -> NotificationChannel:
    user_id = _find_user_id(transaction, caller)
    channel = NotificationChannels(transaction).find(user_id, name, lock=True)
    if channel is None:
        raise NotificationSettingsError(
            f"{caller.name} has no channel {name[:100]}; give its address first"
        )
    return channel


def _find_user_id(transaction: Transaction, caller: Caller) -> int:
    user = None if caller.is_service_account else Users(transaction).find(caller.name)
    if user is None:
        raise NotificationSettingsError(
            f"{caller.name} is no user, and only users are notified; programs read the event stream"
        )
    return user.number


_QueueKey = tuple[datetime | None, int, str, Notice]
"""When the address was confirmed, and what was queued: one confirmed anew gets what is due."""


class NotificationPlanner:
    """Queues the notifications of one replica's database."""

    def __init__(self, service: Service) -> None:
        """Store the replica's service."""
        self._service = service
        self._queued_keys: frozenset[_QueueKey] = frozenset()

    def queue_notifications(self, at: datetime, *, urgent_only: bool = False) -> int:
        """Queue what is due and new; return how many.

        The table's key keeps each one single, also when replicas queue at the same time. A replica
        writes only what it has not queued in the pass before.

        Args:
            urgent_only: for clocks that disagree: urgent ones alone, and none waits for others.
        """
        notifications = {
            key: replace(notification, send_at=at) if urgent_only else notification
            for key, notification in self._find_notifications(at).items()
            if not urgent_only or notification.notice.kind in URGENT_NOTICES
        }
        new_notifications = [
            notification
            for key, notification in notifications.items()
            if key not in self._queued_keys
        ]
        count = self._store(new_notifications, at) if new_notifications else 0
        self._queued_keys = frozenset(notifications)
        return count

    def _find_notifications(self, at: datetime) -> dict[_QueueKey, NewNotification]:
        with self._service.database.begin_read() as transaction:
            channels = NotificationChannels(transaction).list_confirmed()
            users = load_notification_users(transaction) if channels else {}
        enabled_channels = [channel for channel in channels if channel.user_id in users]
        if not enabled_channels:
            return {}
        news = load_news(self._service, at, enabled_channels)
        news_by_rollout = {item.state.rollout.name: item for item in news}
        return {
            (channel.confirmed_at, channel.user_id, channel.channel, notice): (
                NewNotification(
                    channel.user_id,
                    channel.channel,
                    notice,
                    KIND_OF_NOTICE[notice.kind].find_send_time(
                        users[channel.user_id], notice, news_by_rollout, at
                    ),
                )
            )
            for channel in enabled_channels
            for notice in select_notices(users[channel.user_id], channel.kinds, news, at)
        }

    def _store(self, notifications: list[NewNotification], at: datetime) -> int:
        with self._service.database.begin_write() as transaction:
            outbox = NotificationOutbox(transaction)
            count = sum(outbox.add(notification, at=at) for notification in notifications)
            faults.reach_point("notification.queued")
        return count


def load_notification_users(transaction: Transaction) -> dict[int, NotificationUser]:
    """Return the enabled users by number; service accounts are never notified."""
    users, limits = Users(transaction), load_approval_limits(transaction)
    roles_by_user = users.list_all_role_assignments()
    times_by_user = NotificationChannels(transaction).list_times()

    def build_user(user: StoredUser) -> NotificationUser:
        caller = build_caller(user, tuple(roles_by_user.get(user.number, ())), None)
        times = times_by_user.get(user.number, DEFAULT_TIMES)
        return NotificationUser(
            replace(caller, limits=limits.get(user.number, NO_LIMITS)),
            times.timezone,
            build_quiet_hours(times),
        )

    return {
        user.number: build_user(user)
        for user in users.list_all()
        if not user.is_service_account and user.disabled_at is None
    }


def load_news(
    service: Service,
    at: datetime,
    channels: Iterable[NotificationChannel],
    rollout_name: str | None = None,
) -> tuple[RolloutNews, ...]:
    """Return what there may be to notify of, in all rollouts or one.

    Only what the kinds of the channels need is read.
    """
    names = {name for channel in channels for name in channel.kinds} & KINDS.keys()
    return tuple(
        RolloutNews(state, {name: KINDS[name].load_items(service, state, at) for name in names})
        for state in _load_states(service, rollout_name)
    )


def _load_states(service: Service, rollout_name: str | None) -> list[RolloutState]:
    """Return the states of all rollouts or one, without those whose rows can't be read.

    Damage of one rollout, which the tick reports, must not silence incidents of the others.
    """
    names = list_rollout_names(service.database)
    states = []
    for name in names:
        if rollout_name in {None, name}:
            with suppress(UnreadableRowsError):
                states.append(service.state_cache.reload_rollout(name).state)
    return states


NO_LONGER_DUE: Final = "it no longer applied"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Result of one try: sent, an error, dropped, or postponed to a time.

    `others` are further notifications in the same message.
    """

    error: str = ""
    is_dropped: bool = False
    postponed_to: datetime | None = None
    others: tuple[Notification, ...] = ()


def send_due_notifications(
    service: Service,
    send_message: MessageSender = send_in_process,
    should_continue: Callable[[], bool] = lambda: True,
    previously_failed: Collection[str] = (),
    kinds: Collection[str] | None = None,
) -> DeliveryPassResult:
    """Send due notifications; a channel that fails is skipped for the rest of the pass.

    Args:
        should_continue: checked before each message.
        previously_failed: channels that failed in the previous pass; they come last.
        kinds: of the notifications to send; None for all.
    """
    open_outbox = partial(NotificationOutbox, kinds=kinds, grouped_kinds=GROUPED_NOTICES)
    sent_count, failures, failed_channels = 0, list[str](), set[str]()
    while should_continue():
        notification = claim_due(service, open_outbox, failed_channels, previously_failed)
        if notification is None:
            break
        outcome = _try_notification(service, notification, send_message)
        faults.reach_point("notification.sent")
        _record_outcome(service, notification, outcome)
        if outcome.error:
            failed_channels.add(notification.channel)
            failures.append(_describe_failure(notification, outcome.error))
        elif not outcome.is_dropped and outcome.postponed_to is None:
            sent_count += 1
    return DeliveryPassResult(sent_count, tuple(failures), frozenset(failed_channels))


def _try_notification(
    service: Service, notification: Notification, send_message: MessageSender
) -> _Outcome:
    if notification.attempts > MAX_ATTEMPTS:
        return _Outcome("every try broke off before its end")
    with service.database.begin_read() as transaction:
        channel = NotificationChannels(transaction).find(notification.user_id, notification.channel)
        user = load_notification_users(transaction).get(notification.user_id)
    if channel is None or user is None:
        return _Outcome(is_dropped=True)
    return _send_to_user(service, notification, channel, user, send_message)


def _send_to_user(
    service: Service,
    notification: Notification,
    channel: NotificationChannel,
    user: NotificationUser,
    send_message: MessageSender,
) -> _Outcome:
    at = service.clock.now()
    send_at = at if notification.notice.kind in URGENT_NOTICES else user.find_send_time(at)
    if send_at > at:
        return _Outcome(postponed_to=send_at)
    try:
        text, others = _find_text(service, notification, channel, user, at)
    except Exception as error:  # noqa: BLE001 - tried again like any other failure
        return _Outcome(f"the message could not be written ({type(error).__name__})")
    if text is None:
        return _Outcome(is_dropped=True)
    if channel.channel not in service.channels.personal_names:
        error_text = f"the channel {channel.channel} is not configured here for users"
        return _Outcome(error_text, others=others)
    message = build_notification(service, (notification, *others), channel, text)
    return _Outcome(send_message(message), others=others)


def _find_text(
    service: Service,
    notification: Notification,
    channel: NotificationChannel,
    user: NotificationUser,
    at: datetime,
) -> tuple[MessageText | None, tuple[Notification, ...]]:
    """Return the text, None if it no longer applies, and the others in the same message."""
    notice = notification.notice
    if notice.kind == CONFIRMATION:
        is_newest = channel.code_sent_at is not None and (
            notice.about == channel.code_sent_at.isoformat()
        )
        return (describe_code(channel.code) if channel.code and is_newest else None), ()
    if channel.confirmed_at is None:
        return None, ()
    news = load_news(service, at, [channel], notice.rollout or None)
    due_notices = select_notices(user, channel.kinds, news, at)
    if notice not in due_notices:
        return None, ()
    kind = KIND_OF_NOTICE[notice.kind]
    others = kind.select_group(notification, due_notices, news)
    try:
        notices = [item.notice for item in (notification, *others)]
        return kind.build_text(service, user, notices, news, at), others
    except RefusalError:  # it was decided, or erased, since the state was read
        return None, ()


def build_notification(
    service: Service, group: Sequence[Notification], channel: NotificationChannel, text: MessageText
) -> ChannelMessage:
    """Build the message of notifications; its key is the same at every try of the same ones."""
    numbers = ".".join(str(notification.id) for notification in group)
    key = f"notification-{group[0].id}"
    if len(group) > 1:
        key = f"{key}-{hashlib.sha256(numbers.encode()).hexdigest()[:8]}"
    footer = f"Message {key}; two messages with the same number are the same."
    return ChannelMessage(
        service.channels.build_personal_url(channel.channel, channel.address),
        text.subject,
        f"{text.format_body(service.channels.public_url)}\n\n{footer}",
        key,
    )


def _record_outcome(service: Service, notification: Notification, outcome: _Outcome) -> None:
    at = service.clock.now()
    random_value = int.from_bytes(service.entropy(RANDOM_BYTES), "big") / 256**RANDOM_BYTES
    retry_at = at + compute_retry_delay(notification.attempts, random_value)
    with service.database.begin_write() as transaction:
        outbox = NotificationOutbox(transaction)
        for item in (notification, *outcome.others):
            _record_item(outbox, item, outcome, at, retry_at)
        for item in notification.others:
            if item not in outcome.others and item.due_at is not None:
                outbox.postpone(item, at=item.due_at)


def _record_item(
    outbox: NotificationOutbox,
    notification: Notification,
    outcome: _Outcome,
    at: datetime,
    retry_at: datetime,
) -> None:
    if outcome.postponed_to is not None:
        outbox.postpone(notification, at=outcome.postponed_to)
    elif outcome.is_dropped:
        outbox.close(notification, DROPPED, error=NO_LONGER_DUE)
    elif not outcome.error:
        outbox.record_sent(notification, at=at)
    elif notification.attempts >= MAX_ATTEMPTS:
        outbox.close(notification, FAILED, error=outcome.error)
    else:
        outbox.retry_later(notification, at=retry_at, error=outcome.error)


def _describe_failure(notification: Notification, error: str) -> str:
    next_step = "no further attempt" if notification.attempts >= MAX_ATTEMPTS else "it is retried"
    return (
        f"notification {notification.id} to {notification.channel} failed, attempt"
        f" {notification.attempts} of {MAX_ATTEMPTS}; {next_step}: {error}"
    )


MAX_NOTIFY_TIME: Final = 60.0  # seconds of sending before new notifications are queued


class NotificationJob(SendingJob):
    """A replica's passes over notifications; the scheduler runs one at a time."""

    name = "notifications"

    def __init__(self, service: Service, send_message: MessageSender = send_in_process) -> None:
        """Build the job without running it."""
        super().__init__(service, send_message)
        self._planner = NotificationPlanner(self._service)

    def run(self) -> None:
        """Queue what is new, then send what is due."""
        clock = self._clock_check.now()
        is_clock_apart = bool(clock.skew_text)
        self._planner.queue_notifications(clock.at, urgent_only=is_clock_apart)
        has_time_left = partial(self._has_time_left, monotonic(), MAX_NOTIFY_TIME)
        result = send_due_notifications(
            self._service,
            self._send,
            has_time_left,
            self._failed_channels,
            kinds=URGENT_NOTICES if is_clock_apart else None,
        )
        self._note_failures(result)
