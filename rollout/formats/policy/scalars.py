"""The scalars of a policy file: the letters as they stand there in, a value or a sentence out.

Each reader raises `ValueError` with what is wrong and what would be right.
"""

import math
import re
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from rollout.core.policy.levers import Margin
from rollout.core.policy.measures import FAILED, LATE, OUTSIDE

UNLISTED = "(not listed)"  # what the tally writes for a person's label that no lever has
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = timedelta(days=36525)


def number(text: str) -> float:
    """Read a plain number.

    >>> number("0.3")
    0.3
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        hint = "without a per cent sign" if text.endswith("%") else "such as 0.3 or 20"
        raise ValueError(f"{text!r} is no plain number; write one {hint}")
    return value


def share(text: str) -> float:
    """Read a share: `95%` or `0.95`.

    >>> share("95%"), share("0.95")
    (0.95, 0.95)
    """
    value = signed_share(text)
    if value < 0:
        raise ValueError(f"{text!r} is negative; a share lies between 0% and 100%")
    return value


def signed_share(text: str) -> float:
    """Read a share that may be negative, as a difference of two shares is.

    >>> signed_share("-3%")
    -0.03
    """
    try:
        value = Decimal(text.removesuffix("%").strip())
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise ValueError(f"{text!r} is no share; write one such as 95% or 0.95")
    if text.endswith("%"):
        value /= 100
    if abs(value) > 1:
        raise ValueError(f"{text!r} is more than the whole; {_percent_hint(text)}")
    return float(value)


def _percent_hint(text: str) -> str:
    return "at most 100%" if text.endswith("%") else f"write {text}% if per cent is meant"


def duration(text: str) -> timedelta:
    """Read a span of time with its unit: `300ms 20s 15m 2h 30d`.

    >>> duration("90m")
    datetime.timedelta(seconds=5400)
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a number and ms, s, m, h or d: 20s, 15m")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is longer than a century; write at most 36525d")
    return timedelta(seconds=seconds)


def positive(text: str) -> timedelta:
    """Read a span of time longer than nothing."""
    span = duration(text)
    if not span:
        raise ValueError(f"{text!r} is no time at all; write more than 0s")
    return span


def cost(text: str) -> float:
    """Read a cost: a plain number, 0 or more, in the charter's unit."""
    value = number(text)
    if value < 0:
        raise ValueError(f"{text!r} is negative; a cost is 0 or more")
    return value


def count(text: str) -> int:
    """Read a whole number, 0 or more."""
    if not re.fullmatch(r"\d{1,15}", text):
        raise ValueError(f"{text!r} is no count; write a whole number, 0 or more")
    return int(text)


def ordinal(text: str) -> int:
    """Read a whole number, 1 or more."""
    value = count(text)
    if value == 0:
        raise ValueError("0 is too few; write 1 or more")
    return value


def flag(text: str) -> bool:
    """Read `true` or `false`."""
    if text not in {"true", "false"}:
        raise ValueError(f"{text!r} is neither; write true or false")
    return text == "true"


def words(text: str) -> str:
    """Read a text that is not empty."""
    if not text:
        raise ValueError("is empty; write it, or leave the key out")
    return text


def identifier(text: str) -> str:
    """Read an id made of letters, digits and `. _ -`."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise ValueError(f"{text!r} is no id; use letters, digits, dot, underscore and hyphen")
    return text


def name(text: str) -> str:
    """Read the name of a site, window, stage or lever, as records and selectors write it."""
    if not text or re.search(r"[*\x00-\x1f]", text):
        raise ValueError(f"{text!r} is no name; it is not empty and holds no * (that is a pattern)")
    return text


def label(text: str) -> str:
    """Read a label; the few that the engine itself writes are taken."""
    if text in {FAILED, LATE, OUTSIDE, UNLISTED}:
        raise ValueError(f"{text!r} is what the engine writes where no label came; rename it")
    return words(text)


def zone(text: str) -> str:
    """Read the name of a time zone."""
    try:
        return ZoneInfo(text).key
    except (ValueError, OSError, KeyError):
        # Names without a place (EST, CET) know no summer time of their own.
        close_names = get_close_matches(
            text, [name for name in available_timezones() if "/" in name], n=1
        )
        hint = close_names[0] if close_names else "Europe/Vienna"
        raise ValueError(f"{text!r} is no time zone; write a name such as {hint}") from None


def country(text: str) -> str:
    """Read a country by its two letters."""
    if not re.fullmatch(r"[A-Z]{2}", text):
        raise ValueError(f"{text!r} is no country; write two capital letters such as US")
    return text


def day(text: str) -> date:
    """Read a day of the calendar."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is no day; write it as 2027-10-31")


def clock(text: str) -> str:
    """Read a time of day."""
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError(f"{text!r} is no time of day; write it as 07:00")
    return text


def margin(text: str) -> Margin:
    """Read a distance between two numbers: plain, or a share of the person's number.

    >>> margin("5%")
    Margin(amount=0.05, relative=True)
    """
    relative = text.endswith("%")
    amount = number(text[:-1].strip()) / 100 if relative else number(text)
    if amount < 0:
        raise ValueError(f"{text!r} is negative; a distance is 0 or more")
    return Margin(amount, relative=relative)


def judges(text: str) -> int:
    """Read how many blind people judge a unit: an odd number, so that a majority exists."""
    if text not in {"1", "3", "5"}:
        raise ValueError(f"{text!r} is not offered; write 1, 3 or 5")
    return int(text)


def risk(text: str) -> float:
    """Read the chance of ever opening wrongly."""
    value = share(text)
    if not 0 < value <= 0.2:
        raise ValueError(f"{text!r} is outside what is offered; write more than 0% and at most 20%")
    return value


def divisor(text: str) -> timedelta:
    """Read the tick: a span that divides a day, so that each day has the same slots."""
    span = positive(text)
    if timedelta(days=1) % span:
        raise ValueError(f"{text!r} does not divide a day; write 15m, 1h, 6h or 1d")
    return span


def kept(text: str) -> timedelta | None:
    """Read an age of records, or `kept` for as long as the disk holds."""
    return None if text == "kept" else positive(text)


def often(text: str) -> float:
    """Read the mean number of units between two false alarms."""
    value = number(text)
    if value <= 1:
        raise ValueError(f"{text!r} would alarm at every unit; write more than 1, such as 10000")
    return value
