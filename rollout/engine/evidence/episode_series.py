"""Readings of operational guards on shares: latency, failures, missing, unaudited.

The detector of a span of 28 days starts at the beginning of the span before. So a reading needs
the records of at most 56 days, and a service that has just started reads what a replay of the whole
history reads.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import log

import numpy as np
from numpy.typing import NDArray

from rollout.engine.evidence.guard_series import GuardSeries, compute_share_series, count_slots
from rollout.engine.evidence.unit_arrays import (
    BoolArray,
    IntArray,
    find_run_starts,
    unite_ascending,
)
from rollout.kernel.policy.policy import DAY, Guard, Policy
from rollout.kernel.statistics.share_detector import (
    LOWEST_LIMIT,
    ShareRecords,
    compute_clear_rate,
    compute_false_alarm_interval,
    find_clear_slot,
    find_episodes,
)

SPAN_DAYS = 28  # of a detector's turn, and of the traffic that its interval is taken from
LONGEST_READ_BACK = 2 * SPAN_DAYS * DAY


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

    slots: IntArray
    is_bad: BoolArray
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
    slots: IntArray,
    is_bad: BoolArray,
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
    slots: IntArray,
    is_bad: BoolArray,
    policy: Policy,
    expected_per_day: float | None,
    restarted: int | None,
) -> Iterator[_Change]:
    """Yield the changes of all spans, one span after another."""
    turn = SPAN_DAYS * count_slots(DAY, policy)
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
    strictest_rate = compute_clear_rate(limit, 0.0)
    proven = find_clear_slot(records, rate=strictest_rate, earliest=-(2**62))
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
) -> NDArray[np.float64]:
    """Return ln of the records between false alarms, in force in each slot.

    The span before is past, so its own traffic counts for all of it; a later day counts the 28
    days before it.
    """
    if guard.false_alarm_span is None:
        return np.full(len(records.slots), log(guard.false_alarm_every))
    day_slots = count_slots(DAY, policy)
    start_day = start // day_slots
    slot_days = records.slots // day_slots
    days = np.maximum(slot_days, start_day)
    span_days = guard.false_alarm_span / DAY
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
    slot_days: IntArray, counts: IntArray, days: IntArray, expected_per_day: float | None
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
    per_day: list[float] = means.tolist()
    return per_day
