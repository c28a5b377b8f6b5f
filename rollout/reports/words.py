"""Numbers and times as people read them. What is not known says so, and never looks like zero."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from rollout.reports.intervals import Change, Share

UNKNOWN = "no data"
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def per_cent(rate: float | None, digits: int = 1) -> str:
    """Say a share in per cent, with more digits where it would look like all or nothing.

    >>> per_cent(0.9217), per_cent(0.99996), per_cent(1.0), per_cent(None)
    ('92.2 %', '99.996 %', '100 %', 'no data')
    """
    if rate is None:
        return UNKNOWN
    if rate in (0.0, 1.0):
        return f"{100 * rate:.0f} %"
    text = f"{100 * rate:.{digits}f}"
    if float(text) in (0.0, 100.0) and digits < 6:
        return per_cent(rate, digits + 1)
    return f"{text} %"


def number(count: int | None) -> str:
    """Say a whole number with separators.

    >>> number(37338), number(None)
    ('37,338', 'no data')
    """
    return UNKNOWN if count is None else f"{count:,}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Say a plain number; a minus is a true minus.

    >>> decimal(-0.8024), decimal(None)
    ('−0.802', 'no data')
    """
    if value is None:
        return UNKNOWN
    text = f"{value:,.{digits}f}"
    return ("−" + text[1:]) if text.startswith("-") and float(value) else text


def signed(value: float | None, digits: int = 1) -> str:
    """Say a difference with its sign.

    >>> signed(1.868), signed(-0.31), signed(0.0)
    ('+1.9', '−0.3', '0.0')
    """
    if value is None:
        return UNKNOWN
    text = decimal(abs(value), digits)
    if float(text.replace(",", "")) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def between(share: Share) -> str:
    """Say a share's interval.

    >>> from rollout.reports.intervals import share
    >>> between(share(295, 300)), between(share(0, 0))
    ('96.2 to 99.5 %', 'no data')
    """
    if share.low is None or share.high is None:
        return UNKNOWN
    return f"{per_cent(share.low).removesuffix(' %')} to {per_cent(share.high)}"


def change_between(change: Change) -> str:
    """Say a change's interval, in cases of 100."""
    if change.low is None or change.high is None:
        return UNKNOWN
    return f"{signed(change.low)} to {signed(change.high)}"


def of(share: Share) -> str:
    """Say a share as counts: `995 of 1,000`."""
    return UNKNOWN if share.n == 0 else f"{number(share.count)} of {number(share.n)}"


def local(at: datetime, zone: str, *, year: bool = False) -> str:
    """Say an instant on a zone's clock.

    >>> from datetime import UTC
    >>> local(datetime(2025, 10, 20, 12, tzinfo=UTC), "Europe/Lisbon")
    'Mon 20 Oct 13:00'
    """
    shown = at.astimezone(ZoneInfo(zone))
    return f"{date_text(shown, year=year, weekday=True)} {shown:%H:%M}"


def date_text(shown: datetime, *, year: bool = True, weekday: bool = False) -> str:
    """Say a day: `Mon 6 Oct 2025`."""
    name = f"{shown:%a} " if weekday else ""
    return f"{name}{shown.day} {shown:%b}" + (f" {shown:%Y}" if year else "")


def span_text(span: timedelta) -> str:
    """Say how long something took, in the unit that fits.

    >>> span_text(timedelta(hours=6, minutes=24)), span_text(timedelta(days=12))
    ('6.4 hours', '12 days')
    """
    if span < 2 * HOUR:
        minutes = round(span / MINUTE)
        return f"{minutes} minute" + ("" if minutes == 1 else "s")
    if span < 2 * DAY:
        return f"{span / HOUR:.1f} hours".replace(".0 ", " ")
    days = span / DAY
    return f"{days:.1f} days".replace(".0 ", " ") if days < 10 else f"{days:.0f} days"


def several(count: int, one: str, more: str | None = None) -> str:
    """Say a count with its noun.

    >>> several(1, "cell"), several(3, "case"), several(0, "person", "people")
    ('1 cell', '3 cases', '0 people')
    """
    return f"{number(count)} {one if count == 1 else more or one + 's'}"


def listed(names: list[str]) -> str:
    """Say a list: `a, b and c`; nothing for an empty one."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def cell_name(site: str | None, window: str | None) -> str:
    """Say a cell; empty for none."""
    return f"{site} · {window}" if site and window else ""

