"""Readings of operational guards: shares of bad records, and how long a cell was silent.

Guards on shares are those of latency, failures, missing and unaudited. The detector of a span of 28
days starts at the beginning of the span before. So a reading needs the records of at most 56 days,
and a service that has just started reads what a replay of the whole history reads. Of a version's
answers at a site, guards count one per unit and one per minute.

A heartbeat guard reads silences in the cell's own minutes. A silence lasts from one sign of the
site to the next. It is an alarm once the cell's clock has run for the guard's limit, and either
several intervals between signs of life passed without one, or so much of the usual traffic is
missing that chance explains it once a year.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from functools import cached_property, lru_cache
from math import log
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rollout.engine.evidence.guard_series import GuardSeries, compute_share_series, count_slots
from rollout.engine.evidence.unit_arrays import find_run_starts, unite_ascending
from rollout.kernel.arrays import Bools, Floats, Ints
from rollout.kernel.calendar.instants import DAY, HOUR, MINUTE, Site, count_micros, to_wall_times
from rollout.kernel.calendar.windows import CellClock, build_cell_clock
from rollout.kernel.policy.policy import DAY as DAY_SPAN
from rollout.kernel.policy.policy import TIME_BETWEEN_FALSE_ALARMS, Guard, Policy
from rollout.kernel.statistics.detector import (
    LOWEST_LIMIT,
    QUIET_DAYS,
    SIGNS_MISSED,
    TRAFFIC_DAYS,
    ShareRecords,
    compute_clear_rate,
    compute_false_alarm_interval,
    compute_silence_threshold,
    find_clear_slot,
    find_episodes,
    measure_sign_interval,
)

SPAN_DAYS = 28  # of a detector's turn, and of the traffic that its interval is taken from
LONGEST_READ_BACK = 2 * SPAN_DAYS * DAY_SPAN


@dataclass(frozen=True, slots=True)
class _Change:
    """From a slot on, how the guard reads; the counts only where the alarm was raised."""

    slot: int
    is_alarm: bool
    has_recovered: bool
    counts: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class SiteVotes:
    """A site's answers that count for one guard; all its cells read one series.

    Attributes:
        slots: slot of each, ascending.
        is_bad: whether it is outside the guard's limit.
    """

    slots: Ints
    is_bad: Bools
    _series: dict[tuple[float | None, int | None], GuardSeries] = field(
        default_factory=dict, repr=False, compare=False
    )

    def compute_series(
        self, guard: Guard, policy: Policy, expected_per_day: float | None, restarted: int | None
    ) -> GuardSeries:
        """Return the readings of the guard; the arguments are of `compute_episode_series`."""
        key = (expected_per_day, restarted)
        if key not in self._series:
            self._series[key] = compute_episode_series(
                guard,
                self.slots,
                self.is_bad,
                policy,
                expected_per_day=expected_per_day,
                restarted=restarted,
            )
        return self._series[key]


EMPTY_VOTES = SiteVotes(np.empty(0, dtype=np.int64), np.empty(0, dtype=bool))


def compute_episode_series(
    guard: Guard,
    slots: Ints,
    is_bad: Bools,
    policy: Policy,
    *,
    expected_per_day: float | None = None,
    restarted: int | None = None,
) -> GuardSeries:
    """Return the readings of a guard whose alarms are episodes.

    Args:
        guard: of latency, failures, missing or unaudited.
        slots: slot of each record that counts, ascending.
        is_bad: whether the record is outside the limit.
        policy: for the tick.
        expected_per_day: records a day before there are 28 days of them.
        restarted: slot after which the detector started anew, because the guard narrowed.
    """
    shares = compute_share_series(guard, slots, is_bad, policy)
    if not len(slots):
        return shares
    changes = list(_list_changes(guard, slots, is_bad, policy, expected_per_day, restarted))
    change_slots = np.array([change.slot for change in changes], dtype=np.int64)
    all_slots = unite_ascending(shares.slots, change_slots)
    positions = np.searchsorted(change_slots, all_slots, side="right") - 1
    share_positions = np.searchsorted(shares.slots, all_slots, side="right") - 1
    bad_counts, record_counts = (
        shares.bad_counts[share_positions],
        shares.record_counts[share_positions],
    )
    for change in changes:
        if change.counts:
            position = np.searchsorted(all_slots, change.slot)
            bad_counts[position], record_counts[position] = change.counts
    return GuardSeries(
        slots=all_slots,
        is_alarm=np.array([change.is_alarm for change in changes])[positions],
        bad_counts=bad_counts,
        record_counts=record_counts,
        has_recovered=np.array([change.has_recovered for change in changes])[positions],
    )


def _list_changes(
    guard: Guard,
    slots: Ints,
    is_bad: Bools,
    policy: Policy,
    expected_per_day: float | None,
    restarted: int | None,
) -> Iterator[_Change]:
    """Yield the changes of all spans, one span after another."""
    turn = SPAN_DAYS * count_slots(DAY_SPAN, policy)
    starts = find_run_starts(slots)
    all_records = ShareRecords(
        slots[starts],
        np.append(starts[1:], len(slots)),
        np.concatenate([[0], np.cumsum(is_bad)]),
        np.zeros(len(starts)),  # each span has its own
    )
    for number in range(int(slots[0]) // turn, int(slots[-1]) // turn + 3):
        start, end = number * turn, (number + 1) * turn
        records = all_records.select(after=start - turn - 1, until=end - 1)
        intervals = _compute_log_intervals(guard, records, start, policy, expected_per_day)
        records = replace(records, log_intervals=intervals)
        if restarted is not None:
            records = records.select(after=restarted)
        yield from _read_span(guard, records, policy, start, end)


def _read_span(
    guard: Guard, records: ShareRecords, policy: Policy, start: int, end: int
) -> Iterator[_Change]:
    """Yield the changes of one span; the first one is at its start."""
    limit, hold = get_limit(guard), count_slots(guard.over or policy.tick, policy)
    episodes = find_episodes(
        records,
        limit=limit,
        hold=hold,
        min_records=guard.condition.measure.min_records,
    )
    proven = find_clear_slot(records, rate=compute_clear_rate(limit, 0.0), earliest=-(2**62))
    changes = [_Change(-(2**62), is_alarm=False, has_recovered=False)]
    if proven is not None and not (episodes and episodes[0].alarm_slot <= proven):
        changes.append(_Change(proven, is_alarm=False, has_recovered=True))
    for episode in episodes:
        counts = (episode.bad, episode.records)
        changes.append(_Change(episode.alarm_slot, True, has_recovered=False, counts=counts))
        if episode.clear_slot is not None:
            changes.append(_Change(episode.clear_slot, is_alarm=False, has_recovered=True))
    before = [change for change in changes if change.slot <= start][-1]
    counts_at_start = before.counts if before.slot == start else None
    yield _Change(start, before.is_alarm, before.has_recovered, counts_at_start)
    yield from (change for change in changes if start < change.slot < end)


def get_limit(guard: Guard) -> float:
    """Return the share of bad records that a guard permits."""
    condition = guard.condition
    return max(condition.measure.find_share_limit(condition.threshold), LOWEST_LIMIT)


def _compute_log_intervals(
    guard: Guard,
    records: ShareRecords,
    start: int,
    policy: Policy,
    expected_per_day: float | None,
) -> Floats:
    """Return ln of the records between false alarms, in force in each slot.

    The span before is past, so its own traffic counts for all of it; a later day counts the 28
    days before it.
    """
    if guard.false_alarm_span is None:
        return np.full(len(records.slots), log(guard.false_alarm_every))
    day_slots = count_slots(DAY_SPAN, policy)
    start_day = start // day_slots
    slot_days = records.slots // day_slots
    days = np.maximum(slot_days, start_day)
    span_days = guard.false_alarm_span / DAY_SPAN
    starts = find_run_starts(days)
    intervals = [
        compute_false_alarm_interval(per_day, span_days)
        for per_day in _compute_records_per_day(
            slot_days, records.counts, days[starts], expected_per_day
        )
    ]
    runs = np.diff(starts, append=len(days))
    return np.repeat(np.log(np.array(intervals, dtype=np.float64)), runs)


def _compute_records_per_day(
    slot_days: Ints, counts: Ints, days: Ints, expected_per_day: float | None
) -> list[float]:
    """Return for each day the mean of the 28 days before it, or of those there are.

    Args:
        slot_days: the day of each slot with records.
        counts: of records up to the end of each slot.
        days: the days.
        expected_per_day: records a day before there are 28 days of them.
    """
    known_days = np.minimum(days - slot_days[:1], SPAN_DAYS)
    counts_before = np.concatenate([[0], counts])
    firsts, lasts = counts_before[np.searchsorted(slot_days, [days - known_days, days])]
    means = (lasts - firsts) / np.maximum(known_days, 1)
    if expected_per_day is not None:
        means[known_days < SPAN_DAYS] = expected_per_day
    return list(means.tolist())


@dataclass(frozen=True)
class AnswerRecords:
    """Answers in any order.

    Attributes:
        slots: slot in which each became known.
        minutes: minute of its case.
        units: hash of its unit.
        draws: sampling value of its case.
        is_bad: whether it is outside the guard's limit.
    """

    slots: Ints
    minutes: Ints
    units: NDArray[np.uint64]
    draws: Floats
    is_bad: Bools

    @classmethod
    def join(cls, parts: "list[Self]") -> Self:
        """Return all answers of some parts."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def take(self, positions: Ints) -> Self:
        """Return the answers at some positions."""
        return type(self)(*(getattr(self, f.name)[positions] for f in fields(self)))

    def is_same_but_badness(self, other: Self) -> bool:
        """Return whether others are the same answers, as of two guards on one prediction each."""
        names = ("slots", "minutes", "units", "draws")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    def select_votes(self) -> tuple[Ints, Bools]:
        """Return slot and badness of the answers of `find_votes`."""
        votes = self.find_votes()
        return self.slots[votes], self.is_bad[votes]

    def find_votes(self) -> Ints:
        """Return the positions of the answers that count, ascending by slot and minute.

        Of a unit, and then of a minute, the answer that became known first counts, and of several
        in one slot the one with the lowest draw. So a burst is one vote, and no later answer
        changes what was counted.
        """
        firsts = self._find_first(self.units, np.arange(len(self.units)))
        votes = self._find_first(self.minutes, firsts)
        return votes[np.argsort(self.slots[votes], kind="stable")]

    def _find_first(self, keys: NDArray[Any], positions: Ints) -> Ints:
        """Return of each key the answer that was known first, ascending by key.

        Answers nearly ascend already, and few share a key: both save most of a sort.
        """
        order = positions[np.argsort(keys[positions], kind="stable")]
        ordered_keys = keys[order]
        is_start = np.ones(len(order), dtype=bool)
        is_start[1:] = ordered_keys[1:] != ordered_keys[:-1]
        if is_start.all():
            return order
        is_shared = ~is_start
        is_shared[:-1] |= is_shared[1:]
        shared = order[is_shared]
        order[is_shared] = shared[
            np.lexsort((self.draws[shared], self.slots[shared], keys[shared]))
        ]
        return order[is_start]


