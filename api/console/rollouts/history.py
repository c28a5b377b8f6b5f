"""Rows of the history timeline."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from api.console.page.text import add_full_stop
from rollout.core.policy.policy import Policy
from rollout.reports.text.event_kinds import SCOPE_KINDS, find_tone
from rollout.reports.text.event_text import EventDescription
from rollout.reports.text.formatting import format_cell_name

TIME_FORMAT_TEXT: Final = "Write a day and time such as 2027-06-17T14:32; leave it empty for now"
MIN_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""No rollout is older; every timezone can represent later instants."""
FUTURE_TIME_TEXT: Final = "This time is in the future; choose an earlier one"


@dataclass(frozen=True, slots=True)
class RequestedTime:
    """The requested instant.

    Attributes:
        at: the instant; None means now.
        typed: value of the field.
        error: message about an invalid value, or "".
    """

    at: datetime | None
    typed: str
    error: str = ""

    @property
    def link(self) -> str:
        """The instant in links, "" for now."""
        return "" if self.at is None else format_link_time(self.at)


def parse_requested_time(text: str, zone: str, now: datetime) -> RequestedTime:
    """Parse a requested instant; without an offset it is in the given timezone.

    >>> noon = datetime(2027, 6, 17, 12, tzinfo=UTC)
    >>> parse_requested_time("2027-06-16T14:32", "America/Vancouver", noon).at.isoformat()
    '2027-06-16T14:32:00-07:00'
    >>> parse_requested_time("yesterday", "UTC", noon).error == TIME_FORMAT_TEXT
    True
    """
    if not text:
        return RequestedTime(None, format_form_time(now, zone))
    try:
        at = datetime.fromisoformat(text)
        at = at.replace(tzinfo=ZoneInfo(zone)) if at.tzinfo is None else at
        typed = format_form_time(at, zone)
        is_future, is_valid = at.astimezone(UTC) > now, at.astimezone(UTC) >= MIN_TIME
    except (ValueError, OverflowError):
        return RequestedTime(None, text, TIME_FORMAT_TEXT)
    if not is_valid:
        return RequestedTime(None, text, TIME_FORMAT_TEXT)
    return RequestedTime(None, typed, FUTURE_TIME_TEXT) if is_future else RequestedTime(at, typed)


def format_form_time(at: datetime, zone: str) -> str:
    """Format an instant for a form field."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H:%M}"


def format_link_time(at: datetime) -> str:
    """Format an instant for links: UTC, to the microsecond."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One row of the history.

    Attributes:
        at, zone: time and its timezone.
        tone: `wider`, `narrower` or "".
        cell: its cell, or "".
        text: the event in words.
        link_time: its instant for links, "" if the map did not change.
        revision: its ledger revision.
    """

    at: datetime
    zone: str
    tone: str
    cell: str
    text: str
    link_time: str
    revision: int


def build_history_entries(
    items: Iterable[EventDescription], policy: Policy
) -> tuple[HistoryEntry, ...]:
    """Return the rows of the timeline, in the given order."""
    return tuple(_build_entry(item, policy) for item in items)


def _build_entry(item: EventDescription, policy: Policy) -> HistoryEntry:
    return HistoryEntry(
        at=item.at,
        zone=policy.get_timezone(item.site or ""),
        tone=find_tone(item.kind),
        cell=format_cell_name(item.site, item.window),
        text=add_full_stop(item.text),
        link_time=format_link_time(item.at) if item.kind in SCOPE_KINDS else "",
        revision=item.revision,
    )
