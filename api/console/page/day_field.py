"""A day in a filter form, or an instant in a link to exactly the cases of a sentence."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

INVALID_DAY_TEXT: Final = "Write a day as YYYY-MM-DD, or leave it empty"
MIN_DAY: Final = date(1970, 1, 1)
"""No case is older; earlier days are read as this one."""


def parse_day(
    fields: Mapping[str, str],
    name: str,
    timezone: str,
    errors: dict[str, str],
    *,
    is_end: bool = False,
) -> datetime | None:
    """Return the start of a day, or of the next one with `is_end`; an instant as it is.

    An invalid day, or an instant without its offset, adds a message to `errors` and is None.
    """
    text = fields.get(name)
    if text is None:
        return None
    try:
        if "T" in text:
            at = datetime.fromisoformat(text)
            return max(at, datetime.combine(MIN_DAY, time(), UTC)).astimezone(UTC)
        day = max(date.fromisoformat(text), MIN_DAY)
        starts_at = datetime.combine(day + timedelta(days=is_end), time(), ZoneInfo(timezone))
        return starts_at.astimezone(UTC)
    except (ValueError, OverflowError, TypeError):  # of an instant without an offset
        errors[name] = INVALID_DAY_TEXT
        return None
