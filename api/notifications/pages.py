"""The visitor's notifications: channels, what for, and quiet hours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from api.web_kit.page import find_timezone, redirect_to, render_page, say_refusal
from api.web_kit.page_context import CurrentVisitor, Form, SignedForm, Visitor
from rollout.features.notifications import settings
from rollout.features.notifications.kinds import KINDS
from rollout.kernel.errors import RefusalError

router = APIRouter()
PATH: Final = "/settings/notifications"
STATES: Final = {
    "waiting": "The last message waits, or is tried again",
    "sent": "The last message was sent",
    "failed": "The last message failed at every try",
    "dropped": "The last message was not sent: it no longer applied",
}
"""States of the newest message, in words."""


@dataclass(frozen=True, slots=True)
class ChannelForm:
    """The forms of one channel; `field` ends the names of its fields.

    `state` is new, unconfirmed, confirmed or unavailable.
    """

    name: str
    field: str
    state: str
    address: str
    kinds: tuple[str, ...]
    last_text: str


@router.get(PATH)
def show_notifications(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the visitor's channels and quiet hours."""
    return _render_notifications(request, visitor)


@router.post(PATH)
def submit_notifications(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Save a channel or the quiet hours, confirm or delete a channel, or send a code."""
    act = ACTIONS.get(form.get_text("do"), _save_times)
    try:
        act(visitor, form)
    except RefusalError as error:
        field = form.get_text("field")
        names = ("timezone", "quiet_from", "quiet_until", field)
        typed = {name: form.get_text(name) for name in names if form.has_field(name)}
        return _render_notifications(request, visitor, {field: say_refusal(error)}, typed)
    return redirect_to(PATH)


def _save_times(visitor: Visitor, form: Form) -> None:
    typed_zone = form.get_text("timezone")
    settings.save_notification_times(
        visitor.service,
        visitor.caller,
        settings.NotificationTimes(
            find_timezone(typed_zone) or typed_zone,
            form.get_text("quiet_from"),
            form.get_text("quiet_until"),
        ),
    )


ACTIONS: Final[Mapping[str, Callable[[Visitor, Form], None]]] = {
    "times": _save_times,
    "save": lambda visitor, form: settings.save_notification_channel(
        visitor.service,
        visitor.caller,
        form.get_text("channel"),
        form.get_text(form.get_text("field")),
        form.get_values("kinds"),
    ),
    "code": lambda visitor, form: settings.resend_code(
        visitor.service, visitor.caller, form.get_text("channel")
    ),
    "confirm": lambda visitor, form: settings.confirm_notification_channel(
        visitor.service,
        visitor.caller,
        form.get_text("channel"),
        form.get_text(form.get_text("field")),
    ),
    "delete": lambda visitor, form: settings.delete_notification_channel(
        visitor.service, visitor.caller, form.get_text("channel")
    ),
}


def _render_notifications(
    request: Request,
    visitor: Visitor,
    errors: dict[str, str] | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    stored = settings.load_notification_settings(visitor.service, visitor.caller)
    by_name = {status.channel.channel: status for status in stored.channels}
    forms = [
        _build_channel_form(name, str(number), by_name.get(name))
        for number, name in enumerate(sorted(by_name.keys() | set(stored.available)))
    ]
    return render_page(
        request,
        visitor,
        "notifications",
        422 if errors else 200,
        channels=forms,
        choices={name: kind.description for name, kind in KINDS.items()},
        errors=errors or {},
        typed={
            "timezone": stored.times.timezone,
            "quiet_from": stored.times.quiet_from,
            "quiet_until": stored.times.quiet_until,
            **{f"address-{form.field}": form.address for form in forms},
            **(typed or {}),
        },
    )


def _build_channel_form(
    name: str, field: str, status: settings.NotificationChannelStatus | None
) -> ChannelForm:
    if status is None:
        return ChannelForm(name, field, "new", "", (), "")
    channel, last = status.channel, status.last
    state = "unconfirmed" if channel.confirmed_at is None else "confirmed"
    last_text = "" if last is None else f"{STATES[last.state]}."
    if last is not None and last.error and last.state in {"waiting", "failed"}:
        last_text = f"{STATES[last.state]}: {last.error}."
    return ChannelForm(
        name,
        field,
        state if status.is_configured else "unavailable",
        channel.address,
        tuple(channel.kinds),
        last_text,
    )
