"""What a user wants to be notified of, on which channels, and when not.

An address is confirmed by a code that a test message brings. Otherwise a slip of the pen would send
a rollout's evidence to a stranger, and any user could have this service write to anyone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from hmac import compare_digest
from typing import Final
from zoneinfo import available_timezones

from rollout.data.access.notification_outbox import (
    CONFIRMATION,
    NewNotification,
    Notice,
    Notification,
    NotificationChannel,
    NotificationChannels,
    NotificationOutbox,
    NotificationTimes,
)
from rollout.data.access.users import Users
from rollout.data.database.session import Transaction
from rollout.engine.decide.permissions import Caller
from rollout.features.notifications.kinds import KINDS
from rollout.kernel.calendar.sites import QuietHours
from rollout.kernel.errors import RefusalError
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
    if times.timezone not in available_timezones():
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
        chosen_kinds = _date_kinds(kinds, {} if previous is None else previous.kinds, at)
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


def _date_kinds(
    kinds: Collection[str], previous_kinds: Mapping[str, datetime], at: datetime
) -> dict[str, datetime]:
    """Return since when each kind is chosen, in the order of the catalogue."""
    return {kind: previous_kinds.get(kind, at) for kind in KINDS if kind in kinds}


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
    new_notification = NewNotification(channel.user_id, channel.channel, notice, at)
    outbox.add(new_notification, at=at)


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
