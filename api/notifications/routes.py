"""The current user's notification settings: channels, kinds and quiet hours."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from api.auth import Anyone, Caller, ServiceDependency
from api.web_kit.additions import OptionalPart
from rollout.data.access.notification_outbox import NotificationTimes
from rollout.features.notifications import settings
from rollout.features.notifications.kinds import KINDS
from rollout.features.notifications.settings import (
    NotificationChannelStatus,
    NotificationJob,
    NotificationSettings,
)
from rollout.live.service import Service

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
KindName = Annotated[str, Field(json_schema_extra={"enum": [*KINDS]})]


class NotificationTimesRequest(BaseModel, extra="forbid", json_schema_extra={"example": TIMES}):
    """Your timezone and quiet hours; `""` for no quiet hours."""

    timezone: str = Field(max_length=64)
    quiet_from: str = Field(default="", max_length=5)
    quiet_until: str = Field(default="", max_length=5)

    @property
    def times(self) -> NotificationTimes:
        """Return the times as they are stored."""
        return NotificationTimes(self.timezone, self.quiet_from, self.quiet_until)


class NotificationChannelRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {k: CHANNEL[k] for k in ("address", "kinds")}},
):
    """Your address on a channel, and what you are notified of there."""

    address: str = Field(max_length=200)
    kinds: list[KindName] = Field(max_length=20)


class ConfirmationCode(
    BaseModel, extra="forbid", json_schema_extra={"example": {"code": "40817236"}}
):
    """The code of the test message."""

    code: str = Field(max_length=20)


class NotificationChannelState(BaseModel, json_schema_extra={"example": CHANNEL}):
    """A channel of yours.

    `confirmed_at` is null until its code is confirmed. `last_state` is the state of the newest
    message: waiting, sent, failed or dropped; `""` before the first.
    """

    channel: str
    address: str
    kinds: list[KindName]
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
                "kinds": [kind for kind in KINDS if kind in channel.kinds],
                "confirmed_at": channel.confirmed_at,
                "configured": status.is_configured,
                "last_state": "" if last is None else last.state,
                "last_error": "" if last is None else last.error,
            }
        )


class NotificationChoices(
    BaseModel,
    json_schema_extra={"example": {**TIMES, "channels": [CHANNEL], "available": ["mail"]}},
):
    """Your notification settings; `available` are the channels that you can choose."""

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


router = APIRouter(prefix="/v1/me/notifications", tags=["users"])
ChannelName = Annotated[str, Path(max_length=100, description="name of the channel")]


@router.get("", operation_id="getNotificationSettings", summary="Get my notification settings")
def get_notification_settings(service: ServiceDependency, caller: Anyone) -> NotificationChoices:
    """Return your channels, what you are notified of on each, and your quiet hours."""
    return _load_settings(service, caller)


@router.put("", operation_id="setNotificationTimes", summary="Set my quiet hours")
def set_notification_times(
    body: NotificationTimesRequest, service: ServiceDependency, caller: Anyone
) -> NotificationChoices:
    """Set your timezone and quiet hours, in which only incidents are sent."""
    settings.save_notification_times(service, caller, body.times)
    return _load_settings(service, caller)


@router.put(
    "/channels/{channel}",
    operation_id="setNotificationChannel",
    summary="Set my address and notifications on a channel",
)
def set_notification_channel(
    channel: ChannelName,
    body: NotificationChannelRequest,
    service: ServiceDependency,
    caller: Anyone,
) -> NotificationChoices:
    """Set your address on a channel, and what you are notified of there.

    A new address gets a test message with a code, and nothing else until you confirm it.
    """
    settings.save_notification_channel(service, caller, channel, body.address, body.kinds)
    return _load_settings(service, caller)


@router.delete(
    "/channels/{channel}",
    operation_id="deleteNotificationChannel",
    summary="Delete a channel of mine",
)
def delete_notification_channel(
    channel: ChannelName, service: ServiceDependency, caller: Anyone
) -> NotificationChoices:
    """Delete a channel of yours with its address."""
    settings.delete_notification_channel(service, caller, channel)
    return _load_settings(service, caller)


@router.post(
    "/channels/{channel}/code",
    operation_id="sendNotificationCode",
    summary="Send a new code to my channel",
)
def send_notification_code(
    channel: ChannelName, service: ServiceDependency, caller: Anyone
) -> NotificationChoices:
    """Send another test message; the code before is void."""
    settings.resend_code(service, caller, channel)
    return _load_settings(service, caller)


@router.post(
    "/channels/{channel}/confirmation",
    operation_id="confirmNotificationChannel",
    summary="Confirm my address on a channel",
)
def confirm_notification_channel(
    channel: ChannelName, body: ConfirmationCode, service: ServiceDependency, caller: Anyone
) -> NotificationChoices:
    """Confirm your address by the code of the test message."""
    settings.confirm_notification_channel(service, caller, channel, body.code)
    return _load_settings(service, caller)


def _load_settings(service: Service, caller: Caller) -> NotificationChoices:
    return NotificationChoices.of(settings.load_notification_settings(service, caller))


PART = OptionalPart(
    routers=(router,),
    pages="notifications.pages",
    sections={"settings": "notifications_section"},
    sending_jobs=(NotificationJob,),
)
