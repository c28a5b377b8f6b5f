"""What a site sent, and its usual traffic by day type and local hour."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rollout.core.calendar.cell_clocks import CellClock
from rollout.core.calendar.timezones import DAY, HOUR, MINUTE, to_wall_times
from rollout.core.statistics.silence import TRAFFIC_DAYS

InstantArray = NDArray[np.int64]

QUARTER = 15 * MINUTE  # every zone's hours begin at one
_HOURS_OF_TYPES = 2 * 24  # Monday to Friday, then Saturday and Sunday
_THURSDAY = 3  # 1 January 1970


_NO_INSTANTS: InstantArray = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class SiteSigns:
    """Instants in microseconds at which a site sent something, ascending.

    Attributes:
        cases: its cases.
        units: the first case of each unit.
        pings: signs of life besides cases; a replay has none.
        known_since: its first case ever, None without one.
    """

    cases: InstantArray
    units: InstantArray
    pings: InstantArray
    known_since: int | None

    @property
    def instants(self) -> InstantArray:
        """Return all signs, each instant once."""
        return np.union1d(self.cases, self.pings)


NO_SIGNS = SiteSigns(_NO_INSTANTS, _NO_INSTANTS, _NO_INSTANTS, None)


def build_case_signs(
    instants: InstantArray, units: NDArray[np.uint64], first_case: int | None = None
) -> SiteSigns:
    """Return the signs that cases are.

    Args:
        instants: of each case, in any order.
        units: hash of each case's unit.
        first_case: an earlier one, too old to be among these.
    """
    order = np.argsort(instants, kind="stable")
    ascending = instants[order].astype(np.int64)
    firsts = np.unique(units[order], return_index=True)[1]
    first_cases = [*ascending[:1].tolist(), *([] if first_case is None else [first_case])]
    known_since = min(first_cases, default=None)
    return SiteSigns(np.unique(ascending), np.sort(ascending[firsts]), _NO_INSTANTS, known_since)


@dataclass(frozen=True, slots=True)
class HourlyTraffic:
    """Usual units of a site: by open minute of each day type and hour, and by day."""

    per_minute: NDArray[np.float64]
    per_day: float


@dataclass(frozen=True)
class UsualTraffic:
    """Mean traffic in a cell's minutes over the 28 local days before a day."""

    signs: SiteSigns
    clock: CellClock
    timezone: str
    _by_day: dict[int, HourlyTraffic | None] = field(default_factory=dict)

    def find_traffic(self, at: int) -> HourlyTraffic | None:
        """Return the traffic before the local day of an instant; None if it isn't known."""
        day = int(to_wall_times(self.timezone, np.array([at]))[0]) // DAY
        if day not in self._by_day:
            self._by_day[day] = self._compute_traffic(at, day)
        return self._by_day[day]

    def _compute_traffic(self, at: int, day: int) -> HourlyTraffic | None:
        if self.signs.known_since is None:
            return None
        first_day = day - TRAFFIC_DAYS
        known_day = int(to_wall_times(self.timezone, np.array([self.signs.known_since]))[0]) // DAY
        start = at - (TRAFFIC_DAYS + 2) * DAY
        units = self.signs.units[slice(*np.searchsorted(self.signs.units, [start, at]))]
        unit_walls = to_wall_times(self.timezone, units)
        is_before = (unit_walls >= first_day * DAY) & (unit_walls < day * DAY)
        if known_day > first_day or not is_before.any():
            return None
        is_own = is_before & self.clock.are_running(units)
        unit_counts = _sum_by_hour(unit_walls[is_own], np.ones(int(is_own.sum())))
        marks = np.arange(start // QUARTER, at // QUARTER + 2) * QUARTER
        walls = to_wall_times(self.timezone, marks[:-1])
        minutes = np.diff(self.clock.read_at(marks)) / MINUTE
        is_before_mark = (walls >= first_day * DAY) & (walls < day * DAY)
        open_minutes = _sum_by_hour(walls[is_before_mark], minutes[is_before_mark])
        per_minute = np.divide(
            unit_counts, open_minutes, out=np.zeros(_HOURS_OF_TYPES), where=open_minutes > 0
        )
        return HourlyTraffic(per_minute, float(is_before.sum()) / TRAFFIC_DAYS)

    def find_due_instant(self, start: int, end: int, due: float) -> int | None:
        """Return when so many usual units were due since `start`, None if not before `end`."""
        traffic = self.find_traffic(start)
        while traffic is not None and start < end:
            until = min(end, start + TRAFFIC_DAYS * DAY)
            inner = np.arange(start // QUARTER + 1, -(-until // QUARTER)) * QUARTER
            marks = np.concatenate([[start], inner, [until]])
            hours = _find_hours(to_wall_times(self.timezone, marks[:-1]))
            readings = self.clock.read_at(marks)
            rates = traffic.per_minute[hours]
            units = np.cumsum(np.diff(readings) / MINUTE * rates)
            if units[-1] >= due:
                last = int(np.argmax(units >= due))
                minutes = (due - (units[last - 1] if last else 0.0)) / rates[last]
                return self.clock.find_instant(int(readings[last]) + round(minutes * MINUTE))
            due, start = due - float(units[-1]), until
        return None


def _find_hours(wall_times: InstantArray) -> InstantArray:
    """Return the number of day type and hour of each local time."""
    is_weekend = (wall_times // DAY + _THURSDAY) % 7 >= 5
    return np.asarray(is_weekend * 24 + wall_times % DAY // HOUR, dtype=np.int64)


def _sum_by_hour(wall_times: InstantArray, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    hours = _find_hours(wall_times)
    return np.bincount(hours, weights=weights, minlength=_HOURS_OF_TYPES).astype(np.float64)