QUARTER = 15 * MINUTE  # every zone's hours begin at one
PAGE = TRAFFIC_DAYS * DAY // QUARTER
"""Quarters that are read together."""
_HOURS_OF_TYPES = 2 * 24  # Monday to Friday, then Saturday and Sunday
_THURSDAY = 3  # 1 January 1970


_NO_INSTANTS: Ints = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class SiteSigns:
    """Instants in microseconds at which a site sent something, ascending.

    Attributes:
        cases: its cases.
        units: the first case of each unit.
        pings: signs of life besides cases; a replay has none.
        known_since: its first case ever, None without one.
    """

    cases: Ints
    units: Ints
    pings: Ints
    known_since: int | None
    _unit_walls: dict[str, Ints] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @cached_property
    def instants(self) -> Ints:
        """Return all signs, each instant once; all cells of the site read them."""
        return np.union1d(self.cases, self.pings) if len(self.pings) else self.cases

    def read_unit_walls(self, timezone: str) -> Ints:
        """Return the local times of `units`; all cells of the site read them."""
        if timezone not in self._unit_walls:
            self._unit_walls[timezone] = to_wall_times(timezone, self.units)
        return self._unit_walls[timezone]


NO_SIGNS = SiteSigns(_NO_INSTANTS, _NO_INSTANTS, _NO_INSTANTS, None)


