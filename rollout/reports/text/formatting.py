"""Numbers and times as people read them. What is not known says so, and never looks like zero."""

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from rollout.reports.statistics.intervals import Change, Share

UNKNOWN = "no data"
THIN = "\u00a0"  # a space at which no line is broken
SPAN = re.compile(r"\bover (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)\b")
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def per_cent(rate: float | None, digits: int = 1) -> str:
    r"""Say a share in per cent, with more digits where it would look like all or nothing.

    >>> [per_cent(rate) for rate in (0.9217, 0.99996, 1.0, None)]
    ['92.2\xa0%', '99.996\xa0%', '100\xa0%', 'no data']
    """
    if rate is None:
        return UNKNOWN
    if rate in (0.0, 1.0):
        return f"{100 * rate:.0f}{THIN}%"
    text = f"{100 * rate:.{digits}f}"
    if float(text) in (0.0, 100.0) and digits < 6:
        return per_cent(rate, digits + 1)
    return f"{text}{THIN}%"


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

    >>> signed(1.868), signed(-0.31), signed(-0.02), signed(0.0)
    ('+1.9', '−0.3', '−0.02', '0.0')
    """
    if value is None:
        return UNKNOWN
    text = decimal(abs(value), digits)
    if float(text.replace(",", "")) == 0:
        return signed(value, digits + 1) if value and digits < 2 else text
    return ("+" if value > 0 else "−") + text


def between(share: Share) -> str:
    r"""Say a share's interval.

    >>> from rollout.reports.statistics.intervals import share
    >>> between(share(295, 300)), between(share(0, 0))
    ('96.2 to 99.5\xa0%', 'no data')
    """
    if share.low is None or share.high is None:
        return UNKNOWN
    return f"{per_cent(share.low)[:-2]} to {per_cent(share.high)}"


def change_between(change: Change) -> str:
    """Say a change's interval, in cases of 100."""
    if change.low is None or change.high is None:
        return UNKNOWN
    return f"{signed(change.low)} to {signed(change.high)}"


def of(share: Share) -> str:
    """Say a share as counts: `995 of 1,000`."""
    return UNKNOWN if share.n == 0 else f"{number(share.count)} of {number(share.n)}"


def local(at: datetime, zone: str, beside: datetime | None = None) -> str:
    """Say an instant on a zone's clock; the year is left out where `beside` is of the same.

    >>> from datetime import UTC
    >>> noon = datetime(2025, 10, 20, 12, tzinfo=UTC)
    >>> local(noon, "Europe/Lisbon"), local(noon, "Europe/Lisbon", beside=noon)
    ('Mon 20 Oct 2025 13:00', 'Mon 20 Oct 13:00')
    """
    local_time = at.astimezone(ZoneInfo(zone))
    is_same_year = beside is not None and beside.astimezone(ZoneInfo(zone)).year == local_time.year
    year = "" if is_same_year else f" {local_time:%Y}"
    return f"{local_time:%a} {local_time.day} {local_time:%b}{year} {local_time:%H:%M}"


def zoned(at: datetime, zone: str, beside: datetime | None = None) -> str:
    """Say an instant as `local` does, with its zone's letters: for a reader of many sites.

    >>> from datetime import UTC
    >>> zoned(datetime(2025, 10, 20, 12, tzinfo=UTC), "Europe/Lisbon")
    'Mon 20 Oct 2025 13:00 WEST'
    """
    return f"{local(at, zone, beside)} {at.astimezone(ZoneInfo(zone)).tzname()}"


def day_text(at: datetime, zone: str = "UTC") -> str:
    """Say the day of an instant on a zone's clock: `6 Oct 2025`."""
    local_time = at.astimezone(ZoneInfo(zone))
    return f"{local_time.day} {local_time:%b %Y}"


def span_text(span: timedelta) -> str:
    """Say how long something took, in the unit that fits.

    >>> span_text(timedelta(hours=6, minutes=24)), span_text(timedelta(days=12))
    ('6.4 hours', '12 days')
    >>> span_text(timedelta(hours=1)), span_text(timedelta(minutes=20))
    ('1 hour', '20 minutes')
    """
    if span < HOUR:
        return several(round(span / MINUTE), "minute")
    unit, unit_name = (HOUR, "hour") if span < 2 * DAY else (DAY, "day")
    count = f"{span / unit:.1f}".removesuffix(".0") if span < 10 * unit else f"{span / unit:.0f}"
    return f"{count} {unit_name}{'' if count == '1' else 's'}"


def spans_in_words(text: str) -> str:
    """Say in words the spans of time that names of guards hold; the names themselves stay.

    >>> spans_in_words("missing <= 5% over 4:00:00: 9 of 40")
    'missing <= 5% over 4 hours: 9 of 40'
    >>> spans_in_words("unaudited <= 10% over 7 days, 12:00:00")
    'unaudited <= 10% over 7.5 days'
    """
    return SPAN.sub(lambda match: f"over {span_text(_span(match))}", text)


def _span(found: re.Match[str]) -> timedelta:
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def unbroken(text: str) -> str:
    r"""Keep numbers and their per cent sign on one line.

    >>> unbroken("at least 92 %")
    'at least 92\xa0%'
    """
    return text.replace(" %", f"{THIN}%")


def separated(text: str) -> str:
    """Give the whole numbers of a text their separators.

    >>> separated("1080 of 1130"), separated("log E 10.158716 of 4.605170")
    ('1,080 of 1,130', 'log E 10.158716 of 4.605170')
    """
    return re.sub(r"(?<![\d.,])\d{4,}(?![\d.,])", lambda match: number(int(match[0])), text)


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


def sentence(text: str) -> str:
    """Begin with a capital letter and end with a full stop.

    >>> sentence("nothing is held")
    'Nothing is held.'
    """
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
