"""Data by which local days fall into windows: their digests, and the ledger entries of these.

A process looks when it starts and when its own data change, so that replicas of two programs, while
one replaces the other, write one entry each.

The data come with the machine and with a library. When they change, days of the past may lie in
other windows than when their cases were counted.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from typing import Final

from opening_hours import OpeningHours, State

from rollout.data.database.rollouts import list_rollout_names
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.engine.events import ENGINE, CalendarDataSet
from rollout.kernel.calendar.instants import compute_year_start, list_stretches
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import read_rollout, retry_on_stale_revision

FIELDS: Final = ("program", "time_zones", "holidays")


def compute_calendar_data(policy: Policy, year: int) -> Mapping[str, str]:
    """Return the program's version and the digests of a policy's zones and holidays."""
    countries = {site.country for site in policy.sites if site.country}
    zones = {policy.timezone, *(site.timezone for site in policy.sites)}
    return {
        "program": version("rollout-controller"),
        "time_zones": compute_zone_digest(zones, year),
        "holidays": compute_holiday_digest(countries, year),
    }


class CalendarEntries:
    """One process's entries about its calendar data."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written: dict[str, tuple[str, int]] = {}

    def write(self, at: datetime) -> None:
        """Append an entry to each ledger whose last one differs from this process's data."""
        names = list_rollout_names(self._database)
        for name in names:
            retry_on_stale_revision(partial(self._write_entry, name, at))

    def _write_entry(self, rollout_name: str, at: datetime) -> None:
        with read_rollout(self._database, rollout_name) as (transaction, state):
            key = state.policy.hash, at.year
            if self._written.get(rollout_name) == key:
                return
            last_event = Ledger(transaction, state.rollout).find_last_event(
                CalendarDataSet.__name__
            )
        data = compute_calendar_data(state.policy, at.year)
        last = {field: getattr(last_event, field, "") for field in FIELDS}
        if last != data:
            event = CalendarDataSet(
                at=max(at, state.scope.at or at),
                by=ENGINE,
                changed=tuple(f for f in FIELDS if last_event is not None and last[f] != data[f]),
                program=data["program"],
                time_zones=data["time_zones"],
                holidays=data["holidays"],
            )
            with self._database.begin_write() as transaction:
                Ledger(transaction, state.rollout).append([event], after=state.scope.revision)
        self._written[rollout_name] = key


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
