"""When somebody was here before: two times in a cookie of their own browser."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

COOKIE: Final = "rollout-visits"
APART: Final = timedelta(minutes=30)
"""Looks that are further apart are two visits."""


@dataclass(frozen=True, slots=True)
class Visits:
    """The end of the visit before, None on the first one, and the last look of this one."""

    before: datetime | None
    now: datetime

    def written(self) -> str:
        """Return it as the cookie keeps it, in seconds."""
        before = "" if self.before is None else str(int(self.before.timestamp()))
        return f"{before}.{int(self.now.timestamp())}"


def visits(cookie: str, at: datetime) -> Visits:
    """Return the visits with a look at `at`; what is no such cookie begins anew.

    >>> at = datetime(2027, 6, 1, tzinfo=UTC)
    >>> visits("", at).before, visits("x.y", at).before
    (None, None)
    >>> first = visits("", at)
    >>> visits(first.written(), at + timedelta(minutes=5)).before
    >>> visits(first.written(), at + timedelta(days=1)).before == at
    True
    """
    before, _, last_text = cookie.partition(".")
    last_look = _read(last_text)
    if last_look is None or last_look > at:
        return Visits(None, at)
    return Visits(_read(before) if at - last_look < APART else last_look, at)


def _read(seconds: str) -> datetime | None:
    is_valid = seconds.isascii() and seconds.isdigit() and len(seconds) < 12
    return datetime.fromtimestamp(int(seconds), UTC) if is_valid else None
