"""The requested instant of a page, typed in the site's time or linked."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

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
