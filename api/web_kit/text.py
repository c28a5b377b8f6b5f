"""Text helpers of pages: URL segments, hash groups, sentences.

Times on pages: by the site's clock first, then the visitor's.

A day in a filter form, or an instant in a link to exactly the cases of a sentence.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from api.web_kit.page_context import Visitor
from rollout.engine.words.event_kinds import find_tone
from rollout.engine.words.formatting import capitalize_first
from rollout.engine.words.state_text import CLOSED_PROPOSALS

_TAG_OR_PERCENT: Final = re.compile(
    r"(<(textarea|option|pre|script)\b.*?</\2>|<[^>]*>)| %", re.DOTALL | re.IGNORECASE
)

ATTRIBUTE_PREFIX: Final = "is "
"""Prefix of an attribute's name in the filter of the divergences: `is camera`."""


def encode_segment(name: str) -> str:
    """Return a name as one segment of a URL path.

    >>> encode_segment("north/gate 2")
    'north%2Fgate%202'
    """
    return quote(name, safe="")


def group_hash(text: str, groups: int | None = None) -> str:
    """Return a hash in groups of four characters, all or the first `count`.

    >>> group_hash("9f2cab01ffee", 2), group_hash("9f2cab01")
    ('9f2c ab01 …', '9f2c ab01')
    """
    parts = [text[i : i + 4] for i in range(0, len(text), 4)]
    is_cut = groups is not None and groups < len(parts)
    return " ".join(parts[:groups]) + (" …" if is_cut else "")


def add_full_stop(text: str) -> str:
    """Return a sentence with a full stop, unless it ends with one.

    >>> add_full_stop("v1 is seen"), add_full_stop("hash 9f2c…"), add_full_stop("whole.")
    ('v1 is seen.', 'hash 9f2c…', 'whole.')
    """
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


def say_refusal(error: Exception) -> str:
    """Return a refusal as a sentence: its text goes on, so that a name may begin it.

    >>> say_refusal(ValueError("nora may not approve; ask an admin"))
    'Refused: nora may not approve; ask an admin.'
    """
    return f"Refused: {error}."


def mark_code(text: str) -> Markup:
    """Return an escaped text in which what backticks enclose is code.

    >>> mark_code("Run `rollout doctor` on <v1>.")
    Markup('Run <code>rollout doctor</code> on &lt;v1&gt;.')
    """
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    )


def join_percent_signs(html: str) -> str:
    r"""Join numbers and percent signs with no-break spaces, outside form fields.

    >>> join_percent_signs('<p>5 %</p><input value="5 %"><textarea>5 %</textarea>')
    '<p>5\xa0%</p><input value="5 %"><textarea>5 %</textarea>'
    """
    return _TAG_OR_PERCENT.sub(lambda match: match[1] or "\u00a0%", html)


VIEWER_TIME_PATTERN: Final = re.compile(
    r'(?P<time><time datetime="(?P<day>[^"T]*)T[^"]*?(?P<offset>[+-][0-9:]+)">[^<]*</time>)'
    r' <span class="soft nowrap">\([^<]* for you\)</span>'
)
WEEKDAY_RANGE: Final = timedelta(days=14)
VIEWER_TIME: Final = Markup(' <span class="soft nowrap">({} for you)</span>')
DURATION_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def format_site_time(at: datetime, zone: str, visitor: Visitor, *, seconds: bool = False) -> Markup:
    """Format an instant by the site's clock, and the visitor's if it differs.

    Within 14 days it has a weekday; outside this year it has a year. The timezone's
    abbreviation tells the repeated hour in autumn apart.
    """
    local_time = at.astimezone(ZoneInfo(zone))
    element = _format_time_element(
        local_time, format_local_time(local_time, visitor.at, seconds=seconds)
    )
    viewer_time = at.astimezone(ZoneInfo(visitor.zone))
    if viewer_time.utcoffset() == local_time.utcoffset():
        return element
    same_day_text = (
        _format_clock(viewer_time, seconds=seconds)
        if viewer_time.date() == local_time.date()
        else ""
    )
    viewer_text = same_day_text or format_local_time(viewer_time, visitor.at, seconds=seconds)
    return element + VIEWER_TIME.format(viewer_text)


