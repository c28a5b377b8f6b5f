"""The channels on which users are notified, and their quiet hours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, select

from rollout.core.calendar.instants import from_micros, to_micros
from rollout.store.database.bulk import build_insert
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import (
    notification_channels,
    notification_settings,
    notifications,
)

CONFIRMATION = "confirmation"
"""Kind of the notification that has a channel's code."""


@dataclass(frozen=True, slots=True)
class NotificationTimes:
    """A user's timezone and quiet hours, such as 22:00 and 07:00; "" for none."""

    timezone: str
    quiet_from: str = ""
    quiet_until: str = ""


@dataclass(frozen=True, slots=True)
class NotificationChannel:
    """A channel that a user chose.

    Attributes:
        channel: its name in the configuration.
        address: the user's part of the channel's address.
        kinds: what for, each since when.
        code: of the newest test message; "" once it was typed in.
        confirmed_at: when it was; None before, and then nothing else is sent.
    """

    user_id: int
    channel: str
    address: str = field(repr=False)
    kinds: Mapping[str, datetime]
    code: str = field(default="", repr=False)
    code_sent_at: datetime | None = None
    wrong_codes: int = 0
    confirmed_at: datetime | None = None


class NotificationChannels:
    """The channels and quiet hours of all users."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def list_for_user(self, user_id: int) -> list[NotificationChannel]:
        """Return a user's channels, by name."""
        return self._load(notification_channels.c.user_id == user_id)

    def find(self, user_id: int, channel: str, *, lock: bool = False) -> NotificationChannel | None:
        """Return a user's channel of this name, or None; `lock` blocks changes."""
        columns = notification_channels.c
        query = select(notification_channels).where(
            columns.user_id == user_id, columns.channel == channel
        )
        row = self._transaction.execute(query.with_for_update() if lock else query).one_or_none()
        return None if row is None else _build_channel(row)

    def list_confirmed(self) -> list[NotificationChannel]:
        """Return the confirmed channels of all users."""
        return self._load(notification_channels.c.confirmed_at.is_not(None))

    def store(self, channel: NotificationChannel) -> None:
        """Store a channel, in place of the one of this name."""
        values = {
            "user_id": channel.user_id,
            "channel": channel.channel,
            "address": channel.address,
            "kinds": {kind: to_micros(since) for kind, since in channel.kinds.items()},
            "code": channel.code or None,
            "code_sent_at": channel.code_sent_at,
            "wrong_codes": channel.wrong_codes,
            "confirmed_at": channel.confirmed_at,
        }
        self._replace(notification_channels, values, ("user_id", "channel"))

    def delete(self, user_id: int, channel: str) -> None:
        """Delete a user's channel, if there is one."""
        columns = notification_channels.c
        self._transaction.execute(
            delete(notification_channels).where(
                columns.user_id == user_id, columns.channel == channel
            )
        )

    def load_times(self, user_id: int) -> NotificationTimes | None:
        """Return a user's timezone and quiet hours; None before they chose any."""
        query = select(notification_settings).where(notification_settings.c.user_id == user_id)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else _build_times(row)

    def list_times(self) -> dict[int, NotificationTimes]:
        """Return timezones and quiet hours by user."""
        rows = self._transaction.execute(select(notification_settings))
        return {row.user_id: _build_times(row) for row in rows}

    def store_times(self, user_id: int, times: NotificationTimes) -> None:
        """Store a user's timezone and quiet hours."""
        values = {
            "user_id": user_id,
            "timezone": times.timezone,
            "quiet_from": times.quiet_from or None,
            "quiet_until": times.quiet_until or None,
        }
        self._replace(notification_settings, values, ("user_id",))

    def count_codes(self, user_id: int, *, since: datetime) -> int:
        """Return how many test messages a user had sent, to any address."""
        query = select(func.count()).where(
            notifications.c.user_id == user_id,
            notifications.c.kind == CONFIRMATION,
            notifications.c.queued_at >= since,
        )
        return int(self._transaction.execute(query).scalar_one())

    def _replace(self, table: Any, values: Mapping[str, Any], key: tuple[str, ...]) -> None:
        statement = build_insert(self._transaction.engine, table).values(values)
        changes = {name: statement.excluded[name] for name in values if name not in key}
        self._transaction.execute(
            statement.on_conflict_do_update(index_elements=list(key), set_=changes)
        )

    def _load(self, *conditions: Any) -> list[NotificationChannel]:
        columns = notification_channels.c
        query = select(notification_channels).where(*conditions)
        rows = self._transaction.execute(query.order_by(columns.user_id, columns.channel))
        return [_build_channel(row) for row in rows]


def _build_times(row: Row[Any]) -> NotificationTimes:
    return NotificationTimes(row.timezone, row.quiet_from or "", row.quiet_until or "")


def _build_channel(row: Row[Any]) -> NotificationChannel:
    return NotificationChannel(
        user_id=row.user_id,
        channel=row.channel,
        address=row.address,
        kinds={kind: from_micros(since) for kind, since in row.kinds.items()},
        code=row.code or "",
        code_sent_at=row.code_sent_at,
        wrong_codes=row.wrong_codes,
        confirmed_at=row.confirmed_at,
    )
