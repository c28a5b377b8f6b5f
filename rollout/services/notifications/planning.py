"""Queue the notifications that users chose, each once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from rollout import faults
from rollout.services.engine.service import Service
from rollout.services.notifications.incident_groups import find_incident_time
from rollout.services.notifications.kinds import INCIDENT, URGENT_KINDS
from rollout.services.notifications.recipients import (
    NotificationUser,
    load_news,
    load_notification_users,
)
from rollout.services.notifications.selection import RolloutNews, select_notices
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

    def queue_notifications(self, at: datetime, *, urgent_only: bool = False) -> int:
        """Queue what is due and new; return how many.

        The table's key keeps each one single, also when replicas queue at the same time. A replica
        writes only what it has not queued in the pass before.

        Args:
            urgent_only: for clocks that disagree: incidents alone, and none waits for others.
        """
        notifications = {
            key: replace(notification, send_at=at) if urgent_only else notification
            for key, notification in self._find_notifications(at).items()
            if not urgent_only or key.notice.kind in URGENT_KINDS
        }
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
        news_by_rollout = {item.state.rollout.name: item for item in news}
        return {
            _QueueKey(channel.user_id, channel.channel, channel.confirmed_at, notice): (
                NewNotification(
                    channel.user_id,
                    channel.channel,
                    notice,
                    _find_send_time(users[channel.user_id], notice, news_by_rollout, at),
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


def _find_send_time(
    user: NotificationUser, notice: Notice, news: Mapping[str, RolloutNews], at: datetime
) -> datetime:
    """Return when a user gets a notice: after quiet hours; incidents at a site together."""
    if notice.kind != INCIDENT:
        return user.find_send_time(notice.kind, at)
    return find_incident_time(notice.about, news[notice.rollout].state.scope.open_incidents, at)