def build_case_signs(
    instants: Ints, units: NDArray[np.uint64], first_case: int | None = None
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
    distinct = ascending[find_run_starts(ascending)]
    return SiteSigns(distinct, np.sort(ascending[firsts]), _NO_INSTANTS, known_since)


@dataclass(frozen=True, slots=True)
class HourlyTraffic:
    """Usual units of a site: by open minute of each day type and hour, and by day."""

    per_minute: Floats
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
        if known_day > first_day:
            return None
        is_read = slice(*np.searchsorted(self.signs.units, [start, at]))
        units = self.signs.units[is_read]
        unit_walls = self.signs.read_unit_walls(self.timezone)[is_read]
        is_before = (unit_walls >= first_day * DAY) & (unit_walls < day * DAY)
        units_before = int(np.count_nonzero(is_before))
        if not units_before:
            return None
        own_walls = unit_walls[is_before & self.clock.are_running(units)]
        unit_counts = np.bincount(_find_hours(own_walls), minlength=_HOURS_OF_TYPES)
        quarters = _read_quarters(self.clock, self.timezone, start // QUARTER, at // QUARTER + 1)
        is_before = (quarters.walls >= first_day * DAY) & (quarters.walls < day * DAY)
        open_minutes = np.bincount(
            quarters.hours[is_before],
            weights=quarters.minutes[is_before],
            minlength=_HOURS_OF_TYPES,
        )
        per_minute = np.divide(
            unit_counts, open_minutes, out=np.zeros(_HOURS_OF_TYPES), where=open_minutes > 0
        )
        return HourlyTraffic(per_minute, units_before / TRAFFIC_DAYS)

    def find_due_instant(self, start: int, end: int, due: float) -> int | None:
        """Return when so many usual units were due since `start`, None if not before `end`."""
        traffic = self.find_traffic(start)
        while traffic is not None and start < end:
            until = min(end, start + TRAFFIC_DAYS * DAY)
            first, last = start // QUARTER, (until - 1) // QUARTER
            quarters = _read_quarters(self.clock, self.timezone, first, last + 1)
            ends = [start, min((first + 1) * QUARTER, until), max(last * QUARTER, start), until]
            readings = self.clock.read_at(np.array(ends))
            quarters.minutes[[0, -1]] = np.diff(readings)[::2] / MINUTE  # parts of quarters
            rates = traffic.per_minute[quarters.hours]
            units = np.cumsum(quarters.minutes * rates)
            if units[-1] >= due:
                number = int(np.argmax(units >= due))
                minutes = (due - (units[number - 1] if number else 0.0)) / rates[number]
                mark = np.array([max((first + number) * QUARTER, start)])
                reading = int(self.clock.read_at(mark)[0])
                return self.clock.find_instant(reading + round(minutes * MINUTE))
            due, start = due - float(units[-1]), until
        return None


@dataclass(frozen=True, slots=True)
class Quarters:
    """Quarters of hours, and how long a cell was open in them.

    Attributes:
        walls: local time of the start of each.
        hours: number of day type and hour of each.
        minutes: open minutes of each.
    """

    walls: Ints
    hours: Ints
    minutes: Floats


def _read_quarters(clock: CellClock, timezone: str, first: int, end: int) -> Quarters:
    """Return quarters by their number since 1970, in arrays of the caller's own."""
    numbers = range(first // PAGE, (end - 1) // PAGE + 1)
    pages = [_read_page(clock, timezone, number) for number in numbers]
    part = slice(first - numbers[0] * PAGE, end - numbers[0] * PAGE)
    columns = ([getattr(page, f.name) for page in pages] for f in fields(Quarters))
    return Quarters(*(np.concatenate(column)[part] for column in columns))


@lru_cache(maxsize=128)  # the cells of all sites with one calendar have the same
def _read_page(clock: CellClock, timezone: str, page: int) -> Quarters:
    marks = np.arange(page * PAGE, (page + 1) * PAGE + 1) * QUARTER
    walls = to_wall_times(timezone, marks[:-1])
    return Quarters(walls, _find_hours(walls), np.diff(clock.read_at(marks)) / MINUTE)


def _find_hours(wall_times: Ints) -> Ints:
    """Return the number of day type and hour of each local time."""
    is_weekend = (wall_times // DAY + _THURSDAY) % 7 >= 5
    return np.asarray(is_weekend * 24 + wall_times % DAY // HOUR, dtype=np.int64)


LONGEST_SILENCE = 366 * DAY  # an alarm comes sooner or never
READ_BACK = timedelta(days=TRAFFIC_DAYS + 2)  # of a site's cases, before its last one


@dataclass(frozen=True)
class CellSilences:
    """The silences of a site, by the clock of one of its cells.

    Attributes:
        end: last instant of the history; silence is not counted after it.
    """

    guard: Guard
    signs: SiteSigns
    clock: CellClock
    timezone: str
    end: int

    def compute_series(self, tick: timedelta) -> GuardSeries:
        """Return the readings by slot."""
        slot_length, instants = count_micros(tick), self.signs.instants
        silent_minutes: dict[int, int] = {}
        changes = instants[:1] // -slot_length * -1
        for start, end, alarm in self._list_alarms():
            slot = -(-alarm // slot_length)
            if slot * slot_length < end:
                marks = np.array([start, slot * slot_length])
                silent_minutes[slot] = int(np.diff(self.clock.read_at(marks))[0]) // MINUTE
                changes = np.union1d(changes, [slot, -(-end // slot_length)])
        slots = changes[changes * slot_length <= self.end]
        counts = np.array([silent_minutes.get(slot, 0) for slot in slots.tolist()], dtype=np.int64)
        is_alarm = np.isin(slots, list(silent_minutes))
        return GuardSeries(slots, is_alarm, counts, np.ones_like(slots))

    def _list_alarms(self) -> list[tuple[int, int, int]]:
        """Return start, end and first instant of alarm of each silence that has one."""
        starts = self.signs.instants
        ends = np.append(starts[1:], self.end + 1)
        is_long = ends - starts >= self._limit  # no cell is open for longer than time passes
        starts, ends = starts[is_long], ends[is_long]
        is_long = self.clock.read_at(ends) - self.clock.read_at(starts) >= self._limit
        usual = UsualTraffic(self.signs, self.clock, self.timezone)
        alarms = (
            (start, end, self._find_alarm(start, min(end, start + LONGEST_SILENCE), usual))
            for start, end in zip(starts[is_long].tolist(), ends[is_long].tolist(), strict=True)
        )
        return [(start, end, alarm) for start, end, alarm in alarms if alarm is not None]

    @property
    def _limit(self) -> int:
        return count_micros(timedelta(seconds=self.guard.condition.threshold))

    def _find_alarm(self, start: int, end: int, usual: UsualTraffic) -> int | None:
        """Return when a silence becomes an alarm, None if it ends before."""
        alarms = (self._find_missed_signs(start), self._find_missed_traffic(start, end, usual))
        reached = [alarm for alarm in alarms if alarm is not None and alarm < end]
        return min(reached, default=None)

    def _find_missed_signs(self, start: int) -> int | None:
        """Return when signs of life are missed; None for a site that sends none."""
        pings = self.signs.pings[: np.searchsorted(self.signs.pings, start, side="right")]
        interval = measure_sign_interval(pings)
        if interval is None:
            return None
        longest = max(self._limit, SIGNS_MISSED * interval)
        last_ping, reading = self.clock.read_at(np.array([pings[-1], start])).tolist()
        if reading - last_ping >= longest:  # it sent cases, and no longer signs of life
            return None
        return self.clock.find_instant(reading + longest)

    def _find_missed_traffic(self, start: int, end: int, usual: UsualTraffic) -> int | None:
        """Return when so much traffic is missing that chance hardly explains it."""
        traffic = usual.find_traffic(start)
        if traffic is None:
            return None
        span = self.guard.false_alarm_span or TIME_BETWEEN_FALSE_ALARMS
        threshold = compute_silence_threshold(traffic.per_day, span / timedelta(days=1))
        due = usual.find_due_instant(start, end, threshold / QUIET_DAYS)
        if due is None:
            return None
        limit = self.clock.find_instant(int(self.clock.read_at(np.array([start]))[0]) + self._limit)
        return None if limit is None else max(due, limit)


def compute_cell_silences(
    guard: Guard, signs: SiteSigns, site: Site, policy: Policy, window: str, last_slot: int
) -> GuardSeries:
    """Return the readings of a heartbeat guard in a cell.

    Args:
        guard: of heartbeat.
        signs: what the site sent.
        site: of the cell.
        policy: for windows and tick.
        window: of the cell.
        last_slot: the last slot of the history; silence is not counted after it.
    """
    instants = signs.instants
    end = last_slot * count_micros(policy.tick)
    if instants.size:
        start, end = int(instants[0]), min(end, int(instants[-1]) + LONGEST_SILENCE)
    else:
        start = end = 0
    clock = build_cell_clock(
        site, policy.windows, window, start - count_micros(READ_BACK), end + DAY
    )
    return CellSilences(guard, signs, clock, site.timezone, end).compute_series(policy.tick)
