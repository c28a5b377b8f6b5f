"""Queue the notifications that users chose, each once."""

from dataclasses import dataclass
from datetime import datetime

from rollout import faults
from rollout.services.engine.service import Service
from rollout.services.notifications.recipients import load_news, load_notification_users
from rollout.services.notifications.selection import select_notices
from rollout.store.access.notification_channels import NotificationChannels
from rollout.store.access.notification_outbox import NewNotification, Notice, NotificationOutbox


@dataclass(frozen=True, slots=True)
class _QueueKey:
    """What was queued: an address confirmed anew gets what is still due."""

    user_id: int
    channel: str
    confirmed_at: datetime | None
    notice: Notice


class NotificationPlanner:
    """Queues the notifications of one replica's database."""

    def __init__(self, service: Service) -> None:
        """Store the replica's service."""
        self._service = service
        self._queued_keys: frozenset[_QueueKey] = frozenset()

    def queue_notifications(self, at: datetime) -> int:
        """Queue what is due and new; return how many.

        The table's key keeps each one single, also when replicas queue at the same time. A replica
        writes only what it has not queued in the pass before.
        """
        notifications = self._find_notifications(at)
        new_notifications = [
            notification
            for key, notification in notifications.items()
            if key not in self._queued_keys
        ]
        count = self._store(new_notifications, at) if new_notifications else 0
        self._queued_keys = frozenset(notifications)
        return count

    def _find_notifications(self, at: datetime) -> dict["_QueueKey", NewNotification]:
        with self._service.database.begin_read() as transaction:
            channels = NotificationChannels(transaction).list_confirmed()
            users = load_notification_users(transaction) if channels else {}
        enabled_channels = [channel for channel in channels if channel.user_id in users]
        if not enabled_channels:
            return {}
        news = load_news(self._service, at, enabled_channels)
        return {
            _QueueKey(channel.user_id, channel.channel, channel.confirmed_at, notice): (
                NewNotification(
                    channel.user_id,
                    channel.channel,
                    notice,
                    users[channel.user_id].find_send_time(notice.kind, at),
                )
            )
            for channel in enabled_channels
            for notice in select_notices(users[channel.user_id].build_recipient(channel), news, at)
        }

    def _store(self, notifications: list[NewNotification], at: datetime) -> int:
        with self._service.database.begin_write() as transaction:
            outbox = NotificationOutbox(transaction)
            count = sum(outbox.add(notification, at=at) for notification in notifications)
            faults.reach_point("notification.queued")
        return count
