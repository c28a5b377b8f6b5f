"""Ledger entries of the data by which days fall into windows.

A process looks when it starts and when its own data change, so that replicas of two programs, while
one replaces the other, write one entry each.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from importlib.metadata import version
from typing import Final

from rollout.data.database.rollouts import list_rollout_names
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.engine.events import ENGINE, CalendarDataSet
from rollout.kernel.calendar.calendar_data import compute_holiday_digest, compute_zone_digest
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
