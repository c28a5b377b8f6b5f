"""The instant that a page is asked about: typed by the site's clock, or named by a link."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

MEND: Final = "Write a day and a time, as 2027-06-17T14:32; leave it empty for now"
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""No rollout is older, and every clock can tell what is later."""
FUTURE: Final = "That is still to come; what is allowed then is decided until then"


@dataclass(frozen=True, slots=True)
class AsOf:
    """What was asked for.

    Attributes:
        when: the instant; None for now.
        typed: what stands in the field.
        wrong: why nothing of the past is shown, "" where nothing is wrong.
    """

    when: datetime | None
    typed: str
    wrong: str = ""

    @property
    def link(self) -> str:
        """The instant as links name it, "" for now."""
        return "" if self.when is None else link_of(self.when)


def as_of(said: str, zone: str, now: datetime) -> AsOf:
    """Return the instant that somebody asked for; without an offset by the clock of a zone.

    >>> noon = datetime(2027, 6, 17, 12, tzinfo=UTC)
    >>> as_of("2027-06-16T14:32", "America/Vancouver", noon).when.isoformat()
    '2027-06-16T14:32:00-07:00'
    >>> as_of("yesterday", "UTC", noon).wrong == MEND
    True
    """
    if not said:
        return AsOf(None, typed_of(now, zone))
    try:
        at = datetime.fromisoformat(said)
        at = at.replace(tzinfo=ZoneInfo(zone)) if at.tzinfo is None else at
        typed = typed_of(at, zone)
        is_future, is_valid = at.astimezone(UTC) > now, at.astimezone(UTC) >= EARLIEST
    except (ValueError, OverflowError):
        return AsOf(None, said, MEND)
    if not is_valid:
        return AsOf(None, said, MEND)
    return AsOf(None, typed, FUTURE) if is_future else AsOf(at, typed)


def typed_of(at: datetime, zone: str) -> str:
    """Return an instant as the field of a form holds it."""
    return f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%dT%H:%M}"


def link_of(at: datetime) -> str:
    """Return an instant as links name it: to the microsecond, in UTC."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
