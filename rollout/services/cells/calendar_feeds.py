"""Schedules in a calendar program, under a secret address that its user can revoke.

Whoever has the address reads what the user may read as a viewer, and can do nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from urllib.parse import quote

from rollout.core.errors import InvalidAccountError, UnknownCalendarError
from rollout.core.scope.permissions import (
    READ_ROLES,
    VIEWER,
    AssignedRole,
    Caller,
    Permission,
)
from rollout.services.access.keys import TOKEN_BYTES, write_token
from rollout.services.cells.schedule import MAX_DAYS, ScheduledEntry, load_schedule
from rollout.services.engine.service import Service
from rollout.store.access.calendar_feeds import CalendarFeeds
from rollout.store.access.users import Users
from rollout.store.database.errors import UnreadableRowsError
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Transaction

REFRESH_INTERVAL: Final = timedelta(hours=1)
UNREADABLE: Final = "unreadable"
UNREADABLE_TEXT: Final = "The schedule can't be read; an administrator runs `rollout doctor`"


@dataclass(frozen=True, slots=True)
class CalendarAddress:
    """A user's calendar.

    Attributes:
        created_at: null without an address.
        unreadable: rollouts whose rows can't be read, so that their schedules are missing.
    """

    created_at: datetime | None
    unreadable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreatedCalendar:
    """A new address, which is shown only once; anyone who has it can read your schedules."""

    address: str


@dataclass(frozen=True, slots=True)
class CalendarEvent:
    """An entry of a rollout's schedule."""

    rollout: str
    entry: ScheduledEntry

    @property
    def uid(self) -> str:
        """Return the id that stays the same when only the entry's time changes."""
        key = f"{self.rollout}\n{self.entry.key}"
        return f"{sha256(key.encode()).hexdigest()[:32]}@rollout"


def load_calendar_address(service: Service, caller: Caller) -> CalendarAddress:
    """Return whether the caller has an address, without it: only its hash is stored.

    Raises:
        InvalidAccountError: the caller is a service account.
    """
    with service.database.begin_read() as transaction:
        created_at = CalendarFeeds(transaction).find_creation(_find_user_id(transaction, caller))
    names = _list_readable_rollouts(service, caller)
    unreadable = tuple(name for name in names if not _has_readable_rows(service, name))
    return CalendarAddress(created_at, unreadable)


def create_calendar(service: Service, caller: Caller, *, at: datetime) -> CreatedCalendar:
    """Create the caller's address; one from before stops to work.

    Raises:
        InvalidAccountError: the caller is a service account.
    """
    token = write_token(service.entropy(TOKEN_BYTES))
    with service.database.begin_write() as transaction:
        CalendarFeeds(transaction).store(_find_user_id(transaction, caller), token, at=at)
    return CreatedCalendar(f"{service.channels.public_url.rstrip('/')}/calendars/{token}.ics")


def revoke_calendar(service: Service, caller: Caller) -> None:
    """Revoke the caller's address, if there is one.

    Raises:
        InvalidAccountError: the caller is a service account.
    """
    with service.database.begin_write() as transaction:
        CalendarFeeds(transaction).delete(_find_user_id(transaction, caller))


def build_calendar_file(service: Service, token: str, *, at: datetime) -> bytes:
    """Return the schedules of an address as an iCalendar file.

    An address may leak, so the file has no text that users typed, as reasons of freezes are. A
    rollout whose rows can't be read has one entry that says so; the others are complete.

    Raises:
        UnknownCalendarError: no enabled user has the address.
    """
    reader = _find_reader(service, token)
    events = [
        event
        for name in _list_readable_rollouts(service, reader)
        for event in _list_events(service, reader, name, at)
    ]
    return format_calendar(events, at=at, public_url=service.channels.public_url)


def _find_reader(service: Service, token: str) -> Caller:
    """Return the user of an address, with the roles of a viewer where they may read."""
    with service.database.begin_read() as transaction:
        user = CalendarFeeds(transaction).find_user(token)
        if user is None or user.disabled_at is not None:
            raise UnknownCalendarError(
                "no calendar has this address; create one in the settings of the console"
            )
        roles = Users(transaction).list_role_assignments(user)
    viewer_roles = tuple(
        AssignedRole(VIEWER, role.rollout, role.site) for role in roles if role.role in READ_ROLES
    )
    return Caller(user.name, role_assignments=viewer_roles)


def _list_readable_rollouts(service: Service, reader: Caller) -> list[str]:
    with service.database.begin_read() as transaction:
        names = sorted(rollout.name for rollout in Rollouts(transaction).list_all())
    return [name for name in names if reader.has_permission_somewhere(Permission.READ, name)]


def _has_readable_rows(service: Service, name: str) -> bool:
    try:
        service.state_cache.load_rollout(name)
    except UnreadableRowsError:
        return False
    return True


def _list_events(
    service: Service, reader: Caller, name: str, at: datetime
) -> tuple[CalendarEvent, ...]:
    """Return the entries of a rollout, or one which says that they can't be read."""
    try:
        schedule = load_schedule(service, reader, name, at=at, days=MAX_DAYS, names_reasons=False)
    except UnreadableRowsError:
        entry = ScheduledEntry(UNREADABLE, at, None, (), "", "", UNREADABLE_TEXT, UNREADABLE)
        return (CalendarEvent(name, entry),)
    return tuple(CalendarEvent(name, entry) for entry in schedule.items)


def format_calendar(events: list[CalendarEvent], *, at: datetime, public_url: str) -> bytes:
    """Return events as an iCalendar file (RFC 5545), with all times in UTC."""
    from icalendar import Calendar, Event

    calendar = Calendar()
    for name, value in (
        ("prodid", "-//rollout//schedule//EN"),
        ("version", "2.0"),
        ("x-wr-calname", "Rollouts"),
        ("refresh-interval", REFRESH_INTERVAL),
    ):
        calendar.add(name, value)
    for event in events:
        component = Event()
        component.add("uid", event.uid)
        component.add("dtstamp", at)
        component.add("dtstart", event.entry.at)
        if event.entry.until is not None:
            component.add("dtend", event.entry.until)
        component.add("summary", f"{event.rollout}: {event.entry.text}")
        component.add("transp", "TRANSPARENT")
        if public_url:
            path = f"/console/rollouts/{quote(event.rollout, safe='')}/schedule"
            component.add("url", f"{public_url.rstrip('/')}{path}")
        calendar.add_component(component)
    return bytes(calendar.to_ical())


def _find_user_id(transaction: Transaction, caller: Caller) -> int:
    user = None if caller.is_service_account else Users(transaction).find(caller.name)
    if user is None:
        raise InvalidAccountError(
            f"{caller.name} is no user; a program reads schedules with its key, at"
            " /v1/rollouts/{rollout}/schedule"
        )
    return user.number
