"""Times as pages show them: the site's clock first, then the viewer's, always with the offset."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.console.page.page_context import Visitor

NEAR: Final = timedelta(days=14)
BESIDE: Final = Markup(' <span class="soft nowrap">({} for you)</span>')
UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def site_time(at: datetime, zone: str, visitor: Visitor, *, seconds: bool = False) -> Markup:
    """Show an instant on a site's clock, and on the viewer's where that reads otherwise.

    The weekday stands within 14 days, the year where it isn't this one. Where clocks go back the
    zone's letters tell the two hours apart.
    """
    local_time = at.astimezone(ZoneInfo(zone))
    element = _time(local_time, on_clock(local_time, visitor.at, seconds=seconds))
    viewer_time = at.astimezone(ZoneInfo(visitor.zone))
    if viewer_time.utcoffset() == local_time.utcoffset():
        return element
    same_day_text = (
        _clock(viewer_time, seconds=seconds) if viewer_time.date() == local_time.date() else ""
    )
    viewer_text = same_day_text or on_clock(viewer_time, visitor.at, seconds=seconds)
    return element + BESIDE.format(viewer_text)


def clock_time(at: datetime, zone: str, visitor: Visitor) -> Markup:
    """Show the clock time of an instant of today to the second, without its day."""
    local_time, viewer_time = at.astimezone(ZoneInfo(zone)), at.astimezone(ZoneInfo(visitor.zone))
    element = _time(local_time, _clock(local_time, seconds=True))
    if viewer_time.utcoffset() == local_time.utcoffset():
        return element
    return element + BESIDE.format(_clock(viewer_time, seconds=True))


def your_time(at: datetime, visitor: Visitor, *, seconds: bool = False) -> Markup:
    """Show an instant that belongs to no site, on the viewer's clock."""
    viewer_time = at.astimezone(ZoneInfo(visitor.zone))
    return _time(viewer_time, on_clock(viewer_time, visitor.at, seconds=seconds))


def on_clock(here: datetime, now: datetime, *, seconds: bool = False) -> str:
    """Say a local time in words.

    >>> zone = ZoneInfo("America/Vancouver")
    >>> on_clock(datetime(2027, 6, 20, 11, 2, tzinfo=zone), datetime(2027, 6, 17, tzinfo=zone))
    'Sun 20 Jun 11:02 PDT'
    >>> on_clock(datetime(2026, 1, 2, 3, 4, tzinfo=zone), datetime(2027, 6, 17, tzinfo=zone))
    '2 Jan 2026 03:04 PST'
    """
    is_near = abs(here - now) <= NEAR
    day = f"{here:%a} {here.day} {here:%b}" if is_near else f"{here.day} {here:%b}"
    year = "" if here.year == now.astimezone(here.tzinfo).year else f" {here.year}"
    return f"{day}{year} {_clock(here, seconds=seconds)}"


def took(span: timedelta | float) -> str:
    """Say a length of time in two units at most.

    >>> took(timedelta(days=2, hours=18, minutes=5)), took(timedelta(minutes=38)), took(0.4)
    ('2 d 18 h', '38 min', '0 s')
    """
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    remaining = round(max(0.0, seconds))
    parts: list[str] = []
    for size, name in UNITS:
        count, remaining = divmod(remaining, size)
        if count or parts or name == "s":
            parts.append(f"{count} {name}" if count or not parts else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def ago(at: datetime, visitor: Visitor) -> str:
    """Say how long ago; for live regions alone, elsewhere it goes stale."""
    return f"{took(visitor.at - at)} ago"


def until(at: datetime, visitor: Visitor) -> str:
    """Say how long it is until then; for live regions alone."""
    return took(at - visitor.at)


def _time(here: datetime, says: str) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(here.isoformat(), says)


def _clock(here: datetime, *, seconds: bool) -> str:
    zone = here.tzname() or ""
    return f"{here:%H:%M:%S} {zone}" if seconds else f"{here:%H:%M} {zone}"


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "site_time": site_time,
    "clock_time": clock_time,
    "your_time": your_time,
    "took": took,
    "ago": ago,
    "until": until,
}
