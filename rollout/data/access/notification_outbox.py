"""Notifications on their way to users: each stored once, and tried until sent; users' channels.

The row holds no text: that is made at each try, from the state of that time. Taking a row counts an
attempt and moves the next one past a lease, as with deliveries of reports.

Users choose their channels, and have quiet hours.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, delete, func, select, update

from rollout.data.database.bulk import build_insert, insert_once
from rollout.data.database.session import Repository, Transaction
from rollout.data.reports.reports import FAILED, WAITING, DueRows, OutboxRow
from rollout.data.tables.tables import notification_channels, notification_settings, notifications
from rollout.kernel.calendar.instants import from_micros, to_micros

MAX_OTHERS: Final = 200
DROPPED: Final = "dropped"
KEY_COLUMNS = ("user_id", "channel", "rollout", "kind", "about")
ADDRESS_CHANGED = "the address was changed"


@dataclass(frozen=True, slots=True, order=True)
class Notice:
    """What a user is notified of.

    Attributes:
        rollout: its name; "" for all.
        kind: such as `proposal` or `incident`.
        about: id of a proposal or incident, time of reviews, or day of a digest.
    """

    rollout: str
    kind: str
    about: str


@dataclass(frozen=True, slots=True)
class NewNotification:
    """A notification to queue; it is sent from `send_at` on."""

    user_id: int
    channel: str
    notice: Notice
    send_at: datetime


@dataclass(frozen=True, slots=True)
class Notification(OutboxRow):
    """A notification; its state may also be dropped, when it did not apply any more.

    Attributes:
        due_at: its next attempt; of `others`, as it was before they were taken.
        others: taken at the same time; each needs a result of its own, or `postpone`.
    """

    user_id: int
    channel: str
    notice: Notice
    due_at: datetime | None
    others: tuple["Notification", ...] = ()


class NotificationOutbox(DueRows):
    """The notifications of all users; with `kinds`, only these are due.

    `grouped_kinds` are those of which several may be one message.
    """

    def __init__(
        self,
        transaction: Transaction,
        kinds: Collection[str] | None = None,
        grouped_kinds: Collection[str] = (),
    ) -> None:
        chosen = () if kinds is None else (notifications.c.kind.in_(kinds),)
        super().__init__(transaction, notifications, *chosen)
        self._grouped_kinds = grouped_kinds

    def add(self, notification: NewNotification, *, at: datetime) -> bool:
        """Queue a notification once; return whether it is new, or was dropped before."""
        notice = notification.notice
        row = {
            "user_id": notification.user_id,
            "channel": notification.channel,
            "rollout": notice.rollout,
            "kind": notice.kind,
            "about": notice.about,
            "state": WAITING,
            "attempts": 0,
            "queued_at": at,
            "next_attempt_at": notification.send_at,
            "error": "",
        }
        if insert_once(self._transaction, notifications, row):
            return True
        columns = notifications.c
        key = {name: row[name] for name in KEY_COLUMNS}
        same_row = (columns[name] == value for name, value in key.items())
        statement = update(notifications).where(*same_row, columns.state == DROPPED)
        values = {name: value for name, value in row.items() if name not in key}
        return self._transaction.execute(statement.values(**values)).rowcount == 1

    def drop_unsent(self, user_id: int, channel: str) -> None:
        """Drop what waits or failed on a user's channel, as for an address that was wrong."""
        columns = notifications.c
        statement = update(notifications).where(
            columns.user_id == user_id,
            columns.channel == channel,
            columns.state.in_((WAITING, FAILED)),
        )
        self._transaction.execute(
            statement.values(state=DROPPED, next_attempt_at=None, error=ADDRESS_CHANGED)
        )

    def take_next(
        self, *, at: datetime, lease: timedelta, excluded_channels: Collection[str] = ()
    ) -> Notification | None:
        """Return a due notification and count an attempt, or None.

        It becomes due again after `lease`, unless its result is recorded. One of a grouped kind
        brings the other unsent ones, taken at the same time: two processes don't split a message.
        """
        number = self._take_due(at, lease, excluded_channels)
        if number is None:
            return None
        same_row = notifications.c.id == number
        row = self._transaction.execute(select(notifications).where(same_row)).one()
        others = self._take_others(row, at, lease) if row.kind in self._grouped_kinds else ()
        return replace(_build_notification(row), others=tuple(others))

    def _take_others(self, row: Row[Any], at: datetime, lease: timedelta) -> list["Notification"]:
        """Take the unsent notifications with the user, channel, rollout and kind of a taken row.

        Those that were never tried needn't be due; those that another process may be sending, or
        that failed, are left to their own time.
        """
        columns = notifications.c
        query = (
            select(notifications)
            .where(
                columns.user_id == row.user_id,
                columns.channel == row.channel,
                columns.rollout == row.rollout,
                columns.kind == row.kind,
                columns.id != row.id,
                columns.state == WAITING,
                (columns.attempts == 0) | (columns.next_attempt_at <= at),
            )
            .order_by(columns.id)
            .limit(MAX_OTHERS)
            .with_for_update(skip_locked=True)
        )
        others = [_build_notification(other) for other in self._transaction.execute(query)]
        values = {"attempts": columns.attempts + 1, "next_attempt_at": at + lease}
        same_rows = columns.id.in_([other.id for other in others])
        self._transaction.execute(update(notifications).where(same_rows).values(**values))
        return [replace(other, attempts=other.attempts + 1) for other in others]

    def postpone(self, notification: Notification, *, at: datetime) -> bool:
        """Move it to `at` without counting an attempt; False if another process took it."""
        return self._update(notification, next_attempt_at=at, attempts=notification.attempts - 1)

    def list_for_channel(self, user_id: int, channel: str, *, limit: int) -> list[Notification]:
        """Return the newest notifications of a user on a channel, newest first."""
        columns = notifications.c
        query = select(notifications).where(columns.user_id == user_id, columns.channel == channel)
        rows = self._transaction.execute(query.order_by(columns.id.desc()).limit(limit))
        return [_build_notification(row) for row in rows]

    def delete_old(self, *, before: datetime) -> None:
        """Delete the notifications that were queued before a time."""
        self._transaction.execute(delete(notifications).where(notifications.c.queued_at < before))


def _build_notification(row: Row[Any]) -> Notification:
    return Notification(
        id=row.id,
        user_id=row.user_id,
        channel=row.channel,
        notice=Notice(row.rollout, row.kind, row.about),
        state=row.state,
        attempts=row.attempts,
        sent_at=row.sent_at,
        error=row.error,
        due_at=row.next_attempt_at,
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


class NotificationChannels(Repository):
    """The channels and quiet hours of all users."""

    def list_for_user(self, user_id: int) -> list[NotificationChannel]:
        """Return a user's channels, by name."""
        return self._load(notification_channels.c.user_id == user_id)

    def find(self, user_id: int, channel: str, *, lock: bool = False) -> NotificationChannel | None:
        """Return a user's channel of this name, or None; `lock` blocks changes."""
        columns = notification_channels.c
        query = select(notification_channels).where(
            columns.user_id == user_id, columns.channel == channel
        )
        return self._transaction.find(query.with_for_update() if lock else query, _build_channel)

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
        return self._transaction.find(query, _build_times)

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