def keep_first_viewer_times(html: str) -> str:
    """Keep the visitor's time beside the first time of each site's day; drop the others.

    >>> times = (
    ...     '<time datetime="2027-06-14T09:00:00-07:00">09:00 PDT</time>'
    ...     ' <span class="soft nowrap">(10:00 MDT for you)</span>, '
    ... )
    >>> keep_first_viewer_times(2 * times).count("for you")
    1
    """
    seen_days: set[tuple[str, str]] = set()

    def keep_first(match: re.Match[str]) -> str:
        site_day = match["day"], match["offset"]
        if site_day in seen_days:
            return match["time"]
        seen_days.add(site_day)
        return match[0]

    return VIEWER_TIME_PATTERN.sub(keep_first, html)


def format_clock_time(at: datetime, zone: str, visitor: Visitor) -> Markup:
    """Format a clock time to the second, with the day unless it is today at the site."""
    local_time, viewer_time = at.astimezone(ZoneInfo(zone)), at.astimezone(ZoneInfo(visitor.zone))
    if local_time.date() != visitor.at.astimezone(ZoneInfo(zone)).date():
        return format_site_time(at, zone, visitor, seconds=True)
    element = _format_time_element(local_time, _format_clock(local_time, seconds=True))
    if viewer_time.utcoffset() == local_time.utcoffset():
        return element
    return element + VIEWER_TIME.format(_format_clock(viewer_time, seconds=True))


def format_viewer_time(at: datetime, visitor: Visitor, *, seconds: bool = False) -> Markup:
    """Format an instant that belongs to no site, by the visitor's clock."""
    viewer_time = at.astimezone(ZoneInfo(visitor.zone))
    return _format_time_element(
        viewer_time, format_local_time(viewer_time, visitor.at, seconds=seconds)
    )


def format_local_time(local_time: datetime, now: datetime, *, seconds: bool = False) -> str:
    """Format a local time.

    >>> zone = ZoneInfo("America/Vancouver")
    >>> format_local_time(
    ...     datetime(2027, 6, 20, 11, 2, tzinfo=zone), datetime(2027, 6, 17, tzinfo=zone)
    ... )
    'Sun 20 Jun 11:02 PDT'
    >>> format_local_time(
    ...     datetime(2026, 1, 2, 3, 4, tzinfo=zone), datetime(2027, 6, 17, tzinfo=zone)
    ... )
    '2 Jan 2026 03:04 PST'
    """
    is_near = abs(local_time - now) <= WEEKDAY_RANGE
    day = (
        f"{local_time:%a} {local_time.day} {local_time:%b}"
        if is_near
        else f"{local_time.day} {local_time:%b}"
    )
    year = (
        "" if local_time.year == now.astimezone(local_time.tzinfo).year else f" {local_time.year}"
    )
    return f"{day}{year} {_format_clock(local_time, seconds=seconds)}"


def format_day(day: date, today: date) -> str:
    """Format a day; the year only if it is not this one.

    >>> format_day(date(2027, 6, 20), date(2027, 6, 21))
    'Sunday, 20 June'
    """
    year = "" if day.year == today.year else f" {day.year}"
    return f"{day:%A}, {day.day} {day:%B}{year}"


def format_time_span(span: timedelta | float) -> str:
    """Format a duration in at most two units.

    >>> (
    ...     format_time_span(timedelta(days=2, hours=18, minutes=5)),
    ...     format_time_span(timedelta(minutes=38)),
    ...     format_time_span(0.4),
    ... )
    ('2 d 18 h', '38 min', '0 s')
    """
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    remaining = round(max(0.0, seconds))
    parts: list[str] = []
    for size, name in DURATION_UNITS:
        count, remaining = divmod(remaining, size)
        if count or parts or name == "s":
            parts.append(f"{count} {name}" if count or not parts else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def _format_time_element(local_time: datetime, text: str) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(local_time.isoformat(), text)


def _format_clock(local_time: datetime, *, seconds: bool) -> str:
    zone = local_time.tzname() or ""
    return f"{local_time:%H:%M:%S} {zone}" if seconds else f"{local_time:%H:%M} {zone}"


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


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "segment": encode_segment,
    "grouped": group_hash,
    "full_stop": add_full_stop,
    "code": mark_code,
    "first_large": capitalize_first,
    "site_time": format_site_time,
    "clock_time": format_clock_time,
    "your_time": format_viewer_time,
    "took": format_time_span,
    "event_tone": find_tone,
    "closed_state": CLOSED_PROPOSALS.__getitem__,
}
