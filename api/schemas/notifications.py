"""Schemas of a user's notification settings."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from rollout.services.notifications.kinds import CHOICES
from rollout.services.notifications.settings import NotificationChannelStatus, NotificationSettings
from rollout.store.access.notification_channels import NotificationTimes

CHANNEL: dict[str, Any] = {
    "channel": "mail",
    "address": "bo@example.org",
    "kinds": ["proposals", "reminders", "incidents"],
    "confirmed_at": "2027-06-01T12:00:00Z",
    "configured": True,
    "last_state": "sent",
    "last_error": "",
}
TIMES: dict[str, Any] = {
    "timezone": "Europe/Vienna",
    "quiet_from": "22:00",
    "quiet_until": "07:00",
}
NotificationKind = Literal[
    "proposals",
    "reminders",
    "incidents",
    "new-values",
    "reviews",
    "daily-digest",
    "weekly-digest",
]


class NotificationTimesRequest(BaseModel):
    """Your timezone and quiet hours; `""` for no quiet hours."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": TIMES})

    timezone: str = Field(max_length=64)
    quiet_from: str = Field(default="", max_length=5)
    quiet_until: str = Field(default="", max_length=5)

    @property
    def times(self) -> NotificationTimes:
        """Return the times as they are stored."""
        return NotificationTimes(self.timezone, self.quiet_from, self.quiet_until)


class NotificationChannelRequest(BaseModel):
    """Your address on a channel, and what you are notified of there."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {k: CHANNEL[k] for k in ("address", "kinds")}}
    )

    address: str = Field(max_length=200)
    kinds: list[NotificationKind] = Field(max_length=20)


class ConfirmationCode(BaseModel):
    """The code of the test message."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"code": "40817236"}})

    code: str = Field(max_length=20)


class NotificationChannelState(BaseModel):
    """A channel of yours.

    `confirmed_at` is null until its code is confirmed. `last_state` is the state of the newest
    message: waiting, sent, failed or dropped; `""` before the first.
    """

    model_config = ConfigDict(json_schema_extra={"example": CHANNEL})

    channel: str
    address: str
    kinds: list[NotificationKind]
    confirmed_at: datetime | None
    configured: bool
    last_state: str
    last_error: str

    @classmethod
    def of(cls, status: NotificationChannelStatus) -> Self:
        """Return a stored channel as the API shows it."""
        channel, last = status.channel, status.last
        return cls.model_validate(
            {
                "channel": channel.channel,
                "address": channel.address,
                "kinds": [kind for kind in CHOICES if kind in channel.kinds],
                "confirmed_at": channel.confirmed_at,
                "configured": status.is_configured,
                "last_state": "" if last is None else last.state,
                "last_error": "" if last is None else last.error,
            }
        )


class NotificationChoices(BaseModel):
    """Your notification settings; `available` are the channels that you can choose."""

    model_config = ConfigDict(
        json_schema_extra={"example": {**TIMES, "channels": [CHANNEL], "available": ["mail"]}}
    )

    timezone: str
    quiet_from: str
    quiet_until: str
    channels: list[NotificationChannelState]
    available: list[str]

    @classmethod
    def of(cls, settings: NotificationSettings) -> Self:
        """Return stored settings as the API shows them."""
        times = settings.times
        return cls(
            timezone=times.timezone,
            quiet_from=times.quiet_from,
            quiet_until=times.quiet_until,
            channels=[NotificationChannelState.of(status) for status in settings.channels],
            available=list(settings.available),
        )
