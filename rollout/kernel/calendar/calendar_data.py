"""Digests of the data by which local days fall into windows: offsets of zones, public holidays.

The data come with the machine and with a library. When they change, days of the past may lie in
other windows than when their cases were counted.
"""

from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from typing import Final

from opening_hours import OpeningHours, State

from rollout.kernel.calendar.instants import compute_year_start, list_stretches

DIGEST_LETTERS: Final = 12
PAST_YEARS: Final = 5


def compute_zone_digest(timezones: Iterable[str], year: int) -> str:
    """Return a digest of the zones' offsets in a year and the five before it.

    >>> compute_zone_digest(["UTC"], 2026) == compute_zone_digest(["UTC", "UTC"], 2026)
    True
    """
    start, end = compute_year_start(year - PAST_YEARS), compute_year_start(year + 1)
    lines = [f"{zone} {list_stretches(zone, start, end)}" for zone in sorted({*timezones})]
    return _digest_lines(lines)


def compute_holiday_digest(countries: Iterable[str], year: int) -> str:
    """Return year and digest of the public holidays of countries; "" without countries."""
    lines = [f"{country} {_list_holidays(country, year)}" for country in sorted({*countries})]
    return f"{year} {_digest_lines(lines)}" if lines else ""


def _list_holidays(country: str, year: int) -> list[str]:
    start, end = datetime(year, 1, 1), datetime(year + 1, 1, 1)  # noqa: DTZ001 - local days
    intervals = OpeningHours("PH", country=country).intervals(start, end)
    return [f"{opens:%m-%d}" for opens, _, state, _ in intervals if state == State.OPEN]


def _digest_lines(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode()).hexdigest()[:DIGEST_LETTERS]
