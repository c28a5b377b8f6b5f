"""The current user's notification settings: channels, kinds and quiet hours."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.deps import Caller, Permission, RequirePermission, ServiceDependency
from api.schemas.notifications import (
    ConfirmationCode,
    NotificationChannelRequest,
    NotificationChoices,
    NotificationTimesRequest,
)
from rollout.services.engine.service import Service
from rollout.services.notifications import settings

router = APIRouter(prefix="/v1/me/notifications", tags=["users"])
Anyone = Annotated[Caller, RequirePermission(Permission.IDENTIFY)]
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
